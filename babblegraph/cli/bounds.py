"""Which numbers a command takes: above zero, and none that is larger than what anything is counted with."""

from __future__ import annotations

from babblegraph.errors import BadInput

MOST = 2**31 - 1  # ids of nodes and numbers of draws have 32 bits
LARGEST_SEED = 2**63 - 1
LONGEST, LARGEST_MEMORY = 1e9, 1e6  # seconds, some thirty years; gigabytes
MOST_TREES = 10**6  # of an estimate: each is a prompt, which takes memory


def check_positive(option: str, number: float | None, most: float = MOST) -> None:
    """Looks whether a number may be used; None was not given, and may.

    Args:
        option: as it is written.
        number: what was given.
        most: how large it may be.

    Raises:
        BadInput: it is not above zero, or it is larger.

    >>> check_positive("--tokens", 10**30)
    Traceback (most recent call last):
    babblegraph.errors.BadInput: --tokens must be at most 2,147,483,647, got 1000000000000000000000000000000: give ...
    """
    if number is None:
        return
    if not number > 0:
        raise BadInput(f"{option} must be above zero, got {_written(number)}: give a positive number")
    if number > most:
        raise BadInput(f"{option} must be at most {most:,.0f}, got {_written(number)}: give a smaller number")


def check_seed(seed: int | None) -> None:
    """Looks whether a seed may be used, for every source of random numbers that there is.

    Raises:
        BadInput: it is negative or has more than 63 bits.
    """
    if seed is not None and seed < 0:
        raise BadInput(f"--seed must not be negative, got {_written(seed)}: use 0 or above")
    if seed is not None and seed > LARGEST_SEED:
        raise BadInput(f"--seed must be at most {LARGEST_SEED}, got {_written(seed)}: give a smaller number")


def check_threshold(threshold: float | None) -> None:
    """Looks whether a score can reach a threshold and miss it.

    Raises:
        BadInput: it lies outside of all scores, or is no number.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise BadInput(f"--threshold must be a number from 0 to 1, got {threshold:g}: scores lie there")


def check_named(option: str, name: str | None) -> None:
    """Looks whether a name or a path may be used; None was not given, and may.

    Raises:
        BadInput: it is empty, as a shell makes it of a variable that is not set: it was meant to name something.
    """
    if name is not None and not name.strip():
        raise BadInput(f"{option} must name something, got {name!r}: leave it out, or say what")


def check_text(option: str, text: str) -> None:
    """Looks whether a model can read a text.

    Raises:
        BadInput: it is not Unicode; a shell hands on any bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{option} must be UTF-8, got {text!r:.80}: mend its encoding") from None


def _written(number: float) -> str:
    """A number as it was typed, about: whole ones may be too long to be made into floats."""
    text = str(number) if isinstance(number, int) else f"{number:g}"
    return text if len(text) <= 40 else f"{text[:37]}..."
