"""Prompts of a task to learn on, and others that are held out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from babblegraph.errors import BadInput
from babblegraph.tasks.countdown_puzzles import puzzles

PROMPTS: dict[str, Callable[[str, int, int], Iterator[str]]] = {  # (split, how many, seed) -> prompts
    "countdown": puzzles,
    "game24": partial(puzzles, numbers=4, largest=13, targets=(24, 24)),
}


def task_prompts(task: str, split: str, n: int, seed: int = 0) -> list[str]:
    """Distinct prompts of a task's split; no two splits share one.

    Args:
        task: its name.
        split: "train", "validation" or "test".
        n: how many.
        seed: the same seed gives the same prompts.

    Raises:
        BadInput: a task that makes no prompts, or fewer than n in the split.

    >>> task_prompts("game24", "train", 2)[0].endswith(">24")
    True
    """
    if task not in PROMPTS:
        raise BadInput(
            f"only {', '.join(PROMPTS)} make prompts to learn on, got {task!r}: give a file of them"
        )
    return list(PROMPTS[task](split, n, seed))
