"""Mistakes that a weighted tree search can make; each is planted in a scheme, and must be caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from schemes import Forest, beam, grown, has_hit, pruned, restarts, rollouts, to_the_end

from babblegraph import resample
from babblegraph.protocols import ALL
from babblegraph.prune import _same_state
from babblegraph.status import Gate, Status

Planted = Callable[[Forest], object]  # runs a scheme; returns what it adds to log w, if it does


def without_one_over_pi(*args):
    keep, log_pi = resample.fearnhead_clifford(*args)
    return keep, np.zeros_like(log_pi)


def hard_top_k(log_size, k, uniform, members):
    keep = np.ones(len(log_size), np.bool_)
    for a, n in zip(np.cumsum(members) - members, members, strict=True):
        keep[a : a + n] = np.argsort(np.argsort(-log_size[a : a + n], kind="stable")) < k
    return keep, np.zeros(len(log_size))


def wrong_inclusion(log_size, k):
    """The threshold's own member counted among those left to chance."""
    s = np.sort(np.exp(log_size), axis=1)[:, ::-1]
    tail = np.cumsum(s[:, ::-1], axis=1)[:, ::-1]
    chance = (k - np.arange(k)) * s[:, :k] < tail[:, :k]
    certain = np.where(chance.any(1), chance.argmax(1), k)
    row, last = np.arange(len(s)), np.maximum(certain - 1, 0)
    sure = np.exp(log_size) >= np.where(certain > 0, s[row, last], np.inf)[:, None]
    log_c = np.log(k - last) - np.log(tail[row, last])
    return np.where(sure, 0.0, np.minimum(log_size + log_c[:, None], -1e-9))


def wrong_threshold(*args):
    right, resample.inclusion = resample.inclusion, wrong_inclusion
    try:
        return resample.fearnhead_clifford(*args)
    finally:
        resample.inclusion = right


def merging(choose):
    """Merges equal states wrongly: `choose` picks the winner of a group and its log inclusion."""

    def run(forest: Forest) -> None:
        graph = forest.graph
        ids, members = _same_state(graph, forest.live())
        for group in np.split(ids, np.cumsum(members)[:-1]) if len(ids) else []:
            winner, log_inclusion = choose(graph, group)
            graph.log_inclusion[winner] = log_inclusion
            graph.stop_nodes(group[group != winner], Status.MERGED, Gate.NODE)

    return run


def the_heaviest(graph, group):
    log_w = graph.log_weight(group)
    winner = group[np.argmax(log_w)]
    return winner, graph.log_p_f[winner] - np.logaddexp.reduce(log_w)


def the_sum_of_factors(graph, group):
    return group[0], -np.logaddexp.reduce(-graph.log_inclusion[group])


def averaged_restarts(forest: Forest):
    """More draws below the root while nothing is found, and in the end all of them averaged."""
    graph, roots = forest.graph, np.arange(forest.graph.trees)
    made = {}  # round in which a batch was drawn -> its draws
    for m in (1, 2, 3):
        now = roots[~has_hit(forest)]
        made[graph.round + 1] = m
        forest.grow(now, m)
        to_the_end(grown(1))(forest)
    top = np.arange(graph.size)  # the child of the root that a node is below
    for i in range(graph.trees, graph.size):
        up = graph.parent[i]
        top[i] = i if up < graph.trees else top[up]
    batch = np.array([made.get(int(b), 1) for b in graph.born[top]])
    return np.log(batch / np.maximum(graph.draws[graph.root], 1))


def ratio_twice(forest: Forest):
    """q is in log_inclusion already; dividing f by it again counts it twice."""
    rollouts(4)(forest)
    return forest.graph.log_p_f - forest.graph.log_q


def stems_that_leave_their_nodes_whole(forest: Forest) -> None:
    right = forest.hold

    def hold(ids, share):
        stems = right(ids, share)
        forest.graph.log_inclusion[ids] += np.log1p(-share)
        return stems

    forest.hold = hold
    restarts(forest)


def kappa_among_those_that_stay(forest: Forest) -> None:
    """The k-th perturbed log-probability in the place of the (k+1)-th."""
    beam(4)(forest)
    graph, kept = forest.graph, forest.graph.meta["beam"]
    nodes, kappa = np.array(kept["nodes"]), np.full(graph.trees, np.inf)
    np.minimum.at(kappa, graph.root[nodes], kept["perturbed"])
    graph.log_inclusion[nodes] = resample.reached(graph.log_q[nodes], kappa[graph.root[nodes]])


def a_mixture_weighted_as_g(forest: Forest):
    """What was drawn from the mixture, divided by g's probability alone."""
    rollouts(4)(forest)
    return forest.graph.log_q - forest.graph.log_p_g


def stopped_too_early(forest: Forest) -> None:
    for _ in range(forest.lm.length - 1):
        grown(3, pruned(4))(forest)
    some = forest.live()[::3]
    forest.grow(some, 1)


MISTAKES: dict[str, tuple[Planted, dict]] = {
    "1/π missing": (to_the_end(grown(ALL, pruned(4, scheme=without_one_over_pi))), {}),
    "hard top-K": (to_the_end(grown(ALL, pruned(4, scheme=hard_top_k))), {}),
    "the wrong threshold": (to_the_end(grown(ALL, pruned(4, scheme=wrong_threshold))), {}),
    "adaptive re-averaging": (averaged_restarts, {"trees": 1500}),
    "merging by the heaviest": (to_the_end(grown(ALL, merging(the_heaviest))), {}),
    "merging by adding the A's": (to_the_end(grown(ALL, merging(the_sum_of_factors))), {}),
    "q divided out twice": (ratio_twice, {"temperature": 2.0, "trees": 600}),
    "a stem that leaves its node whole": (stems_that_leave_their_nodes_whole, {}),
    "the root fixed at 0": (beam(3, fixed=True), {"trees": 1500}),
    "κ among those that stay": (kappa_among_those_that_stay, {"trees": 600}),
    "a mixture weighted as if it were g": (
        a_mixture_weighted_as_g,
        {"moved": True, "mixture": 0.5, "trees": 600},
    ),
    "stopping with weight on unfinished nodes": (stopped_too_early, {}),
}
