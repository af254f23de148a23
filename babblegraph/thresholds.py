"""Thresholds γ: quantiles of what was found, levels that grow, and halves that tell each other theirs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.errors import BadInput
from babblegraph.estimates import UNDER, Estimate, expectation
from babblegraph.graph import BabbleGraph
from babblegraph.why_not import why_not

Ids = NDArray[np.intp]


class Level(NamedTuple):
    """A threshold that grew, and the share of the sample that reaches it."""

    threshold: float
    share: float


class CrossFit(NamedTuple):
    """An estimate in which no tree helped to choose the threshold that it is measured by.

    Args:
        estimate: of P(S ≥ γ), the mean over both halves.
        thresholds: the γ found in the first and in the second half, by prompt; each is used on the other half.
    """

    estimate: Estimate
    thresholds: dict[str, tuple[float, float]]


def quantile_threshold(scores: ArrayLike, share: float, weights: ArrayLike | None = None) -> float:
    """The largest score that at least this share of the sample reaches: γ as the (1 − share)-quantile.

    A level is passed by S ≥ γ, so that of tied scores all pass or none.

    Args:
        scores: [n], none NaN.
        share: ρ, above 0 and at most 1.
        weights: [n]; equal by default.

    Raises:
        BadInput: no scores, or another share.

    >>> quantile_threshold([0.1, 0.5, 0.5, 0.9], 0.25), quantile_threshold([0.1, 0.5, 0.5, 0.9], 0.5)
    (0.9, 0.5)
    """
    s = np.asarray(scores, np.float64)
    if not len(s) or not 0 < share <= 1:
        raise BadInput(
            f"a quantile needs scores and a share above 0 and at most 1, got {len(s)} and {share:g}: 0.1 is a tenth"
        )
    w = np.ones(len(s)) if weights is None else np.asarray(weights, np.float64)
    levels, which = np.unique(s, return_inverse=True)
    reach = np.cumsum(np.bincount(which, w)[::-1])[::-1]  # weight at or above each score
    return float(levels[np.flatnonzero(reach >= share * reach[0] * (1 - 1e-12))[-1]])


def next_level(
    scores: ArrayLike, last: float, final: float, *, share: float = 0.2, least: int = 2
) -> Level | None:
    """The threshold after `last`: a quantile, with a share that shrinks until the threshold grows.

    Args:
        scores: of texts that have reached `last`, [n].
        last: −inf before the first level.
        final: where the levels end.
        share: ρ to begin with; halved while the quantile does not grow (ties).
        least: how many must reach the new threshold.

    Returns:
        The level; None where too few are above `last`: then the sample has to grow.

    >>> next_level([0, 0, 0, 0, 0, 1, 1, 2], last=0, final=5, share=0.5)
    Level(threshold=1.0, share=0.375)
    """
    s = np.asarray(scores, np.float64)
    while share * len(s) >= least:
        found = min(quantile_threshold(s, share), final)
        if found > last:
            return Level(found, float((s >= found).mean()))
        share /= 2
    above = np.unique(s[s > last])
    enough = [float(x) for x in above if (s >= x).sum() >= least]
    return Level(min(enough[0], final), float((s >= min(enough[0], final)).mean())) if enough else None


def cross_fit(
    graph: BabbleGraph, share: float = 0.1, *, under: str = "f", prompt: str | None = None
) -> CrossFit:
    """Estimates the probability of the best `share`, with γ from one half of each prompt's trees, used on the other.

    With γ from the same trees, P(S ≥ γ) would say `share` whatever the truth is.

    Args:
        graph: a closed forest of a search with the aim `estimate`.
        share: ρ; γ is the (1 − ρ)-quantile of S under the weights.
        under, prompt: as in `estimates.probability`.

    Raises:
        BadInput: fewer than two trees of a prompt, another share, or what `expectation` raises.

    Source: design/statistics.md, "The objective".
    """
    if not 0 < share <= 1:
        raise BadInput(f"a share must be above 0 and at most 1, got {share:g}: 0.1 is a tenth")
    trees = [i for i, p in enumerate(graph.prompts) if prompt in (None, p)]
    half, gamma = np.zeros(graph.trees, np.intp), np.full(graph.trees, np.nan)
    thresholds: dict[str, tuple[float, float]] = {}
    for one in dict.fromkeys(graph.prompts[i] for i in trees):
        mine = np.array([i for i in trees if graph.prompts[i] == one])
        if len(mine) < 2:
            raise BadInput(f"cross-fitting needs two trees of each prompt, got one of {one!r}: grow more")
        half[mine] = np.arange(len(mine)) % 2
        if why_not(graph, under):
            continue  # `expectation` says the reason
        first, second = (_threshold_of(graph, mine[half[mine] == side], share, under) for side in (0, 1))
        gamma[mine] = np.where(half[mine] == 0, second, first)
        thresholds[one] = (first, second)

    def hit(graph: BabbleGraph, leaves: Ids) -> NDArray[np.bool_]:
        return _scores(graph, leaves) >= gamma[graph.root[leaves]]

    return CrossFit(expectation(graph, hit, under=under, prompt=prompt, chance=True), thresholds)


def _threshold_of(graph: BabbleGraph, trees: Ids, share: float, under: str) -> float:
    leaves = np.flatnonzero(graph.is_leaf() & np.isin(graph.root, trees))
    log_w = getattr(graph, UNDER[under])[leaves] - graph.log_inclusion[leaves]
    if not len(leaves):
        raise BadInput(
            "cross-fitting needs finished texts in each half, got none: give the search more budget"
        )
    return quantile_threshold(_scores(graph, leaves), share, np.exp(log_w - log_w.max()))


def _scores(graph: BabbleGraph, leaves: Ids) -> NDArray[np.float64]:
    """Scores; −inf where the verifier failed."""
    return np.nan_to_num(graph.score[leaves].astype(np.float64), nan=-np.inf, neginf=-np.inf)
