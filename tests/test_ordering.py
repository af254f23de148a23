"""Orders of pruning: what stands together, and what that does to the variance."""

from __future__ import annotations

import numpy as np
import pytest
from test_prune import Fixed, pieces, small_graph

from babblegraph.born import Born
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.ordering import by_embedding, by_parent, by_state, by_text, by_value
from babblegraph.prune import resample_frontier
from babblegraph.resample import fearnhead_clifford, systematic

W = np.array([0.25, 0.2, 0.15, 0.15, 0.15, 0.1])
H = np.array([5.0, -1.0, 4.0, -2.0, 5.5, -1.5])  # two clusters, in turns


def moments(order, scheme, k=3):
    """Exact mean and variance of Σ w h after pruning, over the one uniform."""
    ids = np.arange(1, 7)
    at = ids - 1 if order is None else np.lexsort((ids, order(None, ids)))
    pi = np.minimum(W * k / W.sum(), 1)  # no member is sure at these weights
    edges = np.cumsum(pi[at]) % 1.0
    mean = square = 0.0
    for u, length in zip(*pieces(edges), strict=True):
        graph, _ = small_graph(np.log(W))
        resample_frontier(graph, np.zeros(graph.size), k, Fixed(u), scheme=scheme, order=order)
        live = graph.frontier()
        total = float(np.exp(graph.log_weight(live)) @ H[live - 1])
        mean, square = mean + length * total, square + length * total**2
    return mean, square - mean**2


@pytest.mark.parametrize("scheme", [fearnhead_clifford, systematic], ids=lambda s: s.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_any_order_keeps_the_mean_exactly(scheme, seed):
    shuffled = np.random.default_rng(seed).permutation(7)
    for order in (
        None,
        lambda g, ids: shuffled[ids],
        lambda g, ids: ids % 2,
        lambda g, ids: np.zeros(len(ids)),
    ):
        mean, _ = moments(order, scheme)
        assert abs(mean - W @ H) < 1e-12


def test_an_order_by_cluster_stratifies():
    """Exactly: the variance with clusters apart is less than a third of that with clusters in turns."""
    _, mixed = moments(None, fearnhead_clifford)
    _, apart = moments(lambda g, ids: H[ids - 1] > 0, fearnhead_clifford)
    assert apart < mixed / 3


def test_an_order_never_mixes_trees():
    graph = BabbleGraph(["p", "q"], [[0], [0]], {0: b"a"})
    graph.add(Born.of_spans([0, 1] * 10, [[0]] * 20, np.full(20, -2.0), log_inclusion=np.zeros(20)))
    resample_frontier(graph, np.zeros(graph.size), 4, Fixed(0.3), order=lambda g, ids: -ids)
    assert np.bincount(graph.root[graph.frontier()]).tolist() == [4, 4]


def spans():
    graph = BabbleGraph(["p"], [[0]], {0: b"a", 1: b"b", 2: b"c"})
    first = graph.add(Born.of_spans([0, 0, 0], [[2], [0], [1, 1]], np.zeros(3)))
    second = graph.add(Born.of_spans([2, 1, 2, 3], [[1], [0], [0], [0, 2]], np.zeros(4)))
    return graph, first, second


def test_orders_put_together_what_they_say():
    graph, _, ids = spans()
    graph.value[ids] = [0.3, np.nan, 0.1, 0.2]
    graph.state_key[ids] = [7, 3, 7, -1]
    ranked = lambda order: ids[np.argsort(order(graph, ids), kind="stable")].tolist()  # noqa: E731
    assert ranked(by_value) == [ids[1], ids[2], ids[3], ids[0]]
    assert ranked(by_state) == [ids[3], ids[1], ids[0], ids[2]]
    assert [graph.span_text(i) for i in ranked(by_text)] == ["a", "a", "ac", "b"]
    assert graph.parent[ranked(by_parent)].tolist() == sorted(graph.parent[ids])


def test_embeddings_on_a_line_are_ordered_along_it():
    draw = np.random.default_rng(0)
    along = draw.permutation(64).astype(float)
    x = np.outer(along, [1.0, 2.0, -1.0]) + 1e-3 * draw.normal(size=(64, 3))
    place = by_embedding(lambda g, ids: x)(None, np.arange(64))
    walked = along[np.argsort(place)]
    assert abs(np.diff(walked)).max() == 1


def test_clusters_of_embeddings_stand_together():
    draw = np.random.default_rng(1)
    cluster = draw.permutation(np.repeat(np.arange(4), 16))
    x = 10 * np.eye(4)[cluster] + 0.1 * draw.normal(size=(64, 4))
    place = by_embedding(lambda g, ids: x)(None, np.arange(64))
    assert (np.diff(cluster[np.argsort(place)]) != 0).sum() == 3


@pytest.mark.parametrize("x", [np.zeros(5), np.zeros((4, 2)), np.full((5, 2), np.nan)])
def test_embeddings_of_another_shape_are_refused_in_one_line(x):
    with pytest.raises(BadInput, match="embeddings must be") as error:
        by_embedding(lambda g, ids: x)(None, np.arange(5))
    assert "\n" not in str(error.value)
