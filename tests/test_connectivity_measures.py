"""Every connectivity measure against a second, independent computation: definitions, networkx, dense algebra."""

from __future__ import annotations

from itertools import product as pairs

import networkx as nx
import numpy as np
import pytest
from test_connectivity import random_forest
from tiny_models import byte_tokenizer, tiny_llama

import babblegraph as bg
from babblegraph.errors import BadInput
from babblegraph.graph import NO_STATE
from babblegraph.scoring import NodeStates, elite_routes, novelty, pagerank
from babblegraph.scoring.elite import effective_routes, elite_weight, state_cells
from babblegraph.scoring.node_states import clustered, nearest
from babblegraph.scoring.pagerank import edges, personalised, restarts
from babblegraph.status import Status


def stateful_forest(seed, n=90, merged=True):
    """A random forest with scores, states, draws and merges."""
    graph, draw = random_forest(seed, n=n), np.random.default_rng(seed + 100)
    leaf = graph.is_leaf()
    graph.score[leaf] = draw.random(int(leaf.sum()))
    graph.score[graph.status == Status.LEAF_DEAD] = 0
    graph.state_key[:] = np.where(draw.random(graph.size) < 0.3, NO_STATE, draw.integers(0, 9, graph.size))
    graph.draws[:] = draw.integers(0, 6, graph.size)
    childless = [
        i
        for i in range(graph.trees, graph.size)
        if not graph.children(i) and graph.status[i] == Status.FRONTIER
    ]
    for loser in childless[::3] if merged else []:
        others = np.flatnonzero((graph.root == graph.root[loser]) & ~leaf)
        winner = int(draw.choice(others[others != loser]))
        graph.status[loser] = Status.MERGED
        graph.merges.append((loser, winner))
    return graph


def is_elite(graph, i, threshold=0.5):
    return bool(graph.is_leaf([i])[0] and graph.status[i] != Status.LEAF_DEAD and graph.score[i] >= threshold)


def slow_weight(graph):
    """Draws of elite leaves below each node, by networkx; a merged node counts what its winner has."""
    tree = nx.DiGraph([(int(graph.parent[i]), i) for i in range(graph.trees, graph.size)])
    tree.add_nodes_from(range(graph.size))
    below = {i: nx.descendants(tree, i) | {i} for i in tree}
    own = {i: int(graph.count[i]) if is_elite(graph, i) else 0 for i in tree}
    alone = {i: sum(own[j] for j in below[i]) for i in tree}
    merged = {i: own[i] + sum(alone[w] for loser, w in graph.merges if loser == i) for i in tree}
    return [sum(merged[j] for j in below[i]) for i in range(graph.size)]


@pytest.mark.parametrize("seed", range(6))
def test_elite_weight_is_what_can_be_reached(seed):
    graph = stateful_forest(seed)
    np.testing.assert_allclose(elite_weight(graph, 0.5), slow_weight(graph))


@pytest.mark.parametrize("seed", range(6))
def test_effective_routes_are_one_over_the_chance_to_leave_the_same_way(seed):
    graph = stateful_forest(seed)
    weight = slow_weight(graph)
    found = effective_routes(graph, np.array(weight, float), state_cells(graph))
    for node in range(graph.size):
        ways = [(c, weight[c]) for c in graph.children(node) if weight[c]]
        if not ways:
            assert found[node] == 0
            continue
        total = sum(w for _, w in ways)
        cell = lambda c: ("own", c) if graph.state_key[c] == NO_STATE else int(graph.state_key[c])  # noqa: E731
        same = sum(wa * wb for (a, wa), (b, wb) in pairs(ways, ways) if cell(a) == cell(b)) / total**2
        assert found[node] == pytest.approx(1 / same)


