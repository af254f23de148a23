"""Chains of sums on a clock of 100: many steps, one right text, and every slip is seen where it happens.

A prepared prompt is `38a+57b*4c-19\n`: a start and labelled operations, done from left to right modulo 100. The
continuation has a line for each, its label, the number so far, the operation and its result: `a38+57=95\n`,
`b95*4=80\n`, `c80-19=61\n`. With twenty steps a lone sample of a generator that errs once in ten lines is right one
time in eight, with forty one in seventy; a search that looks at each line hardly notices.
"""

import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from string import ascii_lowercase

from babblegraph.errors import BadInput

CLOCK = 100
MOST_STEPS = len(ascii_lowercase)
SPLITS = ("train", "validation", "test")
PATIENCE = 20_000  # draws in a row without a new chain


class Chain:
    """The Chain task: a verifier that knows every line of the one right text.

    Args:
        prompts: What a search starts from when the user names none.

    Raises:
        BadInput: A prompt is not a chain.

    Example:
        >>> task = Chain()
        >>> prompt = task.prepare("38 + 57 * 4 - 19")
        >>> prompt
        '38a+57b*4c-19\\n'
        >>> task.value(prompt, "a38+57=95\\nb95*4="), task.value(prompt, "a38+57=94")
        (1.0, 0.0)
        >>> task.verify(prompt, "a38+57=95\\nb95*4=80\\nc80-19=61\\n")
        1.0
    """

    name = "chain"
    stop: tuple[str, ...] = ("\n",)

    def __init__(self, prompts: Sequence[str] = ("38+57*4-19+86*7-45",)) -> None:
        self.prompts: Sequence[str] = list(prompts)
        for prompt in self.prompts:
            self.prepare(prompt)

    def prepare(self, prompt: str) -> str:
        """Turn what a user typed into the exact prompt the model reads.

        Args:
            prompt: Numbers below 100 with `+`, `-` or `*` between them; labels and spaces as you like.

        Raises:
            BadInput: It is no chain, or one with too many steps.

        Example:
            >>> Chain().prepare(" 7*8 ")
            '7a*8\\n'
        """
        plain = re.sub(r"[a-z\s]", "", prompt)
        if not re.fullmatch(r"[0-9]{1,2}([-+*][0-9]{1,2})+", plain, re.ASCII):
            raise BadInput(
                f"a chain is numbers below {CLOCK} with + - * between them, got {prompt!r}; write 38+57*4"
            )
        first, *steps = re.findall(r"[-+*]?[0-9]+", plain)
        if len(steps) > MOST_STEPS:
            raise BadInput(f"a chain has at most {MOST_STEPS} steps, got {len(steps)}; drop some")
        written = (
            f"{label}{step[0]}{int(step[1:])}" for label, step in zip(ascii_lowercase, steps, strict=False)
        )
        return f"{int(first)}{''.join(written)}\n"

    def verify(self, prompt: str, text: str) -> float:
        """Score a finished text: 1.0 when every line is right, else 0.0."""
        return float(text == solution(prompt))

    def value(self, prompt: str, text: str) -> float:
        """Check a partial text: 0.0 as soon as a character is wrong, else 1.0."""
        return float(solution(prompt).startswith(text))

    def done(self, prompt: str, text: str) -> bool:
        """Tell whether every step has its line."""
        return text.count("\n") >= solution(prompt).count("\n")

    def answer(self, text: str) -> str | None:
        """The result, for votes.

        Example:
            >>> Chain().answer("a38+57=95\\nb95*4=80\\n")
            '80'
        """
        last = re.fullmatch(r"(?s:.*\n|)[^\n]*=([0-9]+)\n", text)
        return last[1] if last else None


@lru_cache(maxsize=4096)
def solution(prompt: str) -> str:
    """Write the one right text.

    Raises:
        BadInput: The prompt was not prepared.

    Example:
        >>> solution("12a-57b*3\\n")
        'a12-57=55\\nb55*3=65\\n'
    """
    match = re.fullmatch(r"([0-9]+)((?:[a-z][-+*][0-9]+)+)\n", prompt)
    if not match:
        raise BadInput(f"a prompt must be prepared, got {prompt!r}; pass it through Chain.prepare")
    now, lines = int(match[1]), []
    for label, operator, number in re.findall(r"([a-z])([-+*])([0-9]+)", match[2]):
        b = int(number)
        result = {"+": now + b, "-": now - b, "*": now * b}[operator] % CLOCK
        lines.append(f"{label}{now}{operator}{b}={result}\n")
        now = result
    return "".join(lines)


def chains(split: str, n: int, seed: int, *, steps: int = 20) -> Iterator[str]:
    """Yield distinct chains of one split, decided by a hash of the chain: train 80 %, validation and test 10 %.

    Raises:
        BadInput: The split is unknown, a number of steps that no chain has, or more chains than there are.

    Example:
        >>> len(set(chains("test", 3, seed=0)))
        3
    """
    if split not in SPLITS:
        raise BadInput(f"a split is one of {', '.join(SPLITS)}, got {split!r}; choose one of them")
    if not 1 <= steps <= MOST_STEPS:
        raise BadInput(f"a chain has 1 to {MOST_STEPS} steps, got {steps}; choose in between")
    rng, seen, idle = random.Random(seed), set[str](), 0
    while len(seen) < n:
        prompt = random_chain(rng, steps)
        idle += 1
        if prompt not in seen and split_of(prompt) == split:
            seen.add(prompt)
            idle = 0
            yield prompt
        elif idle >= PATIENCE:
            raise BadInput(
                f"so many chains must exist, got {n} of {steps} steps and found {len(seen)}: "
                "ask for fewer, or for longer ones"
            )


def random_chain(rng: random.Random, steps: int) -> str:
    """Draw a chain: sums and differences of numbers up to 99, products with 2 to 9."""
    drawn = [str(rng.randrange(CLOCK))]
    for label in ascii_lowercase[:steps]:
        operator = rng.choice("+-*")
        drawn.append(f"{label}{operator}{rng.randint(2, 9) if operator == '*' else rng.randrange(1, CLOCK)}")
    return f"{''.join(drawn)}\n"


def split_of(prompt: str) -> str:
    """Tell which split a prompt belongs to."""
    digest = blake2b(prompt.strip().encode(), digest_size=8).digest()
    return {0: "test", 1: "validation"}.get(int.from_bytes(digest, "big") % 10, "train")
