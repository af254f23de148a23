"""The exact probability that a sample solves a Countdown puzzle: the sum over all its solutions."""

from __future__ import annotations

import numpy as np

from babblegraph.learning.rows import log_p
from babblegraph.tasks.countdown import parse
from babblegraph.tasks.countdown_solver import solve

RARE = (
    -16.0
)  # log-probability under the base below which a solution is left out: the sum is a bound, to about 1e-6


class Solutions:
    """All texts that solve some puzzles, as token ids.

    A text ends where its last number stands alone, and there is one way to write each in tokens.

    Args:
        base: its tokenizer writes them; those that it all but excludes are left out.
        puzzles: prepared prompts, P.
    """

    def __init__(self, base, puzzles: list[str]) -> None:
        tokens, start, owner = [], [], []
        for i, puzzle in enumerate(puzzles):
            first = len(base.tokenizer(puzzle)["input_ids"])
            for text in solve(*parse(puzzle)):
                tokens.append(np.array(base.tokenizer(puzzle + text)["input_ids"], np.int32))
                start.append(first)
                owner.append(i)
        known = log_p(base.model, tokens, np.array(start)) > RARE
        self.tokens = [some for some, kept in zip(tokens, known, strict=True) if kept]
        self.start, self.owner = np.array(start)[known], np.array(owner)[known]
        self.puzzles = len(puzzles)

    def probability(self, model) -> np.ndarray:
        """P(a sample at temperature 1 solves it), [P]."""
        each = np.exp(log_p(model, self.tokens, self.start))
        return np.bincount(self.owner, each, self.puzzles).clip(0, 1)


def at_least_one(probability: np.ndarray, k: int) -> np.ndarray:
    """P(one of k samples solves it), [P]."""
    return 1 - (1 - probability) ** k
