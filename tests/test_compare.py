"""Two searches of one prompt: what is shared, what is new, what moved, against sets of texts as the slow twin."""

from __future__ import annotations

import numpy as np
import pytest
from rich.cells import cell_len
from table_lm import TableLM
from test_clean import check_frame, hostile_graph, random_spans, written
from test_frontier import rounds_of
from test_view import graph_of, plain, random_graph

from babblegraph.born import Born
from babblegraph.compare import NOWHERE, elites, union
from babblegraph.errors import BadInput
from babblegraph.status import Status
from babblegraph.strategies import best_of_n, frontier
from babblegraph.view.diff import diff_report
from babblegraph.view.signs import ASCII


def searched(strategy, seed=0):
    for found in rounds_of(TableLM(3, 4, seed=2), strategy, trees=2, tokens=40, seed=seed):
        graph = found.graph
    return graph


def steps_of(graph, node):
    return (graph.prompts[graph.root[node]], *(graph.span(i).tobytes() for i in graph.path(node)[1:]))


@pytest.mark.parametrize("seed", range(4))
def test_places_are_the_distinct_paths_of_both_graphs(seed):
    a, b = searched(frontier(width=3, keep=3), seed), searched(best_of_n(width=8), seed + 1)
    found = union(a, b)
    paths = [{steps_of(g, i) for i in range(g.size)} for g in (a, b)]
    assert len(found.parent) == len(paths[0] | paths[1])
    assert int(found.shared.sum()) == len(paths[0] & paths[1]) > 2
    for graph, of, at in ((a, found.of_a, found.in_a), (b, found.of_b, found.in_b)):
        assert (of != NOWHERE).all()
        for node in range(graph.size):
            assert steps_of(graph, node) == steps_of(graph, int(at[of[node]]))
            up = int(graph.parent[node])
            assert found.parent[of[node]] == (of[up] if up != -1 else -1)


def test_a_graph_compared_with_itself_has_nothing_of_its_own():
    graph = random_graph(300, 1, reach=20)
    found = union(graph, graph)
    assert found.shared.all()
    text = plain(diff_report(graph, graph, width=100), 100)
    assert "Elites only" not in text
    assert "moved" not in text


def test_graphs_without_a_common_prompt_are_refused():
    with pytest.raises(BadInput, match="a prompt in common, got 'x' and 'y'"):
        union(graph_of(prompts=["x"]), graph_of(prompts=["y"]))


def test_only_the_common_prompts_are_compared():
    a, b = graph_of("one", prompts=["x", "y"], parent=[0]), graph_of("one", prompts=["y", "x"], parent=[1])
    found = union(a, b)
    assert found.shared.sum() == 3  # both prompts, and the node below x
    assert found.of_b[2] == found.of_a[2]


def test_trees_that_repeat_a_prompt_are_joined():
    a = graph_of("one", "two", prompts=["x"])
    b = graph_of("one", "two", "one", "six", prompts=["y", "x", "x"], parent=[1, 1, 2, 0])
    found = union(a, b)
    assert found.parent.tolist() == [-1, 0, 0]
    assert found.of_a.tolist() == [0, 1, 2]
    assert found.of_b.tolist() == [NOWHERE, 0, 0, 1, 2, 1, NOWHERE]
    assert found.in_b.tolist() == [1, 3, 4]  # the first of equal ones


@pytest.mark.parametrize("threshold", [0.5, None])
def test_every_total_is_of_all_trees_of_the_common_prompts_and_of_no_others(threshold):
    """Second computation: a graph of these trees alone has the same totals, as it has nothing else."""
    few = {"prompts": ["x"], "threshold": threshold, "status": Status.LEAF_STOP}
    a, many = graph_of("aa", "bb", **few), few | {"prompts": ["y", "x", "x", "z", "x"]}
    b = graph_of("aa", "bb", "cc", "dd", "ee", "bb", parent=[1, 1, 2, 0, 3, 4], **many)
    a.score[1:], b.score[5:] = [1, 0], [0.75, 0, 0.875, 1, 1, 0]
    alone = graph_of("aa", "bb", "cc", "bb", parent=[0, 0, 1, 2], **(few | {"prompts": ["x"] * 3}))
    alone.score[3:] = [0.75, 0, 0.875, 0]
    text = plain(diff_report(a, b, width=80), 80)
    totals = {line[:18].strip(): line[18:].split() for line in text.splitlines()[4:10]}
    passed = {"leaves that pass": ["1", "2"], "elites": ["1", "2", "1"]}
    if threshold is None:
        passed = {"leaves that pass": ["0", "0"], "elites": ["1", "1", "0"]}
    rest = {"places": ["3", "4", "3"], "tokens in spans": ["4", "8"], "best score": ["1.00", "0.88"]}
    assert totals == {"trees": ["1", "3", "of", "5"]} | rest | passed
    same = plain(diff_report(a, alone, width=80), 80)
    words = [[line.split() for line in shown.splitlines()[5:]] for shown in (same, text)]
    assert words[0] == words[1]


def test_the_report_names_new_elites_and_where_effort_and_probability_moved():
    a = graph_of("left\n", "right\n", threshold=0.5)
    b = graph_of("left\n", "right\n", threshold=0.5)
    b.add(Born.of_spans([1, 1], [list(b"gold\n"), list(b"dust\n")], [-1.0, -1.0], Status.LEAF_END))
    b.score[3:] = 1.0, 0.0
    assert elites(b, np.arange(b.size)).tolist() == [3]
    text = plain(diff_report(a, b, width=100), 100)
    assert "Elites only in B" in text
    assert "1.00  left⏎gold⏎" in text
    assert "Effort moved" in text
    b.log_p_g[1] = -0.1
    text = plain(diff_report(a, b, width=100), 100)
    assert "Probability moved" in text
    assert "36.79 % →  90.48 %  left⏎" in text


@pytest.mark.parametrize("width", [60, 100, 200])
@pytest.mark.parametrize("height", [6, 40, None])
def test_the_comparison_keeps_to_its_width(width, height):
    a, b = random_graph(700, 1, reach=30), random_graph(700, 2, reach=30)
    for one, other in ((a, b), (graph_of(), a), (random_graph(400, 0, reach=1), a)):
        text = plain(diff_report(one, other, width=width, height=height, signs=ASCII), width, "ascii")
        assert max(map(cell_len, text.splitlines())) <= width


def test_hostile_text_breaks_no_comparison():
    spans = random_spans(100, seed=3)
    a, b = hostile_graph(spans, 1), hostile_graph(spans, 2)
    check_frame(written(diff_report(a, b, width=90), 90), 90)