def test_more_roads_to_the_elite_are_better_connected():
    graph = stateful_forest(1)
    measure = elite_routes(0.5)(graph)
    weight = np.array(slow_weight(graph))
    inner = np.array([bool(graph.children(i)) for i in range(graph.size)])
    assert ((measure == 0) == (weight == 0))[inner].all()
    assert (measure[~inner] == 0).all()
    assert measure.max() < 1
    nothing = elite_routes(2.0)(graph)  # no leaf passes: nothing to tell apart
    np.testing.assert_array_equal(nothing, (~graph.is_leaf()).astype(np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_novelty_counts_draws_from_all_nodes_of_the_state(seed):
    graph = stateful_forest(seed)
    found = novelty()(graph)
    for i in range(graph.size):
        alike = [
            j
            for j in range(graph.size)
            if j == i
            or (graph.root[i] == graph.root[j] and graph.state_key[i] == graph.state_key[j] != NO_STATE)
        ]
        visits = graph.draws[alike].sum()
        expected = 0.0 if graph.is_leaf([i])[0] else 1 / np.sqrt(1 + visits)
        assert found[i] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_pagerank_equals_networkx_and_dense_algebra(seed):
    pytest.importorskip("scipy")  # networkx needs it
    graph = stateful_forest(seed)
    draw = np.random.default_rng(seed)
    links = np.concatenate([edges(graph), draw.integers(0, graph.size, (40, 2))])
    home = restarts(graph, 0.5)
    found = personalised(graph.size, links, home, 0.85)

    plain = nx.Graph()
    plain.add_nodes_from(range(graph.size))
    plain.add_edges_from((int(a), int(b)) for a, b in links if a != b)
    told = nx.pagerank(plain, 0.85, personalization=dict(enumerate(home)), tol=1e-12, max_iter=500)
    np.testing.assert_allclose(found, [told[i] for i in range(graph.size)], atol=1e-7)

    there = nx.to_numpy_array(plain, nodelist=range(graph.size))
    degree = there.sum(1)
    home = home / home.sum()
    step = np.where(degree[:, None] > 0, there / np.maximum(degree, 1)[:, None], home)
    dense = np.linalg.solve(np.eye(graph.size) - 0.85 * step.T, 0.15 * home)
    np.testing.assert_allclose(found, dense, atol=1e-8)


@pytest.mark.parametrize("damping", [0.95, 0.99, 0.999])
def test_a_walk_that_hardly_ever_restarts_arrives_too(damping):
    n, home = 60, np.eye(60)[0]
    links = np.stack([np.arange(n - 1), np.arange(1, n)], 1)
    there = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) == 1
    step = there / there.sum(1, keepdims=True)
    dense = np.linalg.solve(np.eye(n) - damping * step.T, (1 - damping) * home)
    np.testing.assert_allclose(personalised(n, links, home, damping), dense, atol=1e-6)


def test_pagerank_of_a_graph_is_in_the_unit_interval_and_highest_where_elite_leaves_are():
    graph = stateful_forest(2)
    found = pagerank(0.5)(graph)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[graph.is_leaf()] == 0).all()
    weight = np.array(slow_weight(graph))
    inner = ~graph.is_leaf() & (graph.depth > 0)
    assert found[inner & (weight > 0)].mean() > found[inner & (weight == 0)].mean()


@pytest.mark.parametrize("seed", range(3))
def test_nearest_are_those_of_a_full_sort(seed, monkeypatch):
    monkeypatch.setattr("babblegraph.scoring.node_states.BLOCK", 7)
    x = np.random.default_rng(seed).normal(size=(40, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = {(int(a), int(b)) for a, b in nearest(x, 3)}
    slow = set()
    for i in range(40):
        order = sorted((j for j in range(40) if j != i), key=lambda j: -float(x[i] @ x[j]))
        slow |= {(i, j) for j in order[:3]}
    assert found == slow
    assert len(nearest(x[:1], 3)) == 0


@pytest.fixture(scope="module")
def searched():
    tokenizer = byte_tokenizer()
    babbler = bg.Babbler(tiny_llama(tokenizer), tokenizer, span=3, max_new_tokens=12)
    states = NodeStates(babbler, lambda texts: [0.5] * len(texts))
    graph = bg.babble(babbler, ["Once upon", "This is"], value=states, budget=150, threshold=2.0).graph
    return states, graph


def test_node_states_are_remembered_during_a_search_and_link_nodes_of_one_tree(searched):
    states, graph = searched
    ids, x = states.of(graph)
    assert set(ids.tolist()) == set(range(2, graph.size))
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-5)
    links = states.links(graph, 4)
    assert (graph.root[links[:, 0]] == graph.root[links[:, 1]]).all()
    assert len(links) == 4 * len(ids)
    with_links, without = pagerank(0.5, states=states)(graph), pagerank(0.5)(graph)
    assert np.abs(with_links - without).max() > 0.01


def test_clusters_of_hidden_states_are_cells_where_the_task_names_none(searched):
    states, graph = searched
    cells = states.cells(clusters=5)(graph)
    known = states.of(graph)[0]
    assert len(np.unique(cells[known])) == 5
    unknown = np.setdiff1d(np.arange(graph.size), known)
    assert len(np.unique(cells[unknown])) == len(unknown)
    np.testing.assert_array_equal(cells, states.cells(clusters=5)(graph))
    x = states.of(graph)[1]
    inside = [x[cells[known] == c] for c in np.unique(cells[known])]
    spread = sum(((part - part.mean(0)) ** 2).sum() for part in inside)
    assert spread < 0.9 * ((x - x.mean(0)) ** 2).sum()
    assert novelty(states.cells(clusters=5))(graph).max() <= 1


@pytest.mark.parametrize("damping", [0, 1, -0.1])
def test_a_damping_that_is_none_is_refused(damping):
    with pytest.raises(BadInput, match="damping"):
        pagerank(1.0, damping=damping)


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_about_as_tight_as_those_of_scipy(seed):
    vq = pytest.importorskip("scipy.cluster.vq")
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(6, 8))[draw.integers(0, 6, 300)] + 0.4 * draw.normal(size=(300, 8))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def spread(cell):
        return sum(((x[cell == c] - x[cell == c].mean(0)) ** 2).sum() for c in np.unique(cell))

    ours = min(spread(clustered(x, 6, s)) for s in range(10))
    theirs = min(spread(vq.kmeans2(x, 6, minit="++", seed=s)[1]) for s in range(10))
    assert ours < 1.05 * theirs


def test_as_many_clusters_as_different_rows_tell_them_all_apart():
    x = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    cell = clustered(x, 9, 0)
    assert len(set(cell.tolist())) == 4
    assert (cell.reshape(4, 3) == cell.reshape(4, 3)[:, :1]).all()
