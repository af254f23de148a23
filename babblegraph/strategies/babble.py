"""The default strategy: best-first with memory and restarts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import keep_best, merge_into_first
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Status
from babblegraph.strategies.common import (
    FLOOR,
    first_of_each,
    log_priority,
    need_positive,
    nothing,
    room_left,
)

BATCH = 16  # actions in one round over all prompts, where the width is not given
CAUTION = 8  # a wave is at most this part of the nodes that are there


def babble(
    *,
    width: int | None = None,
    keep: int = 256,
    patience: float = 4.0,
    steep: float = 3.0,
    value_power: float = 1.0,
    connectivity_power: float = 0.0,
    threshold: float | None = None,
) -> Strategy:
    """Repeatedly takes the actions with the highest expected success per token.

    An action draws one span below a node: a new one (go on), an expanded one (try again), the root (start
    again). Its expected success is V(n)^a · F(n) · m(n) · k / (k + n), its cost the tokens that a finished text from
    here still needs. F is the chance of coming through from this depth, learned from how many spans of the same tree
    lived at each depth so far: where every slip is seen at once it sends the search down, where only the end tells it
    is the same everywhere. m is the probability that the children drawn so far have left over: where the generator was
    sure, a second try brings only what it thinks improbable. n is the number of draws made here, and k, the patience,
    falls with the share r of a text that is still to come: patience · r^steep. For the root n counts as 0: that it has
    failed says that the prompt is hard, which is as true everywhere below it. Equal states are merged, a span is never
    drawn twice below one node, and only `keep` nodes of a prompt hold keys and values: the others stay in mind, and
    may be revived.

    What a search does never depends on how much it may still spend, so more budget cannot make it worse.

    Aim `solve`; weights are not unbiased. Complexity: O(N log N) a round.
    Source: design/architecture.md, "The default strategy".

    Args:
        width: actions of one prompt in a round. Wider is faster, and costs success per token. None shares 16
            among the prompts, and begins with one: a wave is never more than an eighth of the nodes so far.
        keep: live nodes a prompt.
        patience: how many draws at the beginning of a text before a place there counts half.
        steep: how the patience falls toward the end of a text, where a place that has failed is probably trapped; 0 for
            not at all.
        value_power, connectivity_power: a and b of the priority V^a · C^b by which nodes are pruned; the choice
            of actions uses V alone.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a number that is not above zero.
    """
    for name, number in (("width", width), ("keep", keep), ("patience", patience)):
        need_positive(name, number)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        most = np.minimum(room, width or _width(meter, room))
        nodes = _open(graph, most)
        if not len(nodes):
            return nothing()
        share, tokens = _to_go(graph, nodes)
        success = _worth(graph, nodes, value_power) * _mass_left(graph)[nodes] / tokens
        log_gain = np.log(success) + _log_finish(graph)[graph.root[nodes], graph.depth[nodes]]
        return _best_actions(graph, nodes, log_gain, patience * share**steep, most)

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        merged = merge_into_first(graph)
        live = np.flatnonzero(graph.status <= Status.EXPANDED)
        priority = log_priority(graph, live, value_power, connectivity_power)
        return np.r_[merged, keep_best(graph, priority, keep)]

    return Strategy("babble", select, prune, "solve", Draws.FRESH)


def _width(meter: Meter, room: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many actions of each tree fit into one round, [trees]: a wave is a bet that the next ones add nothing.

    The batch is shared among the trees that still search, and a wave risks only a share of what was spent.
    """
    idle = math.ceil(BATCH / max(1, int((room > 0).sum())))
    return np.clip(meter.counts["nodes"] // CAUTION, 1, idle)


def _open(graph: BabbleGraph, most: NDArray[np.int64]) -> NDArray[np.intp]:
    """Nodes below which something can still be drawn, of trees that still search."""
    inner = (graph.status <= Status.EXPANDED) | (graph.status == Status.PRUNED)
    return np.flatnonzero(inner & (graph.flags & Flag.EXHAUSTED == 0) & (most[graph.root] > 0))


def _worth(graph: BabbleGraph, nodes: NDArray[np.intp], power: float) -> NDArray[np.float64]:
    """V^a of nodes with a floor, [M]; a root is worth what those of its children are on average that lived."""
    value = graph.value[nodes].astype(np.float64)
    first = np.flatnonzero((graph.depth == 1) & ~graph.is_leaf() & ~np.isnan(graph.value))
    count = np.bincount(graph.root[first], minlength=graph.trees)
    total = np.bincount(graph.root[first], graph.value[first], minlength=graph.trees)
    roots = nodes < graph.trees
    value[roots] = np.where(count > 0, total / np.maximum(count, 1), 1.0)[nodes[roots]]
    return (FLOOR + (1 - FLOOR) * np.nan_to_num(value, nan=0.0)) ** power


def _log_finish(graph: BabbleGraph) -> NDArray[np.float64]:
    """The log of the chance to live through all depths from here on that were seen, [trees, depths].

    One draw at a depth lives with the probability (lived + 1) / (drawn + 1), and a leaf lived as far as its score
    goes. So a depth where nothing has died yet changes nothing.
    """
    new = np.arange(graph.trees, graph.size)
    up, depths = graph.parent[new], int(graph.depth.max()) + 1
    place = graph.root[new].astype(np.intp) * depths + graph.depth[up]
    lived = np.where(graph.is_leaf(new), np.clip(np.nan_to_num(graph.score[new]), 0, 1), 1.0)
    drawn = np.bincount(place, minlength=graph.trees * depths)
    alive = np.bincount(place, lived, minlength=graph.trees * depths)
    log_p = np.log((alive + 1) / (drawn + 1)).reshape(graph.trees, depths)
    return log_p[:, ::-1].cumsum(1)[:, ::-1]


def _mass_left(graph: BabbleGraph) -> NDArray[np.float64]:
    """What is left of each node's probability after its children, [N]; above zero."""
    new = np.arange(graph.trees, graph.size)
    up = graph.parent[new]
    drawn = np.bincount(up, np.exp(graph.log_q[new] - graph.log_q[up]), minlength=graph.size)
    return np.maximum(1 - drawn, 1e-6)


def _to_go(graph: BabbleGraph, nodes: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a finished text through nodes still needs, as a share of the longest of its tree and in tokens, [M].

    Longest of the finished texts; while a tree has none, of the dead ones, and before that of all.
    """
    longest = np.zeros(graph.trees)
    leaf = graph.is_leaf()
    for ids in (leaf & (graph.status != Status.LEAF_DEAD), leaf, np.ones(graph.size, np.bool_)):
        some = np.flatnonzero(ids & (longest[graph.root] == 0))
        np.maximum.at(longest, graph.root[some], _generated(graph, some))
    usual = np.maximum(longest, 1.0)[graph.root[nodes]]
    tokens = np.maximum(usual - _generated(graph, nodes), 1.0)
    return tokens / usual, tokens


def _generated(graph: BabbleGraph, nodes: NDArray[np.intp]) -> NDArray[np.float64]:
    return (graph.length[nodes] - graph.length[graph.root[nodes]]).astype(np.float64)


def _best_actions(
    graph: BabbleGraph,
    nodes: NDArray[np.intp],
    log_gain: NDArray[np.float64],
    patience: NDArray[np.float64],
    most: NDArray[np.int64],
) -> Chosen:
    """The best `most[tree]` draws of each tree; a node may get several, each worth less than the one before."""
    made = np.where(nodes < graph.trees, 0, graph.draws[nodes])
    now = log_gain - np.log1p(made / patience)
    if (most > 0).sum() == 1 and len(nodes) > (
        k := int(most.max())
    ):  # not to sort a large tree for a few of it
        few = np.flatnonzero(now >= np.partition(now, -k)[-k])
        nodes, log_gain, patience, made, now = nodes[few], log_gain[few], patience[few], made[few], now[few]
    first = first_of_each((nodes, -graph.length[nodes], -now), graph.root[nodes], most)
    copies = int(most[graph.root[nodes[first]]].max())
    at, draw = np.repeat(first, copies), np.tile(np.arange(copies), len(first))
    again = nodes[at]
    gain = log_gain[at] - np.log1p((made[at] + draw) / patience[at])
    best = first_of_each((draw, again, -graph.length[again], -gain), graph.root[again], most)
    ids, draws = np.unique(again[best], return_counts=True)
    return Chosen(ids, draws)
