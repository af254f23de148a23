"""The benchmarks run, in their smallest form, and what they compute from a run is right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import character_tokenizer, tiny_llama

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu_check  # noqa: E402
import peers  # noqa: E402
import prompts  # noqa: E402
import throughput  # noqa: E402
from peers.claims import claims_of  # noqa: E402
from peers.machine import Machine, Shape, best_step  # noqa: E402
from peers.sweep import Cell, Sweep, shown  # noqa: E402
from peers.work import CHILDREN, Run, Setting, Watch, Work, watching  # noqa: E402

TINY = ["--quick", "--models", "tiny", "--cells", "8x16", "--repeats", "1", "--threads", "1"]
SOME = [
    *TINY,
    "--only",
    "babblegraph,generate+cache",
    "--cap",
    "1000",
]  # nothing is cut, however slow the machine


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One run of every decoder that needs no package of its own."""
    path = tmp_path_factory.mktemp("quick") / "found.json"
    throughput.main([*SOME, "--json", str(path)])
    return path, json.loads(path.read_text("utf-8"))


@pytest.mark.slow
def test_all_decoders_do_the_same_work_and_agree_with_plain_forward(quick):
    rows = quick[1]["rows"]
    assert [(r["kind"], r["decoder"]) for r in rows] == [
        (kind, name) for kind in ("flat", "forked") for name in ("babblegraph", "generate", "generate+cache")
    ]
    for row in rows:
        assert not row["note"]
        assert row["measured"] == row["asked"] == ([1, 64] if row["kind"] == "flat" else [3, 32])
        assert row["error"] < 1e-4
        assert row["tokens/s"] > 0
        assert row["r"] > 1  # t* is a bound


@pytest.mark.slow
def test_prompts_that_begin_alike_are_counted_as_what_they_share(tmp_path, capsys):
    """Four prompts of 64 tokens that they share and 32 of their own, four samples below each."""
    path = tmp_path / "prompts.json"
    prompts.main(["--quick", "--threads", "1", "--repeats", "1", "--json", str(path)])
    *decoders, judge = json.loads(path.read_text("utf-8"))["rows"]
    assert [row["prefilled"] for row in decoders] == [64 + 4 * 32, 4 * 96, 16 * 96]
    assert decoders[1]["K/V tokens"] - decoders[0]["K/V tokens"] == 3 * 64
    assert judge["tokens read"] < judge["tokens of texts"] / 2
    assert capsys.readouterr().out.count("bound") == 2


def test_computed_tokens_are_counted_where_every_decoder_must_pass(quick):
    """8 rows: `generate` reads 16 prompt tokens in each of 8 rows, with the cache kept they are read once."""
    rows = {(r["kind"], r["decoder"]): r["computed"] for r in quick[1]["rows"]}
    assert rows["flat", "generate"] == (8 * 16 + 8 * 63) / (8 * 64)
    assert rows["flat", "generate+cache"] == (15 + 8 * 64) / (8 * 64)
    again = sum(8 * (16 + 32 * level) + 8 * 31 for level in range(3))
    assert rows["forked", "generate"] == again / (8 * 96)


def test_the_file_says_where_its_figures_come_from(quick):
    found = quick[1]
    assert {"machine", "versions", "date", "options", "rows", "claims"} <= found.keys()
    assert found["versions"]["torch"] == torch.__version__
    assert all(isinstance(c["met"], bool) and c["bound"] for c in found["claims"])


def test_a_resumed_run_measures_nothing_twice(quick, monkeypatch):
    path, before = quick
    monkeypatch.setattr(Sweep, "measure", lambda *a: pytest.fail("measured again"))
    rows = throughput.main([*SOME, "--json", str(path), "--resume"])
    assert rows == before["rows"]


@pytest.mark.parametrize("other", [["--cap", "2"], ["--repeats", "2"], ["--only", "babblegraph"]])
def test_a_run_is_not_resumed_with_other_options(quick, other):
    """One file would have rows that were measured in two ways, and name only the last."""
    path, before = quick[0], quick[0].read_text("utf-8")
    with pytest.raises(SystemExit, match=f"the same options, got {other[0]}"):
        throughput.main([*SOME, *other, "--json", str(path), "--resume"])
    assert path.read_text("utf-8") == before


def test_a_resumed_run_needs_a_file_to_go_on_with(tmp_path):
    with pytest.raises(SystemExit, match="add --json FILE"):
        throughput.main([*SOME, "--resume"])


def test_a_decoder_that_is_not_installed_is_shown_as_that(monkeypatch):
    monkeypatch.setitem(sys.modules, "its_hub.api", None)
    monkeypatch.delitem(sys.modules, "peers.its_hub", raising=False)
    assert str(peers.load("its-hub", None)).startswith("not installed")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--cells", "8"), ("--cells", "6x9"), ("--only", "vllm"), ("--models", "huge")],
)
def test_a_bad_option_is_refused_in_a_line(option, value, capsys):
    with pytest.raises(SystemExit):
        throughput.read([option, value])
    assert f"got {value!r}" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(5))
