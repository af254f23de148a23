"""Best-first search and A*: always the best place that was not looked at yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import ALL, Chosen, Draws, Strategy
from babblegraph.prune import keep_best, merge_into_first
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.strategies.common import (
    FLOOR,
    first_of_each,
    idle_places,
    need_whole,
    nothing,
    room_left,
    values,
)


def best_first(
    *,
    children: int = 4,
    width: int = 1,
    keep: int = 256,
    value_power: float = 1.0,
    likelihood_power: float = 0.0,
    threshold: float | None = None,
) -> Strategy:
    """Expands the node of the frontier with the highest V^a · p^l, once, and never forgets the others.

    With l = 0 it goes by values alone, with a = 0 by the likelihood of the text. When the frontier is empty and
    budget is left, new first steps are drawn at the root. Equal states are one: the oldest, or the likeliest where
    that counts.

    Aim `solve`; weights are biased. Complexity: O(N log N) a round.
    Good for: values that tell a dead end soon; it may stay near the root for long where values fall with depth.
    Source: Hart, Nilsson & Raphael, "A formal basis for the heuristic determination of minimum cost paths", 1968;
    for language models Koh et al., "Tree search for language model agents", 2024.

    Args:
        children: draws below a node that is expanded; `protocols.ALL` (0) takes every next token instead.
        width: nodes of a prompt that are expanded side by side.
        keep: nodes of a prompt that hold keys and values.
        value_power, likelihood_power: a and l.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a negative number of children, `width` or `keep` that is not above zero.
    """
    need_whole("children", children, ALL)  # 0 is `ALL`
    need_whole("width", width)
    need_whole("keep", keep)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        ids = np.flatnonzero(_open(graph))
        ids = ids[room[graph.root[ids]] > 0]
        rank = log_promise(graph, ids, value_power, likelihood_power)
        best = ids[first_of_each((ids, -rank), graph.root[ids], np.full(graph.trees, width))]
        empty = np.bincount(graph.root[ids], minlength=graph.trees) == 0
        begin = idle_places(graph, np.where(empty, room, 0)) if children != ALL else ids[:0]
        chosen = np.r_[best, begin]
        return Chosen(chosen, np.full(len(chosen), children)) if len(chosen) else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        merged = merge_into_first(graph, rank=graph.log_p_g if likelihood_power else None)
        priority = np.full(graph.size, -np.inf)
        live = graph.frontier()
        priority[live] = log_promise(graph, live, value_power, likelihood_power)
        return np.r_[merged, keep_best(graph, priority, keep)]

    return Strategy("best-first", select, prune, "solve", draws=Draws.FRESH)


def a_star(
    *,
    children: int = ALL,
    width: int = 1,
    keep: int = 4096,
    value_power: float = 1.0,
    threshold: float | None = None,
) -> Strategy:
    """A*: best-first by p · V^a, which ends a prompt's search when no open node can beat its best finished text.

    With every next token expanded and V^a never below p(rest) · V(end)^a of the best way on (an admissible
    heuristic), the first answer is the text that maximises p · V^a. A constant value is admissible: that is
    uniform-cost search, and finds the likeliest text.

    Aim `solve`; weights are biased. Complexity: O(N log N) a round; exponentially many rounds in the worst case.
    Good for: the exact optimum of short texts, and for testing other strategies.
    Source: as for `best_first`; for decoding Meister, Vieira & Cotterell, "Best-first beam search", 2020.

    Args:
        children, width, keep, threshold: as for `best_first`; every next token by default.
        value_power: a.

    Raises:
        BadInput: as for `best_first`.
    """
    search = best_first(
        children=children,
        width=width,
        keep=keep,
        value_power=value_power,
        likelihood_power=1.0,
        threshold=threshold,
    )

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        chosen = search.select(graph, meter)
        ended = np.flatnonzero(graph.is_leaf() & (graph.status != Status.LEAF_DEAD))
        best = np.full(graph.trees, -np.inf)
        np.maximum.at(best, graph.root[ended], log_promise(graph, ended, value_power, 1.0, floor=0.0))
        promise = log_promise(graph, chosen.ids, value_power, 1.0, floor=0.0)
        none = np.bincount(graph.root[ended], minlength=graph.trees) == 0
        tree = graph.root[chosen.ids]
        return chosen.only(none[tree] | (promise > best[tree]))

    return search._replace(name="a-star", select=select)


def log_promise(
    graph: BabbleGraph,
    ids: NDArray[np.intp],
    value_power: float,
    likelihood_power: float,
    floor: float = FLOOR,
) -> NDArray[np.float64]:
    """a log V + l log p of nodes, [M]; what has the power 0 does not count, not even where its logarithm is −inf."""
    promise = np.zeros(len(ids))
    with np.errstate(divide="ignore"):
        log_value = np.log(floor + (1 - floor) * values(graph, ids))
    for power, logs in ((value_power, log_value), (likelihood_power, graph.log_p_g[ids])):
        if power:
            promise += power * logs
    return promise


def _open(graph: BabbleGraph) -> NDArray[np.bool_]:
    """Never expanded: of the frontier, or pruned from it for want of memory."""
    return (graph.status == Status.FRONTIER) | ((graph.status == Status.PRUNED) & (graph.draws == 0))
