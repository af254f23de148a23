"""How likely a text is to pass, under the base and under the current generator, from one level's leaves."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.intervals import all_agree, stratified, student
from babblegraph.learning.leaves import Leaves, log_weights
from babblegraph.thresholds import quantile_threshold

UNDER = {"f": 1.0, "g": 0.0}  # the power of f in the target

Floats = NDArray[np.float64]


class Chance(NamedTuple):
    """The mean over prompts of P(S ≥ γ), with its 95 % interval; where either is missing, the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"not available: {self.reason}"
        return f"{self.value:.3g}" + ("" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]")


def chance(
    leaves: Leaves,
    *,
    under: str = "g",
    threshold: float | None = None,
    rho: float | None = None,
    pooled: bool = False,
) -> Chance:
    """Estimates P(S ≥ γ).

    Prompts are the units of the interval, since they are drawn from many alike; with a single prompt its trees.
    A γ that is a quantile comes from one half of a prompt's trees, or of the prompts where it is pooled, and is used
    on the other: on the same leaves it would say ρ whatever the truth is.

    Args:
        leaves: with both log-probabilities.
        under: "f", the base, or "g", the current generator.
        threshold: γ, not taken from these leaves.
        rho: γ is the (1−ρ)-quantile under g of each prompt, or the threshold where that is lower.
        pooled: of the whole batch, in which each prompt counts the same.

    Source: design/statistics.md, "The objective" and "Intervals".
    """
    if not leaves.unbiased:
        return Chance(None, reason=leaves.biased)
    if not len(leaves):
        return Chance(None, reason="no leaf was finished")
    if rho is None and threshold is None:
        return Chance(None, reason="the elite has no γ that does not come from these leaves")
    gamma = np.full(len(leaves), math.inf if threshold is None else threshold)
    if rho is not None:
        half = _halves(leaves, pooled)
        if half is None:
            what = "prompts" if pooled else "trees of each prompt from each generator"
            return Chance(None, reason=f"γ comes from the same leaves: search two or more {what}")
        gamma = np.minimum(gamma, _crossed(leaves, rho, half, pooled))
    hit = np.nan_to_num(leaves.score, nan=-np.inf) >= gamma
    each = np.exp(log_weights(leaves, UNDER[under])) * hit
    if len(leaves.prompts) > 1:
        per_prompt = np.bincount(leaves.prompt, each, len(leaves.prompts)).astype(np.float64)
        return _interval(per_prompt, np.zeros(len(per_prompt), np.intp), "prompts")
    sources, strata = np.unique(leaves.of_base, return_inverse=True)
    per_tree = np.bincount(leaves.tree, each, len(leaves.trees)).astype(np.float64)
    return _interval(per_tree * np.bincount(strata)[strata] * len(sources), strata, "trees")


def _interval(each: Floats, strata: NDArray[np.intp], units: str) -> Chance:
    if not each.any():
        return Chance(None, reason=f"no hit in {len(each)} {units}")
    value, error, degrees = stratified(each, strata)
    if error is None or all_agree(error, value):
        return Chance(value, reason=f"{len(each)} {units} that do not vary have no interval")
    low, high = student(value, error, degrees)
    return Chance(value, max(low, 0.0), min(high, 1.0))


def _halves(leaves: Leaves, pooled: bool) -> NDArray[np.int64] | None:
    """The half of each tree, [T]; None where a half would be empty."""
    if pooled:
        return leaves.trees % 2 if len(leaves.prompts) > 1 else None
    half = np.zeros(len(leaves.trees), np.int64)
    for p in range(len(leaves.prompts)):
        for source in (False, True):
            mine = np.flatnonzero((leaves.trees == p) & (leaves.of_base == source))
            if len(mine) == 1:
                return None
            half[mine] = np.arange(len(mine)) % 2
    return half


def _crossed(leaves: Leaves, rho: float, half: NDArray[np.int64], pooled: bool) -> Floats:
    """For each leaf the quantile of the other half, [M]; no γ there, no hit."""
    now, side = log_weights(leaves, 0.0), half[leaves.tree]
    gamma = np.full(len(leaves), math.inf)
    share = np.zeros(len(leaves))  # of a prompt's own half
    groups = [ids[side[ids] == one] for ids in leaves.of_prompts() for one in (0, 1)]
    for ids in groups:
        if len(ids):
            share[ids] = np.exp(now[ids] - np.logaddexp.reduce(now[ids]))
    if pooled:
        groups = [np.flatnonzero(side == one) for one in (0, 1)]
    for theirs, mine in zip(groups, (groups[i ^ 1] for i in range(len(groups))), strict=True):
        if len(theirs):
            score = np.nan_to_num(leaves.score[theirs], nan=-np.inf)
            gamma[mine] = quantile_threshold(score, rho, share[theirs])
    return gamma
