"""The default strategy: best-first with memory and restarts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import keep_best, merge_into_first
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Status
from babblegraph.strategies.common import (
    first_of_each,
    levels,
    log_priority,
    need_positive,
    need_whole,
    nothing,
    room_left,
)

BATCH = 16  # actions in one round over all prompts, where the width is not given
CAUTION = 8  # a wave is at most this part of the nodes that are there
LEAST = 1e-3  # of any value: what is held for hopeless comes last, and is not forgotten
HOPE = 0.1  # draws that an untried root counts as, all of them lucky


def babble(
    *,
    width: int | None = None,
    keep: int = 256,
    patience: float = 0.5,
    steep: float = 2.0,
    value_power: float = 1.0,
    connectivity_power: float = 0.0,
    threshold: float | None = None,
) -> Strategy:
    """Repeatedly takes the actions with the highest expected success per token.

    An action draws one span below a node: a new one (go on), an expanded one (try again), the root (start again).
    What it may bring is what is known of the node, its worth V^a · F, and what came of the draws below it so far:

        p = (worth + doubt · Σ p of the children) / (1 + doubt · draws)

    with p of a leaf its score, as the mean of a beta distribution moves; and its gain is p · m / tokens.
    F is how the values given at this depth and deeper came out, learned within the tree: the children's values over
    their own. Where every slip is seen at once it sends the search down, where only the end tells it is the same
    everywhere, and where values are probabilities it is one. m is the probability that the children so far have left
    over: where the generator was sure, a second try brings only what it thinks improbable. Tokens are what a finished
    text from here still needs. The doubt, (written / to go)^steep / patience, is much toward the end of a text, where a
    place that has failed is probably trapped, and nothing at the root, which so is never given up: that it has failed
    says that the prompt is hard, which is as true everywhere below it. Equal states are merged, a span is never drawn
    twice below one node, and only `keep` nodes of a prompt hold keys and values: the others stay in mind, and may be
    revived.

    What a search of one prompt does never depends on how much it may still spend, so more budget cannot make it worse.
    Of several, one that has spent its budget leaves its part of the batch to the others, unless `width` is given.

    Aim `solve`; weights are not unbiased. Complexity: O(N log N) a round.
    Source: design/architecture.md, "The default strategy".

    Args:
        width: actions of one prompt in a round. Wider is faster, and costs success per token. None shares 16
            among the prompts, and begins with one: a wave is never more than an eighth of the nodes so far.
        keep: live nodes a prompt.
        patience: how many draws a value weighs as much as, where half of the text is written; more where values
            are probabilities that can be trusted.
        steep: how the patience falls with what is written; 0 for not at all.
        value_power, connectivity_power: a and b of the priority V^a · C^b by which nodes are pruned; the choice
            of actions uses V alone.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a number that is not above zero.
    """
    need_whole("width", width)
    need_whole("keep", keep)
    need_positive("patience", patience)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        most = np.minimum(room, width or _width(meter, room))
        nodes = _open(graph, most)
        if not len(nodes):
            return nothing()
        tokens, doubt = _to_go(graph, patience, steep)
        success = _expected(graph, _worth(graph, value_power), doubt)
        log_gain = np.log(success * _mass_left(graph) / tokens)
        return _best_actions(graph, nodes, log_gain[nodes], doubt[nodes], most)

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


def _to_go(
    graph: BabbleGraph, patience: float, steep: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tokens that a finished text through each node still needs, and the doubt there, [N].

    As many as the longest finished text of its tree; while it has none, of the dead ones, and before that of all.
    """
    written = (graph.length - graph.length[graph.root]).astype(np.float64)
    longest = np.zeros(graph.trees)
    leaf = graph.is_leaf()
    for ids in (leaf & (graph.status != Status.LEAF_DEAD), leaf, np.ones(graph.size, np.bool_)):
        some = np.flatnonzero(ids & (longest[graph.root] == 0))
        np.maximum.at(longest, graph.root[some], written[some])
    tokens = np.maximum(np.maximum(longest, 1)[graph.root] - written, 1)
    return tokens, (written / tokens) ** steep * (written > 0) / patience


