"""What the benchmarks of judges and connectivity compute is right, and they run."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.tasks.countdown import legal_lines

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import connectivity
import judge
import trapped


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def babbler():
    return bg.Babbler.embedded()


def log_p(babbler, text, more):
    """log P(more | text), token by token, from one plain forward pass."""
    ids = torch.tensor(babbler.tokenizer(text + more)["input_ids"])
    with torch.no_grad():
        scores = babbler.model(ids[None]).logits[0].log_softmax(-1)
    at = torch.arange(len(text), len(ids))
    return float(scores[at - 1, ids[at]].sum())


def test_the_exact_value_is_the_mean_over_all_lines_of_the_value_after_them(babbler):
    """Every line that is not legal leads nowhere, so the legal ones are all that count."""
    prompt = "3 5 7>38\n"
    graph = babbler.start([prompt])
    lines = [f"{line}\n" for line in legal_lines((3, 5, 7))]
    spans = [babbler.tokenizer(line)["input_ids"] for line in lines]
    ids = graph.add(Born.of_spans([0] * len(lines), spans, [-1.0] * len(lines)))
    exact, meter = judge.ExactValue(babbler), Meter(Budget(tokens=1), 1)
    root = float(exact(graph, np.array([0]), meter)[0])
    children = exact(graph, ids, meter)
    p = np.exp([log_p(babbler, prompt, line) for line in lines])
    assert 0.9 < p.sum() <= 1.0001
    assert root == pytest.approx(float(p @ children), rel=1e-4)
    last = {line: v for line, v in zip(lines, children, strict=True) if v > 0}
    assert set(last) == {"5*7=35:3 35\n", "7*5=35:3 35\n"}
    for line, value in last.items():
        ends = ("3+35=38:38\n", "35+3=38:38\n")
        assert value == pytest.approx(sum(np.exp(log_p(babbler, prompt + line, e)) for e in ends), rel=1e-4)


@pytest.mark.slow
def test_a_quick_run_of_judges_writes_rows_and_claims(tmp_path, capsys):
    path = tmp_path / "judge.json"
    judge.main(["--quick", "--json", str(path)])
    found = json.loads(path.read_text("utf-8"))
    rows = {row["judge"]: row for row in found["rows"]}
    assert {
        judge.EXACT,
        f"{judge.EXACT}, trusted",
        judge.VERDICT,
        judge.LIKELY,
        judge.CONSTANT,
        judge.BEST,
    } <= rows.keys()
    assert rows[judge.CONSTANT]["AUC line 1"] is None
    assert rows[judge.EXACT]["skill"] > 0
    assert found["claims"][0]["name"] == "the maker's pass@1"


def test_skill_beside_what_is_known_is_that_of_single_rollouts():
    draw = np.random.default_rng(5)
    puzzle, weight = draw.integers(0, 9, 80), draw.integers(1, 4, 80)
    value, passed = draw.random(80), draw.binomial(weight, 0.4)
    known = judge.mean_of(passed / weight, weight, puzzle)
    for i in range(80):
        mine = puzzle == puzzle[i]
        assert known[i] == pytest.approx(passed[mine].sum() / weight[mine].sum())
    node = np.repeat(np.arange(80), weight)
    outcome = np.concatenate([np.arange(w) < k for w, k in zip(weight, passed, strict=True)])
    told, low, high = judge.skill(value, known, passed / weight, weight, puzzle)
    ours, theirs = (np.mean((x[node] - outcome) ** 2) for x in (value, known))
    assert told == pytest.approx(1 - ours / theirs)
    assert low < told < high < 0  # random values know less than the rates themselves
    assert judge.skill(known, known, passed / weight, weight, puzzle) == (0, 0, 0)


def test_placebos_are_the_same_scores_among_the_nodes_of_each_tree():
    draw = np.random.default_rng(0)
    root, score = draw.integers(0, 4, 50), draw.random(50)
    found = trapped.permuted(score, root, draw)
    for tree in range(4):
        assert sorted(found[root == tree]) == sorted(score[root == tree])
    assert (found != score).any()


def made_up(seed, n=4000, trees=40):
    """Nodes that are traps by a known rule of the base columns and the first score; the second says nothing."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 5)) * [1, 5, 0.1, 1, 1] + [0, 3, 0, 0, 0]
    truth = 1.5 * x[:, 0] - 0.4 * (x[:, 1] - 3) + 1.5 * x[:, 3]
    root = draw.integers(0, trees, n)
    y = draw.random(n) < 1 / (1 + np.exp(-truth))
    return trapped.Nodes(x[:, :3], x[:, 3:], y, root, root), truth


def test_the_logistic_model_finds_what_made_the_labels():
    nodes, truth = made_up(1)
    x = np.c_[nodes.base, nodes.score]
    assert np.corrcoef(trapped.logistic(x, nodes.trapped)(x), truth)[0, 1] > 0.99


def test_a_measure_that_tells_something_beats_its_placebo_and_one_that_does_not_does_not():
    """The silent score's 95 % interval of the gain over its placebo holds 0: one seed, chosen once."""
    rows, claims = trapped.tested(made_up(2)[0], ["telling", "silent"], 5)
    assert rows[0]["gain"] > 0.05
    assert rows[0]["low"] > 0
    assert [c["met"] for c in claims] == [True, False]
    assert claims[1]["interval"][0] <= 0 <= claims[1]["interval"][1]


def test_seeds_of_a_puzzle_are_one_unit():
    one, two = made_up(3, 500, 8)[0], made_up(4, 500, 8)[0]
    both = trapped.together([one, two])
    assert both.root.max() == 15
    gain = np.arange(16.0)
    gain[3] = np.nan
    np.testing.assert_array_equal(
        trapped.by_puzzle(gain, trapped.puzzles_of(both)), [4, 5, 6, 11, 8, 9, 10, 11]
    )


@pytest.mark.slow
def test_a_run_goes_on_from_its_pieces_and_says_the_same(tmp_path, monkeypatch):
    sizes = {"puzzles": 6, "seeds": 1, "tokens": 80, "rollouts": 1, "placebos": 2}
    arguments = ["--pieces", str(tmp_path), *(word for k, v in sizes.items() for word in (f"--{k}", str(v)))]
    monkeypatch.setattr(connectivity, "ACTED", ("novelty",))
    monkeypatch.setattr(connectivity, "NODES", 300)
    first = connectivity.main(arguments)
    (tmp_path / "6x80x1" / "novelty-0.npz").unlink()
    made = []
    whole = connectivity.make
    monkeypatch.setattr(connectivity, "make", lambda *a: made.append(a[0]) or whole(*a))
    again = connectivity.main(arguments)
    assert made == ["novelty"]
    assert again[5:] == first[5:]  # the first five are times
    assert {r["restarts by"] for r in again if "restarts by" in r} == {
        connectivity.NONE,
        "novelty",
        "novelty, placebo",
    }


def test_pieces_of_other_sizes_are_not_taken_for_those_asked_for(tmp_path, monkeypatch):
    def made(kind, seed, chosen, path):
        np.savez(path, tokens=chosen.tokens)

    monkeypatch.setattr(connectivity, "make", made)
    for tokens in (150, 300):
        chosen = Namespace(seeds=1, puzzles=10, tokens=tokens, rollouts=8, processes=1)
        found = connectivity.finished(chosen, tmp_path)
        assert {int(one["tokens"]) for one in found.values()} == {tokens}
