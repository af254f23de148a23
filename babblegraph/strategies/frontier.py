"""A frontier that advances round by round, with weights that stay unbiased."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.prune import merge_by_weight, resample_frontier
from babblegraph.randomness import Rng
from babblegraph.strategies.common import log_priority, need_positive, nothing


def frontier(
    *,
    width: int = 4,
    keep: int | None = 32,
    value_power: float = 0.5,
    connectivity_power: float = 0.0,
    merge: bool = True,
) -> Strategy:
    """Expands the whole frontier with `width` draws each, then prunes each tree's to `keep` nodes.

    Pruning is Fearnhead–Clifford's with the priority w · V^a · C^b, and equal states are merged by weight, so
    Σ w h over the leaves is unbiased for E_f[h], whatever the values say. A tree whose budget ends before its
    frontier is empty gives no estimate, unless the search closes it (`search(..., close=True)`).

    Aim `estimate`. Complexity: O(N + F log F) a round.
    Source: design/statistics.md.

    Args:
        width: draws below each node; `protocols.ALL` (0) expands every possible next token instead.
        keep: nodes of a tree's frontier that go on; None prunes nothing.
        value_power, connectivity_power: a and b.
        merge: whether equal states are merged.

    Raises:
        BadInput: a negative width, or `keep` not above zero.
    """
    need_positive("keep", keep)
    if width:
        need_positive("width", width)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        ids = graph.frontier()
        ids = ids[np.minimum(meter.tokens_left(), meter.nodes_left())[graph.root[ids]] > 0]
        return Chosen(ids, np.full(len(ids), width, np.intp)) if len(ids) else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        merged = merge_by_weight(graph, rng) if merge else np.zeros(0, np.intp)
        if keep is None:
            return merged
        priority = log_priority(graph, graph.frontier(), value_power, connectivity_power)
        return np.r_[merged, resample_frontier(graph, priority, keep, rng)]

    return Strategy("frontier", select, prune, "estimate", fresh=False)
