"""Countdown puzzles by random play, and the split that keeps test puzzles out of training."""

import random
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from babblegraph.errors import BadInput
from babblegraph.tasks.countdown import Numbers, key, results

SPLITS = ("train", "validation", "test")
HARD = Path(__file__).parent / "countdown_hard.tsv"
MOST_MISSES = 100_000  # one after the other: then there is hardly another puzzle
LARGEST_STEP = 200  # longer products rarely come back to a small target and only lengthen the text


def puzzles(
    split: str,
    n: int,
    seed: int,
    *,
    numbers: int = 4,
    largest: int = 20,
    targets: tuple[int, int] = (10, 100),
) -> Iterator[str]:
    """Yield distinct puzzles of one split, each with at least one solution.

    A puzzle's split is decided by a hash of its sorted numbers and its target, so no two splits ever share
    one, whatever the seeds.

    Args:
        split: `train` (80 %), `validation` (10 %) or `test` (10 %).
        n: How many puzzles.
        seed: The same seed gives the same puzzles.
        numbers: How many numbers each has.
        largest: Numbers are drawn from 1 to this.
        targets: Smallest and largest target.

    Raises:
        BadInput: The split is unknown, a range is empty, or the ranges hold fewer than n puzzles.

    Example:
        >>> list(puzzles("test", 2, seed=0, numbers=3)) == list(puzzles("test", 2, seed=0, numbers=3))
        True
    """
    found = 0
    for puzzle in islice(distinct(split, seed, numbers=numbers, largest=largest, targets=targets), n):
        found += 1
        yield puzzle
    if found < n:
        raise BadInput(
            f"the ranges must hold the {n} {split} puzzles asked for, got {found}: ask for no more, or widen them"
        )


def distinct(
    split: str, seed: int, *, numbers: int = 4, largest: int = 20, targets: tuple[int, int] = (10, 100)
) -> Iterator[str]:
    """Yield puzzles as `puzzles` does, until random play finds no other one.

    Raises:
        BadInput: The split is unknown, or a range is empty.
    """
    if split not in SPLITS:
        raise BadInput(f"a split is one of {', '.join(SPLITS)}, got {split!r}; choose one of them")
    if numbers < 1 or largest < 1:
        raise BadInput(
            f"a puzzle needs a number of 1 or above, got {numbers} numbers up to {largest}: raise them"
        )
    if targets[0] > targets[1]:
        raise BadInput(f"targets go from the smallest to the largest, got {targets}: exchange them")
    rng = random.Random(seed)
    seen: set[str] = set()
    misses = 0
    while misses <= MOST_MISSES:
        start, _, target = play(rng, numbers, largest)
        puzzle = key(start, target)
        if puzzle in seen or not targets[0] <= target <= targets[1] or split_of(start, target) != split:
            misses += 1
            continue
        misses = 0
        seen.add(puzzle)
        yield puzzle


def hard_puzzles(split: str) -> list[str]:
    """List puzzles of four numbers of which the embedded generator gets 0.5 to 8 % of its attempts right.

    `python -m babblegraph.embedded.hard` has found them among held-out puzzles, in the order of `puzzles`.

    Args:
        split: `validation` or `test`.

    Raises:
        BadInput: Another split.

    Example:
        >>> split_of((3, 5, 7, 11), 24), len(hard_puzzles("test")) > 100
        ('train', True)
    """
    lines = [line.split("\t") for line in HARD.read_text("utf-8").splitlines()]
    found = [puzzle for name, puzzle, _ in lines if name == split]
    if not found:
        raise BadInput(f"a hard split is validation or test, got {split!r}; choose one of them")
    return found


def play(rng: random.Random, count: int, largest: int) -> tuple[Numbers, list[str], int]:
    """Draw numbers and combine them by random legal steps until one is left.

    Args:
        rng: The source of randomness.
        count: How many numbers to draw.
        largest: Numbers are drawn from 1 to this.

    Returns:
        The numbers ascending, the lines of the solution, the number that was left: the target.

    Example:
        >>> play(random.Random(1), 2, 9)
        ((2, 3), ['2*3=6:6\\n'], 6)
    """
    start = tuple(sorted(rng.randint(1, largest) for _ in range(count)))
    numbers, lines = start, []
    while len(numbers) > 1:
        operation, result, others = random_step(rng, numbers)
        numbers = tuple(sorted((*others, result)))
        lines.append(f"{operation}={result}:{' '.join(map(str, numbers))}\n")
    return start, lines, numbers[0]


def random_step(rng: random.Random, numbers: Numbers) -> tuple[str, int, Numbers]:
    """Choose two of the numbers and a legal operation on them, each with equal chances.

    Sums and products are written smaller number first, so that equal steps read the same.

    Returns:
        The operation as text, its result, the other numbers.

    Example:
        >>> random_step(random.Random(1), (2, 3))
        ('2*3', 6, ())
    """
    i, j = sorted(rng.sample(range(len(numbers)), 2))
    small, large = numbers[i], numbers[j]
    options = [(f"{small}{operator}{large}", result) for operator, result in results(small, large)[:2]]
    options += [(f"{large}{operator}{small}", result) for operator, result in results(large, small)[2:]]
    short = [option for option in options if option[1] <= LARGEST_STEP]
    operation, result = rng.choice(short or options)
    return operation, result, numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]


def split_of(numbers: Numbers, target: int) -> str:
    """Tell which split a puzzle belongs to, from a hash of its sorted numbers and its target.

    Example:
        >>> split_of((3, 5, 7, 11), 24) == split_of((11, 7, 5, 3), 24)
        True
    """
    digest = blake2b(key(sorted(numbers), target).encode(), digest_size=8).digest()
    return {0: "test", 1: "validation"}.get(int.from_bytes(digest, "big") % 10, "train")
