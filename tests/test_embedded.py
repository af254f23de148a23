"""The generator that ships with the package: loads as any model does, is weak enough, can be retrained."""

import json
import math
import random
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from babblegraph.embedded import data, deep, evaluate, recipe
from babblegraph.embedded.sampler import sample
from babblegraph.tasks import Countdown
from babblegraph.tasks.countdown import parse
from babblegraph.tasks.countdown_puzzles import puzzles, split_of

MODEL = Path(str(files("babblegraph.embedded") / "model"))
TASK = Countdown()


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


def test_the_model_is_small_and_has_room_for_160_tokens(model):
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 4_000_000
    assert model.config.max_position_embeddings >= 160
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = torch.randint(3, model.config.vocab_size, (1, 200), generator=torch.Generator().manual_seed(0))
    assert model(ids).logits.isfinite().all()


def test_the_model_loads_in_float32_without_being_told():
    assert AutoModelForCausalLM.from_pretrained(MODEL, local_files_only=True).dtype == torch.float32


def test_end_and_padding_tokens_agree_everywhere(model, tokenizer):
    ends = {tokenizer.eos_token_id, model.config.eos_token_id, model.generation_config.eos_token_id}
    assert ends == {data.EOS}
    assert tokenizer.pad_token_id == model.generation_config.pad_token_id == data.PAD
    assert model.generation_config.do_sample
    assert tokenizer.get_vocab() == data.VOCABULARY
    assert len(tokenizer) == model.config.vocab_size


@given(text=st.text(data.CHARACTERS, max_size=60))
def test_every_text_of_the_vocabulary_comes_back_from_the_tokenizer(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids == [data.VOCABULARY[c] for c in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, data.EOS], skip_special_tokens=True) == text


def test_characters_outside_the_vocabulary_become_one_unknown_token_each(tokenizer):
    assert tokenizer("3aé>").input_ids == [
        data.VOCABULARY["3"],
        data.UNKNOWN,
        data.UNKNOWN,
        data.VOCABULARY[">"],
    ]


@pytest.fixture(scope="module")
def attempts(model):
    """Attempts at held-out puzzles that the shipped figures did not use: prompts, texts, scores [100, 8]."""
    prompts = [TASK.prepare(puzzle) for puzzle in puzzles("test", 100, seed=99)]
    texts = sample(model, prompts, 8, generator=torch.Generator().manual_seed(0))
    scores = [[TASK.verify(p, text) for text in some] for p, some in zip(prompts, texts, strict=True)]
    return prompts, texts, np.array(scores)


def test_one_attempt_in_a_few_is_right_on_held_out_puzzles(attempts):
    # The share of right attempts varies over puzzles with a standard deviation below 0.35, so the mean of 100
    # puzzles has a standard error below 0.035. The band is the promised 0.15 to 0.35 widened by three of
    # these: a model that keeps the promise fails less than once in 700 draws, and the seeds fix the draw.
    scores = attempts[-1]
    assert 0.15 - 0.105 < scores.mean() < 0.35 + 0.105
    assert scores.max(1).mean() > 0.5  # eight attempts solve far more puzzles than one does


@pytest.mark.slow
def test_the_verdict_is_worth_what_the_card_says(model, attempts):
    # About 200 right and 600 wrong attempts: the area has a standard error below 0.03 whatever its value
    # (Hanley and McNeil 1982), so 0.1 below the card is a false alarm in less than 1 of 1,000 draws.
    judged = evaluate.judge(model, *attempts)
    judged = judged[judged.line == 3]
    _, place = np.unique(judged.score, return_inverse=True)
    card = json.loads((MODEL / "metrics.json").read_text())["judge_auc_line_3"]["pooled"]["value"]
    assert evaluate.auc(place, judged.right, np.ones(len(place))) > card - 0.1


def test_the_sampler_draws_what_the_model_predicts(model):
    # First characters of many attempts against the exact probabilities: chi-square over the likely ones.
    prompt, n = "3 5 7 11>24\n", 2048
    attempts = sample(model, [prompt], n, generator=torch.Generator().manual_seed(1), most_tokens=2)[0]
    ids = torch.tensor([[data.VOCABULARY[c] for c in prompt]])
    probabilities = model(ids).logits[0, -1].softmax(-1).double()
    likely = [c for c in data.CHARACTERS if probabilities[data.VOCABULARY[c]] * n > 10]
    expected = np.array([probabilities[data.VOCABULARY[c]].item() * n for c in likely])
    observed = np.array([sum(text.startswith(c) for text in attempts) for c in likely])
    statistic = ((observed - expected) ** 2 / expected).sum()
    # Mean len(likely), variance twice that: six deviations are a false alarm in less than 1 of 1,000 seeds.
    assert statistic < len(likely) + 6 * math.sqrt(2 * len(likely))


