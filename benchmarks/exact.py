"""The exact probability that a sample solves a Countdown puzzle: the sum over all its solutions."""

from __future__ import annotations

import numpy as np
import torch

from babblegraph.learning.rows import by_length, log_p, logits_of, pad
from babblegraph.tasks.countdown import parse
from babblegraph.tasks.countdown_solver import solve

RARE = -16.0  # log-probability under the base below which a solution is left out: the sum is a lower bound


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

    @torch.no_grad()
    def probability(self, model, temperatures: tuple[float, ...] = (1.0,)) -> np.ndarray:
        """P(a sample solves it), [T, P], at some temperatures."""
        each = np.zeros((len(temperatures), len(self.tokens)))
        for some in by_length(self.tokens):
            batch = pad([self.tokens[i] for i in some], self.start[some])
            logits = logits_of(model, batch)
            for row, temperature in zip(each, temperatures, strict=True):
                log_g = (logits / temperature).log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[..., 0]
                row[some] = (log_g.double() * batch.learned).sum(-1).exp().numpy()
        return np.stack([np.bincount(self.owner, row, self.puzzles).clip(0, 1) for row in each])


def at_least_one(probability: np.ndarray, k: int) -> np.ndarray:
    """P(one of k samples solves it), [P]."""
    return 1 - (1 - probability) ** k
