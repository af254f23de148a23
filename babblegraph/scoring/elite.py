"""Effective elite routes and novelty: how many ways lead on to what passed, and how well a state is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_STATE, BabbleGraph
from babblegraph.status import Status

Measure = Callable[[BabbleGraph], NDArray[np.float32]]  # graph -> [N] in [0, 1]
Cells = Callable[[BabbleGraph], NDArray[np.int64]]  # graph -> [N], equal numbers for the same place


def elite_routes(threshold: float, *, cells: Cells | None = None) -> Measure:
    """How many roads lead from each node to the elite: a thousand roads to Rome, or one narrow pass?

    With P(cell | n, elite) the share of the elite weight below n that goes through a cell one node further on (a
    state of the task, else a node), the number of effective routes is 1 / Σ P², one over the probability that two
    independent elite texts leave n the same way. It is scaled to 1 − 1 / (1 + routes · share), the share being
    that of the tree's elite weight: 0 where no elite text goes through n, and near 1 where many do in many ways.

    Args:
        threshold: what a leaf's score must reach to be elite.
        cells: graph -> [N], states by default.

    Returns:
        graph -> [N] in [0, 1]. A tree without elite leaves has nothing to tell apart: 1 everywhere but at leaves.

    Complexity: O(N log N), vectorised by depth.
    Source: design/scoring.md, "Connectivity", 2.
    """

    def measure(graph: BabbleGraph) -> NDArray[np.float32]:
        below = elite_weight(graph, threshold)
        routes = effective_routes(graph, below, (cells or state_cells)(graph))
        of_tree = below[graph.root]
        share = np.divide(below, of_tree, out=np.zeros(graph.size), where=of_tree > 0)
        found = 1 - 1 / (1 + routes * share)
        unknown = (of_tree == 0) & ~graph.is_leaf()
        return np.where(unknown, 1.0, found).astype(np.float32)

    return measure


def effective_routes(
    graph: BabbleGraph, below: NDArray[np.float64], cells: NDArray[np.int64]
) -> NDArray[np.float64]:
    """1 / Σ P(cell)² over the cells that elite weight enters from each node, [N]; 0 where none does.

    Args:
        below: elite weight at or below each node, [N].
        cells: the cell of each node, [N].
    """
    child = np.flatnonzero((below > 0) & (np.arange(graph.size) >= graph.trees))
    parent = graph.parent[child]
    cell = cells[child]
    order = np.lexsort((cell, parent))
    p, c, w = parent[order], cell[order], below[child[order]]
    new = np.r_[True, (np.diff(p) != 0) | (np.diff(c) != 0)][: len(p)]
    mass = np.bincount(np.cumsum(new) - 1, w) if len(p) else w
    total = np.bincount(p[new], mass, minlength=graph.size)
    squares = np.bincount(p[new], mass**2, minlength=graph.size)
    return np.divide(total**2, squares, out=np.zeros(graph.size), where=squares > 0)


def elite_weight(graph: BabbleGraph, threshold: float) -> NDArray[np.float64]:
    """Draws of elite leaves at or below each node, [N].

    A node that was merged counts what its winner has reached; merges below the winner are left out.
    """
    elite = graph.is_leaf() & (graph.status != Status.LEAF_DEAD)
    elite &= graph.reaches(threshold)
    own = np.where(elite, graph.count, 0).astype(np.float64)
    if not len(graph.merges):
        return summed(graph, own)
    losers, winners = graph.merges.array.T
    own[losers] += summed(graph, own)[winners]
    return summed(graph, own)


def summed(graph: BabbleGraph, own: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each node and all below it have together, [N]."""
    total = own.copy()
    order = np.argsort(graph.depth, kind="stable")
    first = np.searchsorted(graph.depth[order], np.arange(1, int(graph.depth.max(initial=0)) + 2))
    for a, b in list(pairwise(first))[::-1]:
        ids = order[a:b]
        np.add.at(total, graph.parent[ids], total[ids])
    return total


def state_cells(graph: BabbleGraph) -> NDArray[np.int64]:
    """The cell that each node is in: its state; a node without one is a cell of its own, [N]."""
    return np.where(graph.state_key == NO_STATE, -2 - np.arange(graph.size), graph.state_key)


def novelty(cells: Cells = state_cells) -> Measure:
    """1 / √(1 + visits): how new each node's cell is in its tree.

    Visits are the draws already made from nodes in the cell. Leaves lead nowhere new: 0.

    Args:
        cells: graph -> [N], states by default; see also `NodeStates.cells`.

    Returns:
        graph -> [N] in [0, 1].

    Complexity: O(N log N).
    Source: Bellemare et al., 2016 (count-based exploration); design/scoring.md, "Connectivity", 3.
    """

    def measure(graph: BabbleGraph) -> NDArray[np.float32]:
        cell = cells(graph)
        order = np.lexsort((cell, graph.root))
        root, key = graph.root[order], cell[order]
        new = np.r_[True, (np.diff(root) != 0) | (np.diff(key) != 0)]
        group = np.empty(graph.size, np.intp)
        group[order] = np.cumsum(new) - 1
        visits = np.bincount(group, graph.draws)
        return np.where(graph.is_leaf(), 0.0, 1 / np.sqrt(1 + visits[group])).astype(np.float32)

    return measure
