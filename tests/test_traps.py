"""The trap report: its branches, states and joints against slow twins that walk every path."""

from __future__ import annotations

import numpy as np
import pytest
from rich.cells import cell_len
from test_clean import check_frame, hostile_graph, random_spans, written
from test_view import graph_of, plain, random_graph, solved

from babblegraph.born import Born
from babblegraph.status import Status
from babblegraph.stem import hold_back
from babblegraph.subtrees import below, passing
from babblegraph.view.signs import ASCII
from babblegraph.view.traps import joints, trap_report, traps, visited


def with_hits(size, seed, reach):
    graph = random_graph(size, seed, reach)
    graph.meta["threshold"] = 0.8
    return graph


def subtree(graph, node):
    return [i for i in range(graph.size) if node in graph.path(i)]


@pytest.mark.parametrize(("seed", "reach"), [(0, 1), (1, 4), (2, 30), (3, None)])
def test_sums_over_subtrees_are_those_of_a_walk(seed, reach):
    graph = with_hits(150, seed, reach)
    found, hit = below(graph), passing(graph)
    spans, worth = graph.stop - graph.start, np.where(np.isnan(graph.score), graph.value, graph.score)
    spans[: graph.trees] = 0
    for node in range(graph.size):
        under = subtree(graph, node)
        assert found.nodes[node] == len(under)
        assert found.tokens[node] == spans[under].sum()
        assert found.hits[node] == hit[under].sum()
        assert found.best[node] == np.nanmax(worth[under])


@pytest.mark.parametrize("seed", range(3))
def test_traps_are_the_uppermost_branches_without_a_hit(seed):
    graph = with_hits(200, seed, 12)
    hit = passing(graph)
    barren = {i for i in range(1, graph.size) if not hit[subtree(graph, i)].any()}
    wanted = {
        i
        for i in barren
        if (graph.parent[i] not in barren) and graph.status[i] not in (Status.FRONTIER, Status.STEM)
    }
    found = traps(graph)
    assert {x.node for x in found} == wanted
    assert [x.tokens for x in found] == sorted((x.tokens for x in found), reverse=True)
    for x in found:
        under = graph.status[subtree(graph, x.node)]
        fates = (Status.LEAF_DEAD, Status.PRUNED, Status.MERGED, Status.FRONTIER)
        assert x.fates == tuple(int((under == fate).sum()) for fate in fates)


def test_states_are_counted_within_their_prompt_and_merged_nodes_count():
    graph = graph_of("a", "b", "c", "d", "e", prompts=["x", "y"], parent=[0, 0, 0, 1, 1])
    graph.state_key[2:] = 7, 7, 7, 7, 8
    graph.status[2] = Status.MERGED
    graph.count[3] = 5
    (found,) = visited(graph)
    assert (found.node, found.times, found.draws) == (3, 3, 7)


@pytest.mark.parametrize("seed", range(3))
def test_a_hit_below_several_nodes_of_one_state_counts_once(seed):
    graph = with_hits(200, seed, (1, 5, 40)[seed])
    graph.state_key[:] = np.random.default_rng(seed).integers(0, 4, graph.size)
    hits = np.flatnonzero(passing(graph))
    for found in visited(graph):
        same = set(np.flatnonzero(graph.state_key == graph.state_key[found.node]).tolist())
        assert found.hits == sum(bool(same & set(graph.path(int(hit))[1:])) for hit in hits)


def test_a_stem_has_the_state_of_its_node_and_is_no_visit_to_it():
    graph = graph_of("a", "b")
    graph.state_key[1:] = 7, 8
    hold_back(graph, [1])
    assert not visited(graph)


def test_joints_are_where_two_routes_to_hits_part():
    graph = graph_of("a", "b", threshold=0.5)
    graph.add(Born.of_spans([1, 1, 2], [[99], [100], [101]], [-1.0] * 3, Status.LEAF_END))
    graph.score[3:] = 1, 1, 0
    (found,) = joints(graph)
    assert found == (1, 2, 2)


def test_the_report_says_it_in_words():
    text = plain(trap_report(solved(), width=100), 100)
    assert "4 branches have no leaf that passes; they hold 18 of 31 tokens (58.1 %)." in text
    assert "In them 1 node is dead, 1 pruned, 1 merged and 0 still live." in text
    assert "1 leaf in all passes." in text
    graph = graph_of("a", "b", threshold=0.5, status=Status.LEAF_STOP)
    graph.score[1:] = 0, 1
    text = plain(trap_report(graph, width=100), 100)
    assert "One branch has no leaf that passes; it holds 1 of 2 tokens (50.0 %)." in text
    assert "In it 0 nodes are dead, 0 pruned" in text
    assert plain(trap_report(graph_of(), width=60), 60).startswith("Traps\n  No branch")


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_the_report_keeps_to_its_width(width):
    for graph in (graph_of(), solved(), with_hits(700, 1, 30), with_hits(400, 0, 1)):
        graph.state_key[:] = np.arange(graph.size) % 3
        text = plain(trap_report(graph, width=width, signs=ASCII), width, "ascii")
        assert max(map(cell_len, text.splitlines())) <= width
    check_frame(written(trap_report(hostile_graph(random_spans(100, seed=3), 1), width=width), width), width)
