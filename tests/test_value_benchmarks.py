"""What the benchmarks of judges and connectivity compute is right, and they run."""

from __future__ import annotations

import json
import sys
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


def test_a_quick_run_of_judges_writes_rows_and_claims(tmp_path, capsys):
    path = tmp_path / "judge.json"
    judge.main(["--quick", "--json", str(path)])
    found = json.loads(path.read_text("utf-8"))
    rows = {row["judge"]: row for row in found["rows"]}
    assert {
        judge.EXACT,
        f"{judge.EXACT}, choosy",
        judge.VERDICT,
        judge.LIKELY,
        judge.CONSTANT,
        judge.BEST,
    } <= rows.keys()
    assert rows[judge.CONSTANT]["AUC line 1"] is None
    assert rows[judge.EXACT]["skill"] > 0
    assert found["claims"][0]["name"] == "the maker's pass@1"


def test_placebos_are_the_same_scores_among_the_nodes_of_each_tree():
    draw = np.random.default_rng(0)
    root, score = draw.integers(0, 4, 50), draw.random(50)
    found = connectivity.permuted(score, root, draw)
    for tree in range(4):
        assert sorted(found[root == tree]) == sorted(score[root == tree])
    assert (found != score).any()


def test_the_logistic_model_finds_what_made_the_labels():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(4000, 3)) * [1, 5, 0.1] + [0, 3, 0]
    truth = 1.5 * x[:, 0] - 0.4 * (x[:, 1] - 3)
    y = draw.random(4000) < 1 / (1 + np.exp(-truth))
    found = connectivity.logistic(x, y)(x)
    assert np.corrcoef(found, truth)[0, 1] > 0.99
    root = draw.integers(0, 20, 4000)
    with_it = connectivity.held_out(x, y, root)
    without = connectivity.held_out(x[:, 1:], y, root)
    assert with_it > without + 0.05
