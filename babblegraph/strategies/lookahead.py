"""Lookahead: a step beam that judges a step by where it leads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import keep_best_of
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Status
from babblegraph.strategies.common import ancestors, below, need_whole, nothing, room_left

Ids = NDArray[np.intp]


def lookahead(
    *,
    width: int = 4,
    children: int = 4,
    ahead: int = 1,
    restarts: int | None = None,
    threshold: float | None = None,
) -> Strategy:
    """A step beam whose candidates are worth the value of what one draw, `ahead` steps on, has found below them.

    A turn is one round that draws `children` below each of the `width` live texts, and `ahead` rounds that roll
    every candidate on. What was rolled out stays in the tree: it is the first child of the next turn, and a
    finished text in it is an answer.

    Aim `solve`; weights are biased (hard top-k). Complexity: O(N) a round.
    Good for: values that only tell late; it costs (1 + ahead) times as much as a beam.
    Source: Snell et al., "Scaling LLM test-time compute optimally", 2024.

    Args:
        width: partial texts that go on.
        children: draws below each; the root gets width · children.
        ahead: steps of a rollout; 0 is a step beam.
        restarts: how many further beams may begin; None for as many as the budget allows.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a width or a number of children that is not above zero, or a negative number of steps.
    """
    need_whole("width", width)
    need_whole("ahead", ahead, 0)
    need_whole("restarts", restarts, 0)
    need_whole("children", children, 2)  # of fewer there is nothing to choose
    starts = np.inf if restarts is None else restarts + 1

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room, turn = room_left(graph, meter, threshold), _turn(graph, ahead)
        beam = turn.candidates[~turn.rolling[graph.root[turn.candidates]]]
        busy = turn.rolling | (np.bincount(graph.root[beam], minlength=graph.trees) > 0)
        roots = np.flatnonzero(~busy & (graph.flags[: graph.trees] & Flag.EXHAUSTED == 0))
        roots = roots[graph.draws[roots] < starts * width * children]
        ids = np.r_[turn.short, beam, roots]
        draws = np.r_[
            np.ones(len(turn.short), np.intp),
            children - graph.draws[beam],  # a rollout was the first
            np.full(len(roots), width * children),
        ]
        on = room[graph.root[ids]] > 0
        return Chosen(ids[on], draws[on].astype(np.intp)) if on.any() else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> Ids:
        turn = _turn(graph, ahead)
        candidates = turn.candidates[~turn.rolling[graph.root[turn.candidates]]]
        worth = _worth(graph, candidates)
        stopped = keep_best_of(graph, candidates, graph.root[candidates], worth, width)
        on = np.bincount(graph.root[candidates], minlength=graph.trees) > 0
        over = np.flatnonzero((graph.status <= Status.EXPANDED) & ~(on | turn.rolling)[graph.root])
        also = np.union1d(below(graph, stopped), over[over >= graph.trees])
        also = also[graph.status[also] <= Status.EXPANDED]
        keep_best_of(graph, also, also, np.zeros(len(also)), 0)
        return np.r_[stopped, also]

    return Strategy("lookahead", select, prune, "solve", draws=Draws.FRESH)


class _Turn(NamedTuple):
    """Where each tree's beam is: the deepest live nodes that had more than a rollout's single draw."""

    candidates: Ids  # live nodes one step below the beam
    short: Ids  # of the frontier, not rolled out far enough yet
    rolling: NDArray[np.bool_]  # [trees] which have such


def _turn(graph: BabbleGraph, ahead: int) -> _Turn:
    live = graph.status <= Status.EXPANDED
    deep = np.zeros(graph.trees, np.int64)
    beam = np.flatnonzero(live & (graph.draws > 1))
    np.maximum.at(deep, graph.root[beam], graph.depth[beam])
    short = graph.frontier()
    short = short[(short >= graph.trees) & (graph.depth[short] < deep[graph.root[short]] + 1 + ahead)]
    rolling = np.bincount(graph.root[short], minlength=graph.trees) > 0
    candidates = np.flatnonzero(live & (graph.depth == deep[graph.root] + 1))
    return _Turn(candidates, short, rolling)


def _worth(graph: BabbleGraph, candidates: Ids) -> NDArray[np.float64]:
    """The best value where the rollouts of each candidate ended, [M]; its own where nothing is below it."""
    if not len(candidates):
        return np.zeros(0)
    depth = np.zeros(graph.trees, np.int64)
    depth[graph.root[candidates]] = graph.depth[candidates]
    best, ends = np.full(graph.size, -np.inf), np.flatnonzero(graph.first_child == NO_PARENT)
    value = np.nan_to_num(graph.value[ends].astype(np.float64), nan=0.0)
    np.maximum.at(best, ancestors(graph, ends, depth[graph.root[ends]]), value)
    return best[candidates]
