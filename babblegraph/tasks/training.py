"""Prompts of a task to learn on, and others that are held out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement, islice

from babblegraph.errors import BadInput
from babblegraph.tasks.countdown import key
from babblegraph.tasks.countdown_puzzles import distinct, split_of
from babblegraph.tasks.countdown_solver import solvable


def _countdown(split: str, n: int, seed: int) -> Iterator[str]:
    yield from islice(distinct(split, seed), n)


def _games_of_24(split: str, n: int, seed: int) -> Iterator[str]:
    """All of a split, in an order of their own for each seed: there are few enough to try every hand."""
    hands = (
        key(hand, 24)
        for hand in combinations_with_replacement(range(1, 14), 4)
        if split_of(hand, 24) == split
    )
    found = [hand for hand in hands if solvable(hand)]
    random.Random(seed).shuffle(found)
    yield from islice(found, n)


PROMPTS: dict[str, Callable[[str, int, int], Iterator[str]]] = {  # (split, how many at most, seed) -> prompts
    "countdown": _countdown,
    "game24": _games_of_24,
}


def task_prompts(task: str, split: str, n: int, seed: int = 0, *, fewer: bool = False) -> list[str]:
    """Distinct prompts of a task's split; no two splits share one.

    Args:
        task: its name.
        split: "train", "validation" or "test".
        n: how many.
        seed: the same seed gives the same prompts.
        fewer: take what there is where the split holds fewer than n.

    Raises:
        BadInput: a task that makes no prompts, or fewer than n in the split where n are needed.

    >>> task_prompts("game24", "train", 2)[0].endswith(">24")
    True
    >>> len(task_prompts("game24", "train", 5000, fewer=True))  # all that whole numbers solve
    1102
    """
    if task not in PROMPTS:
        raise BadInput(
            f"only {', '.join(PROMPTS)} make prompts to learn on, got {task!r}: give a file of them"
        )
    found = list(PROMPTS[task](split, n, seed))
    if len(found) < n and not fewer:
        raise BadInput(f"{task} must have {n} {split} prompts, got {len(found)}: ask for no more")
    return found
