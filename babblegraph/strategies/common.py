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
    graph: BabbleGraph, value_power: float, connectivity_power: float, floor: float = FLOOR
) -> NDArray[np.float64]:
    """a log V + b log C with floors; unknown values count as 1, [N]."""
    value = np.nan_to_num(graph.value.astype(np.float64), nan=1.0)
    connectivity = np.nan_to_num(graph.connectivity.astype(np.float64), nan=1.0)
    return value_power * np.log(floor + (1 - floor) * value) + connectivity_power * np.log(
        floor + (1 - floor) * connectivity
    )


def need_positive(name: str, number: float | None) -> None:
    """One line for the user when an option is not above zero."""
    if number is not None and not number > 0:
        raise BadInput(f"{name} must be above 0, got {number}: use 1 or more")
