"""What several strategies ask of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph import given
from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.status import Flag, Status

FLOOR = 0.05  # of any value: a confidently wrong value costs more than none

Ids = NDArray[np.intp]


class Some(Meter):
    """A meter by which only some trees have anything left.

    Args:
        meter: of the search, or one that shows only some trees itself.
        trees: which of those, [trees].
    """

    def __init__(self, meter: Meter, trees: NDArray[np.bool_]) -> None:
        super().__init__(meter.budget, meter.trees, meter.counts, meter.peak_slots, meter.seconds)
        self.meter, self.some = meter, trees

    def tokens_left(self) -> NDArray[np.int64]:
        return np.where(self.some, self.meter.tokens_left(), 0)


def nothing() -> Chosen:
    """An empty choice: the search ends."""
    return Chosen(np.zeros(0, np.intp), np.zeros(0, np.intp))


def room_left(graph: BabbleGraph, meter: Meter, threshold: float | None) -> NDArray[np.int64]:
    """Tokens or nodes that each tree may still get, [trees]; 0 where a leaf has reached the threshold."""
    room = np.minimum(meter.tokens_left(), meter.nodes_left())
    if threshold is not None:
        room[solved(graph, threshold)] = 0
    return room


def solved(graph: BabbleGraph, threshold: float) -> NDArray[np.bool_]:
    """Which trees have a leaf that reaches the threshold, [trees]."""
    return hits(graph, threshold) > 0


def hits(graph: BabbleGraph, threshold: float) -> NDArray[np.intp]:
    """How many leaves of each tree reach the threshold, [trees]; never dead ones, which are no answers."""
    found = graph.is_leaf() & (graph.status != Status.LEAF_DEAD) & graph.reaches(threshold)
    return np.bincount(graph.root[found], minlength=graph.trees)


def log_priority(
    graph: BabbleGraph,
    ids: NDArray[np.intp],
    value_power: float,
    connectivity_power: float,
    floor: float = FLOOR,
) -> NDArray[np.float64]:
    """a log V + b log C of some nodes, with floors; an unknown C counts as 1. Of the others 0, [N]."""
    priority = np.zeros(graph.size)
    connectivity = np.nan_to_num(graph.connectivity[ids].astype(np.float64), nan=1.0)
    for power, known in ((value_power, values(graph, ids)), (connectivity_power, connectivity)):
        priority[ids] += power * np.log(floor + (1 - floor) * known)
    return priority


def values(graph: BabbleGraph, ids: NDArray[np.intp]) -> NDArray[np.float64]:
    """Values of nodes, [M]: 0 where the value function failed, 1 where none was asked, as of a root."""
    value = graph.value[ids].astype(np.float64)
    failed = (graph.flags[ids] & Flag.SCORER_FAILED) != 0
    return np.where(np.isnan(value), np.where(failed, 0.0, 1.0), value)


def idle_places(graph: BabbleGraph, room: NDArray[np.int64]) -> Ids:
    """Where trees begin anew that may go on but have no frontier: the root, while a first step is left to draw.

    Then it is the best of the nodes nearest to the root, pruned ones included, below which something is left.
    """
    busy = np.bincount(graph.root[graph.frontier()], minlength=graph.trees) > 0
    inner = (graph.status == Status.EXPANDED) | (graph.status == Status.PRUNED)
    ids = np.flatnonzero(inner & (graph.flags & Flag.EXHAUSTED == 0))
    ids = ids[(room > 0)[graph.root[ids]] & ~busy[graph.root[ids]]]
    value = np.nan_to_num(graph.value[ids])
    order = first_of_each((ids, -value, graph.depth[ids]), graph.root[ids], np.ones(graph.trees, np.intp))
    return ids[order]


def first_of_each(keys: tuple[NDArray, ...], group: NDArray, most: NDArray[np.integer]) -> Ids:
    """The places of the first `most[group]` of each group in the order of the keys, the last key first.

    >>> first_of_each((np.array([3, 1, 2, 0]),), np.array([0, 0, 0, 1]), np.array([2, 2])).tolist()
    [1, 2, 3]
    """
    order = np.lexsort((*keys, group))
    grouped = group[order]
    rank = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    return order[rank < most[grouped]]


def totals(graph: BabbleGraph, own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over each node and all that is below it, [N]."""
    total, parent = own.astype(np.float64), graph.parent
    for ids in reversed(levels(graph)[1:]):
        np.add.at(total, parent[ids], total[ids])
    return total


def below(graph: BabbleGraph, ids: Ids) -> Ids:
    """Nodes and all that hangs below them, ascending."""
    marked, parent = np.zeros(graph.size, np.bool_), graph.parent
    marked[ids] = True
    for some in levels(graph)[1:]:
        marked[some] |= marked[parent[some]]
    return np.flatnonzero(marked)


def levels(graph: BabbleGraph) -> list[Ids]:
    """The nodes of each depth, from 0 on."""
    depth = graph.depth
    order = np.argsort(depth, kind="stable")
    return np.split(order, np.cumsum(np.bincount(depth))[:-1])


def ancestors(graph: BabbleGraph, ids: Ids, depth: int | NDArray[np.integer]) -> Ids:
    """For each node the one above it (or itself) at a depth; itself where it is not so deep, [M]."""
    up = ids.astype(np.intp)
    while (deeper := graph.depth[up] > depth).any():
        up = np.where(deeper & (graph.parent[up] != NO_PARENT), graph.parent[up], up)
    return up


def refuse_contest(what: str, strategy: Strategy) -> None:
    """One line for the user when nodes that compete on would be stopped, or weighted, by something else."""
    if strategy.contest:
        raise BadInput(
            f"{what} need nodes that do not compete with each other, got the strategy {strategy.name!r}: "
            "take frontier(draws='distinct')"
        )


def need_whole(name: str, number: Any, least: int = 1) -> None:
    """One line for the user when an option is no whole number, or too small; None is no option."""
    if number is not None:
        given.need_whole(name, number, least)


def need_positive(name: str, number: float | None) -> None:
    """One line for the user when an option is not above zero."""
    if number is not None and not number > 0:
        raise BadInput(f"{name} must be above 0, got {number}: give a positive number")
