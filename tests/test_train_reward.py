"""A reward model from comparisons, end to end on a tiny model and a synthetic preference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_models import character_tokenizer, tiny_llama

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.cli.main import main
from babblegraph.errors import BadInput
from babblegraph.scoring import RewardModelValue
from babblegraph.scoring.train_reward import Trained, read_comparisons, train_reward

TOKENIZER = character_tokenizer()


def synthetic(n, seed=0):
    """The better of two texts has more sevens."""
    draw, found = np.random.default_rng(seed), []
    while len(found) < n:
        one, two = ("".join(draw.choice(list("0123777"), 6)) for _ in range(2))
        if one.count("7") != two.count("7"):
            better, worse = sorted((one, two), key=lambda text: -text.count("7"))
            found.append({"prompt": f"{len(found)}>", "chosen": better, "rejected": worse})
    return found


@pytest.fixture
def files(tmp_path):
    tiny_llama(TOKENIZER).save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    lines = "\n".join(json.dumps(one) for one in synthetic(400))
    (tmp_path / "pairs.jsonl").write_text(lines + "\n", "utf-8")
    return tmp_path


def test_a_preference_is_learned_and_plugs_in_as_a_value(files, capsys):
    pytest.importorskip("trl")
    arguments = ["train-reward", str(files / "pairs.jsonl"), "--model", str(files / "model"), "--json"]
    options = ["--out", str(files / "reward"), "--epochs", "3", "--rate", "1e-3", "--batch-size", "16"]
    assert main([*arguments, *options, "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparisons"] == 360
    assert told["held_out"] == 40
    assert told["accuracy"] > 0.85
    value = RewardModelValue.from_pretrained(files / "reward", device="cpu")
    babbler = bg.Babbler.from_pretrained(files / "model", device="cpu", span=3, max_new_tokens=6)
    assert bg.babble(babbler, "1>", value=value, budget=60).spent.scored > 60
    fresh = synthetic(60, seed=9)
    graph = babbler.start([f"{c['prompt']}{c[side]}" for c in fresh for side in ("chosen", "rejected")])
    found = value(graph, np.arange(120), Meter(Budget(tokens=1), 120)).reshape(-1, 2)
    assert (found[:, 0] > found[:, 1]).mean() > 0.85


def test_what_is_held_out_is_not_trained_on(files, monkeypatch):
    sizes = []
    module = "babblegraph.scoring.train_reward"
    monkeypatch.setattr(f"{module}._need_trl", lambda: None)
    monkeypatch.setattr(
        f"{module}._trained", lambda model, tokenizer, ids, *rest: sizes.append(len(ids)) or 0.0
    )
    pairs = read_comparisons(files / "pairs.jsonl")
    found = train_reward(pairs, files / "model", files / "out", device="cpu")
    assert (sizes, found.comparisons, found.held_out) == ([360], 360, 40)


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_learned(files, capsys, monkeypatch):
    monkeypatch.setattr(
        "babblegraph.scoring.train_reward.train_reward", lambda *given, **how: pytest.fail("begun")
    )
    pairs = str(files / "pairs.jsonl")
    assert main(["train-reward", pairs, "--model", str(files / "model"), "--out", pairs]) == 2
    assert "--out must be a folder that can be written to" in capsys.readouterr().err
    assert main(["train-reward", pairs, "--model", "m", "--out", "o", "--epochs", "9" * 30]) == 2
    assert "--epochs must be at most" in capsys.readouterr().err
    assert main(["train-reward", pairs, "--model", "m", "--out", "o", "--seed", "-1"]) == 2
    assert "--seed must not be negative" in capsys.readouterr().err


def test_what_a_trainer_prints_is_no_part_of_the_json(files, capsys, monkeypatch):
    def loud(*given, **how):
        print("{'train_runtime': 1.0}")  # as transformers does where there are no bars
        return Trained(0.5, 40, 360, 0.7)

    monkeypatch.setattr("babblegraph.scoring.train_reward.train_reward", loud)
    pairs, more = str(files / "pairs.jsonl"), ["--model", "m", "--out", str(files / "o"), "--json"]
    assert main(["train-reward", pairs, *more]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["comparisons"] == 360
    assert "train_runtime" in found.err


def test_line_ends_within_a_text_and_a_byte_order_mark_are_no_fault_of_a_comparison(tmp_path):
    one = {"prompt": "a\u2028b", "chosen": "\x85", "rejected": "\u2029"}
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"\ufeff{json.dumps(one, ensure_ascii=False)}\r\n", "utf-8", newline="")
    assert [c._asdict() for c in read_comparisons(file)] == [one]


def test_without_trl_the_fix_is_said_in_one_line(files, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(BadInput, match=r"babblegraph\[train\]") as caught:
        train_reward(read_comparisons(files / "pairs.jsonl"), files / "model", files / "out")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("", "must have some"),
        ("no json", ":1"),
        ('{"prompt": "a", "chosen": "b"}', "prompt, chosen and rejected"),
        ('{"prompt": "a", "chosen": "b", "rejected": 3}', "must be texts"),
        ("[1]", "object"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path, line, rule):
    (tmp_path / "pairs.jsonl").write_text(line + "\n", "utf-8")
    with pytest.raises(BadInput, match=rule) as caught:
        read_comparisons(tmp_path / "pairs.jsonl")
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="JSON Lines"):
        read_comparisons(tmp_path / "nowhere.jsonl")
