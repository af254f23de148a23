"""Greedy decoding: always the likeliest next token."""

from __future__ import annotations

from babblegraph.protocols import Strategy
from babblegraph.strategies.token_beam import token_beam


def greedy(*, threshold: float | None = None) -> Strategy:
    """The one text in which every token is the likeliest after those before it: a token beam of width one.

    It ends when that text does, whatever is left of the budget. With a large vocabulary give the generator
    `top_k = 1`, so that only this token becomes a node.

    Aim `solve`; weights are biased. Complexity: O(k) nodes a token, k the tokens offered.
    Good for: a first look, and for models that are nearly always right.

    Args:
        threshold: for the sake of equal signatures; a single text is either right or not.
    """
    return token_beam(width=1, threshold=threshold)._replace(name="greedy")
