"""Restarts by connectivity: places in the middle of a tree that are expanded again, beside what a strategy does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.status import Flag, Status
from babblegraph.stem import hold_back, stems_below
from babblegraph.strategies.common import refuse_contest, values

Ids = NDArray[np.intp]
Measure = Callable[[BabbleGraph], NDArray[np.floating]]  # graph -> [N] in [0, 1]


def with_restarts(strategy: Strategy, measure: Measure, *, share: float = 0.2) -> Strategy:
    """The same strategy, which also goes back to the best connected inner nodes.

    For `solve`, so many of all rounds draw once more below each tree's inner node with the largest
    connectivity · value / (1 + draws), instead of what the strategy would have drawn there.

    For `estimate` that would be biased. There, whenever the strategy is about to expand nodes for the first time,
    the best connected ones of each tree hold back half of their weight in a stem, and the stems begin when the
    tree's frontier is empty. So what is known of a place when it is held back decides, nothing that came of it.

    Complexity: the measure's, each round.
    Source: design/scoring.md, "Connectivity", 4; design/statistics.md, "One bookkeeping for every operation".

    Args:
        strategy: what else is done.
        measure: connectivity, such as `scoring.novelty()` or `scoring.pagerank(1.0)`.
        share: of the rounds (`solve`) or of the expanded nodes (`estimate`), above 0 and at most 1.

    Raises:
        BadInput: another share, or a strategy whose nodes compete on, such as `stochastic_beam`.
    """
    refuse_contest("restarts", strategy)
    if not 0 < share <= 1:
        raise BadInput(f"a share of restarts must be above 0 and at most 1, got {share:g}: 0.2 is a fifth")

    def solve(graph: BabbleGraph, meter: Meter) -> Chosen:
        chosen = strategy.select(graph, meter)
        if not len(chosen) or int(share * (graph.round + 1)) == int(share * graph.round):
            return chosen
        again = _best_inner(graph, measure, np.unique(graph.root[chosen.ids]))
        kept = ~np.isin(graph.root[chosen.ids], graph.root[again])
        ids, draws = np.r_[chosen.ids[kept], again], np.r_[chosen.draws[kept], np.ones(len(again), np.intp)]
        order = np.argsort(ids)
        return Chosen(ids[order], draws[order], waiting=chosen.waiting)

    def estimate(graph: BabbleGraph, meter: Meter) -> Chosen:
        chosen = strategy.select(graph, meter)
        fresh = chosen.ids[graph.status[chosen.ids] == Status.FRONTIER]
        over = _restarted(graph)
        over[graph.root[fresh[stems_below(graph)[fresh] > 0]]] = True  # these were asked before in this round
        held = _best_connected(graph, measure, fresh[~over[graph.root[fresh]]], share)
        if len(held):
            hold_back(graph, held)
        room = np.minimum(meter.tokens_left(), meter.nodes_left())
        busy = np.bincount(graph.root[np.r_[graph.frontier(), chosen.ids]], minlength=graph.trees) > 0
        stems = np.flatnonzero(graph.status == Status.STEM)
        stems = stems[~busy[graph.root[stems]] & (room[graph.root[stems]] > 0)]
        draws = np.full(len(stems), int(np.median(chosen.draws)) if len(chosen) else 1)
        draws = np.r_[chosen.draws, draws].astype(np.intp)
        return Chosen(np.r_[chosen.ids, stems], draws, waiting=chosen.waiting)

    select = estimate if strategy.aim == "estimate" else solve
    return strategy._replace(name=f"{strategy.name}+restarts", select=select)


def _best_inner(graph: BabbleGraph, measure: Measure, trees: NDArray[np.int32]) -> Ids:
    """The most promising inner node of each tree, if it has one below which something can still be drawn."""
    inner = (graph.status == Status.EXPANDED) | (graph.status == Status.PRUNED)
    inner &= (graph.flags & Flag.EXHAUSTED == 0) & np.isin(graph.root, trees)
    inner[: graph.trees] = False
    ids = np.flatnonzero(inner)
    worth = measure(graph)[ids] * values(graph, ids) / (1.0 + graph.draws[ids])
    order = np.lexsort((ids, -worth, graph.root[ids]))
    return ids[order[np.unique(graph.root[ids[order]], return_index=True)[1]]]


def _best_connected(graph: BabbleGraph, measure: Measure, ids: Ids, share: float) -> Ids:
    """The best connected of some nodes, a share of each tree's, [K]; the better half of one is nobody."""
    if not len(ids):
        return ids
    worth = measure(graph)[ids]
    order = np.lexsort((ids, -worth, graph.root[ids]))
    tree = graph.root[ids[order]]
    rank = np.arange(len(order)) - np.searchsorted(tree, tree)
    many = np.bincount(tree, minlength=graph.trees)
    return np.sort(ids[order[rank < np.floor(share * many + 1e-9)[tree]]])


def _restarted(graph: BabbleGraph) -> NDArray[np.bool_]:
    """Which trees have begun with their stems: nothing is held back there any more, [trees]."""
    stem = (graph.start == graph.stop) & (graph.parent != NO_PARENT) & (graph.status != Status.STEM)
    return np.bincount(graph.root[stem], minlength=graph.trees) > 0
