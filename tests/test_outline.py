"""The explorer's outline: which node is on which line, against a walk over the tree; what it searches and jumps to."""

from __future__ import annotations

import time

import numpy as np
import pytest
from test_clean import random_spans
from test_view import graph_of, random_graph

from babblegraph.born import Born
from babblegraph.explore.outline import ORDERS, Filter, Outline, next_of
from babblegraph.status import Gate, Status
from babblegraph.stem import hold_back


def slow_rows(outline):
    """The lines by a walk over the tree, one node at a time."""
    graph, keys = outline.graph, {
        "born": lambda i: i,
        "value": lambda i: -np.nan_to_num(outline.worth[i], nan=-1),
        "best below": lambda i: -np.nan_to_num(outline.below.best[i], nan=-1),
        "tokens below": lambda i: -outline.below.tokens[i],
        "probability": lambda i: -graph.log_p_g[i],
    }  # fmt: skip
    found, key = [], keys[outline.order]

    def walk(node):
        wanted = outline.filter == Filter() or any(
            outline.found[i] for i in range(graph.size) if node in graph.path(i)
        )
        if wanted:
            found.append(node)
            if outline.is_open[node]:
                for child in sorted(graph.children(node), key=lambda i: (key(i), i)):
                    walk(child)

    for tree in sorted(range(graph.trees), key=lambda i: (key(i), i)):
        walk(tree)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_lines_are_those_of_a_walk_however_it_is_folded_sorted_and_filtered(seed):
    draw = np.random.default_rng(seed)
    graph = random_graph(80, seed, reach=(1, 4, 30)[seed % 3])
    graph.meta["threshold"] = 0.5
    outline = Outline(graph)
    for _ in range(12):
        {
            0: lambda: outline.toggle(int(draw.integers(graph.size))),
            1: lambda: outline.open_below(int(draw.integers(graph.size))),
            2: lambda: outline.sort(ORDERS[draw.integers(len(ORDERS))]),
            3: lambda: outline.set_filter(Filter(least=float(draw.integers(0, 10)) / 10)),
            4: lambda: outline.set_filter(Filter(status=str(draw.choice(outline.statuses)))),
            5: lambda: outline.reveal(int(draw.integers(graph.size))),
        }[int(draw.integers(6))]()
        assert outline.rows.tolist() == slow_rows(outline)
    outline.close_all()
    assert outline.rows.tolist() == slow_rows(outline)


def test_several_prompts_are_so_many_roots():
    graph = graph_of("a", "b", "c", prompts=["x", "y"], parent=[0, 1, 1])
    outline = Outline(graph)
    outline.open_below(1)
    assert outline.rows.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("text", ["a", "ab", "BA", "漢", "\n", "zz"])
def test_a_search_finds_what_a_scan_of_every_text_finds(text):
    spans = [b"ab\n", "x漢".encode(), b"aBa", b"", b"b", b"a", *random_spans(200, 4)]
    graph = graph_of(*spans, parent=[0] * len(spans))
    wanted = text.encode().lower()
    found = [wanted in bytes(graph.span(i).tolist()).lower() for i in range(graph.size)]
    found[0] = text.lower() in graph.prompts[0]
    assert Outline(graph).with_text(text).tolist() == found


def test_a_search_finds_the_right_nodes_behind_stems():
    graph = graph_of(b"ab", b"b", b"c")
    hold_back(graph, [2, 3])
    graph.add(Born.of_spans([2, 3], [list(b"ca"), list(b"d")], [-1.0, -1.0]))
    outline = Outline(graph)
    for text, found in (("c", [3, 6]), ("b", [1, 2]), ("d", [7])):
        assert [i for i in np.flatnonzero(outline.with_text(text)) if i] == found


def test_the_worst_wrong_kill_is_one_that_an_elite_proves_before_one_that_only_looked_good():
    graph = graph_of("a", "b", "c", threshold=0.5)
    graph.add(Born.of_spans([1], [[100]], [-1.0], Status.LEAF_END))
    graph.score[4] = 1.0
    graph.stop_nodes([2, 3], Status.PRUNED, Gate.NODE)
    graph.value[1:4] = 0.5, 0.9, 0.1
    assert Outline(graph).worst_kill() == 2
    graph.state_key[[1, 3]] = 7  # node 3 was the place from which the elite came
    assert Outline(graph).worst_kill() == 3
    assert Outline(graph_of("a")).worst_kill() is None


def test_the_next_of_a_ring_comes_after_the_last():
    assert [next_of([4, 7], here) for here in (4, 7, 5, None)] == [7, 4, 4, 4]
    assert next_of([], 3) is None


def test_a_large_outline_is_laid_out_without_a_loop_over_nodes(monkeypatch):
    graph = random_graph(100_000, 2)
    monkeypatch.setattr(graph, "children", None)
    begin = time.perf_counter()
    outline = Outline(graph)
    outline.open_below(0)
    outline.set_filter(Filter(text="ab", least=0.5))
    assert time.perf_counter() - begin < 5  # about 0.2 s on an idle core
