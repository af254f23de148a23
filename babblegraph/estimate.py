"""Weighted estimates over closed forests: what the base generator would do, from what the search saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from babblegraph.graph import BabbleGraph
from babblegraph.status import Flag, Status


@dataclass(frozen=True)
class Estimate:
    """P_f(S ≥ γ) with its standard error over independent trees, or the reason why there is none.

    Args:
        value: the mean over trees; None where there is no estimate.
        error: its standard error; None with fewer than two trees.
        effective: the effective sample size of the leaves, (Σw)² / Σw².
        reason: why there is no estimate; empty where there is one.
    """

    value: float | None
    error: float | None
    effective: float
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"not available: {self.reason}"
        return f"{self.value:.4g}" if self.error is None else f"{self.value:.4g} ± {1.96 * self.error:.2g}"


def probability(graph: BabbleGraph, threshold: float) -> Estimate:
    """Estimates P_f(S ≥ threshold), trees being independent repetitions.

    The trees must be of one prompt for the error to mean anything; with different prompts the value is the
    mean over them. The threshold must not come from the same trees.

    Args:
        graph: a closed forest of a search with the aim `estimate`.
        threshold: γ.
    """
    leaves = np.flatnonzero(graph.is_leaf())
    weight = np.exp(graph.log_weight(leaves))
    effective = float(weight.sum() ** 2 / max((weight**2).sum(), 1e-300))
    if reason := why_not(graph):
        return Estimate(None, None, effective, reason)
    hit = np.nan_to_num(graph.score[leaves], nan=-np.inf) >= threshold
    per_tree = np.bincount(graph.root[leaves], weight * hit, minlength=graph.trees)
    if not hit.any():
        return Estimate(None, None, effective, f"no hit in {graph.trees} trees")
    error = float(per_tree.std(ddof=1) / np.sqrt(graph.trees)) if graph.trees > 1 else None
    return Estimate(float(per_tree.mean()), error, effective)


def why_not(graph: BabbleGraph) -> str:
    """Why a graph's weights allow no estimate, in a few words; empty when they do."""
    if graph.meta.get("aim") != "estimate":
        return f"the strategy {graph.meta.get('strategy', '?')!r} has the aim solve, its weights are biased"
    if (graph.flags & Flag.BIASED).any():
        return "nodes were pruned by a biased gate"
    sampling = graph.meta.get("sampling", {})
    if sampling.get("top_k") is not None or sampling.get("top_p") is not None:
        return "top-k or top-p truncation leaves out texts that f can write"
    live = (graph.status == Status.FRONTIER) | (graph.status == Status.STEM)
    cut = ((graph.status == Status.EXPANDED) & ((graph.flags & Flag.CUT) != 0)).any()
    if live.any() or cut:
        unfinished = float(np.exp(graph.log_weight(live)).sum())
        return f"weight {unfinished:.3g} is on unfinished nodes: give the search more budget"
    return ""
