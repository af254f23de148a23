"""The node gate. Randomness is integrated exactly: a result is constant in u between consecutive edges."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babblegraph.born import Born
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.prune import (
    FLOOR,
    keep_best,
    keep_pareto,
    keep_quantile,
    merge_by_weight,
    merge_into_first,
    resample_frontier,
    roulette,
)
from babblegraph.randomness import Rng
from babblegraph.resample import fearnhead_clifford, inclusion, systematic
from babblegraph.status import Flag, Gate, Status

SCHEMES = [fearnhead_clifford, systematic]


class Fixed:
    """A source of uniforms that always says the same."""

    def __init__(self, u):
        self.u = u

    def uniforms(self, keys, draws, positions):
        return np.full(len(np.broadcast_arrays(keys, draws, positions)[0]), self.u)


def pieces(edges):
    """Midpoints and lengths of the pieces into which edges cut [0, 1)."""
    cuts = np.unique(np.r_[0.0, 1.0, np.clip(edges, 0, 1)])
    real = np.diff(cuts) > 1e-15  # between two roundings of one edge there is nothing
    return ((cuts[1:] + cuts[:-1]) / 2)[real], np.diff(cuts)[real]


def slow_inclusion(sizes, k):
    """min(1, c s_i), with the threshold found by trying every number of sure members."""
    falling = sorted(sizes, reverse=True)
    for d in range(k):
        c = (k - d) / sum(sorted(falling[d:]))
        if c * falling[d] < 1:
            return (
                np.minimum(1, c * np.asarray(sizes))
                if d == 0
                else np.where(np.asarray(sizes) >= falling[d - 1], 1.0, c * np.asarray(sizes))
            )
    raise AssertionError("more than k members always leave a chance")


def edges_of(scheme, sizes, k):
    """The places in [0, 1) where a scheme's result may change."""
    if scheme is systematic:
        return np.cumsum(sizes / sizes.sum() * k) % 1.0
    pi = slow_inclusion(sizes, k)
    rest = pi[pi < 1]
    return np.cumsum(rest) % 1.0


def expected(scheme, sizes, k, h):
    """Exact E[Σ_kept h / factor]."""
    total = 0.0
    for u, length in zip(*pieces(edges_of(scheme, sizes, k)), strict=True):
        keep, log_factor = scheme(np.log(sizes), k, u)
        assert keep.sum() == k or (scheme is systematic and keep.sum() <= k)
        total += length * np.sum((h / np.exp(log_factor))[keep])
    return total


SIZES = {
    "random": np.random.default_rng(1).gamma(0.3, size=20) + 1e-9,
    "ties": np.ones(9),
    "ties at the threshold": np.array([0.4, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1]),
    "one giant": np.r_[1.0, np.full(30, 1e-9)],
    "the design's example": np.array([0.5, 0.3, 0.1, 0.1]),
    "many giants": np.r_[np.ones(5), np.full(10, 1e-11)],
}


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
@pytest.mark.parametrize(("name", "k"), [(n, k) for n in SIZES for k in (1, 3, 6) if len(SIZES[n]) > k])
def test_every_weighted_sum_is_kept_exactly(scheme, name, k):
    sizes = SIZES[name]
    for seed in range(3):
        h = sizes * np.random.default_rng(seed).normal(size=len(sizes))
        for values in (sizes, h):
            got = expected(scheme, sizes, k, values)
            assert abs(got - values.sum()) < 1e-12 * max(1, np.abs(values).sum())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([1e-6, 0.01, 0.1, 0.25, 0.5, 1.0]), min_size=2, max_size=9), st.data())
def test_any_sizes_keep_every_weighted_sum_exactly(sizes, data):
    k, sizes = data.draw(st.integers(1, len(sizes) - 1)), np.array(sizes)
    h = sizes * np.cos(np.arange(len(sizes)))
    for scheme in SCHEMES:
        assert abs(expected(scheme, sizes, k, h) - h.sum()) < 1e-12


@pytest.mark.parametrize(("name", "k"), [(n, k) for n in SIZES for k in (1, 3, 6) if len(SIZES[n]) > k])
def test_inclusion_equals_its_slow_twin(name, k):
    sizes = SIZES[name]
    found = np.exp(inclusion(np.log(sizes / sizes.max())[None], k)[0])
    np.testing.assert_allclose(found, slow_inclusion(sizes, k), rtol=1e-12)
    assert abs(found.sum() - k) < 1e-9


def test_the_threshold_of_the_design_is_five():
    _, log_pi = fearnhead_clifford(np.log(SIZES["the design's example"]), 3, 0.5)
    np.testing.assert_allclose(np.exp(log_pi), [1, 1, 0.5, 0.5], atol=1e-15)


@pytest.mark.parametrize("k", [4, 5])
def test_nothing_is_pruned_when_there_are_not_more_than_k(k):
    keep, log_pi = fearnhead_clifford(np.log(SIZES["the design's example"]), k, 0.5)
    assert keep.all()
    assert not log_pi.any()


