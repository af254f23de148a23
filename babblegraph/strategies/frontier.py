"""A frontier that advances round by round, with weights that stay unbiased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.protocols import ALL, Chosen, Draws, Strategy
from babblegraph.prune import Order, merge_by_weight, resample_frontier
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.stem import hold_back, stems_below
from babblegraph.strategies.common import FLOOR, log_priority, need_positive, need_whole, nothing, solved

Ids = NDArray[np.intp]


def frontier(
    *,
    width: int | Sequence[int] = 4,
    keep: int | Sequence[int | None] | None = 32,
    value_power: float = 0.5,
    connectivity_power: float = 0.0,
    floor: float = FLOOR,
    merge: bool = True,
    order: Order | None = None,
    restarts: int = 0,
    threshold: float | None = None,
    draws: Draws | str = Draws.MULTINOMIAL,
) -> Strategy:
    """Expands the whole frontier with `width` draws each, then prunes each tree's to `keep` nodes.

    Pruning is Fearnhead–Clifford's with the priority w · V^a · C^b, and equal states are merged by weight, so
    Σ w h over the leaves is unbiased for E_f[h], whatever the values say. A tree whose budget ends before its
    frontier is empty gives no estimate, unless the search closes it (`search(..., close=True)`).

    Restarts are unbiased too: a share of the root's weight waits in a stem, and begins anew when the tree's
    frontier is empty, as many times as there are restarts while no leaf reaches the threshold; after the first
    that does, all weight that still waits goes in one last start.

    Aim `estimate`. Complexity: O(N + F log F) a round.
    Source: design/statistics.md.

    Args:
        width: draws below each node; `protocols.ALL` (0) expands every possible next token instead. A list gives
            the draws below nodes of depth 0, 1, …, the last one for all that are deeper: wide near the root,
            where draws that agree are one, costs little.
        keep: nodes of a tree's frontier that go on; None prunes nothing. A list is by depth, from 1 on.
        value_power, connectivity_power: a and b.
        floor: a value V counts as floor + (1 − floor) V. Values of improbable successes are small themselves: a
            floor above them makes them all alike.
        merge: whether equal states are merged.
        order: the order in which pruning goes through a tree's frontier, such as `ordering.by_state`; by default
            that in which its nodes were born.
        restarts: how many times a tree may begin anew.
        threshold: what a leaf's score must reach to end the restarts; None never ends them.
        draws: how the draws below a node go together, a `protocols.Draws` or its name: "multinomial" ones are
            independent, "systematic" ones vary less, "distinct" ones are without replacement.

    Raises:
        BadInput: a negative width or number of restarts, `keep` or `floor` not above zero, biased draws.
    """
    widths, keeps = _by_depth(width), _by_depth(keep)
    for name, numbers, least in (("width", widths, ALL), ("keep", keeps, 1)):
        if not numbers:
            raise BadInput(
                f"{name} must have a number for depth 0 at least, got an empty list: give one number"
            )
        for number in numbers:
            need_whole(name, number, least)
    need_whole("restarts", restarts, 0)
    need_positive("floor", floor)
    way = Draws.named(draws)
    if way is Draws.FRESH:
        raise BadInput("an estimate needs unbiased draws, got 'fresh': take 'systematic' or 'distinct'")

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = np.minimum(meter.tokens_left(), meter.nodes_left())
        begun = np.zeros(0, np.intp)
        if restarts:
            begun = _started_anew(graph, restarts, threshold, np.flatnonzero(room > 0))
        ids = np.r_[graph.frontier(), begun]
        ids = ids[room[graph.root[ids]] > 0]
        if not len(ids):
            return nothing()
        return Chosen(ids, np.array(widths, np.intp)[np.minimum(_depth(graph, ids), len(widths) - 1)])

    def prune(graph: BabbleGraph, rng: Rng) -> Ids:
        merged = merge_by_weight(graph, rng) if merge else np.zeros(0, np.intp)
        if not any(keeps):
            return merged
        priority = log_priority(graph, graph.frontier(), value_power, connectivity_power, floor)
        most = _most(graph, [graph.size if k is None else k for k in keeps])
        return np.r_[merged, resample_frontier(graph, priority, most, rng, order=order)]

    return Strategy("frontier", select, prune, "estimate", way)


def _by_depth(given: Any) -> list[Any]:
    """What was given by depth, or for all depths."""
    return list(given) if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str) else [given]


def _started_anew(graph: BabbleGraph, restarts: int, threshold: float | None, trees: Ids) -> Ids:
    """Holds back what later starts need; returns the stems that begin now."""
    busy = np.bincount(graph.root[graph.frontier()], minlength=graph.trees) > 0
    asked = stems_below(graph) > 0  # before, in this round: they hold back already
    fresh = trees[(graph.status[trees] == Status.FRONTIER) & ~asked[trees]]
    if len(fresh):
        hold_back(graph, fresh, restarts / (restarts + 1))
    stems = np.flatnonzero(graph.status == Status.STEM)
    stems = stems[np.isin(graph.root[stems], trees) & ~busy[graph.root[stems]]]
    stems = stems[graph.status[graph.parent[stems]] != Status.STEM]  # one below another waits for it
    done = np.zeros(graph.trees, np.bool_) if threshold is None else solved(graph, threshold)
    made = np.bincount(graph.root[_stems(graph)], minlength=graph.trees)  # starts so far
    left = np.where(done, 1, restarts + 1 - made)[graph.root[stems]]
    left = np.where(asked[stems], 1, left)
    for starts in np.unique(left[left > 1]).tolist():
        hold_back(graph, stems[left == starts], (starts - 1) / starts)
    return stems


def _stems(graph: BabbleGraph) -> Ids:
    """Nodes without tokens, [K]."""
    return np.flatnonzero((graph.start == graph.stop) & (graph.parent != NO_PARENT))


def _depth(graph: BabbleGraph, ids: Ids) -> Ids:
    """Spans between the root and each node, stems not counted, [M]."""
    depth, up = np.zeros(len(ids), np.intp), ids.astype(np.intp)
    while (inner := graph.parent[up] != NO_PARENT).any():
        depth += inner & (graph.start[up] < graph.stop[up])
        up = np.where(inner, graph.parent[up], up)
    return depth


def _most(graph: BabbleGraph, keeps: list[int]) -> Ids:
    """How many nodes of each tree may go on, by the depth of its deepest, [trees]."""
    if len(keeps) == 1:
        return np.full(graph.trees, keeps[0])
    ids = graph.frontier()
    deepest = np.ones(graph.trees, np.intp)
    np.maximum.at(deepest, graph.root[ids], _depth(graph, ids))
    return np.array(keeps)[np.minimum(deepest - 1, len(keeps) - 1)]
