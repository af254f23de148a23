"""The node gate. Randomness is integrated exactly: a result is constant in u between consecutive edges."""

from __future__ import annotations

import numpy as np
import pytest

from babblegraph.born import Born
from babblegraph.graph import BabbleGraph
from babblegraph.prune import (
    fearnhead_clifford,
    inclusion,
    keep_best,
    merge_by_weight,
    merge_into_first,
    resample_frontier,
)
from babblegraph.status import Flag, Gate, Status


class Fixed:
    """A generator whose next uniform is known."""

    def __init__(self, u):
        self.u = u

    def random(self):
        return self.u


def pieces(edges):
    """Midpoints and lengths of the pieces into which edges cut [0, 1)."""
    cuts = np.unique(np.r_[0.0, 1.0, np.clip(edges, 0, 1)])
    return (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts)


def expected(sizes, k, h):
    """Exact E[Σ_kept w h / π] and E[number kept] of Fearnhead–Clifford pruning, weights = sizes."""
    log_pi = inclusion(np.log(sizes), k)
    rest = np.exp(log_pi[log_pi < 0])
    edges = np.cumsum(rest) * (round(rest.sum()) / rest.sum() if len(rest) else 1)
    total = count = 0.0
    for u, length in zip(*pieces(edges % 1.0), strict=True):
        keep, kept_log_pi = fearnhead_clifford(np.log(sizes), k, Fixed(u))
        assert len(keep) == len(set(keep.tolist())) == k
        total += length * np.sum(sizes[keep] * h[keep] / np.exp(kept_log_pi))
        count += length * len(keep)
    return total, count


SIZES = {
    "random": np.random.default_rng(1).gamma(0.3, size=20) + 1e-9,
    "ties": np.ones(9),
    "one giant": np.r_[1.0, np.full(30, 1e-12)],
    "the design's example": np.array([0.5, 0.3, 0.1, 0.1]),
    "many giants": np.r_[np.ones(5), np.full(10, 1e-15)],
}


@pytest.mark.parametrize(("name", "k"), [(n, k) for n in SIZES for k in (1, 3, 7) if len(SIZES[n]) > k])
def test_fearnhead_clifford_keeps_every_weighted_sum_exactly(name, k):
    sizes = SIZES[name]
    for seed in range(3):
        h = np.random.default_rng(seed).normal(size=len(sizes))
        for values in (np.ones(len(sizes)), h):
            got, _ = expected(sizes, k, values)
            assert abs(got - np.sum(sizes * values)) < 1e-12 * max(1, np.abs(sizes * values).sum())


def test_the_threshold_of_the_design_is_five():
    log_pi = inclusion(np.log(SIZES["the design's example"]), 3)
    np.testing.assert_allclose(np.exp(log_pi), [1, 1, 0.5, 0.5], atol=1e-15)


@pytest.mark.parametrize("k", [4, 5])
def test_nothing_is_pruned_when_there_are_not_more_than_k(k):
    keep, log_pi = fearnhead_clifford(np.log(SIZES["the design's example"]), k, Fixed(0.5))
    assert keep.tolist() == [0, 1, 2, 3]
    assert not log_pi.any()


def test_tiny_sizes_do_not_overflow():
    log_s = np.array([-4000.0, -4001.0, -4002.0, -9000.0])
    keep, log_pi = fearnhead_clifford(log_s, 2, Fixed(0.3))
    assert len(keep) == 2
    assert np.isfinite(log_pi).all()


def test_inclusion_probabilities_sum_to_k_for_a_hundred_thousand_nodes():
    log_s = np.random.default_rng(0).normal(size=100_000) * 3
    assert abs(np.exp(inclusion(log_s, 10_000)).sum() - 10_000) < 1e-6


def small_graph(log_q, status=Status.FRONTIER, states=None):
    graph = BabbleGraph(["p"], [[0]], {0: b"a", 1: b"b"})
    n = len(log_q)
    ids = graph.add(Born.of_spans([0] * n, [[1]] * n, log_q, status, log_inclusion=np.zeros(n)))
    if states is not None:
        graph.state_key[ids] = states
    return graph, ids


def test_pruned_nodes_remember_gate_and_round_and_survivors_their_factor():
    graph, _ids = small_graph(np.log([0.5, 0.3, 0.1, 0.1]))
    graph.round = 7
    stopped = resample_frontier(graph, np.zeros(graph.size), 3, Fixed(0.4), 0)
    assert len(stopped) == 1
    assert graph.status[stopped[0]] == Status.PRUNED
    assert graph.gate[stopped[0]] == Gate.NODE
    assert graph.died[stopped[0]] == 7
    left = graph.frontier()
    np.testing.assert_allclose(np.exp(graph.log_inclusion[left]), [1, 1, 0.5])


def test_merging_by_weight_keeps_every_weighted_sum_exactly():
    w = np.array([0.4, 0.1, 0.2, 0.3])
    states = np.array([5, 5, 5, -1])
    h = np.array([1.0, -2.0, 0.7, 3.0])  # a function of the path, not of the state
    total = 0.0
    for u, length in zip(*pieces(np.cumsum(w[:3]) / w[:3].sum()), strict=True):
        graph, _ids = small_graph(np.log(w), states=states)
        stopped = merge_by_weight(graph, Fixed(u), 0)
        live = graph.frontier()
        assert len(stopped) == 2
        assert len(live) == 2
        assert {loser for loser, _ in graph.merges} == set(stopped.tolist())
        assert (graph.status[stopped] == Status.MERGED).all()
        total += length * np.sum(np.exp(graph.log_weight(live)) * h[live - 1])
    assert abs(total - np.sum(w * h)) < 1e-12


def test_merging_into_the_first_says_that_it_is_biased():
    graph, _ids = small_graph(np.log([0.4, 0.1]), states=np.array([5, 5]))
    assert merge_into_first(graph).tolist() == [2]
    assert graph.merges == [(2, 1)]
    assert graph.flags[1] & Flag.BIASED


def test_hard_top_k_keeps_the_best_of_each_tree_and_says_that_it_is_biased():
    graph = BabbleGraph(["p", "q"], [[0], [0]], {0: b"a", 1: b"b"})
    ids = graph.add(Born.of_spans([0, 0, 0, 1, 1], [[1]] * 5, np.zeros(5)))
    priority = np.zeros(graph.size)
    priority[ids] = [1, 3, 2, 9, 8]
    stopped = keep_best(graph, priority, 2)  # the expanded roots are never stopped
    assert stopped.tolist() == [ids[0]]
    assert graph.flags[ids[0]] & Flag.BIASED
    assert graph.status[0] == Status.EXPANDED
