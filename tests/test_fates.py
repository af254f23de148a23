"""What became of whole branches, against a walk over every branch."""

from __future__ import annotations

import numpy as np
import pytest
from test_view import graph_of, plain, random_graph, solved

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.estimates import probability
from babblegraph.status import Status
from babblegraph.stem import hold_back
from babblegraph.subtrees import passing
from babblegraph.view.fates import Fate, fates, over
from babblegraph.view.heading import legend, verdict
from babblegraph.view.report import report, saved_spent

STOPPED = {Status.LEAF_DEAD: Fate.DEAD, Status.PRUNED: Fate.PRUNED, Status.MERGED: Fate.MERGED}


def walked(graph, node):
    """The fates of all ends below a node, one after the other."""
    status, children = Status(int(graph.status[node])), graph.children(node)
    found = Fate(0)
    for child in children:
        found |= walked(graph, child)
    if status == Status.EXPANDED and children:
        return found
    if graph.is_leaf(node) and status != Status.LEAF_DEAD:
        failed = graph.meta.get("threshold") is not None and not passing(graph)[node]
        return found | (Fate.FAILED if failed else Fate.OPEN)
    return found | STOPPED.get(status, Fate.OPEN)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_fates_are_those_of_a_walk_over_every_branch(seed, threshold):
    graph = random_graph(200, seed, reach=(1, 5, 200)[seed % 3])
    graph.meta["threshold"] = threshold
    merged = np.flatnonzero((graph.status == Status.FRONTIER) & (np.arange(200) % 3 == 0))[1:]
    graph.stop_nodes(merged, Status.MERGED)
    assert fates(graph).tolist() == [int(walked(graph, node)) for node in range(graph.size)]


def test_a_branch_is_over_only_when_nothing_in_it_is_open():
    for fate in range(32):
        assert bool(over(fate)[0]) == (fate > 0 and not fate & Fate.OPEN)
        assert len(over(fate)[0]) <= 14  # the width of the column
        assert len(over(fate, brief=True)[0]) <= 6


def test_the_verdict_says_what_came_of_the_search_and_what_it_cost():
    def said(graph, spent=None, budget=None, width=100):
        return verdict(graph, spent, budget, width).plain

    assert said(solved()) == "★ passed with score 1.00 · 7 nodes · 0 rounds"
    graph = solved()
    graph.score[6] = 0.9999
    assert said(graph) == "no leaf passes, the best has 0.9999 · 7 nodes · 0 rounds"
    graph.meta["threshold"] = None
    assert said(graph).startswith("◆ best 1.00")
    assert said(graph_of("a")).startswith("no leaf is finished")
    dead = graph_of("a", status=Status.LEAF_DEAD)
    assert said(dead) == "no leaf passes, every branch is over · 1 node · 0 rounds"
    assert said(graph_of()).startswith("nothing was tried")
    graph = graph_of("a")
    graph.add(Born.of_spans([1], [[97]], [-1.0]))
    hold_back(graph, [2])
    graph.stop_nodes(2, Status.LEAF_DEAD)
    assert said(graph).startswith("no leaf is finished")  # the stem waits
    graph = graph_of("a", status=Status.LEAF_STOP, threshold=0.5)  # its verifier raised
    assert said(graph).startswith("no finished leaf has a score")
    assert "No answer  no finished leaf has a score" in plain(report(graph, width=80), 80)
    graph = graph_of("a", "b", prompts=["p", "q"], parent=[0, 1], status=Status.LEAF_STOP, threshold=0.5)
    graph.score[2:] = 1, 0
    assert said(graph).startswith("★ 1 of 2 prompts passed")


def test_the_legend_counts_every_node_once_and_takes_the_lines_that_it_needs():
    graph = random_graph(300, 1, reach=30)
    graph.score[graph.status == Status.LEAF_STOP] = 1.0
    long = np.flatnonzero(graph.status == Status.LEAF_DEAD)[:9]  # out of room, three of them passing
    graph.status[long], graph.score[long] = Status.LEAF_LENGTH, np.arange(9) // 3 / 2
    for width in (40, 60, 200):
        lines = legend(graph, width)
        assert max(line.cell_len for line in lines) <= width
        counts = [int(word) for line in lines for word in line.plain.split() if word.isdecimal()]
        assert sum(counts) == graph.size
    assert "✗" in plain(lines[0], 200)
    assert "◇ 6 out of room" in lines[0].plain


def test_trees_that_repeat_a_prompt_are_no_prompts_and_their_estimate_stands_in_place_of_a_share():
    graph = graph_of(*"abcd", prompts=["p"] * 4, parent=range(4), status=Status.LEAF_STOP, threshold=0.5)
    graph.score[4:] = 1, 1, 1, 0
    graph.log_inclusion[4:] = np.log([2, 4, 8, 1])
    graph.meta |= {"aim": "estimate", "spent": Meter(Budget(tokens=9), 4).to_json()}
    found = probability(graph, 0.5)
    said = verdict(graph, saved_spent(graph), None, 200).plain
    value = f"{found.value:.4g} (95 %: {found.low:.3g} to {found.high:.3g})"
    assert said.startswith(f"★ 3 of 4 trees passed · P(score reaches 0.5) {value} · cost 0 tokens a tree")
    assert "prompt" not in said
    graph.score[4:] = 0
    assert verdict(graph, None, None, 70).plain.startswith(
        f"★ 0 of 4 trees passed · P(score reaches 0.5) at most {probability(graph, 0.5).high:.2g} (95 %)"
    )
    graph.score[4:] = 1, 1, 1, 0
    graph.meta["aim"] = "solve"  # no weights, no estimate, and still no interval of a share
    assert verdict(graph, None, None, 200).plain == "★ 3 of 4 trees passed · 4 nodes · 0 rounds"
    shown = plain(report(graph, width=80), 80)
    assert "tree " in shown
    assert "prompt" not in shown