def test_unique_tokens_of_a_forked_tree_equal_those_of_its_paths(seed):
    """Second computation: every row's path of (level, row) places, as a set."""
    work = Work(tuple(range(7)), rows=16, span=3, levels=4, seed=seed)
    paths, most = {r: [(0, r)] for r in range(work.rows)}, 0
    for level in range(work.levels):
        if level:
            alive = work.survivors(level - 1).tolist()
            paths = {i: [*paths[alive[i // CHILDREN]], (level, i)] for i in range(work.rows)}
        places = {place for path in paths.values() for place in path}
        assert work.inner(level) == work.span * (len(places) - work.rows)
        most = max(most, 7 + work.span * len(places))
    assert work.unique_tokens() == most


def test_the_limit_is_the_slower_of_reading_and_computing():
    shape = Shape(weight_bytes=1000, kv_bytes=10, parameters=250, attention=8, vocabulary=50, item=4)
    work = Work((1,) * 20, rows=4, span=1)
    read = 1000 + (20 + 4) * 10 + 4 * 50 * 4
    compute = 2 * 250 * 4 + 4 * 8 * 4 * 21
    assert best_step(Machine(1.0, 1e9), shape, work) == pytest.approx(read)
    assert best_step(Machine(1e9, 1.0), shape, work) == pytest.approx(compute)


def test_what_was_cut_is_projected_with_every_restart():
    work, ran = Work((1,) * 10, rows=4, span=32, levels=3), Work((1,) * 10, rows=4, span=5)
    run = Run(20, seconds=3.0, prefill=1.0, steps=4, computed=4 * 10 + 4 * 4, restarts=True)
    assert run.step == pytest.approx(0.5)
    assert run.seconds_for(work, ran) == pytest.approx(3 * 1.0 + 0.5 * (4 + 96 - 5))
    assert run.computed_for(work, ran) == 3 * 40 + 4 * (4 + 96 - 5)
    run.restarts = False
    assert run.seconds_for(work, ran) == pytest.approx(1.0 + 0.5 * (4 + 96 - 5))


def test_a_watch_tells_decoding_from_reading():
    watch = Watch(started=[0.0, 2.0, 3.0, 7.0], shapes=[(4, 9), (4, 1), (4, 1), (2, 8)], ended=9.0)
    assert watch.decoding(4) == [1.0, 4.0]
    assert watch.computed == 36 + 4 + 4 + 16
    packed = Watch(packed=True, started=[0.0, 2.0], shapes=[(1, 9), (1, 4)], ended=5.0)
    assert packed.decoding(4) == [3.0]


def test_a_watch_leaves_the_model_as_it_was():
    model = torch.nn.Module()
    model.get_input_embeddings = lambda: table
    table = torch.nn.Embedding(5, 2)
    with watching(model) as watch:
        table(torch.zeros(3, 4, dtype=torch.long))
    table(torch.zeros(1, 1, dtype=torch.long))
    assert watch.shapes == [(3, 4)]


def test_a_claim_is_met_only_beyond_its_bound():
    def row(decoder, speed):
        fixed = {
            "model": "smollm",
            "kind": "flat",
            "rows": 32,
            "prompt": 512,
            "cell": "c",
            "note": "",
            "r": 3.0,
        }
        shares = {"K/V": 1.0, "allocated": 1.6, "error": 1e-6}
        return fixed | shares | {"decoder": decoder, "tokens/s": speed, "ms a step": 1e3 / speed}

    found = {c["name"]: c["met"] for c in claims_of([row("babblegraph", 190.0), row("generate", 100.0)])}
    assert found["smollm flat 32×512: tokens/s ÷ generate"] is False  # asked for 2
    assert found["smollm flat 32×512: steps/s ÷ generate, prefills left out"] is True
    assert found["K/V allocated ÷ needed, worst cell"] is False
    assert found["peak K/V in use ÷ unique live tokens, worst cell"] is True


@pytest.mark.slow
def test_the_gpu_check_runs_without_a_gpu(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "gpu.json"
    rows = gpu_check.main(["--json", str(path)])
    assert capsys.readouterr().out.startswith("GPU: none")
    assert {row["decoder"] for row in rows} == {"babblegraph", "generate", "generate+cache"}
    claims = json.loads(path.read_text("utf-8"))["claims"]
    assert len(claims) == 7
    assert all(c["met"] for c in claims)


def test_survivors_are_a_quarter_and_the_same_for_all():
    work = Work((1,), rows=32, span=2, levels=3, seed=3)
    assert len(work.survivors(0)) == 8
    np.testing.assert_array_equal(work.survivors(1), Work((9, 9), 32, 7, 5, 3).survivors(1))
    np.testing.assert_array_equal(work.origins(1), np.repeat(work.survivors(0), 4))


class Steady:
    """A decoder that takes a second for its prefill and a tenth for each step, and never more."""

    forks, even = True, True

    def __init__(self, fails=False):
        self.asked, self.fails = [], fails

    def run(self, work, check):
        if self.fails and self.asked:
            raise RuntimeError("out of order")
        self.asked.append((work.levels, work.span))
        steps = work.levels * work.span
        return Run(work.tokens, 1.0 + 0.1 * steps, prefill=1.0, steps=steps, kv_bytes=100)


@pytest.mark.slow
def test_a_sweep_cuts_what_does_not_fit_and_says_so():
    model = tiny_llama(character_tokenizer())
    sweep = Sweep(Setting(model, None, Path(), 1), lambda: Machine(1e9, 1e9), cap=2.05, repeats=3)
    steady, work = Steady(), Work((1,) * 10, rows=8, span=64)
    peers = {"generate": steady, "babblegraph": Steady(fails=True), "llama.cpp": "not installed"}
    ours, row, native = sweep.measure(Cell("m", "flat", 8, 10), work, peers)
    assert steady.asked == [(1, 6), (1, 10), (1, 10), (1, 10)]  # a warm-up, then what takes two seconds
    assert (row["measured"], row["asked"]) == ([1, 10], [1, 64])
    assert row["tokens/s"] == pytest.approx(8 * 64 / 7.4)
    assert row["÷ generate"] == 1.0
    assert ours["note"] == "RuntimeError: out of order"
    assert ours["tokens/s"] is None
    assert native["note"] == "not installed"
    assert shown(row)["steps"] == "1·10 of 1·64"
