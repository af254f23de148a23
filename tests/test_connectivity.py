"""Entropy to go against a slow recursive twin."""

from __future__ import annotations

import numpy as np
import pytest

from babblegraph.born import Born
from babblegraph.graph import BabbleGraph
from babblegraph.scoring.connectivity import entropy_to_go
from babblegraph.status import Status


def random_forest(seed, trees=3, n=80):
    draw = np.random.default_rng(seed)
    graph = BabbleGraph(["p"] * trees, [[0]] * trees, {0: b"a"}, seed)
    while graph.size < n:
        inner = np.flatnonzero(~graph.is_leaf())
        parent = draw.choice(inner, size=4)
        status = draw.choice([Status.FRONTIER, Status.FRONTIER, Status.LEAF_END, Status.LEAF_DEAD], size=4)
        ids = graph.add(Born.of_spans(parent, [[0]] * 4, -draw.random(4) * 5, status))
        graph.count[ids] = draw.integers(1, 4, 4)
    return graph


def slow_entropy(graph):
    """H by the definition: recursive, one node at a time."""
    depth = [len(graph.path(i)) - 1 for i in range(graph.size)]
    known = {}

    def entropy(i):
        if i not in known:
            known[i] = compute(i)
        return known[i]

    def compute(i):
        if graph.is_leaf(i):
            return 0.0
        if mean := from_children(i):
            return mean[0]
        peers = [from_children(j) for j in range(graph.size) if depth[j] == depth[i]]
        peers = [p[0] for p in peers if p]
        return float(np.mean(peers)) if peers else None

    def from_children(i):
        terms = [
            (graph.count[c], graph.log_q[i] - graph.log_q[c] + entropy(c))
            for c in graph.children(i)
            if entropy(c) is not None
        ]
        return [sum(n * h for n, h in terms) / sum(n for n, _ in terms)] if terms else []

    found = [entropy(i) for i in range(graph.size)]
    scale = [max(found[int(r)] or 0.0, 1e-9) for r in graph.root]
    return [1.0 if h is None else h / (h + s) for h, s in zip(found, scale, strict=True)]


@pytest.mark.parametrize("seed", range(6))
def test_entropy_to_go_equals_its_recursive_definition(seed):
    graph = random_forest(seed)
    np.testing.assert_allclose(entropy_to_go(graph), slow_entropy(graph), rtol=1e-5, atol=1e-6)


def test_a_place_with_more_ways_on_is_better_connected():
    graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    graph.add(Born.of_spans([0, 0], [[0], [0]], [-1.0, -1.0]))
    graph.add(Born.of_spans([1] + [2] * 8, [[0]] * 9, [-1.1] + [-1 - np.log(8)] * 8, Status.LEAF_END))
    connectivity = entropy_to_go(graph)
    assert connectivity[2] > connectivity[1] > 0
    assert connectivity[0] == 0.5


def test_a_graph_of_roots_alone_is_fully_connected():
    graph = BabbleGraph(["p", "q"], [[0], [0]], {0: b"a"})
    assert entropy_to_go(graph).tolist() == [1, 1]
