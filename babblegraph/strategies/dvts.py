"""Diverse verifier tree search: beams of width one in subtrees that never compete."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import keep_best_of, merge_into_first
from babblegraph.randomness import Rng
from babblegraph.strategies.common import (
    ancestors,
    idle_places,
    log_priority,
    need_whole,
    nothing,
    room_left,
)


def dvts(
    *,
    subtrees: int = 4,
    children: int = 4,
    value_power: float = 1.0,
    connectivity_power: float = 0.0,
    restarts: int | None = None,
    threshold: float | None = None,
) -> Strategy:
    """Splits the search at the root: each first step has a subtree of its own, in which the best child goes on.

    A subtree is a first step that was drawn at the root, so `subtrees` draws give at most so many, and every
    subtree ends with at most `children` texts. Equal states are one within a subtree only. When all have ended and
    budget is left, others begin.

    Aim `solve`; weights are biased (hard top-1). Complexity: O(N + F log F) a round.
    Good for: what a step beam is good for, where its texts become too alike; large budgets.
    Source: Beeching, Tunstall & Rush, "Scaling test-time compute with open models", 2024.

    Args:
        subtrees: first steps that are followed.
        children: draws below the live node of each.
        value_power, connectivity_power: a and b of the rank V^a · C^b; ties go to the likelier text.
        restarts: how many times others may begin; None for as often as the budget allows.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a number of subtrees or children that is not above zero.
    """
    need_whole("subtrees", subtrees)
    need_whole("children", children)
    need_whole("restarts", restarts, 0)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        live, begin = graph.frontier(), idle_places(graph, room)
        if restarts is not None:
            begin = begin[(begin < graph.trees) & (graph.draws[begin] < (restarts + 1) * subtrees)]
        live = live[room[graph.root[live]] > 0]
        ids = np.r_[live, begin]
        first = (ids < graph.trees) | (np.arange(len(ids)) >= len(live))
        return Chosen(ids, np.where(first, subtrees, children)) if len(ids) else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        merged = merge_into_first(graph, group=ancestors(graph, np.arange(graph.size), 1))
        live = graph.frontier()
        rank = log_priority(graph, live, value_power, connectivity_power)[live]
        return np.r_[merged, keep_best_of(graph, live, ancestors(graph, live, 1), rank, 1)]

    return Strategy("dvts", select, prune, "solve", draws=Draws.FRESH)
