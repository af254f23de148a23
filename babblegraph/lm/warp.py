"""From f's next-token distribution to q's, by transformers' own logits processors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from babblegraph.errors import BadInput

Warp = Callable[[torch.Tensor], torch.Tensor]


def warped(warp: Warp | None, log_p: torch.Tensor) -> torch.Tensor:
    """Log-probabilities as they are warped, [R, V]; the same object where nothing warps them."""
    return log_p if warp is None else torch.log_softmax(warp(log_p), -1)


def warper(temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Warp | None:
    """A map from log-probabilities [R, V] to scores [R, V]; None when nothing is to be changed.

    Args:
        temperature: above zero; 1 leaves the distribution as it is.
        top_k: keep only the k likeliest tokens.
        top_p: keep only the likeliest tokens that together have this probability.

    Raises:
        BadInput: a value out of range.
    """
    if not 0 < temperature < float("inf"):
        raise BadInput(
            f"the temperature must be above 0, got {temperature}: use 1 for the model's own distribution"
        )
    if top_k is not None and not (top_k >= 1 and top_k == int(top_k)):
        raise BadInput(
            f"top_k must be a whole number of at least 1, got {top_k}: leave it out for no truncation"
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise BadInput(f"top_p must be in (0, 1], got {top_p}: leave it out for no truncation")
    steps: list[Callable] = []
    if temperature != 1:
        steps.append(TemperatureLogitsWarper(float(temperature)))
    if top_k is not None:
        steps.append(TopKLogitsWarper(int(top_k)))
    if top_p is not None and top_p < 1:
        steps.append(TopPLogitsWarper(float(top_p)))
    if not steps:
        return None

    def warp(scores: torch.Tensor) -> torch.Tensor:
        for step in steps:
            scores = step(None, scores)
        return scores

    return warp
