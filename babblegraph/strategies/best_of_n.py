"""Best of N: independent samples, the best one is the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Gate, Status
from babblegraph.strategies.common import need_whole, nothing, room_left


def best_of_n(
    *, n: int | None = None, width: int = 8, kill: float | None = None, threshold: float | None = None
) -> Strategy:
    """Samples whole texts from the root, `width` at a time, until N or the budget is reached.

    Samples that agree so far are one node with a count, also across rounds, so N samples cost the tokens of
    their trie. Where the task has a partial check, texts that are already dead are not finished (early kill), nor
    are those whose value falls below `kill`. Which answer wins is asked afterwards: the best by score, or a vote
    (`babblegraph.votes`).

    Aim `solve`; without early kill the leaves are independent samples, each as often as its count says, but the
    number of them depends on what they cost. Complexity: O(N) a round.
    Good for: the baseline that everything has to beat; hard to beat where values say little.
    Source: Stiennon et al., "Learning to summarize from human feedback", 2020; early kill as in Sun et al., "Fast
    best-of-N decoding via speculative rejection", 2024.

    Args:
        n: samples a prompt; None for as many as the budget allows, were each of them to cost one token or node.
        width: samples that are drawn side by side.
        kill: a partial text whose value is below it is given up; None gives up dead ones alone.
        threshold: stop a prompt's search at the first leaf that reaches it; None to draw all samples.

    Raises:
        BadInput: a number that is not above zero.
    """
    need_whole("n", n)
    need_whole("width", width)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        owed = np.where(graph.status <= Status.EXPANDED, graph.count - graph.draws, 0)
        owed[: graph.trees] = 0
        ids = np.flatnonzero((owed > 0) & (room[graph.root] > 0))
        draws = owed[ids]
        busy = np.bincount(graph.root[ids], minlength=graph.trees) > 0
        most = _most(meter.budget) if n is None else n
        more = np.minimum(np.minimum(width, most - graph.draws[: graph.trees]), room)
        roots = np.flatnonzero(~busy & (more > 0))
        if not len(ids) + len(roots):
            return nothing()
        return Chosen(np.r_[ids, roots], np.r_[draws, more[roots]].astype(np.intp))

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        dead = np.flatnonzero((graph.status == Status.LEAF_DEAD) & (graph.died == graph.round))
        if kill is None:
            return dead
        live = graph.frontier()
        poor = live[graph.value[live] < kill]
        graph.stop_nodes(poor, Status.PRUNED, Gate.NODE)
        graph.flags[poor] |= np.uint8(Flag.BIASED)
        return np.r_[dead, poor]

    return Strategy("best-of-n", select, prune, "solve")


def _most(budget: Budget) -> int:
    """A bound on samples, for generators so sure of themselves that new samples bring no new token to pay for."""
    bounds = [b for b in (budget.tokens, budget.nodes) if b is not None]
    return min(bounds, default=np.iinfo(np.int32).max)
