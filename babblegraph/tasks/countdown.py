"""Countdown: reach the target from the numbers, one exact arithmetic step a line, each number used once.

A prepared prompt is `3 5 7 11>24\\n`, the numbers ascending. Every line of the continuation is
`A op B=C:` and the numbers that are left, ascending, as in `11-5=6:3 6 7\\n`; all are positive integers.
After the last line may stand the model's own verdict, `y` or `n`, which never changes the score.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations
from types import MappingProxyType

from babblegraph.errors import BadInput

MOST_NUMBERS = 6
LARGEST_NUMBER = 999
LARGEST_TARGET = 9999
VERDICTS = ("y", "n")

Numbers = tuple[int, ...]


class Countdown:
    """The Countdown task: verifier, partial check and state key of a generated solution.

    Args:
        prompts: The puzzles a search starts from when the user names none, as in `3 5 7 11>24`.

    Raises:
        BadInput: A prompt is not a puzzle.

    Example:
        >>> task = Countdown()
        >>> prompt = task.prepare("11 3 5 7 > 24")
        >>> prompt
        '3 5 7 11>24\\n'
        >>> text = "11-5=6:3 6 7\\n"
        >>> task.value(prompt, text), task.state(prompt, text), task.done(prompt, text)
        (1.0, '3 6 7>24', False)
        >>> task.verify(prompt, "7-3=4:4 5 11\\n11-5=6:4 6\\n4*6=24:24\\n")
        1.0
        >>> task.verify(prompt, "7-3=4:4 5 11\\n11-5=6:4 6\\n4*6=25:25\\n")
        0.0
    """

    name = "countdown"
    stop: tuple[str, ...] = ("\n",)

    def __init__(self, prompts: Sequence[str] = ("3 5 7 11>24",)) -> None:
        self.prompts: Sequence[str] = list(prompts)
        for prompt in self.prompts:
            self.prepare(prompt)

    def prepare(self, prompt: str) -> str:
        """Turn what a user typed into the exact prompt the model reads.

        Args:
            prompt: Numbers, `>`, target; any order of numbers, spaces where you like.

        Returns:
            The prompt with its numbers ascending, ending in a newline.

        Raises:
            BadInput: The text is not a puzzle, or it is one beyond the limits of the task.

        Example:
            >>> Countdown().prepare("7 5 3 > 38")
            '3 5 7>38\\n'
        """
        match = re.fullmatch(r"\s*([0-9]{1,9}(?:\s+[0-9]{1,9})*)\s*>\s*([0-9]{1,9})\s*", prompt)
        if not match:
            raise BadInput(f"a Countdown puzzle is numbers>target, got {prompt!r}; write e.g. 3 5 7 11>24")
        numbers = sorted(int(number) for number in match[1].split())
        target = int(match[2])
        if not 2 <= len(numbers) <= MOST_NUMBERS:
            raise BadInput(f"a puzzle has 2 to {MOST_NUMBERS} numbers, got {len(numbers)}; add or drop some")
        if not 1 <= numbers[0] <= numbers[-1] <= LARGEST_NUMBER:
            raise BadInput(f"numbers are 1 to {LARGEST_NUMBER}, got {prompt!r}; change those outside")
        if not 1 <= target <= LARGEST_TARGET:
            raise BadInput(f"a target is 1 to {LARGEST_TARGET}, got {target}; choose one inside")
        return f"{key(numbers, target)}\n"

    def verify(self, prompt: str, text: str) -> float:
        """Score a finished attempt: 1.0 when it is exact to the letter, else 0.0.

        Args:
            prompt: A prepared prompt.
            text: The continuation, without the end-of-text token.

        Returns:
            1.0 if every line is legal and the one number left is the target; one verdict may follow.

        Example:
            >>> Countdown().verify("3 5 7>38\\n", "5*7=35:3 35\\n3+35=38:38\\ny")
            1.0
        """
        numbers, target, rest = _walk(prompt, text)
        return float(numbers == (target,) and rest in ("", *VERDICTS))

    def value(self, prompt: str, text: str) -> float:
        """Check a partial attempt: 0.0 when it is provably dead by the rules alone, else 1.0.

        Nothing is solved here: an attempt whose numbers can no longer reach the target still counts 1.0.

        Example:
            >>> Countdown().value("3 5 7>38\\n", "5*7=36:"), Countdown().value("3 5 7>38\\n", "5*7=3")
            (0.0, 1.0)
        """
        numbers, target, rest = _walk(prompt, text)
        if numbers is None:
            return 0.0
        if len(numbers) == 1:
            return float(numbers[0] == target and rest in ("", *VERDICTS))
        return float(not rest or any(line.startswith(rest) for line in legal_lines(numbers)))

    def state(self, prompt: str, text: str) -> str | None:
        """Name what is left to do at a line border: the numbers ascending and the target.

        Returns:
            A key that two attempts share exactly when the same continuations solve both; None within a line,
            after a verdict and after a line that breaks the rules.

        Example:
            >>> Countdown().state("3 5 7>38\\n", "5*7=35:3 35\\n")
            '3 35>38'
        """
        numbers, target, rest = _walk(prompt, text)
        return None if numbers is None or rest else key(numbers, target)

    def done(self, prompt: str, text: str) -> bool:
        """Tell whether nothing more needs to be generated: legal so far and one number left.

        Example:
            >>> Countdown().done("3 5 7>38\\n", "5*7=35:3 35\\n3+35=38:38\\n")
            True
        """
        numbers, _, rest = _walk(prompt, text)
        return numbers is not None and len(numbers) == 1 and rest in ("", *VERDICTS)


class Game24(Countdown):
    """The Game of 24: Countdown with target 24, which a prompt may leave out.

    Steps stay within the positive integers, so puzzles that need fractions (`3 3 8 8`) have no solution here.

    Example:
        >>> Game24().prepare("4 4 6 8")
        '4 4 6 8>24\\n'
    """

    name = "game24"

    def __init__(self, prompts: Sequence[str] = ("4 6 7 8>24", "2 3 4 12>24", "4 4 6 8>24")) -> None:
        super().__init__(prompts)

    def prepare(self, prompt: str) -> str:
        """As `Countdown.prepare`, with `>24` added where no target is given.

        Raises:
            BadInput: The text is not a puzzle, or its target is not 24.
        """
        prepared = super().prepare(prompt if ">" in prompt else f"{prompt}>24")
        if not prepared.endswith(">24\n"):
            raise BadInput(f"Game of 24 has target 24, got {prompt!r}; write >24 or use task countdown")
        return prepared


def _walk(prompt: str, text: str) -> tuple[Numbers | None, int, str]:
    """Play the complete lines: numbers left (None once a line is illegal), target, unfinished rest."""
    start, target = parse(prompt)
    *lines, rest = text.split("\n")
    numbers: Numbers | None = start
    for line in lines:
        numbers = legal_lines(numbers).get(line)
        if numbers is None:
            break
    return numbers, target, rest


@lru_cache(maxsize=4096)
def parse(prompt: str) -> tuple[Numbers, int]:
    """Read the numbers and the target of a prepared prompt.

    Raises:
        BadInput: The prompt was not prepared.

    Example:
        >>> parse("3 5 7 11>24\\n")
        ((3, 5, 7, 11), 24)
    """
    match = re.fullmatch(r"([0-9]+(?: [0-9]+)*)>([0-9]+)\n", prompt)
    if not match:
        raise BadInput(f"a prompt must be prepared, got {prompt!r}; pass it through Countdown.prepare")
    return tuple(int(number) for number in match[1].split(" ")), int(match[2])


@lru_cache(maxsize=4096)
def legal_lines(numbers: Numbers) -> Mapping[str, Numbers]:
    """List every legal next line with the numbers it leaves; both orders of a sum or product are legal.

    Comparing with this list makes the check strict to the letter; the cache makes it a look-up, since the
    nodes of one search share few states.

    Args:
        numbers: The numbers at hand, ascending.

    Returns:
        A read-only mapping from line (without its newline) to the numbers left, ascending.

    Example:
        >>> legal_lines((2, 3))["3-2=1:1"], len(legal_lines((2, 3)))
        ((1,), 5)
    """
    lines = {}
    for i, j in permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        others = [number for k, number in enumerate(numbers) if k not in (i, j)]
        for operator, result in results(a, b):
            left = tuple(sorted([*others, result]))
            lines[f"{a}{operator}{b}={result}:{' '.join(map(str, left))}"] = left
    return MappingProxyType(lines)


def results(a: int, b: int) -> list[tuple[str, int]]:
    """List the legal operators between a and b, in this order, with their results: positive integers only.

    Example:
        >>> results(6, 3)
        [('+', 9), ('*', 18), ('-', 3), ('/', 2)]
    """
    found = [("+", a + b), ("*", a * b)]
    if a > b:
        found.append(("-", a - b))
    if a % b == 0:
        found.append(("/", a // b))
    return found


def key(numbers: Sequence[int], target: int) -> str:
    """Write numbers and target as a puzzle or state key.

    Example:
        >>> key((3, 6, 7), 24)
        '3 6 7>24'
    """
    return f"{' '.join(map(str, numbers))}>{target}"
