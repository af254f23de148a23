"""What benchmarks/quality.py makes of its rows, and one smallest run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import quality
import quality_claims
from peers.quality import Lines
from quality_pieces import Piece, Pieces
from search import separate_tokens

import babblegraph as bg
from babblegraph.scoring.learned import LearnedValue
from babblegraph.tasks.countdown import parse
from babblegraph.tasks.countdown_puzzles import split_of

TINY = ["--tasks", "countdown", "--only", "babble;best-of-n, separate", "--puzzles", "3", "--piece", "2"]
TINY += ["--validation", "2", "--temperatures", "0.7,1.0", "--most", "100"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    before, folder = torch.get_num_threads(), tmp_path_factory.mktemp("quality")
    quality.main([*TINY, "--parts", str(folder / "parts"), "--json", str(folder / "found.json")])
    torch.set_num_threads(before)
    return folder, json.loads((folder / "found.json").read_text("utf-8"))


@pytest.mark.slow
def test_a_row_has_the_tokens_of_every_puzzle_and_says_where_it_comes_from(run):
    found = run[1]
    assert {"machine", "versions", "date", "options", "rows", "claims"} <= found.keys()
    test = [r for r in found["rows"] if r["split"] == "test"]
    assert [r["method"] for r in test] == ["babble", "best-of-n, separate"]
    for row in test:
        assert len(row["needed"]) == row["puzzles"] == 3
        assert ("work" in row) == (row["method"] == "babble")  # separate samples are not computed one by one
        assert all(x is None or 0 < x <= 100 for x in row["needed"])
    tuned = [r for r in found["rows"] if r["split"] == "validation" and r["method"] == "babble"]
    best = max(tuned, key=lambda r: quality_claims.area(r["needed"], 100))
    assert test[0]["temperature"] == best["temperature"]
    (many,) = (r for r in found["rows"] if r["split"] == "answers")
    assert [n > 0 for n in many["answers"]] == [x is not None for x in many["needed"]]


def test_a_resumed_run_measures_nothing_twice(run, monkeypatch, tmp_path):
    folder, found = run
    monkeypatch.setattr(quality, "search", lambda *a: pytest.fail("measured again"))
    assert quality.main([*TINY, "--parts", str(folder / "parts")]) == found["rows"]
    more = ["--puzzles", "9", "--merge", "--parts", str(folder / "parts")]
    assert quality.main([*TINY, *more]) == found["rows"]


def test_runs_beside_each_other_begin_with_different_pieces_and_help_out_in_the_end(monkeypatch, tmp_path):
    """The second run finds what the first has done, and does the rest of it."""
    done = []

    def row_of(piece):
        return piece._asdict() | {"needed": [None], "seconds": 0.0}

    monkeypatch.setattr(quality.Bench, "run", lambda self, piece: done.append(piece) or row_of(piece))
    pieces = [Piece("countdown", "babble", 1.0, "test", 100, 5, i, 1) for i in range(5)]
    begin = {
        share: quality.Bench(quality.read(["--parts", str(tmp_path), "--share", share]))
        for share in ("1/2", "2/2")
    }
    for piece in pieces[::2]:
        begin["1/2"].pieces.keep(piece, row_of(piece))
    begin["2/2"].measure(pieces)
    assert done == pieces[1::2]
    begin["1/2"].measure(pieces)
    assert len(done) == 2


def test_pieces_of_any_size_are_put_together_in_the_order_of_their_puzzles(tmp_path):
    pieces = Pieces(tmp_path)
    whole = Piece("countdown", "babble", 1.0, "test", 100, 3, 0, 3)
    pieces.keep(last := whole._replace(first=2, puzzles=1), last._asdict() | {"needed": [3], "seconds": 0.5})
    assert not pieces.has(whole)
    assert pieces.beginning(whole) is None
    pieces.keep(first := whole._replace(puzzles=2), first._asdict() | {"needed": [1, None], "seconds": 1.0})
    for one in (pieces, Pieces(tmp_path)):
        assert one.row(whole) == whole._asdict() | {"needed": [1, None, 3], "seconds": 1.5}
    assert not pieces.has(whole._replace(most=200))
    assert pieces.beginning(whole._replace(of=9, puzzles=9)) == pieces.row(whole)


def row(method, needed, task="countdown", most=1600):
    work = [None if n is None else 1e9 for n in needed]
    return {"task": task, "method": method, "needed": needed, "work": work, "most": most, "temperature": 1.0}


def test_a_gain_is_paired_by_puzzle_and_met_only_above_its_bound():
    ours, theirs = [100] * 40 + [None] * 10, [100] * 30 + [900] * 10 + [None] * 10
    found = quality_claims.claims_of([row(quality_claims.OURS, ours), row(quality_claims.PLAIN, theirs)])
    by = {c["name"]: c for c in found}
    assert by["countdown: babble − best-of-n, separate at 400 tokens, points"]["value"] == pytest.approx(20)
    assert by["countdown: babble − best-of-n, separate at 400 tokens, points"]["met"]
    even = quality_claims.claims_of([row(quality_claims.OURS, ours), row(quality_claims.PLAIN, ours)])
    assert not any(c["met"] for c in even)


def test_the_share_of_tokens_is_where_our_solve_rate_reaches_theirs():
    ours, theirs = [10, 20, 30, 40, None], [90, 300, None, None, None]
    by = {
        ("chain", quality_claims.OURS): row(quality_claims.OURS, ours),
        ("chain", quality_claims.COUNTED): row("best-of-n", theirs) | {"spent": [90, 300, 200, 70, 100]},
    }
    found, third = quality_claims.deep_claims(by)
    assert found["value"] == pytest.approx(20 / 300)
    assert found["met"]
    assert third["value"] == pytest.approx(100 * (4 - 2) / 5)  # all four of ours within 300 / 3
    by["chain", quality_claims.COUNTED]["spent"][1] = by["chain", quality_claims.COUNTED]["needed"][1] = 90
    assert quality_claims.deep_claims(by)[1]["value"] == pytest.approx(
        100 * (4 - 2) / 5
    )  # 200 / 3, not 1,600 / 3


def test_best_of_n_that_has_drawn_all_its_samples_tells_nothing_of_tokens_that_it_did_not_spend():
    """On a trie samples that agree cost nothing: 100 samples do not reach 100 tokens."""
    piece, setting = Piece("chain", "best-of-n", 0.6, "test", 100, 1, 0, 1), quality.SETTINGS["chain"]
    babbler, prompts = bg.Babbler.embedded(task="chain", temperature=0.6), setting.prompts("test", 1)
    found = quality.search(babbler, setting, prompts, quality.METHODS["best-of-n"], piece, values={})
    assert found["needed"] == [None]
    assert found["spent"][0] < 100
    shown = piece._asdict() | found | {"seconds": 0.0}
    assert quality_claims.tables([shown], ["chain"])[0][1][0]["100"] is None


def test_separate_samples_pay_for_what_they_share():
    graph = bg.babble(
        bg.Babbler.embedded(),
        "2 3 4>24",
        task=bg.Countdown(),
        strategy=bg.strategies.best_of_n(n=20),
        budget=900,
    ).graph
    leaves = np.flatnonzero(graph.is_leaf())
    whole = ((graph.length[leaves] - graph.length[0]) * graph.count[leaves]).sum()
    assert separate_tokens(graph)[0] == whole > graph.meta["spent"]["counts"]["sampled"][0]


def test_a_search_that_its_tokens_cut_off_tells_nothing_of_more_work():
    found = row("babble", [100, None, None]) | {"split": "test", "puzzles": 3, "seconds": 0.0}
    found |= {"work": [150e6, None, None], "cut": [None, 900e6, None]}  # the third had nothing left to draw
    cells = quality_claims.tables([found], ["countdown"])[1][1][0]
    third = pytest.approx(100 / 3)
    assert [cells[name] for name in ("0.1", "0.2", "0.8", "1.6")] == [0.0, third, third, None]


@pytest.mark.parametrize("task", ["countdown", "countdown-hard", "game24"])
def test_what_is_held_out_is_of_no_split_that_the_generator_or_its_value_learned_from(task):
    for split in ("validation", "test"):
        some = quality.SETTINGS[task].prompts(split, 150)
        assert len(set(some)) == len(some) > 100
        assert {split_of(*parse(bg.Countdown().prepare(puzzle))) for puzzle in some} == {split}
        assert quality.SETTINGS[task].prompts(split, 7) == some[:7]


@pytest.mark.parametrize("option", ["--tasks", "--only", "--share"])
def test_an_unknown_name_is_refused_in_a_line(option):
    with pytest.raises(SystemExit, match="got 'x'"):
        quality.read([option, "x"])


def test_peers_are_told_the_same_values_as_our_searches():
    """They get no graph, so that a text's features are put together by hand."""
    babbler, prompt = bg.Babbler.embedded(), "3 5 7 11>24\n"
    value = LearnedValue.from_folder(babbler, Path(bg.__file__).parent / "embedded" / "model")
    graph = bg.babble(babbler, [prompt], task=bg.Countdown(), value=value, budget=200, threshold=2.0).graph
    lines = Lines(babbler, value, bg.Countdown(), prompt, most=100, seed=0)
    ids = [i for i in range(1, graph.size) if graph.text(i).endswith("\n") and graph.value[i] > 0]
    assert len(ids) > 5
    assert [lines.value(graph.text(i)) for i in ids] == pytest.approx(graph.value[ids].tolist(), rel=1e-3)
