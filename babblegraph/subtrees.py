"""What lies below each node: sums and maxima over subtrees, without a loop over nodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status


class Below(NamedTuple):
    """Totals over the subtree of every node, the node itself included; N nodes.

    Args:
        nodes: how many.
        tokens: of all their spans; a root's prompt is not counted.
        best: the best score below, where nothing is finished the best value; NaN where nothing is known.
        hits: leaves that pass the threshold; without one, leaves that are finished and not dead.
    """

    nodes: NDArray[np.int64]  # [N]
    tokens: NDArray[np.int64]  # [N]
    best: NDArray[np.float32]  # [N]
    hits: NDArray[np.int64]  # [N]


def below(graph: BabbleGraph) -> Below:
    """What lies below every node of a graph.

    Complexity: O(N log depth).

    >>> from babblegraph.born import Born
    >>> graph = BabbleGraph(["a"], [[0]], {0: b"a"})
    >>> _ = graph.add(Born.of_spans([0, 0], spans=[[0], [0, 0]], log_q=[-1.0, -2.0]))
    >>> below(graph).tokens.tolist()
    [3, 1, 2]
    """
    parent = graph.parent
    tokens = (graph.stop - graph.start) * (parent != NO_PARENT)
    hits = passing(graph)
    if graph.meta.get("threshold") is None:
        hits = graph.is_leaf() & (graph.status != Status.LEAF_DEAD)
    return Below(
        nodes=sums(parent, np.ones(graph.size, np.int64)),
        tokens=sums(parent, tokens),
        best=maxima(parent, worth(graph)),
        hits=sums(parent, hits.astype(np.int64)),
    )


def sums(parent: NDArray[Any], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of x over each node's subtree, [N]; every pass doubles how far down it looks."""
    total, up = x.astype(np.int64), parent
    while len(ids := np.flatnonzero(up != NO_PARENT)):
        more = np.bincount(up[ids], weights=total[ids], minlength=len(total))  # exact up to 2^53
        total = total + more.astype(np.int64)
        up = _doubled(up, ids)
    return total


def maxima(parent: NDArray[Any], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The maximum of x over each node's subtree, [N]; NaN stands for nothing."""
    most, up = np.nan_to_num(x, nan=-np.inf), parent
    while len(ids := np.flatnonzero(up != NO_PARENT)):
        before = most[ids]  # a copy: what this pass raises must not be read in it
        np.maximum.at(most, up[ids], before)
        up = _doubled(up, ids)
    return np.where(most == -np.inf, np.float32(np.nan), most)


def unions(parent: NDArray[Any], x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bits that are set anywhere in each node's subtree, [N]; every pass doubles how far down it looks."""
    found, up = x.copy(), parent
    while len(ids := np.flatnonzero(up != NO_PARENT)):
        before = found[ids]  # a copy: what this pass sets must not be read in it
        np.bitwise_or.at(found, up[ids], before)
        up = _doubled(up, ids)
    return found


def passing(graph: BabbleGraph) -> NDArray[np.bool_]:
    """The leaves that pass the threshold, [N]; none where none was asked for."""
    threshold = graph.meta.get("threshold")
    if threshold is None:
        return np.zeros(graph.size, np.bool_)
    return graph.is_leaf() & (graph.status != Status.LEAF_DEAD) & graph.reaches(threshold)


def expansions(graph: BabbleGraph, among: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Each node that was expanded, and a round in which it was, in rising order, [K, 2].

    A stem below a node is there before the node is expanded: it tells of no expansion.

    Args:
        graph: any.
        among: which nodes are of interest, [N]; all by default.
    """
    born = (graph.parent != NO_PARENT) & (graph.stop > graph.start)
    if among is not None:
        born &= among[graph.parent]
    rounds = np.unique(graph.parent[born].astype(np.int64) << 32 | graph.born[born])
    return np.c_[rounds >> 32, rounds & 0xFFFFFFFF]


def worth(graph: BabbleGraph) -> NDArray[np.float32]:
    """What each node is known to be worth: its score, before it has one its value, [N]."""
    return np.where(np.isnan(graph.score), graph.value, graph.score)


def _doubled(up: NDArray[Any], ids: NDArray[np.intp]) -> NDArray[Any]:
    far = np.full(len(up), NO_PARENT, up.dtype)
    far[ids] = up[up[ids]]
    return far
