"""The gates of a run: how many nodes each let through, and how many of its kills were wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import BabbleGraph
from babblegraph.intervals import wilson
from babblegraph.status import Status


class GateRow(NamedTuple):
    """One gate of a cascade. The interval has 95 %."""

    name: str
    entered: int
    passed: int  # probes left out
    share: float  # that passed
    probes: int  # rejected nodes that lived
    wrong: (
        float | None
    )  # share of rejected nodes below which a text passed, from the probes; None without any
    low: float | None
    high: float | None
    mass: (
        float | None
    )  # share of the elite's weight that would be lost without probes; None where weights mean nothing


def table(graph: BabbleGraph, threshold: float) -> list[GateRow]:
    """What a cascade of gates did, from the graph and what it remembers.

    Probes are a random sample of the rejected, so the share of them below which a text passed estimates the share
    of wrong kills: as far as they were followed, which is as far as the search follows any node.

    Args:
        graph: of a search with `strategies.gated`.
        threshold: what a leaf's score must reach.

    Source: design/scoring.md, "Gates"; Wilson, 1927.
    """
    elite = graph.is_leaf() & (graph.status != Status.LEAF_DEAD)
    elite &= graph.reaches(threshold)
    weight = np.where(elite, np.exp(np.minimum(graph.log_weight(), 700.0)), 0.0)
    weighted = graph.meta.get("aim") == "estimate" and weight.sum() > 0
    rows = []
    for name, gate in graph.meta.get("gates", {}).items():
        probes = np.array(gate["probes"], np.intp)
        passed = gate["entered"] - gate["rejected"]
        below = _below(graph, probes)
        hits = int(np.isin(probes, np.unique(below[elite & (below >= 0)])).sum())
        low, high = wilson(hits, len(probes)) if len(probes) else (None, None)
        rows.append(
            GateRow(
                name=name,
                entered=gate["entered"],
                passed=passed,
                share=passed / max(gate["entered"], 1),
                probes=len(probes),
                wrong=hits / len(probes) if len(probes) else None,
                low=low,
                high=high,
                mass=float(weight[below >= 0].sum() / weight.sum()) if weighted else None,
            )
        )
    return rows


def _below(graph: BabbleGraph, probes: NDArray[np.intp]) -> NDArray[np.intp]:
    """The nearest of some nodes at or above each node, −1 where there is none, [N]."""
    nearest = np.full(graph.size, -1)
    nearest[probes] = probes
    order = np.argsort(graph.depth, kind="stable")
    first = np.searchsorted(graph.depth[order], np.arange(1, int(graph.depth.max(initial=0)) + 2))
    for a, b in zip(first, [*first[1:], graph.size], strict=True):
        ids = order[a:b]
        nearest[ids] = np.where(nearest[ids] < 0, nearest[graph.parent[ids]], nearest[ids])
    return nearest