def _worth(graph: BabbleGraph, power: float) -> NDArray[np.float64]:
    """u = V^a · F of each node, [N]; of a leaf its score."""
    trees, leaf = graph.trees, graph.is_leaf()
    given = np.nan_to_num(graph.value.astype(np.float64))
    ended = np.clip(np.nan_to_num(graph.score.astype(np.float64)), 0, 1)
    worth = np.where(leaf, ended, (LEAST + (1 - LEAST) * given) ** power)
    new = np.arange(trees, graph.size)
    up, depths = graph.parent[new], int(graph.depth.max()) + 1
    place = graph.root[new].astype(np.intp) * depths + graph.depth[up]  # where a draw was made, tree by depth

    def by_depth(of_draws: NDArray[np.float64] | None = None) -> NDArray[Any]:
        return np.bincount(place, of_draws, minlength=trees * depths).reshape(trees, depths)

    found = by_depth(worth[new])
    worth[:trees] = (found[:, 0] + HOPE) / (by_depth()[:, 0] + HOPE)
    came_out = (found + 1) / (by_depth(worth[up]) + 1)
    came_out[:, 0] = 1  # the root's worth says so already
    finish = came_out[:, ::-1].cumprod(1)[:, ::-1]
    return np.where(leaf, worth, worth * finish[graph.root, graph.depth])


def _expected(
    graph: BabbleGraph, worth: NDArray[np.float64], doubt: NDArray[np.float64]
) -> NDArray[np.float64]:
    """p of each node, [N]: its worth and what came of the draws below it."""
    expected, below = worth.copy(), np.zeros(graph.size)
    inner, parent, draws = ~graph.is_leaf(), graph.parent, graph.draws
    for ids in reversed(levels(graph)):
        some = ids[inner[ids]]
        expected[some] = (worth[some] + doubt[some] * below[some]) / (1 + doubt[some] * draws[some])
        deeper = ids[ids >= graph.trees]
        np.add.at(below, parent[deeper], expected[deeper])
    return np.maximum(expected, np.finfo(np.float64).tiny)


def _mass_left(graph: BabbleGraph) -> NDArray[np.float64]:
    """What is left of each node's probability after its children, [N]; above zero."""
    new = np.arange(graph.trees, graph.size)
    up = graph.parent[new]
    drawn = np.bincount(up, np.exp(graph.log_q[new] - graph.log_q[up]), minlength=graph.size)
    return np.maximum(1 - drawn, 1e-6)


def _best_actions(
    graph: BabbleGraph,
    nodes: NDArray[np.intp],
    log_gain: NDArray[np.float64],
    doubt: NDArray[np.float64],
    most: NDArray[np.int64],
) -> Chosen:
    """The best `most[tree]` draws of each tree; a node may get several, each as if those before it had failed."""
    made, k = graph.draws[nodes], int(most.max())
    if (most > 0).sum() == 1 and len(nodes) > k:  # not to sort a large tree for a few of it
        few = np.flatnonzero(log_gain >= np.partition(log_gain, -k)[-k])
        nodes, log_gain, doubt, made = nodes[few], log_gain[few], doubt[few], made[few]
    first = first_of_each((nodes, -graph.length[nodes], -log_gain), graph.root[nodes], most)
    copies = int(most[graph.root[nodes[first]]].max())
    at, draw = np.repeat(first, copies), np.tile(np.arange(copies), len(first))
    again = nodes[at]
    gain = log_gain[at] + np.log1p(doubt[at] * made[at]) - np.log1p(doubt[at] * (made[at] + draw))
    best = first_of_each((draw, again, -graph.length[again], -gain), graph.root[again], most)
    ids, draws = np.unique(again[best], return_counts=True)
    return Chosen(ids, draws)
