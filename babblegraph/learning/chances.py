"""How likely a text is to pass, under the base and under the current generator, from one level's leaves."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.intervals import stratified, student
from babblegraph.learning.leaves import Leaves, log_weights
from babblegraph.thresholds import quantile_threshold

UNDER = {"f": 1.0, "g": 0.0}  # the power of f in the target

Floats = NDArray[np.float64]


class Chance(NamedTuple):
    """The mean over prompts of P(S ≥ γ), with its 95 % interval; or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"not available: {self.reason}"
        return f"{self.value:.3g}" + ("" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]")


def chance(
    leaves: Leaves, *, under: str = "g", threshold: float | None = None, rho: float | None = None
) -> Chance:
    """Estimates P(S ≥ γ).

    Prompts are the units of the interval, since they are drawn from many alike; with a single prompt its trees.
    A γ that is a quantile comes from one half of a prompt's trees and is used on the other: on the same trees it
    would say ρ whatever the truth is.

    Args:
        leaves: with both log-probabilities.
        under: "f", the base, or "g", the current generator.
        threshold: γ, not taken from these leaves.
        rho: instead, γ is the (1−ρ)-quantile under g of each prompt.

    Source: design/statistics.md, "The objective" and "Intervals".
    """
    if not leaves.unbiased:
        return Chance(None, reason=leaves.biased)
    if not len(leaves):
        return Chance(None, reason="no leaf was finished")
    if threshold is not None:
        gamma = np.full(len(leaves), threshold)
    elif rho is not None and np.bincount(leaves.trees).min() >= 2:
        gamma = _crossed(leaves, rho)
    else:
        return Chance(None, reason="γ comes from the same trees: grow two or more of each prompt")
    hit = np.nan_to_num(leaves.score, nan=-np.inf) >= gamma
    each = np.exp(log_weights(leaves, UNDER[under])) * hit
    if len(leaves.prompts) > 1:
        per_prompt = np.bincount(leaves.prompt, each, len(leaves.prompts)).astype(np.float64)
        return _interval(per_prompt, np.zeros(len(per_prompt), np.intp))
    sources, strata = np.unique(leaves.of_base, return_inverse=True)
    per_tree = np.bincount(leaves.tree, each, len(leaves.trees)).astype(np.float64)
    return _interval(per_tree * np.bincount(strata)[strata] * len(sources), strata)


def _interval(each: Floats, strata: NDArray[np.intp]) -> Chance:
    value, error, degrees = stratified(each, strata)
    if error is None or not error > 0:
        return Chance(value)
    low, high = student(value, error, degrees)
    return Chance(value, max(low, 0.0), min(high, 1.0))


def _crossed(leaves: Leaves, rho: float) -> Floats:
    """For each leaf the quantile of the other half of its prompt's trees, [M]; no γ there, no hit."""
    half = np.zeros(len(leaves.trees), np.int64)
    for p in range(len(leaves.prompts)):
        for source in (False, True):
            mine = np.flatnonzero((leaves.trees == p) & (leaves.of_base == source))
            half[mine] = np.arange(len(mine)) % 2
    now, side = log_weights(leaves, 0.0), half[leaves.tree]
    gamma = np.full(len(leaves), math.inf)
    for ids in leaves.of_prompts():
        for other in (0, 1):
            theirs = ids[side[ids] == 1 - other]
            if len(theirs):
                w = np.exp(now[theirs] - now[theirs].max())
                score = np.nan_to_num(leaves.score[theirs], nan=-np.inf)
                gamma[ids[side[ids] == other]] = quantile_threshold(score, rho, w)
    return gamma
