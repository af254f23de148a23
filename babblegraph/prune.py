"""The node gate: what stops nodes, and what that does to the weights of those it lets through.

`resample_frontier`, `roulette` and `merge_by_weight` keep every weighted sum over leaves unbiased whatever the
priorities are; what they decide is keyed by the tree, the round and the turn, so that the same operation twice in
a round needs two turns. `keep_best`, `keep_best_of`, `keep_quantile`, `keep_pareto` and `merge_into_first` are
biased, and mark what they stop as that.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import NO_STATE, BabbleGraph
from babblegraph.randomness import chain
from babblegraph.resample import Kept, fearnhead_clifford, systematic
from babblegraph.status import Flag, Gate, Status

FLOOR = 1e-3  # of a priority, beside its tree's largest: no weight grows above Σw / (k · FLOOR) by pruning
PRUNE, MERGE, ROULETTE = 1 << 40, 1 << 41, 1 << 42  # words of random keys, beyond every token id

Ids = NDArray[np.intp]
Keys = NDArray[np.uint64]


class Uniforms(Protocol):
    """Where numbers in [0, 1) come from; `randomness.Rng` is one."""

    def uniforms(self, keys: Keys, draws: ArrayLike, positions: ArrayLike) -> NDArray[np.float64]: ...


class Scheme(Protocol):
    """A way to keep k of each group, such as those of `resample`."""

    def __call__(self, log_size: ArrayLike, k: int, uniform: ArrayLike, members: ArrayLike = ...) -> Kept: ...


class Order(Protocol):
    """What stands side by side when a frontier is gone through, such as the orders of `ordering`."""

    def __call__(self, graph: BabbleGraph, ids: Ids) -> NDArray[Any]: ...


def resample_frontier(
    graph: BabbleGraph,
    log_priority: NDArray[np.float64],
    k: int | NDArray[np.intp],
    rng: Uniforms,
    *,
    stems: bool = False,
    turn: int = 0,
    scheme: Scheme = fearnhead_clifford,
    order: Order | None = None,
) -> Ids:
    """Prunes every tree's frontier to k nodes without bias, sizes being weight × priority; returns the stopped.

    Args:
        log_priority: log of the factor beside the weight, for every node, [N]; below `FLOOR` of the tree's largest
            it counts as that.
        k: how many nodes of each tree go on; a number, or one for each tree, [trees].
        rng: one uniform for each tree.
        stems: whether stems take part.
        turn: which of several prunings in one round this is.
        scheme: `resample.fearnhead_clifford` or `resample.systematic`.
        order: (graph, ids [M]) -> [M], such as those of `ordering`: the nodes of a tree are gone through in this
            order, ties and all by default in that of their ids. It moves the variance, never the mean.

    Raises:
        BadInput: no node is to go on: then the weight would be lost.

    Complexity: O(N + F log F), no loop over nodes (the order's own apart).
    Source: design/statistics.md, "One bookkeeping for every operation".
    """
    live = graph.status == Status.FRONTIER
    ids = np.flatnonzero(live | (graph.status == Status.STEM) if stems else live)
    most = np.broadcast_to(np.asarray(k, np.intp), (graph.trees,))
    if (most < 1).any():
        raise BadInput(f"pruning must keep a node of each tree, got k = {most.min()}: keep 1 or more")
    crowded = np.bincount(graph.root[ids], minlength=graph.trees) > most
    ids = ids[crowded[graph.root[ids]]]
    stopped = []
    for each in np.unique(most[crowded]).tolist():
        some = ids[most[graph.root[ids]] == each]
        rank = np.zeros(len(some), np.intp) if order is None else np.asarray(order(graph, some))
        some = some[np.lexsort((some, rank, graph.root[some]))]
        trees, members = np.unique(graph.root[some], return_counts=True)
        u = rng.uniforms(chain(graph.key[trees], PRUNE), graph.round, turn)
        size = graph.log_weight(some) + _floored(log_priority[some], members)
        keep, log_pi = scheme(size, each, u, members)
        graph.log_inclusion[some[keep]] += log_pi[keep]
        stopped.append(some[~keep])
    return _stop(graph, np.concatenate([*stopped, np.zeros(0, np.intp)]))


def roulette(graph: BabbleGraph, ids: ArrayLike, survival: ArrayLike, rng: Uniforms, *, turn: int = 0) -> Ids:
    """Russian roulette: each node goes on with its probability, its weight divided by it; returns the stopped.

    Args:
        ids: unexpanded nodes or stems, distinct, [M].
        survival: the probability of each, [M], or one for all.
        rng: one uniform for each node.
        turn: which of several roulettes in one round this is.

    Raises:
        BadInput: a probability that is not above 0 and at most 1.
    """
    nodes = np.asarray(ids, np.intp)
    r = np.broadcast_to(np.asarray(survival, np.float64), nodes.shape)
    if not ((r > 0) & (r <= 1)).all():
        worst = r[~((r > 0) & (r <= 1))][0]
        raise BadInput(f"a survival must be above 0 and at most 1, got {worst:g}: a small one is enough")
    on = rng.uniforms(chain(graph.key[nodes], ROULETTE), graph.round, turn) < r
    graph.log_inclusion[nodes[on]] += np.log(r[on])
    return _stop(graph, nodes[~on])


def merge_by_weight(graph: BabbleGraph, rng: Uniforms, *, turn: int = 0) -> Ids:
    """Merges unexpanded nodes of one tree and state: node i stays with probability w_i / Σw and takes all the weight.

    Keeping the heaviest would be biased for functions of the path. Returns the merged nodes.

    Args:
        rng: one uniform for each state.
        turn: which of several mergings in one round this is.
    """
    ids, members = _same_state(graph, np.flatnonzero(graph.status == Status.FRONTIER))
    first = np.cumsum(members) - members
    keys = chain(chain(graph.key[graph.root[ids[first]]], MERGE), graph.round)
    u = rng.uniforms(keys, graph.state_key[ids[first]], turn)
    keep, log_share = systematic(graph.log_weight(ids), 1, u, members)
    graph.log_inclusion[ids[keep]] += log_share[keep]
    return _merge(graph, ids[~keep], np.repeat(ids[keep], members)[~keep])


def merge_into_first(
    graph: BabbleGraph,
    *,
    group: NDArray[np.integer] | None = None,
    rank: NDArray[np.float64] | None = None,
) -> Ids:
    """Merges new nodes into the oldest node of their tree and state; for the aim `solve` (biased).

    Args:
        group: of every node, [N]: only nodes of one group are the same.
        rank: of every node, [N]: the largest takes the place of the oldest, which stays where it was expanded.
    """
    near = _inner_with(graph, graph.state_key[graph.frontier()])
    ids, members = _same_state(graph, near, group, rank)
    first = ids[np.cumsum(members) - members]
    graph.flags[first] |= np.uint8(Flag.BIASED)
    winner = np.repeat(first, members)
    lost = (graph.status[ids] == Status.FRONTIER) & (ids != winner)
    return _merge(graph, ids[lost], winner[lost])


def keep_best(graph: BabbleGraph, priority: NDArray[np.float64], k: int) -> Ids:
    """Hard top-k: stops all but the k best live nodes of each tree, never a root (biased).

    Args:
        priority: of every node, [N].
        k: how many live nodes may hold keys and values.
    """
    order, tree = _ranked(graph, priority)
    rank = np.arange(len(order)) - np.searchsorted(tree, tree)
    return _stop(graph, order[rank >= k], biased=True)


def keep_best_of(
    graph: BabbleGraph, ids: Ids, group: NDArray[np.integer], rank: NDArray[np.float64], k: int
) -> Ids:
    """Hard top-k among some nodes: stops all but the k best of each group (biased).

    Args:
        ids: distinct nodes, [M].
        group: whom each competes with, such as its tree, [M].
        rank: the larger the better, [M]; ties go to the likelier, then to the older node.
        k: how many of each group go on.
    """
    order = np.lexsort((ids, -graph.log_p_g[ids], -rank, group))
    grouped = group[order]
    place = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    return _stop(graph, np.sort(ids[order[place >= k]]), biased=True)


def keep_quantile(graph: BabbleGraph, priority: NDArray[np.float64], share: float) -> Ids:
    """Stops the live nodes of each tree below the quantile that a share of them reaches, never a root (biased).

    Ties with the last one that is kept are kept too, so that equal nodes share their fate.

    Args:
        priority: of every node, [N].
        share: of each tree's live nodes, above 0 and at most 1; at least one node is kept.

    Raises:
        BadInput: another share.
    """
    if not 0 < share <= 1:
        raise BadInput(f"a share must be above 0 and at most 1, got {share:g}: 0.1 keeps a tenth")
    order, tree = _ranked(graph, priority)
    first, behind = np.searchsorted(tree, tree), np.searchsorted(tree, tree, side="right")
    last = first + np.maximum(np.ceil(share * (behind - first) - 1e-9).astype(np.intp), 1) - 1
    return _stop(graph, order[priority[order] < priority[order[last]]], biased=True)


def keep_pareto(graph: BabbleGraph, first: NDArray[np.float64], second: NDArray[np.float64]) -> Ids:
    """Stops live nodes that another one of their tree beats in one respect and equals or beats in the other (biased).

    Args:
        first, second: what is to be large, such as value and connectivity, of every node, [N].

    Complexity: O(F log F): in falling order of `first`, the best `second` so far decides.
    """
    live = _live(graph)
    a, tree = first[live], graph.root[live]
    order = np.lexsort((-second[live], -a, tree))
    live, a, tree = live[order], a[order], tree[order]
    n, place = len(live), np.arange(len(live))
    rank = np.unique(second[live], return_inverse=True)[1]
    best = np.maximum.accumulate(
        rank + tree * np.int64(n)
    )  # later trees stand above earlier ones: nothing leaks
    run = np.r_[True, (np.diff(a) != 0) | (np.diff(tree) != 0)][:n]  # a new value of `first`
    start = np.maximum.accumulate(np.where(run, place, 0))
    before = start - 1  # the last one with a larger `first`
    above = (start > 0) & (tree[before] == tree) & (best[before] >= rank + tree * np.int64(n))
    beaten = above | (rank[start] > rank)
    return _stop(graph, live[beaten], biased=True)


def _floored(log_priority: NDArray[np.float64], members: NDArray[np.intp]) -> NDArray[np.float64]:
    """Priorities of group after group; none below `FLOOR` of its group's largest, [F]."""
    known = np.where(np.isnan(log_priority), -np.inf, log_priority)
    largest = np.maximum.reduceat(known, np.cumsum(members) - members) if len(known) else known
    largest = np.repeat(np.where(np.isfinite(largest), largest, 0.0), members)
    return np.maximum(known, largest + np.log(FLOOR))


def _live(graph: BabbleGraph) -> Ids:
    live = np.flatnonzero(graph.status <= Status.EXPANDED)
    return live[live >= graph.trees]


def _ranked(graph: BabbleGraph, priority: NDArray[np.float64]) -> tuple[Ids, NDArray[np.int32]]:
    """Live nodes, tree after tree, the best first, and the tree of each."""
    live = _live(graph)
    order = live[np.lexsort((live, -priority[live], graph.root[live]))]
    return order, graph.root[order]


def _same_state(
    graph: BabbleGraph,
    ids: Ids,
    group: NDArray[np.integer] | None = None,
    rank: NDArray[np.float64] | None = None,
) -> tuple[Ids, NDArray[np.intp]]:
    """Nodes that share group (by default the tree) and state with another one, group after group; members of each.

    Within a group the largest rank comes first, then the oldest node.
    """
    ids, group = ids[graph.state_key[ids] != NO_STATE], graph.root if group is None else group
    falling = np.zeros(len(ids)) if rank is None else -rank[ids]
    order = ids[np.lexsort((ids, falling, graph.state_key[ids], group[ids]))]
    new = (np.diff(graph.state_key[order]) != 0) | (np.diff(group[order]) != 0)
    first = np.flatnonzero(np.r_[np.ones(min(len(order), 1), np.bool_), new])
    members = np.diff(np.r_[first, len(order)])
    return order[np.repeat(members > 1, members)], members[members > 1]


def _inner_with(graph: BabbleGraph, keys: NDArray[np.int64]) -> Ids:
    """Inner nodes, pruned ones included, that have one of some states.

    The lowest bits of a key, looked up in a table, rule nearly all out, so that a round sorts few nodes and not N.
    """
    keys = keys[keys != NO_STATE]
    if not len(keys):
        return np.zeros(0, np.intp)
    ids = np.flatnonzero((graph.status <= Status.EXPANDED) | (graph.status == Status.PRUNED))
    bits = (1 << max(16, 4 + len(keys).bit_length())) - 1
    listed = np.zeros(bits + 1, np.bool_)
    listed[keys & bits] = True
    ids = ids[listed[graph.state_key[ids] & bits]]
    return ids[np.isin(graph.state_key[ids], keys)]


def _stop(graph: BabbleGraph, stopped: Ids, biased: bool = False) -> Ids:
    graph.stop_nodes(stopped, Status.PRUNED, Gate.NODE)
    if biased:
        graph.flags[stopped] |= np.uint8(Flag.BIASED)
    return stopped


def _merge(graph: BabbleGraph, losers: Ids, winners: Ids) -> Ids:
    graph.stop_nodes(losers, Status.MERGED, Gate.NODE)
    graph.merges.extend(np.stack([losers, winners], 1))
    return losers