def test_sizes_without_meaning_are_floored_and_can_still_be_kept():
    log_s = np.array([0.0, -np.inf, np.nan, -4000.0])
    for scheme in SCHEMES:
        keep, log_factor = scheme(log_s, 2, 1 - 1e-13)
        assert np.isfinite(log_factor).all()
        assert keep.any()
    _, log_pi = fearnhead_clifford(np.full(4, -np.inf), 2, 0.3)  # nobody has a size: all are equal
    np.testing.assert_allclose(np.exp(log_pi), 0.5)


def test_tiny_sizes_do_not_overflow():
    keep, log_pi = fearnhead_clifford(np.array([-4000.0, -4001.0, -4002.0, -9000.0]), 2, 0.3)
    assert keep.sum() == 2
    assert np.isfinite(log_pi).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
def test_groups_side_by_side_are_what_each_is_alone(scheme):
    draw = np.random.default_rng(5)
    members = draw.integers(1, 40, size=30)
    log_s, u = draw.normal(size=members.sum()) * 3, draw.random(30)
    keep, factor = scheme(log_s, 4, u, members)
    edges = np.r_[0, np.cumsum(members)]
    for g, (a, b) in enumerate(pairwise(edges)):
        alone = scheme(log_s[a:b], 4, u[g])
        np.testing.assert_array_equal(keep[a:b], alone[0])
        np.testing.assert_array_equal(factor[a:b], alone[1])


def test_pruning_a_hundred_thousand_nodes_to_ten_thousand_takes_less_than_50_ms():
    graph = wide(100_000)
    priority = np.random.default_rng(0).normal(size=graph.size)
    columns = {name: getattr(graph, name).copy() for name in ("status", "gate", "died", "log_inclusion")}
    taken = []
    for _ in range(7):
        for name, column in columns.items():
            getattr(graph, name)[:] = column
        start = time.process_time()  # other work on the machine does not count
        stopped = resample_frontier(graph, priority, 10_000, Rng(0))
        taken.append(time.process_time() - start)
        assert len(stopped) == 90_000
    assert min(taken) < 0.05


def wide(n, trees=1):
    graph = BabbleGraph(["p"] * trees, [[0]] * trees, {0: b"a"})
    parent = np.arange(n) % trees
    log_q = np.random.default_rng(1).normal(size=n) - 12
    graph.add(Born.of_spans(parent, [[0]] * n, log_q, log_inclusion=np.zeros(n)))
    return graph


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
    stopped = resample_frontier(graph, np.zeros(graph.size), 3, Fixed(0.4))
    assert len(stopped) == 1
    assert graph.status[stopped[0]] == Status.PRUNED
    assert graph.gate[stopped[0]] == Gate.NODE
    assert graph.died[stopped[0]] == 7
    left = graph.frontier()
    np.testing.assert_allclose(np.exp(graph.log_inclusion[left]), [1, 1, 0.5])


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
@pytest.mark.parametrize("zeros", ["none", "some", "all"])
def test_pruning_a_frontier_is_exact_even_where_the_priority_says_never(scheme, zeros):
    w = np.array([0.4, 0.2, 0.2, 0.15, 0.05])
    h = np.array([1.0, -2.0, 0.7, 3.0, 5.0])
    log_priority = np.r_[0.0, [0.3, -1.0, 0.0, 0.2, -0.5]]
    log_priority[{"none": [], "some": [2, 5], "all": slice(1, None)}[zeros]] = -np.inf
    floored = np.maximum(np.exp(log_priority[1:]), FLOOR * (np.exp(log_priority[1:]).max() or 1 / FLOOR))
    total = 0.0
    for u, length in zip(*pieces(edges_of(scheme, w * floored, 2)), strict=True):
        graph, _ = small_graph(np.log(w))
        resample_frontier(graph, log_priority, 2, Fixed(u), scheme=scheme)
        live = graph.frontier()
        total += length * np.sum(np.exp(graph.log_weight(live)) * h[live - 1])
    assert abs(total - np.sum(w * h)) < 1e-12


def test_each_tree_is_pruned_to_its_own_number():
    graph = wide(40, trees=4)
    resample_frontier(graph, np.zeros(graph.size), np.array([3, 5, 20, 1]), Rng(0))
    left = np.bincount(graph.root[graph.frontier()], minlength=4)
    np.testing.assert_array_equal(left, [3, 5, 10, 1])


@pytest.mark.parametrize("scheme", [fearnhead_clifford, systematic])
def test_pruning_to_no_node_at_all_is_refused(scheme):
    with pytest.raises(BadInput, match="must keep a node of each tree, got k = 0"):
        resample_frontier(wide(4), np.zeros(5), 0, Rng(0), scheme=scheme)


