"""Adaptive branching: at every place, is it better to go wider or deeper?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import merge_into_first
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Status
from babblegraph.strategies.common import need_positive, need_whole, nothing, room_left, totals


def adaptive(*, prior: float = 1.0, width: int = 1, threshold: float | None = None) -> Strategy:
    """Walks down from the root, and at each node lets Thompson sampling decide: draw a new child, or enter an old one.

    "Wider" has seen the values of the node's children when they were born, "deeper" into a child all values below
    that child and its own. Each has a Beta posterior, one number is drawn from each, and the largest wins. A walk
    ends where it goes wider, or at a node without children.

    Aim `solve`; weights are biased. Complexity: O(N) a round, and depth · children for each walk.
    Good for: not knowing how wide a tree should be; a value that is comparable across depths.
    Source: Inoue et al., "Wider or deeper? Scaling LLM inference-time compute with adaptive branching tree search",
    2025 (their AB-MCTS-A, without its node for all old children together).

    Args:
        prior: pseudo-observations of a success and of a failure.
        width: walks of a prompt in a round.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a number that is not above zero.
    """
    need_positive("prior", prior)
    need_whole("width", width)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        counted, value = _evaluated(graph)
        visits, total = totals(graph, counted), totals(graph, value)
        inner = (graph.status <= Status.EXPANDED) & (graph.flags & Flag.EXHAUSTED == 0)
        can_grow = totals(graph, inner.astype(np.float64)) > 0
        chosen: list[int] = []
        for tree in np.flatnonzero((room > 0) & can_grow[: graph.trees]).tolist():
            draw = Rng(int(graph.meta["seed"])).generator(int(graph.key[tree]), graph.round)
            for _ in range(min(width, int(room[tree]))):
                node = tree
                while (below := _deeper(graph, node, can_grow)) or not inner[node]:
                    own = [i for i in graph.children(node) if counted[i]]
                    arms = [(value[own].sum(), len(own))] if inner[node] else []
                    arms += [(total[i], visits[i]) for i in below]
                    won, seen = (np.array(x, np.float64) for x in zip(*arms, strict=True))
                    best = int(draw.beta(prior + won, prior + np.maximum(seen - won, 0.0)).argmax())
                    if inner[node] and best == 0:
                        break
                    node = below[best - inner[node]]
                chosen.append(node)
        if not chosen:
            return nothing()
        ids, draws = np.unique(chosen, return_counts=True)
        return Chosen(ids, draws)

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        return merge_into_first(graph)

    return Strategy("adaptive", select, prune, "solve", draws=Draws.FRESH)


def _evaluated(graph: BabbleGraph) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Which nodes have a value, and the value, [N] each; merged ones have none of their own."""
    counted = (graph.status != Status.MERGED).astype(np.float64)
    counted[: graph.trees] = 0.0
    return counted, np.where(counted > 0, np.nan_to_num(graph.value.astype(np.float64)), 0.0)


def _deeper(graph: BabbleGraph, node: int, can_grow: NDArray[np.bool_]) -> list[int]:
    return [i for i in graph.children(node) if can_grow[i]]
