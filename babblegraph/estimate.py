"""Weighted estimates over closed forests: what the base generator would do, from what the search saw.

Trees of one prompt are independent repetitions and so the units of every interval; leaves of one tree are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.intervals import LEVEL, log_sum, none_in, spread, stratified, t_quantile
from babblegraph.status import Flag, Status

UNDER = {"f": "log_p_f", "g": "log_p_g", "q": "log_q"}
FEW_TREES, FEW_HITS, FEW_LEAVES, HEAVY = 32, 10, 30, 0.1  # below (above) these an estimate says so

Floats = NDArray[np.float64]
Values = Callable[[BabbleGraph, NDArray[np.intp]], ArrayLike]


@dataclass(frozen=True)
class Estimate:
    """An expectation with its 95 % interval over independent trees, or the reason why there is none.

    Args:
        value: the mean over trees; None where there is no estimate.
        error: its standard error; None with fewer than two trees of a prompt.
        effective: the effective sample size of the leaves, (Σw)² / Σw².
        reason: why there is no estimate; empty where there is one.
        low, high: Student's interval; where no tree has a hit, `high` alone is a one-sided bound.
        trees, hits: how many trees there are, and how many have a leaf that counts.
        heaviest: the share of the total weight that the heaviest leaf holds.
        log_value: log of the value, exact where the value itself would vanish; −inf for 0.
        tokens: sampled tokens that these trees have cost.
        independent_tokens: what independent samples with the same standard error would have cost, one text
            after the other; None where there is no error.
        warnings: why not to trust it too much.
    """

    value: float | None
    error: float | None
    effective: float
    reason: str = ""
    low: float | None = None
    high: float | None = None
    trees: int = 0
    hits: int = 0
    heaviest: float = math.nan
    log_value: float = math.nan
    tokens: int | None = None
    independent_tokens: float | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def log_evidence(self) -> float:
        """log L, the evidence of S ≥ γ."""
        return self.log_value

    @property
    def divergence(self) -> float:
        """KL(f_opt ‖ f) = −log L in nats: how far the generator is from its own best texts."""
        return -self.log_value

    def __str__(self) -> str:
        if self.value is None:
            bound = "" if self.high is None else f", at most {self.high:.2g}"
            return f"not available: {self.reason}{bound}"
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def probability(
    graph: BabbleGraph, threshold: float, *, under: str = "f", prompt: str | None = None
) -> Estimate:
    """Estimates P(S ≥ threshold), trees of one prompt being independent repetitions.

    With several prompts the value is the mean over them, each prompt's trees being a stratum. The threshold must
    not come from the same trees. Where no tree has a hit there is no value but a one-sided bound: exact where
    each tree's weights sum to 1 (pruning by weight alone), else scaled by the largest sum, with a warning.

    Args:
        graph: a closed forest of a search with the aim `estimate`.
        threshold: γ.
        under: "f", the base generator; "g", the current one; "q", whatever was sampled from (with its temperature
            and truncation, which so are declared to be meant).
        prompt: only this prompt's trees.

    Raises:
        BadInput: another `under`, or no such prompt.
    """

    def hit(graph: BabbleGraph, leaves: NDArray[np.intp]) -> NDArray[np.bool_]:
        return np.nan_to_num(graph.score[leaves], nan=-np.inf) >= threshold

    found = expectation(graph, hit, under=under, prompt=prompt)
    if found.reason:
        return found
    if found.hits == 0:
        return replace(found, value=None, error=None, low=None, reason=f"no hit in {found.trees} trees")
    if found.low is None or found.high is None:
        return found
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    return replace(found, low=min(low, 1.0), high=high)


def expectation(graph: BabbleGraph, h: Values, *, under: str = "f", prompt: str | None = None) -> Estimate:
    """Estimates E[h(X)], as `probability` does for h = 1[S ≥ γ].

    Args:
        graph: a closed forest of a search with the aim `estimate`.
        h: (graph, leaves [M]) -> [M]; a dead leaf stands for all its continuations, so h must agree on them.
        under, prompt: as in `probability`.

    Raises:
        BadInput: another `under`, no such prompt, or a value that is not finite.
    """
    if under not in UNDER:
        raise BadInput(f"an estimate must be under one of {', '.join(UNDER)}, got {under!r}: f is the base")
    trees = _trees(graph, prompt)
    leaves = np.flatnonzero(graph.is_leaf() & np.isin(graph.root, trees))
    log_w = getattr(graph, UNDER[under])[leaves] - graph.log_inclusion[leaves]
    effective, heaviest = spread(log_w)
    base = Estimate(None, None, effective, why_not(graph, under), trees=len(trees), heaviest=heaviest)
    if base.reason:
        return base
    values = np.asarray(h(graph, leaves), np.float64)
    if not np.isfinite(values).all():
        raise BadInput(f"h must be finite on every leaf, got {values[~np.isfinite(values)][0]}: map it to 0")
    root = np.searchsorted(trees, graph.root[leaves])
    per_tree = np.bincount(root, np.exp(log_w) * values, minlength=len(trees))  # [trees]
    total = np.bincount(root, np.exp(log_w), minlength=len(trees))
    strata = np.unique([graph.prompts[i] for i in trees], return_inverse=True)[1]
    value, error, degrees = stratified(per_tree, strata)
    hits = int((np.bincount(root, values != 0, minlength=len(trees)) > 0).sum())
    share = 1.0 / (np.bincount(strata)[strata] * (strata.max() + 1))  # of each tree in the mean
    log_value = log_sum(log_w + np.log(share)[root], values) if (values >= 0).all() else math.nan
    low, high = _interval(value, error, degrees, values, total)
    tokens, independent = _tokens(graph, trees, leaves, log_w, values, error)
    return replace(
        base,
        value=value,
        error=error,
        low=low,
        high=high,
        hits=hits,
        log_value=log_value,
        tokens=tokens,
        independent_tokens=independent,
        warnings=tuple(_warnings(base, hits, total, np.bincount(strata))),
    )


def why_not(graph: BabbleGraph, under: str = "f") -> str:
    """Why a graph's weights allow no estimate, in a few words; empty when they do."""
    if graph.meta.get("aim") != "estimate":
        return f"the strategy {graph.meta.get('strategy', '?')!r} has the aim solve, its weights are biased"
    if (graph.flags & Flag.BIASED).any():
        return "nodes were pruned by a biased gate"
    sampling = graph.meta.get("sampling", {})
    truncated = sampling.get("top_k") is not None or sampling.get("top_p") is not None
    if truncated and under != "q":
        return f"top-k or top-p truncation leaves out texts that {under} can write"
    if sampling.get("truncates") and under != "q":
        return f"{', '.join(sampling['processors'])} may leave out texts that {under} can write"
    live = (graph.status == Status.FRONTIER) | (graph.status == Status.STEM)
    cut = ((graph.status == Status.EXPANDED) & ((graph.flags & Flag.CUT) != 0)).any()
    if live.any() or cut:
        unfinished = float(np.exp(graph.log_weight(live)).sum())
        return f"weight {unfinished:.3g} is on unfinished nodes: give the search more budget, or close it"
    return ""


