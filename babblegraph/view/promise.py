"""Which nodes deserve to be seen first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import BabbleGraph
from babblegraph.outcome import chosen
from babblegraph.status import Status

OVER = (Status.LEAF_DEAD, Status.MERGED)


def best_leaf(graph: BabbleGraph, tree: int) -> int | None:
    """The leaf that answers a prompt; see `outcome.chosen`."""
    return chosen(graph, tree)


def promise(graph: BabbleGraph, ids: NDArray[Any]) -> NDArray[np.float32]:
    """How much a node deserves to be seen: its score, or its value times its connectivity; -1 for neither.

    What is dead or merged deserves least of all that is known.
    """
    value, connectivity, score = graph.value[ids], graph.connectivity[ids], graph.score[ids]
    worth = value * np.where(np.isnan(connectivity), 1, connectivity)
    known = np.where(np.isnan(score), worth, score + 1)
    return np.nan_to_num(np.where(np.isin(graph.status[ids], OVER), np.float32(-0.5), known), nan=-1.0)
