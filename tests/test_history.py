"""A graph goes back to any of its rounds, and its search can be played again."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console
from table_lm import TableLM
from test_frontier import rounds_of
from test_view import plain, random_graph

from babblegraph.errors import BadInput
from babblegraph.graph import COLUMNS
from babblegraph.history import at_round
from babblegraph.outcome import elect
from babblegraph.status import Status
from babblegraph.strategies import babble, best_of_n, frontier
from babblegraph.view import replay as module
from babblegraph.view.frame import History
from babblegraph.view.replay import picture, replay
from babblegraph.view.report import report

WAYS = {
    "frontier": frontier(width=4, keep=3),
    "frontier, restarts": frontier(width=3, keep=4, restarts=2),
    "best of n": best_of_n(width=8),
}
LATER = {"log_inclusion", "count", "draws", "flags"}  # what later rounds change, as documented
LINKS = {"first_child", "last_child", "next_sibling"}  # compared as lists of children


def snapshots(strategy):
    """Copies of all that a graph holds after each round, and the graph at the end."""
    taken = []
    for found in rounds_of(TableLM(3, 5, seed=2), strategy, trees=3, tokens=60):
        graph = found.graph
        columns = {name: getattr(graph, name).copy() for name in COLUMNS}
        taken.append((columns, graph.merges.array.copy(), graph.tokens.copy()))
    return taken, graph


@pytest.mark.parametrize("name", WAYS)
def test_a_graph_goes_back_to_what_it_was_after_every_round(name):
    taken, graph = snapshots(WAYS[name])
    before = {column: getattr(graph, column).copy() for column in COLUMNS}
    for number, (columns, merges, tokens) in enumerate(taken, 1):
        then = at_round(graph, number)
        n = len(columns["parent"])
        assert (then.status[n:] == Status.STEM).all()  # held back between this round and the next
        for column in COLUMNS.keys() - LATER - LINKS:
            assert np.array_equal(getattr(then, column)[:n], columns[column], equal_nan=True), (
                number,
                column,
            )
        assert then.merges.array.tolist() == merges.tolist()
        assert then.tokens.tolist() == tokens.tolist()
        for node in range(n):
            children = [i for i in then.children(node) if i < n]
            assert children == np.flatnonzero(columns["parent"] == node).tolist()
    for column in COLUMNS:
        assert np.array_equal(getattr(graph, column), before[column], equal_nan=True)


def test_with_revived_nodes_only_the_pruning_that_was_taken_back_is_forgotten():
    taken, graph = snapshots(babble(width=2, keep=2))
    revived = 0
    for number, (columns, _, _) in enumerate(taken, 1):
        then = at_round(graph, number)
        differ = np.flatnonzero(then.status != columns["status"])
        assert (columns["status"][differ] == Status.PRUNED).all()
        assert (graph.died[differ] != columns["died"][differ]).all()
        revived += len(differ)
    assert revived


def test_round_zero_is_the_prompts_alone_and_other_rounds_are_refused():
    _, graph = snapshots(WAYS["best of n"])
    assert at_round(graph, 0).size == graph.trees
    for wrong in (-1, graph.round + 1):
        with pytest.raises(BadInput, match="a round must be one of 0 to"):
            at_round(graph, wrong)


def test_what_was_found_out_at_the_end_is_not_said_of_an_earlier_round():
    _, graph = snapshots(WAYS["best of n"])
    graph.meta |= {"right": [True] * 3, "token_gate": {"entered": 9, "passed": 1}, "scorer_failures": 2}
    graph.failures += [{"node": 3, "error": "early"}, {"node": graph.size - 1, "error": "late"}]
    elect(graph, lambda text: "the winner")

    def shown(number):
        return plain(report(at_round(graph, number), width=80), 80)

    end, first = shown(graph.round), shown(int(graph.born[3]))
    for said in ("right", "the winner", "token gate", "failed 2 times", "early", "late"):
        assert said in end
    for said in ("right", "the winner", "token gate", "late"):
        assert said not in first
    assert "failed 1 time\n" in first
    assert "failed" not in shown(0)


def test_a_replay_shows_a_graph_that_only_grows_and_ends_as_it_is():
    _, graph = snapshots(WAYS["frontier"])
    history, sizes = History(), []
    for number in range(graph.round + 1):
        lines = picture(graph, number, (100, 30), history)
        assert len(lines) == 30
        assert f"round {number} of {graph.round}" in lines[-2].plain
        sizes.append(at_round(graph, number).size)
    assert all(a < b for a, b in pairwise(sizes))
    assert sizes[-1] == graph.size


def test_a_replay_moves_in_a_terminal_and_is_a_few_lines_elsewhere(monkeypatch):
    _, graph = snapshots(WAYS["frontier"])
    monkeypatch.setattr(module, "LONGEST_STEP", 0.0001)
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"})
    replay(terminal, graph, speed=10)
    assert out.getvalue().startswith("\x1b[?1049h")
    assert out.getvalue().endswith("\x1b[?1049l")
    assert f"round {graph.round} of {graph.round}" in out.getvalue()
    pipe = Console(file=io.StringIO(), width=80, _environ={})
    replay(pipe, graph)
    lines = pipe.file.getvalue().splitlines()
    assert "\x1b" not in pipe.file.getvalue()
    assert lines[-1].startswith(f"round {graph.round} of {graph.round}")
    assert 2 <= len(lines) <= 12


def test_going_back_in_a_large_graph_is_vectorised(monkeypatch):
    graph = random_graph(100_000, 2)
    monkeypatch.setattr(graph, "children", None)
    graph.round = 1000
    graph.born[:] = np.sort(np.random.default_rng(0).integers(0, 1001, graph.size))
    assert at_round(graph, 500).size == np.searchsorted(graph.born, 501)