def _trees(graph: BabbleGraph, prompt: str | None) -> NDArray[np.intp]:
    trees = np.array([i for i, p in enumerate(graph.prompts) if prompt in (None, p)], np.intp)
    if not len(trees):
        raise BadInput(f"an estimate needs a prompt of the graph, got {prompt!r}: see graph.prompts")
    return trees


def _interval(
    value: float, error: float | None, degrees: int, values: Floats, total: NDArray[Any]
) -> tuple[float | None, float | None]:
    """Student's interval; bounds on one side where all leaves agree, since a sample of one kind has no spread."""
    most = max(1.0, float(total.max(initial=1.0)))
    if not values.any():
        return None, none_in(len(total)) * most
    if error is None:
        return None, None
    if (values == 1).all() and error <= 1e-12:
        return 1 - none_in(len(total)), 1.0
    half = t_quantile((1 + LEVEL) / 2, degrees) * error
    return value - half, value + half


def _tokens(
    graph: BabbleGraph,
    trees: NDArray[np.intp],
    leaves: NDArray[np.intp],
    log_w: Floats,
    values: Floats,
    error: float | None,
) -> tuple[int | None, float | None]:
    """What the trees cost, and independent samples with the same error: Var_f(h) / error² texts of mean length."""
    counts = graph.meta.get("spent", {}).get("counts", {}).get("sampled")
    cost = None if counts is None else int(np.asarray(counts)[trees].sum())
    if not error or not len(leaves):
        return cost, None
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    variance = float(w @ (values - w @ values) ** 2)
    length = float(w @ (graph.length[leaves] - graph.length[graph.root[leaves]]))
    return cost, variance / error**2 * length


def _warnings(base: Estimate, hits: int, total: NDArray[Any], per_prompt: NDArray[np.intp]) -> list[str]:
    said = []
    few = int(per_prompt.min())
    if few < 2:
        said.append("one tree a prompt gives no interval")
    elif few < FEW_TREES:
        said.append(f"{few} trees a prompt are fewer than {FEW_TREES}: the interval may be too short")
    if base.effective < FEW_LEAVES:
        said.append(f"the effective sample size {base.effective:.3g} is below {FEW_LEAVES}")
    if base.heaviest > HEAVY:
        said.append(f"one leaf holds {base.heaviest:.0%} of all weight")
    if 0 < hits < min(FEW_HITS, len(total)):
        said.append(f"only {hits} of {len(total)} trees have a hit: the interval may be too short")
    deviation = float(total.std())
    if hits == 0 and deviation > 1e-9:
        said.append("the weights of a tree do not always sum to 1: the bound is not exact")
    if len(total) > 1 and abs(total.mean() - 1) > 5 * deviation / math.sqrt(len(total) - 1) + 1e-9:
        said.append(f"the weights of a tree sum to {total.mean():.3g} on average, not to 1")
    return said