def test_a_tree_is_pruned_alike_alone_and_among_others():
    one, many = wide(20, trees=1), BabbleGraph(["o", "p"], [[0]] * 2, {0: b"a"})
    log_q = np.random.default_rng(1).normal(size=20) - 12
    ids = many.add(Born.of_spans([1] * 20, [[0]] * 20, log_q, log_inclusion=np.zeros(20)))
    resample_frontier(one, np.zeros(one.size), 6, Rng(0))
    resample_frontier(many, np.zeros(many.size), 6, Rng(0))
    np.testing.assert_array_equal(one.status[1:], many.status[ids])
    np.testing.assert_array_equal(one.log_inclusion[1:], many.log_inclusion[ids])


def test_two_turns_of_one_round_are_independent():
    """Sure twins: with the same uniform both prunings would always agree. 1000 trees, odds below 1e-9."""
    first, second = wide(2000, trees=1000), wide(2000, trees=1000)
    resample_frontier(first, np.zeros(first.size), 1, Rng(0))
    resample_frontier(second, np.zeros(second.size), 1, Rng(0), turn=1)
    assert 350 < (first.status != second.status).sum() / 2 < 650


def test_roulette_is_exact_for_every_node():
    w, r = np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.4, 0.05])
    total = np.zeros(3)
    for u, length in zip(*pieces(r), strict=True):
        graph, ids = small_graph(np.log(w))
        stopped = roulette(graph, ids, r, Fixed(u))
        assert (graph.status[stopped] == Status.PRUNED).all()
        live = graph.frontier()
        total[live - 1] += length * np.exp(graph.log_weight(live))
    np.testing.assert_allclose(total, w, atol=1e-12)


def test_roulette_refuses_what_could_never_be_undone():
    graph, ids = small_graph(np.log([0.5, 0.5]))
    for bad in (0.0, 1.5, np.nan):
        with pytest.raises(BadInput, match="survival"):
            roulette(graph, ids, bad, Rng(0))


def test_merging_by_weight_keeps_every_weighted_sum_exactly():
    w = np.array([0.4, 0.1, 0.2, 0.3])
    states = np.array([5, 5, 5, -1])
    h = np.array([1.0, -2.0, 0.7, 3.0])  # a function of the path, not of the state
    total = 0.0
    for u, length in zip(*pieces(np.cumsum(w[:3]) / w[:3].sum()), strict=True):
        graph, _ids = small_graph(np.log(w), states=states)
        stopped = merge_by_weight(graph, Fixed(u))
        live = graph.frontier()
        assert len(stopped) == 2
        assert len(live) == 2
        assert abs(np.exp(graph.log_weight(live)).sum() - 1) < 1e-12
        assert {loser for loser, _ in graph.merges} == set(stopped.tolist())
        assert (graph.status[stopped] == Status.MERGED).all()
        total += length * np.sum(np.exp(graph.log_weight(live)) * h[live - 1])
    assert abs(total - np.sum(w * h)) < 1e-12


def test_states_are_merged_within_their_tree_only_and_all_at_once():
    graph = BabbleGraph(["p", "q"], [[0], [0]], {0: b"a", 1: b"b"})
    ids = graph.add(Born.of_spans([0, 1, 0, 1, 0, 1], [[1]] * 6, np.zeros(6)))
    graph.state_key[ids] = [7, 7, 8, 8, 7, 7]
    assert len(merge_by_weight(graph, Rng(0))) == 2
    groups = sorted(sorted(pair) for pair in graph.merges)
    assert groups == [[ids[0], ids[4]], [ids[1], ids[5]]]
    assert len(merge_by_weight(graph, Rng(0))) == 0


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


def test_the_quantile_keeps_a_share_of_each_tree_and_all_that_tie_with_it():
    graph = BabbleGraph(["p", "q"], [[0], [0]], {0: b"a", 1: b"b"})
    ids = graph.add(Born.of_spans([0] * 4 + [1] * 3, [[1]] * 7, np.zeros(7)))
    priority = np.zeros(graph.size)
    priority[ids] = [4, 3, 3, 1, 5, 6, 7]
    assert sorted(keep_quantile(graph, priority, 0.5).tolist()) == [ids[3], ids[4]]
    assert (graph.flags[[ids[3], ids[4]]] & Flag.BIASED).all()
    with pytest.raises(BadInput, match="share"):
        keep_quantile(graph, priority, 0.0)


@pytest.mark.parametrize("levels", [3, 1000])
def test_pareto_stops_exactly_what_another_node_of_the_tree_beats(levels):
    draw = np.random.default_rng(levels)
    graph = wide(90, trees=3)
    first, second = draw.integers(0, levels, size=(2, graph.size)).astype(float)
    live = np.arange(3, graph.size)
    slow = [
        i
        for i in live
        if any(
            first[j] >= first[i] and second[j] >= second[i] and (first[j], second[j]) != (first[i], second[i])
            for j in live
            if graph.root[j] == graph.root[i]
        )
    ]
    assert sorted(keep_pareto(graph, first, second).tolist()) == slow
    assert (graph.flags[slow] & Flag.BIASED).all()
