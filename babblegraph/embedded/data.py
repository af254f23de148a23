"""Training rows of the embedded generator: random correct solutions, and attempts labelled right or wrong.

Everything comes from forward play and from the strict verifier; no solver is involved. Puzzles come from the
`train` split alone.
"""

import argparse
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from babblegraph.tasks.countdown import Numbers, key, legal_lines, parse
from babblegraph.tasks.countdown_puzzles import play, random_step, split_of

PAD, EOS, UNKNOWN = 0, 1, 2
SPECIALS = ("<pad>", "<eos>", "<unk>")
CHARACTERS = "\n 0123456789>:=+-*/yn"
VOCABULARY = {token: i for i, token in enumerate((*SPECIALS, *CHARACTERS))}
YES, NO = VOCABULARY["y"], VOCABULARY["n"]

NOTHING, GENERATE, JUDGE = 0, 1, 2  # what the loss at a position is for
LONGEST_ROW = 112
COUNTS = (3, 3, *[4] * 17, 5)  # numbers in a puzzle, in the proportions they are trained in
LARGEST = 20
TARGETS = range(10, 101)


def positive(text: str) -> int:
    """Read an option of the scripts here that counts something."""
    return whole(text, least=1)


def whole(text: str, least: int = 0) -> int:
    """Read an option that is a whole number from `least` on; argparse says what is wrong with any other."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return int(text)


@dataclass
class Rows:
    """Padded texts with what each position learns.

    Attributes:
        ids: Token ids, padded at the right. `[N, L]`
        aim: NOTHING, GENERATE or JUDGE: what predicting the *next* token is for. `[N, L]`
        value: At line ends that are judged, 1 if the attempt ends right and 0 if wrong; else -1. `[N, L]`
        length: Tokens in each row. `[N]`
    """

    ids: np.ndarray
    aim: np.ndarray
    value: np.ndarray
    length: np.ndarray


class Attempt(NamedTuple):
    """A text to learn from.

    Attributes:
        prompt: A prepared prompt.
        text: The lines after it, without verdict.
        right: Whether the verifier accepts it.
        generate: Whether to learn to write it, not only to judge it.
        judged_from: The first line end to judge at (0 is the end of the prompt); None for the verdict alone.
    """

    prompt: str
    text: str
    right: bool
    generate: bool
    judged_from: int | None


def solutions(rng: random.Random, n: int, *, judged: bool) -> Rows:
    """Draw random correct solutions of training puzzles: what the model learns to babble.

    Args:
        rng: The source of randomness.
        n: How many.
        judged: Whether they also are examples of sound lines.

    Example:
        >>> rows = solutions(random.Random(0), 3, judged=False)
        >>> rows.ids.shape[0], int((rows.value >= 0).sum())
        (3, 0)
    """
    return pack(_solution(rng)._replace(judged_from=1 if judged else None) for _ in range(n))


def wrong_attempts(rng: random.Random, n: int) -> Rows:
    """Draw attempts that fail: a false result, wrong numbers left, or another end than the target.

    They are judged from the line on that breaks the rules; before it, nothing is wrong yet.

    Example:
        >>> int(wrong_attempts(random.Random(0), 2).value.max())
        0
    """
    return pack(_wrong(rng) for _ in range(n))


def pack(attempts: Iterable[Attempt]) -> Rows:
    """Lay attempts out as rows.

    Example:
        >>> rows = pack([Attempt("1 2>3\\n", "1+2=3:3\\n", right=True, generate=True, judged_from=None)])
        >>> "".join(str(aim) for aim in rows.aim[0, :18])
        '000001111111122000'
    """
    attempts = list(attempts)
    ids = np.full((len(attempts), LONGEST_ROW), PAD, dtype=np.int64)
    aim = np.zeros_like(ids)
    value = np.full_like(ids, -1)
    length = np.zeros(len(attempts), dtype=np.int64)
    for row, (prompt, text, right, generate, judged_from) in enumerate(attempts):
        tokens = [*(VOCABULARY[c] for c in prompt + text + ("y" if right else "n")), EOS]
        end = len(prompt) + len(text) - 1  # the position that predicts the verdict
        ids[row, : len(tokens)] = tokens
        length[row] = len(tokens)
        if text.endswith("\n"):  # an attempt cut off within a line has no place for a verdict
            aim[row, end : end + 2] = JUDGE
        if generate:
            aim[row, len(prompt) - 1 : end] = GENERATE
        if judged_from is not None:
            line_ends = np.flatnonzero(ids[row, : end + 1] == VOCABULARY["\n"])
            value[row, line_ends[judged_from:]] = int(right)
    return Rows(ids, aim, value, length)


def join(*parts: Rows) -> Rows:
    """Put rows together."""
    fields = ("ids", "aim", "value", "length")
    return Rows(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def take(rows: Rows, chosen: Sequence[int] | np.ndarray) -> Rows:
    """Choose rows."""
    return Rows(rows.ids[chosen], rows.aim[chosen], rows.value[chosen], rows.length[chosen])


def training_puzzles(rng: random.Random, n: int) -> list[str]:
    """Draw prepared prompts of training puzzles, in the proportions of the training set."""
    return [_solution(rng).prompt for _ in range(n)]


def _solution(rng: random.Random) -> Attempt:
    """Play until a training puzzle comes out."""
    while True:
        start, lines, target = play(rng, rng.choice(COUNTS), LARGEST)
        if target in TARGETS and split_of(start, target) == "train":
            return Attempt(f"{key(start, target)}\n", "".join(lines), True, True, None)


def _wrong(rng: random.Random) -> Attempt:
    """Play a training puzzle with one false line, or honestly to another end."""
    while True:
        prompt = _solution(rng).prompt
        numbers, target = parse(prompt)
        last = len(numbers) - 1  # lines in an attempt
        false_line = rng.choice((None, *range(1, last + 1), last, last))  # forced ends are what models do
        text, broken = "", None
        for line_number in range(1, last + 1):
            line, left = _line(rng, numbers, target, false=false_line == line_number)
            if broken is None and legal_lines(numbers).get(line) != left:
                broken = line_number
            text, numbers = f"{text}{line}\n", left
        if broken is not None or numbers != (target,):
            return Attempt(prompt, text, False, False, broken or last)


def _line(rng: random.Random, numbers: Numbers, target: int, *, false: bool) -> tuple[str, Numbers]:
    """Play one line, honestly or with one slip in its result or in the numbers left."""
    operation, result, others = random_step(rng, numbers)
    if false and not others:  # the slip that looks best: a last result near the target, forced to be it
        near = [random_step(rng, numbers) for _ in range(rng.choice((1, 6)))]
        operation, result = min(near, key=lambda step: abs(step[1] - target))[0], target
    elif false and rng.random() < 0.5:
        result = max(1, result + rng.choice((-10, -2, -1, 1, 2, 10)))
    elif false:
        slip = rng.randrange(len(others))
        others = (*others[:slip], max(1, others[slip] + rng.choice((-2, -1, 1, 2))), *others[slip + 1 :])
    left = tuple(sorted((*others, result)))
    return f"{operation}={result}:{' '.join(map(str, left))}", left
