"""Every Game of 24 with four cards from 1 to 13 that has a solution in positive integers, the easiest first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, combinations_with_replacement
from typing import NamedTuple

from babblegraph.tasks.countdown import Numbers, key, results

TARGET, CARDS = 24, range(1, 14)


class Puzzle(NamedTuple):
    """A puzzle as the task writes it, and the chance that random legal steps solve it."""

    prompt: str
    chance: float


@lru_cache(maxsize=1)
def game24_puzzles() -> Sequence[Puzzle]:
    """List all solvable puzzles, ranked by how likely random play is to solve them.

    The chance is exact: each step takes two numbers and one of their legal operations, all equally likely. It knows
    nothing of any generator, so that the ranking is the same for all.

    Complexity: a fraction of a second, once.

    Example:
        >>> puzzles = game24_puzzles()
        >>> len(puzzles), puzzles[0].prompt, puzzles[-1].prompt
        (1346, '12 12 12 12>24', '4 9 10 11>24')
    """
    found = [Puzzle(key(cards, TARGET), _chance(cards)) for cards in combinations_with_replacement(CARDS, 4)]
    return sorted((p for p in found if p.chance > 0), key=lambda p: (-p.chance, p.prompt))


@lru_cache(maxsize=1 << 17)
def _chance(numbers: Numbers) -> float:
    """How likely random legal steps are to end at the target."""
    if len(numbers) == 1:
        return float(numbers[0] == TARGET)
    total, pairs = 0.0, list(combinations(range(len(numbers)), 2))
    for i, j in pairs:
        small, large = numbers[i], numbers[j]
        others = numbers[:i] + numbers[i + 1 : j] + numbers[j + 1 :]
        options = [r for _, r in results(small, large)[:2]] + [r for _, r in results(large, small)[2:]]
        total += sum(_chance(tuple(sorted((*others, r)))) for r in options) / len(options)
    return total / len(pairs)
