"""The node gate: what stops nodes, and what that does to the weights of those it lets through.

`fearnhead_clifford` and `merge_by_weight` keep every weighted sum over leaves unbiased whatever the sizes are;
`keep_best` and `merge_into_first` do not, and mark what they leave behind as biased.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.graph import NO_STATE, BabbleGraph
from babblegraph.status import Flag, Gate, Status

Ids = NDArray[np.intp]


def fearnhead_clifford(
    log_size: ArrayLike, k: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Optimal resampling: keep k of n, large ones for sure, the others by chance.

    Finds c with Σ min(1, c s_i) = k, keeps i with probability π_i = min(1, c s_i) by systematic sampling.

    Args:
        log_size: log s, s > 0, [n].
        k: how many to keep.
        rng: one uniform is drawn.

    Returns:
        Kept indices (ascending) and their log π, [min(n, k)] each.

    Complexity: O(n log n).
    Source: Fearnhead & Clifford, "On-line inference for hidden Markov models via particle filters", 2003.

    >>> keep, log_pi = fearnhead_clifford(np.log([0.5, 0.3, 0.1, 0.1]), 3, np.random.default_rng(0))
    >>> keep[:2].tolist(), np.exp(log_pi).round(6).tolist()
    ([0, 1], [1.0, 1.0, 0.5])
    """
    log_s = np.asarray(log_size, np.float64)
    n = len(log_s)
    if n <= k:
        return np.arange(n), np.zeros(n)
    log_pi = inclusion(log_s, k)
    sure = np.flatnonzero(log_pi == 0.0)
    rest = np.flatnonzero(log_pi < 0.0)
    chosen = rest[systematic(np.exp(log_pi[rest]), k - len(sure), rng.random())]
    keep = np.sort(np.r_[sure, chosen])
    return keep, log_pi[keep]


def inclusion(log_size: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """log min(1, c s_i) with Σ min(1, c s_i) = k, for n > k sizes, [n]."""
    order = np.argsort(-log_size, kind="stable")
    s = np.exp(
        log_size[order] - log_size[order[0]]
    )  # the largest is 1: no overflow, and tiny ones may vanish
    tail = np.cumsum(s[::-1])[::-1]  # tail[d] = Σ_{i >= d} s_i
    d = np.arange(k)
    certain = int(
        np.argmin(np.r_[(k - d) * s[:k] >= tail[:k], False])
    )  # the first d that is not kept for sure
    certain = min(certain, k)
    log_pi = np.zeros(len(s))
    if certain < k:
        log_pi[certain:] = (
            np.log(k - certain) + (log_size[order[certain:]] - log_size[order[0]]) - np.log(tail[certain])
        )
    else:
        log_pi[certain:] = -np.inf  # the others have no size at all beside these
    out = np.empty(len(s))
    out[order] = np.minimum(log_pi, 0.0)
    return out


def systematic(probabilities: NDArray[np.float64], k: int, uniform: float) -> NDArray[np.intp]:
    """k distinct indices, i with its probability (all at most 1, together k), from one uniform."""
    if k <= 0:
        return np.zeros(0, np.intp)
    edges = np.cumsum(probabilities)
    edges *= k / edges[-1]
    found = np.searchsorted(edges, uniform + np.arange(k), side="right")
    return np.minimum(found, len(edges) - 1)


def resample_frontier(
    graph: BabbleGraph, log_priority: NDArray[np.float64], k: int, rng: np.random.Generator, tree: int
) -> Ids:
    """Fearnhead–Clifford pruning of one tree's frontier to k nodes; returns the stopped ids.

    Args:
        log_priority: log of the factor beside the weight, for every node, [N].
    """
    ids = np.flatnonzero((graph.status == Status.FRONTIER) & (graph.root == tree))
    keep, log_pi = fearnhead_clifford(graph.log_weight(ids) + log_priority[ids], k, rng)
    graph.log_inclusion[ids[keep]] += log_pi
    stopped = np.delete(ids, keep)
    graph.stop_nodes(stopped, Status.PRUNED, Gate.NODE)
    return stopped


def merge_by_weight(graph: BabbleGraph, rng: np.random.Generator, tree: int) -> Ids:
    """Merges unexpanded nodes of one tree and state: node i stays with probability w_i / Σw and takes all the weight.

    Keeping the heaviest would be biased for functions of the path.
    """
    stopped: list[int] = []
    for ids in _same_state(graph, np.flatnonzero((graph.status == Status.FRONTIER) & (graph.root == tree))):
        log_w = graph.log_weight(ids)
        log_total = np.logaddexp.reduce(log_w)
        edges = np.cumsum(np.exp(log_w - log_total))
        winner = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
        graph.log_inclusion[ids[winner]] += log_w[winner] - log_total
        stopped += _merge(graph, np.delete(ids, winner), int(ids[winner]))
    return np.array(stopped, np.intp)


def merge_into_first(graph: BabbleGraph) -> Ids:
    """Merges new nodes into the oldest node of their tree and state; for the aim `solve` (biased)."""
    inner = (graph.status <= Status.EXPANDED) | (graph.status == Status.PRUNED)
    with_state = np.flatnonzero(inner & (graph.state_key != NO_STATE))
    stopped: list[int] = []
    for ids in _same_state(graph, with_state):
        losers = ids[1:][graph.status[ids[1:]] == Status.FRONTIER]
        graph.flags[ids[0]] |= np.uint8(Flag.BIASED)
        stopped += _merge(graph, losers, int(ids[0]))
    return np.array(stopped, np.intp)


def keep_best(graph: BabbleGraph, priority: NDArray[np.float64], k: int) -> Ids:
    """Hard top-k: stops all but the k best live nodes of each tree, never a root (biased).

    Args:
        priority: of every node, [N].
        k: how many live nodes may hold keys and values.
    """
    live = np.flatnonzero(graph.status <= Status.EXPANDED)
    live = live[live >= graph.trees]
    order = live[np.lexsort((live, -priority[live], graph.root[live]))]
    tree = graph.root[order]
    rank = np.arange(len(order)) - np.searchsorted(tree, tree)
    stopped = order[rank >= k]
    graph.stop_nodes(stopped, Status.PRUNED, Gate.NODE)
    graph.flags[stopped] |= np.uint8(Flag.BIASED)
    return stopped


def _same_state(graph: BabbleGraph, ids: Ids) -> list[Ids]:
    """Groups of two or more of the nodes that share tree and state, each in ascending order."""
    ids = ids[graph.state_key[ids] != NO_STATE]
    order = ids[np.lexsort((ids, graph.state_key[ids], graph.root[ids]))]
    new = np.r_[True, (np.diff(graph.state_key[order]) != 0) | (np.diff(graph.root[order]) != 0)]
    return [g for g in np.split(order, np.flatnonzero(new)[1:]) if len(g) > 1]


def _merge(graph: BabbleGraph, losers: Ids, winner: int) -> list[int]:
    graph.stop_nodes(losers, Status.MERGED, Gate.NODE)
    graph.merges += [(int(i), winner) for i in losers]
    return [int(i) for i in losers]
