"""`babblegraph train-value`: what it writes is found again by a search, and what is wrong is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_models import tiny_llama

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.cli import build
from babblegraph.cli.main import main
from babblegraph.cli.options import SearchOptions
from babblegraph.embedded.recipe import tokenizer
from babblegraph.errors import BadInput
from babblegraph.lm.babbler import EMBEDDED
from babblegraph.scoring import JudgeValue, LearnedValue
from babblegraph.scoring.learned import is_there

QUICK = ["--copies", "4", "--epochs", "1", "--members", "1", "--json"]


def test_a_value_is_fitted_and_says_how_good_it_is(capsys, tmp_path):
    assert main(["train-value", "--out", str(tmp_path), "--count", "60", "--seed", "3", *QUICK]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rollouts"] <= 240
    assert set(told["held_out"]) >= {"1", "2"}
    babbler = bg.Babbler.embedded()
    value = LearnedValue.from_folder(babbler, tmp_path)
    graph = babbler.start(["3 5 7 11>24\n"])
    found = value(graph, np.array([0]), Meter(Budget(tokens=1), 1))
    assert 0 < found[0] < 1
    plan = build.plan(SearchOptions(prompt="3 5 7 11>24", value=str(tmp_path)))
    assert isinstance(build.value(plan, babbler), LearnedValue)
    plan = build.plan(SearchOptions(prompt="3 5 7 11>24", value=str(tmp_path.parent)))
    with pytest.raises(BadInput, match=r"value\.json"):
        build.value(plan, babbler)


def test_training_prompts_come_from_a_file_for_other_models(capsys, tmp_path):
    model = tmp_path / "model"
    tiny_llama(tokenizer()).save_pretrained(model)
    tokenizer().save_pretrained(model)
    (tmp_path / "prompts.txt").write_text("2 3>5\n3 4>12\n", "utf-8")
    arguments = ["train-value", "--out", str(model), "--model", str(model), "--task", "countdown"]
    assert main([*arguments, *QUICK]) == 2
    assert "--prompts" in capsys.readouterr().err
    assert main([*arguments, "--prompts", str(tmp_path / "prompts.txt"), *QUICK]) == 2
    assert "got only leaves" in capsys.readouterr().err  # a random model writes no line that is right


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--copies", "0"], "--copies must be above zero"),
        (["--model", "x"], "a verifier's verdicts"),
        (["--seed", "-1"], "--seed must not be negative"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, tmp_path, arguments, rule):
    assert main(["train-value", "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert rule in error
    assert error.count("\n") == 1


def test_a_search_with_the_shipped_generator_uses_what_lies_beside_it():
    plan = build.plan(SearchOptions(prompt="3 5 7 11>24"))
    value = build.value(plan, bg.Babbler.embedded())
    assert isinstance(value, LearnedValue if is_there(EMBEDDED) else JudgeValue)