def test_an_attempt_among_many_has_the_likelihood_of_a_plain_forward_pass(model):
    # A sharpened copy is all but deterministic: batching, cache and dropped rows must not change its text.
    sharp = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    with torch.no_grad():
        sharp.model.norm.weight.mul_(5000)  # the head is tied to the embeddings, the last norm is not
    prompts = ["3 5 7 11>24\n", "2 9>18\n", "4 5 6>26\n", "1 2 13 19>40\n"]
    together = sample(sharp, prompts, 4, generator=torch.Generator().manual_seed(0), most_tokens=40)
    for prompt, attempts in zip(prompts, together, strict=True):
        ids = [data.VOCABULARY[c] for c in prompt]
        text = ""
        while (
            len(text) < 40 and (token := int(sharp(torch.tensor([ids])).logits[0, -1].argmax())) != data.EOS
        ):
            ids.append(token)
            text += data.CHARACTERS[token - len(data.SPECIALS)]
        assert set(attempts) == {text}


def test_training_solutions_are_right_and_from_the_training_split():
    rows = data.solutions(random.Random(5), 200, judged=True)
    for ids, aim, length in zip(rows.ids, rows.aim, rows.length, strict=True):
        text = "".join((*data.SPECIALS, *data.CHARACTERS)[i] for i in ids[: length - 1])
        prompt, attempt = text.split("\n", 1)[0] + "\n", text.split("\n", 1)[1]
        assert TASK.verify(prompt, attempt) == 1.0
        assert split_of(*parse(prompt)) == "train"
        assert ids[length - 1] == data.EOS
        assert (aim == data.GENERATE).sum() == len(attempt) - 1
        assert (aim == data.JUDGE).sum() == 2


def test_made_up_failures_fail_and_never_train_generation():
    rows = data.wrong_attempts(random.Random(5), 200)
    assert not (rows.aim == data.GENERATE).any()
    assert set(rows.value.ravel().tolist()) == {-1, 0}
    for ids, length in zip(rows.ids, rows.length, strict=True):
        text = "".join((*data.SPECIALS, *data.CHARACTERS)[i] for i in ids[: length - 1])
        prompt, attempt = text.split("\n", 1)[0] + "\n", text.split("\n", 1)[1]
        assert TASK.verify(prompt, attempt) == 0.0
        assert attempt.endswith("n")


def test_pass_at_k_equals_the_share_of_winning_subsets():
    for n, k in ((6, 1), (6, 2), (6, 5), (6, 6)):
        for right in range(n + 1):
            expected = 1 - math.comb(n - right, k) / math.comb(n, k)
            assert evaluate.pass_at_k(np.array([right]), n, k)[0] == pytest.approx(expected)


def test_auc_equals_the_share_of_ordered_pairs():
    rng = np.random.default_rng(0)
    place, right = rng.integers(0, 5, 40), rng.integers(0, 2, 40).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in place[right == 1] for b in place[right == 0]]
    assert evaluate.auc(place, right, np.ones(40)) == pytest.approx(np.mean(pairs))


@pytest.mark.slow
def test_the_recipe_trains_saves_and_measures_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "ROWS", 8)
    monkeypatch.setattr(recipe, "JUDGE_ROWS", 16)
    monkeypatch.setattr(evaluate, "RESAMPLES", 20)
    threads = torch.get_num_threads()
    for out in ("first", "second"):
        recipe.main(["--out", str(tmp_path / out), "--seed", "3", "--steps", "3", "--threads", str(threads)])
    first, second = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("first", "second"))
    assert first == second
    evaluate.main(
        ["--model", str(tmp_path / "first"), "--puzzles", "3", "--copies", "2", "--threads", str(threads)]
    )
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert metrics["pass@1"]["value"] == 0.0
    assert "none of its 6 attempts is right" in (tmp_path / "first" / "README.md").read_text()


def test_a_model_that_never_ends_a_line_is_measured_too():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    judged = evaluate.judge(model, ["2 3>6\n"], [["", "2+"]], np.zeros((1, 2)))
    assert [len(getattr(judged, name)) for name in ("puzzle", "line", "score", "right", "alive")] == [0] * 5
    assert evaluate.judge_figures(judged, 1)["pooled"]["value"] is None


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        (recipe, ["--out", "no", "--steps", "0"]),
        (recipe, ["--out", "no", "--seed", "-1"]),
        (recipe, ["--out", "no", "--threads", "0"]),
        (deep, ["chain", "--out", "no", "--steps", "0"]),  # it would have taken all of them
        (deep, ["chain", "--out", "no", "--steps", "-1"]),
        (deep, ["queens", "--out", "no", "--threads", "0"]),
        (evaluate, ["--model", str(MODEL.parent / "chain")]),
        (evaluate, ["--model", "no", "--copies", "0"]),
        (evaluate, ["--model", "no", "--puzzles", "1.5"]),
        (evaluate, ["--model", "no"]),
    ],
)
def test_what_the_recipe_cannot_do_is_said_before_it_begins(script, wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        script.main(wrong)
    assert ended.value.code == 2
    assert ", got" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_the_shipped_figures_are_inside_the_promise():
    metrics = json.loads((MODEL / "metrics.json").read_text())
    assert metrics["puzzles"] >= 1000
    assert 0.15 <= metrics["pass@1"]["low"] <= metrics["pass@1"]["high"] <= 0.35
    assert metrics["pass@64"]["value"] > 0.9
    assert metrics["pass@64"]["low"] >= 0.9
