"""What several strategies ask of a graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen

FLOOR = 0.05  # of any value: a confidently wrong value costs more than none


def nothing() -> Chosen:
    """An empty choice: the search ends."""
    return Chosen(np.zeros(0, np.intp), np.zeros(0, np.intp))


def solved(graph: BabbleGraph, threshold: float) -> NDArray[np.bool_]:
    """Which trees have a leaf that reaches the threshold, [trees]."""
    hits = graph.root[graph.is_leaf() & (graph.score >= threshold)]
    return np.bincount(hits, minlength=graph.trees) > 0


def log_priority(
    graph: BabbleGraph,
    ids: NDArray[np.intp],
    value_power: float,
    connectivity_power: float,
    floor: float = FLOOR,
) -> NDArray[np.float64]:
    """a log V + b log C of some nodes, with floors; unknown values count as 1. Of the others 0, [N]."""
    priority = np.zeros(graph.size)
    for power, scores in ((value_power, graph.value), (connectivity_power, graph.connectivity)):
        known = np.nan_to_num(scores[ids].astype(np.float64), nan=1.0)
        priority[ids] += power * np.log(floor + (1 - floor) * known)
    return priority


def need_positive(name: str, number: float | None) -> None:
    """One line for the user when an option is not above zero."""
    if number is not None and not number > 0:
        raise BadInput(f"{name} must be above 0, got {number}: use 1 or more")
