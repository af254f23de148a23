"""Best of N: independent samples, the best one is the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.strategies.common import need_positive, nothing, solved


def best_of_n(*, n: int | None = None, width: int = 8, threshold: float | None = None) -> Strategy:
    """Samples whole texts from the root, `width` at a time, until N or the budget is reached.

    Samples that agree so far are one node with a count, also across rounds, so N samples cost the tokens of
    their trie. Where the task has a partial check, texts that are already dead are not finished (early kill).

    Aim `solve`. Complexity: O(N) a round.

    Args:
        n: samples a prompt; None for as many as the budget allows.
        width: samples that are drawn side by side.
        threshold: stop a prompt's search at the first leaf that reaches it; None to draw all samples.

    Raises:
        BadInput: a number that is not above zero.
    """
    need_positive("n", n)
    need_positive("width", width)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = np.minimum(meter.tokens_left(), meter.nodes_left())
        if threshold is not None:
            room[solved(graph, threshold)] = 0
        owed = np.where(graph.status <= Status.EXPANDED, graph.count - graph.draws, 0)
        owed[: graph.trees] = 0
        ids = np.flatnonzero((owed > 0) & (room[graph.root] > 0))
        draws = owed[ids]
        busy = np.bincount(graph.root[ids], minlength=graph.trees) > 0
        more = (
            np.minimum(width, room)
            if n is None
            else np.minimum(np.minimum(width, n - graph.draws[: graph.trees]), room)
        )
        roots = np.flatnonzero(~busy & (more > 0))
        if not len(ids) + len(roots):
            return nothing()
        return Chosen(np.r_[ids, roots], np.r_[draws, more[roots]].astype(np.intp))

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        return np.flatnonzero((graph.status == Status.LEAF_DEAD) & (graph.died == graph.round))

    return Strategy("best-of-n", select, prune, "solve")
