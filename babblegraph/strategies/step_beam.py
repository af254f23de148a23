"""Step beam: the best few partial texts go on, step by step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import keep_best_of, merge_into_first
from babblegraph.randomness import Rng
from babblegraph.strategies.common import idle_places, log_priority, need_whole, nothing, room_left


def step_beam(
    *,
    width: int = 4,
    children: int = 4,
    value_power: float = 1.0,
    connectivity_power: float = 0.0,
    restarts: int | None = None,
    threshold: float | None = None,
) -> Strategy:
    """Draws `children` spans below each of the `width` best partial texts, and keeps the `width` best of those.

    What is not kept is gone for good. When a beam has ended and budget is left, another begins at the root with
    first steps that were not drawn yet; equal states are one.

    Aim `solve`; weights are biased (hard top-k). Complexity: O(N + F log F) a round.
    Good for: values that can be trusted from the first step on; a wrong one throws the answer away.
    Source: Snell et al., "Scaling LLM test-time compute optimally", 2024; Yao et al., "Tree of thoughts", 2023.

    Args:
        width: partial texts that go on.
        children: draws below each; the root gets width · children.
        value_power, connectivity_power: a and b of the rank V^a · C^b; ties go to the likelier text.
        restarts: how many further beams may begin; None for as many as the budget allows.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a width or a number of children that is not above zero.
    """
    need_whole("width", width)
    need_whole("children", children)
    need_whole("restarts", restarts, 0)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        live, begin = graph.frontier(), idle_places(graph, room)
        if restarts is not None:
            begin = begin[(begin < graph.trees) & (graph.draws[begin] < (restarts + 1) * width * children)]
        live = live[room[graph.root[live]] > 0]
        ids = np.r_[live, begin]
        first = (ids < graph.trees) | (np.arange(len(ids)) >= len(live))
        return Chosen(ids, np.where(first, width * children, children)) if len(ids) else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        merged = merge_into_first(graph)
        live = graph.frontier()
        rank = log_priority(graph, live, value_power, connectivity_power)[live]
        return np.r_[merged, keep_best_of(graph, live, graph.root[live], rank, width)]

    return Strategy("step-beam", select, prune, "solve", draws=Draws.FRESH)
