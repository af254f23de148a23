"""Two graphs laid over each other for a view: what each has at and below every place of their common prompts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.compare import NOWHERE, Union, elites, union
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.subtrees import passing, sums, worth


class Side(NamedTuple):
    """One of the two graphs at the P places; trees of prompts that the other does not have are left out.

    Args:
        graph: all of it.
        nodes: one at each place, the first of equal ones; NOWHERE where it has none, [P].
        tokens: of the spans at and below each place, [P].
        worth: the best score or value of the nodes at each place; NaN where nothing is known, [P].
        elites: places.
        trees, passed: how many trees are compared, and how many leaves in them pass.
        best: the best score of their leaves; NaN where there is none.
    """

    graph: BabbleGraph
    nodes: NDArray[np.int32]
    tokens: NDArray[np.int64]
    worth: NDArray[np.float32]
    elites: NDArray[np.int32]
    trees: int
    passed: int
    best: float


class Sides(NamedTuple):
    """Both graphs, and the places that they share or not."""

    a: Side
    b: Side
    union: Union

    def either(self, place: int) -> tuple[BabbleGraph, int]:
        """A graph that has been at a place, and its node there."""
        side = self.a if self.a.nodes[place] != NOWHERE else self.b
        return side.graph, int(side.nodes[place])


def sides(a: BabbleGraph, b: BabbleGraph) -> Sides:
    """Lays two graphs over each other.

    Raises:
        BadInput: no prompt in common.
    """
    found = union(a, b)
    return Sides(_side(a, found.in_a, found.of_a, found), _side(b, found.in_b, found.of_b, found), found)


def _side(graph: BabbleGraph, nodes: NDArray[np.int32], of: NDArray[np.int32], found: Union) -> Side:
    mine = of != NOWHERE
    inner, size = mine & (graph.parent != NO_PARENT), len(found.parent)
    own = np.bincount(of[inner], weights=(graph.stop - graph.start)[inner], minlength=size)
    known = np.full(size, np.nan, np.float32)
    np.fmax.at(known, of[mine], worth(graph)[mine])
    scores = graph.score[mine & graph.is_leaf() & (graph.status != Status.LEAF_DEAD)]
    return Side(
        graph,
        nodes,
        sums(found.parent, own.astype(np.int64)),
        known,
        elites(graph, of),
        int(mine[: graph.trees].sum()),
        int((passing(graph) & mine).sum()),
        float(np.fmax.reduce(scores, initial=np.nan)),
    )
