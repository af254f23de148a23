"""From f's next-token distribution to q's, by transformers' own logits processors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from babblegraph.errors import BadInput
from babblegraph.given import is_number

COLDEST = 1e-6  # the likeliest token alone long before; numbers divided by less overflow


@dataclass(frozen=True)
class Warp:
    """A map from log-probabilities [R, V] to scores [R, V]; `warper` says what the numbers mean.

    Args:
        temperature: at least `COLDEST`.
        top_k, top_p: None where nothing is cut off.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __call__(self, scores: torch.Tensor) -> torch.Tensor:
        for step in self._steps:
            scores = step(None, scores)
        return scores

    @property
    def truncates(self) -> bool:
        """Whether some tokens can be drawn no more."""
        return self.top_k is not None or self.top_p is not None

    @cached_property
    def _steps(self) -> list[Callable[..., torch.Tensor]]:
        steps: list[Callable[..., torch.Tensor]] = []
        if self.temperature != 1:
            steps.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k is not None:
            steps.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None:
            steps.append(TopPLogitsWarper(self.top_p))
        return steps


def warped(warp: Warp | None, log_p: torch.Tensor) -> torch.Tensor:
    """Log-probabilities as they are warped, [R, V]; the same object where nothing warps them."""
    return log_p if warp is None else torch.log_softmax(warp(log_p), -1)


def warper(temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Warp | None:
    """What changes the distribution that is sampled from; None when nothing is to be changed.

    Args:
        temperature: at least `COLDEST`; 1 leaves the distribution as it is.
        top_k: keep only the k likeliest tokens.
        top_p: keep only the likeliest tokens that together have this probability.

    Raises:
        BadInput: a value out of range.
    """
    if not (is_number(temperature) and COLDEST <= temperature < float("inf")):
        raise BadInput(
            f"the temperature must be a number of at least {COLDEST:g}, got {temperature!r:.80}: use 1 for the "
            "model's own distribution, top_k=1 for its likeliest token"
        )
    if top_k is not None and not (top_k >= 1 and top_k == int(top_k)):
        raise BadInput(
            f"top_k must be a whole number of at least 1, got {top_k}: leave it out for no truncation"
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise BadInput(f"top_p must be in (0, 1], got {top_p}: leave it out for no truncation")
    warp = Warp(
        float(temperature),
        None if top_k is None else int(top_k),
        float(top_p) if top_p is not None and top_p < 1 else None,
    )
    return None if warp == Warp() else warp
