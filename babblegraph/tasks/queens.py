"""Queens in text: put one queen into each row, so that none attacks another; some are given.

A prepared prompt has a character for each row, `.` or the letter of the given queen's column, as in `..e.....\n`.
The continuation has a line for each row, the letter of its column. A queen that is attacked is seen at once; a board
that cannot be completed any more looks fine for a while, which is what search is for.
"""

import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from string import ascii_lowercase

from babblegraph.errors import BadInput
from babblegraph.tasks.chain import SPLITS, split_of

SIZES = range(4, 13)
PATIENCE = 20_000  # games in a row without a new board

Board = tuple[int, ...]  # the column of each row's queen


class Queens:
    """The Queens task: verifier and partial check of a board that is filled row by row.

    Args:
        prompts: What a search starts from when the user names none.

    Raises:
        BadInput: A prompt is not a board.

    Example:
        >>> task = Queens()
        >>> prompt = task.prepare(".d..")
        >>> task.value(prompt, "b\\n"), task.value(prompt, "c\\n")
        (1.0, 0.0)
        >>> task.verify(prompt, "b\\nd\\na\\nc\\n")
        1.0
    """

    name = "queens"
    stop: tuple[str, ...] = ("\n",)

    def __init__(self, prompts: Sequence[str] = ("..e.....",)) -> None:
        self.prompts: Sequence[str] = list(prompts)
        for prompt in self.prompts:
            self.prepare(prompt)

    def prepare(self, prompt: str) -> str:
        """Turn what a user typed into the exact prompt the model reads.

        Raises:
            BadInput: It is no board, or its queens attack each other.

        Example:
            >>> Queens().prepare(" .d.. ")
            '.d..\\n'
        """
        board = prompt.strip()
        if not re.fullmatch(r"[.a-l]+", board) or len(board) not in SIZES:
            raise BadInput(
                f"a board has a . or a column's letter for each of {SIZES[0]} to {SIZES[-1]} rows, "
                f"got {prompt!r}; write .d.."
            )
        queens = [(row, ascii_lowercase.index(c)) for row, c in enumerate(board) if c != "."]
        if any(column >= len(board) for _, column in queens):
            raise BadInput(f"columns are the first {len(board)} letters, got {prompt!r}; move that queen")
        if any(attacks(a, b) for a in queens for b in queens if a < b):
            raise BadInput(f"given queens must not attack each other, got {prompt!r}; move one")
        return f"{board}\n"

    def verify(self, prompt: str, text: str) -> float:
        """Score a finished text: 1.0 when every row has its queen and none attacks another."""
        return float(self.done(prompt, text) and self.value(prompt, text) > 0)

    def value(self, prompt: str, text: str) -> float:
        """Check a partial text: 0.0 as soon as a line is no queen that may stand there, else 1.0.

        Only the queens that stand are looked at: a board that cannot be completed still counts 1.0.
        """
        *lines, rest = text.split("\n")
        allowed, placed = _given(prompt), list[int]()
        if len(lines) > len(allowed) or (rest and (len(lines) == len(allowed) or len(rest) > 1)):
            return 0.0
        for line in [*lines, rest] if rest else lines:
            column = ascii_lowercase.find(line) if len(line) == 1 else -1
            if not may_stand(allowed, placed, column):
                return 0.0
            placed.append(column)
        return 1.0

    def done(self, prompt: str, text: str) -> bool:
        """Tell whether every row has its line.

        Example:
            >>> Queens().done(".d..\\n", "b\\nd\\n")
            False
        """
        return text.count("\n") >= len(prompt) - 1

    def answer(self, text: str) -> str | None:
        """The board in one word, for votes."""
        return text.replace("\n", "") or None


def attacks(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Tell whether queens on two (row, column) fields attack each other.

    Example:
        >>> attacks((0, 1), (2, 3)), attacks((0, 1), (1, 3))
        (True, False)
    """
    return a[0] == b[0] or a[1] == b[1] or abs(a[0] - b[0]) == abs(a[1] - b[1])


def may_stand(given: Sequence[int | None], placed: Sequence[int], column: int) -> bool:
    """Tell whether the next row's queen may stand in a column, with those above it and those given below."""
    row, size = len(placed), len(given)
    if not 0 <= column < size or given[row] not in (None, column):
        return False
    later = [(r, c) for r, c in enumerate(given) if c is not None and r > row]
    return not any(attacks((row, column), other) for other in [*enumerate(placed), *later])


@lru_cache(maxsize=4096)
def _given(prompt: str) -> tuple[int | None, ...]:
    return tuple(None if c == "." else ascii_lowercase.index(c) for c in prompt.rstrip("\n"))


def boards(split: str, n: int, seed: int, *, size: int = 12, given: int = 2) -> Iterator[str]:
    """Yield distinct boards of one split, each with a solution; a hash of the prompt decides the split.

    Raises:
        BadInput: The split is unknown, a size that is not allowed, or more boards than there are.

    Example:
        >>> [len(board) for board in boards("test", 2, seed=0, size=8)]
        [9, 9]
    """
    if split not in SPLITS:
        raise BadInput(f"a split is one of {', '.join(SPLITS)}, got {split!r}; choose one of them")
    if size not in SIZES or not 0 <= given <= size:
        raise BadInput(
            f"a board has {SIZES[0]} to {SIZES[-1]} rows, got {size} with {given} given; change that"
        )
    rng, seen, idle = random.Random(seed), set[str](), 0
    while len(seen) < n:
        prompt = hide(rng, random_board(rng, size), given)
        idle += 1
        if prompt not in seen and split_of(prompt) == split:
            seen.add(prompt)
            idle = 0
            yield prompt
        elif idle >= PATIENCE:
            raise BadInput(
                f"so many boards must exist, got {n} of {size} rows with {given} given and found {len(seen)}: "
                "ask for fewer, or for larger ones"
            )


def random_board(rng: random.Random, size: int) -> Board:
    """Play random legal queens row by row until a game goes through.

    Example:
        >>> random_board(random.Random(0), 4) in ((1, 3, 0, 2), (2, 0, 3, 1))
        True
    """
    while True:
        placed: list[int] = []
        free = (1 << size) - 1
        left = right = columns = 0  # fields of the next row that are attacked, as bits
        for _ in range(size):
            options = free & ~(left | right | columns)
            if not options:
                break
            bit = 1 << rng.choice([c for c in range(size) if options >> c & 1])
            placed.append(bit.bit_length() - 1)
            left, right, columns = (left | bit) << 1 & free, (right | bit) >> 1, columns | bit
        else:
            return tuple(placed)


def hide(rng: random.Random, board: Board, given: int) -> str:
    """Write a board as a prompt that shows only some of its queens."""
    shown = set(rng.sample(range(len(board)), given))
    return "".join(ascii_lowercase[c] if r in shown else "." for r, c in enumerate(board)) + "\n"
