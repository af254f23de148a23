"""Narrow terminals: a number is shown whole or not at all, whatever draws it."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from marks import slow_but
from rich.cells import cell_len
from rich.console import Group
from test_cli_train import levels
from test_view import graph_of, plain

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.estimates import Estimate
from babblegraph.explore.lines import Lines
from babblegraph.explore.outline import Outline
from babblegraph.status import Flag, Gate, Status
from babblegraph.view.diff import diff_report
from babblegraph.view.estimates import estimate_report
from babblegraph.view.frame import History, frame
from babblegraph.view.levels import levels_report
from babblegraph.view.node import node_report
from babblegraph.view.replay import picture
from babblegraph.view.report import report
from babblegraph.view.signs import ASCII, UNICODE
from babblegraph.view.traps import trap_report

WIDTHS, WIDE = {"unicode": range(20, 101), "ascii": range(20, 101, 11)}, 160
NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?[kMG]?")


def spelled(n: int) -> str:
    """A number in letters, so that every digit that is drawn is a figure of ours."""
    return "".join("abcdefghij"[int(digit)] for digit in str(n))


@cache
def grown(trees: int = 1, seed: int = 0, **meta):
    """A search of some prompts with every status, many figures of several digits and no digit in any text."""
    draw = np.random.default_rng(seed)
    prompts = [f"what is {spelled(170 + tree)}, said at some length?\n" for tree in range(trees)]
    meta = {"threshold": 1.0, "task": "sums", "model": "a/model", "strategy": "frontier", "seed": 1234} | meta
    graph = graph_of(prompts=prompts, **meta)
    for graph.round in range(1, 4):
        parents = np.flatnonzero(graph.status == Status.FRONTIER)[:2] if graph.round > 1 else range(trees)
        parents = np.repeat(parents, 9 if trees == 1 else 5)
        spans = [list(f"step {spelled(i)} {'x' * (i % 30)}\n".encode()) for i in range(len(parents))]
        born = graph.add(Born.of_spans(parents, spans, (-draw.random(len(parents)) * 40).tolist()))
        graph.value[born], graph.connectivity[born] = draw.random((2, len(born)))
        graph.stop_nodes(born[::5], Status.LEAF_DEAD)
        graph.stop_nodes(born[1::5], Status.PRUNED, Gate.NODE)
        graph.status[born[2::5]] = Status.LEAF_STOP
        graph.score[born[2::5]] = draw.random(len(born[2::5])).round(4)
    graph.stop_nodes(born[3], Status.MERGED)
    graph.merges.append((int(born[3]), int(born[4])))
    graph.state_key[trees:] = np.arange(graph.size - trees) % 7
    graph.flags[born[4]] |= Flag.SCORER_FAILED
    graph.failures.append({"node": int(born[4]), "error": "ValueError: no value", "text": "some text\n"})
    meter = Meter(Budget(tokens=100_000, nodes=512, seconds=345.0), trees)
    for tree in range(trees):
        meter.count("sampled", tree, 251)
    graph.meta["spent"], graph.meta["budget"] = meter.to_json(), {"tokens": 100_000, "seconds": 345.0}
    graph.meta["token_gate"] = {"entered": 123_456, "passed": 789}
    return graph, meter


@cache
def solved(trees: int = 1):
    graph, meter = grown.__wrapped__(trees)
    graph.score[np.flatnonzero(graph.status == Status.LEAF_STOP)[:1]] = 1.0
    return graph, meter


@cache
def voted():
    graph, _ = solved.__wrapped__(3)
    best = [graph.best(1, tree=tree)[0] for tree in range(3)]
    vote = {"answer": ["forty-two"] * 3, "share": [0.375] * 3, "node": best, "weighted": True}
    graph.meta |= {"vote": vote, "right": [True, False, True]}
    return graph


@cache
def spent(trees):
    return replace(solved(trees)[1].read(), seconds=12.5)


def live(width, signs, trees=1):
    history = History()
    for rate in (1234.0, 5678.0):
        history.see(solved(trees)[0], rate)
    more = {"history": history, "rate": 5678.0, "spent": spent(trees), "budget": Budget(tokens=100_000)}
    return Group(*frame(solved(trees)[0], width=width, height=160, signs=signs, **more))


def estimate(width, signs, **changed):
    fields = {"value": 0.98664, "error": 0.034, "effective": 25.36, "low": 0.748, "high": 0.9994}
    fields |= {"trees": 128, "hits": 125, "heaviest": 0.0943, "log_value": -1.25, "tokens": 123_456}
    fields |= {"independent_tokens": 98_765.0, "warnings": ("8 trees a prompt are fewer than 32: beware",)}
    found = Estimate(**(fields | changed))
    one_of = 16, Estimate(0.99998, 0.01, 25.0, low=0.87654, high=0.99999)
    return estimate_report("what is it?", 0.875, found, width=width, signs=signs, one_of=one_of)


@cache
def outlined():
    outline = Outline(solved()[0])
    outline.open_below(0)
    return outline


def explored(width, signs):
    lines = Lines(outlined(), signs=signs)
    return Group(*(lines.line(int(node), width) for node in lines.outline.rows))


def folded(width, signs):
    graph, _ = solved()
    outline = Outline(graph)
    return Group(
        *report(graph, width=width, height=9, signs=signs).renderables, Lines(outline).line(0, width)
    )


SHOWN = {
    "the report": lambda w, s: report(solved()[0], width=w, height=None, signs=s),
    "a folded report": folded,
    "a report of what does not pass": lambda w, s: report(grown()[0], width=w, height=None, signs=s),
    "a report of many prompts": lambda w, s: report(solved(26)[0], width=w, height=None, signs=s),
    "a report of votes": lambda w, s: report(voted(), width=w, height=None, signs=s),
    "one node": lambda w, s: node_report(solved()[0], 17, width=w, signs=s),
    "a comparison": lambda w, s: diff_report(
        solved()[0], grown(seed=1)[0], width=w, height=None, signs=s
    ),
    "a short comparison": lambda w, s: diff_report(
        solved()[0], grown(seed=1)[0], width=w, height=12, signs=s
    ),
    "traps": lambda w, s: trap_report(solved()[0], width=w, signs=s),
    "an estimate": estimate,
    "an estimate without a hit": lambda w, s: estimate(
        w, s, value=None, low=None, high=0.02345, reason="no hit in 128 trees"
    ),
    "a run of learning": lambda w, s: levels_report(
        levels(), width=w, signs=s, now="learning: step 1,234 of 5,678", through=(1234, 5678)
    ),
    "a live frame": live,
    "a live frame of many prompts": lambda w, s: live(w, s, 12),
    "a replay": lambda w, s: Group(*picture(solved()[0], 3, (w, 99), History(), signs=s)),
    "the explorer's tree": explored,
}  # fmt: skip


@pytest.mark.parametrize("name", slow_but(list(SHOWN)[::4], SHOWN))
@pytest.mark.parametrize("letters", slow_but(["unicode"], ["unicode", "ascii"]))
def test_every_number_of_a_narrow_terminal_is_one_of_a_wide_one(name, letters):
    draw, signs = SHOWN[name], ASCII if letters == "ascii" else UNICODE
    wide = set(NUMBER.findall(plain(draw(WIDE, signs), WIDE)))
    assert len(wide) > 5
    for width in WIDTHS[letters]:
        text = plain(draw(width, signs), width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert not set(NUMBER.findall(text)) - wide, f"{width} cells:\n{text}"


def test_a_replay_without_room_for_its_bar_says_where_it_is_from_the_edge_on():
    (line,) = [x.plain for x in picture(solved()[0], 3, (30, 30), History()) if "round" in x.plain]
    assert line == "round 3 of 3 · 718 tokens in …"


def test_a_rate_that_was_halved_once_was_not_halved_1_times():
    assert "was halved once, to 0.00015" in plain(levels_report(levels(), width=100), 100)
