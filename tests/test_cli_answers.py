"""The command for somebody with a chat model, a file of problems with answers, and a reward model or none at all."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, tiny_llama, with_loud_weights
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification

from babblegraph.born import Born
from babblegraph.cli import build, options
from babblegraph.cli.loading import read_problems
from babblegraph.cli.main import main
from babblegraph.cli.options import SearchOptions
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.graph_file import load
from babblegraph.scoring.process_model import AGGREGATES
from babblegraph.status import Flag, Status
from babblegraph.tasks import Answers, Blind

BYTES = {i: bytes([i]) for i in range(256)}
SIX, HALF, DOG = "What is 6 times 7?", "Half of a half?", "How many legs has a dog?"
SAYS = {  # what the speaker says, in turn
    SIX: ["so 41\n", "#### 42\n", "is it 42?\n", "42\n"],
    HALF: ["one\n", "0.25\n", "1/4\n", "1/2\n"],
    DOG: ["I do not know\n"],
}
TEMPLATE = (
    "{% for m in messages %}<turn>{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
)


class Speaker:
    """A generator that says whole texts, those of `SAYS` in turn: no model is needed."""

    def start(self, prompts, seed):
        return BabbleGraph(
            list(prompts), [list(p.encode()) for p in prompts], BYTES, seed, {"model": "speaker"}
        )

    def expand(self, graph, chosen, rng, meter, draws):
        graph.vocabulary.update(BYTES)
        parents, spans = [], []
        for node, n in zip(chosen.ids.tolist(), chosen.draws.tolist(), strict=True):
            texts, begun = SAYS[graph.prompt(node)], int(graph.draws[node])
            parents += [node] * n
            spans += [list(texts[(begun + i) % len(texts)].encode()) for i in range(n)]
        born = Born.of_spans(parents, spans, [-1.0] * len(spans), Status.LEAF_END)
        for name in ("sampled", "forwarded"):
            meter.count(name, graph.root[born.parent], born.lengths)
        return replace(born, expanded=chosen.ids.astype(np.int32), draws=chosen.draws.astype(np.int32))

    def release(self, graph, ids):
        pass


@pytest.fixture
def speaker(monkeypatch):
    monkeypatch.setattr(build, "generator", lambda plan: Speaker())
    monkeypatch.setattr(build, "need_chat", lambda plan, generator: None)
    monkeypatch.setattr("babblegraph.scoring.learned.is_there", lambda folder: False)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def problems(tmp_path):
    file = tmp_path / "problems.jsonl"
    rows = [(SIX, "6*7 is it.\n#### 42"), (HALF, 0.25), (DOG, "4")]
    file.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in rows), "utf-8")
    return str(file)


@pytest.fixture
def asked(problems):
    return ["search", "--task", "answers", "--prompts", problems, "--model", "somewhere", "--tokens", "120"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A chat model, the same without a template, and reward models of both kinds with a template and without."""
    home = tmp_path_factory.mktemp("models")
    plain, chat = byte_tokenizer(), byte_tokenizer()
    chat.chat_template = TEMPLATE
    llama = tiny_llama(plain, context=256)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    special = {"pad_token_id": plain.pad_token_id, "bos_token_id": None, "vocab_size": len(plain)}
    config = LlamaConfig(num_labels=2, max_position_embeddings=512, **sizes, **special)
    outcome = with_loud_weights(LlamaForSequenceClassification(config), 3)
    process = with_loud_weights(LlamaForTokenClassification(config), 3)
    for name, model in (("lm", llama), ("outcome", outcome), ("process", process)):
        for ending, tokenizer in (("", plain), ("-chat", chat)):
            model.save_pretrained(home / f"{name}{ending}")
            tokenizer.save_pretrained(home / f"{name}{ending}")
    return home


def said(capsys, *arguments, status):
    code = main([str(a) for a in arguments])
    found = capsys.readouterr()
    assert code == status, found.err
    return found


def results(capsys, *arguments, status=0):
    return json.loads(said(capsys, *arguments, "--json", status=status).out)


# ------------------------------------------------------------------------------------------------ answers


def test_problems_with_answers_are_verified_counted_and_bounded(capsys, speaker, asked):
    found = results(capsys, *asked, status=1)
    assert [r["passed"] for r in found["results"]] == [True, True, False]
    assert found["results"][0]["prompt"] == SIX
    summary = found["summary"]
    assert (summary["prompts"], summary["passed"]) == (3, 2)
    assert summary["share"] == pytest.approx(2 / 3)
    assert summary["interval"] == pytest.approx([0.2077, 0.9385], abs=1e-4)  # Wilson's, by hand
    sampled = [r["tokens"]["sampled"] for r in found["results"]]
    assert summary["tokens_per_prompt"] == pytest.approx(sum(sampled) / 3)
    out = said(capsys, *asked, status=1).out
    assert "2 of 3 prompts passed 66.7 % (95 %: 20.8 to 93.9)" in out
    assert "tokens a prompt" in out


def test_the_report_fits_into_sixty_columns(capsys, speaker, asked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    for more in ([], ["--vote", "answer"], ["--blind"]):
        main([*asked, *more])
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 60
        assert " of 3 prompts " in out


def test_a_search_of_answers_goes_on_without_the_file(capsys, speaker, asked, tmp_path):
    file = tmp_path / "graph"
    said(capsys, *asked, "--vote", "answer", "--save", file, "-q", status=0)
    before = load(file)
    assert before.meta["answers"] == {SIX: "42", HALF: "0.25", DOG: "4"}
    assert before.meta["right"] == [True, True, False]
    found = results(capsys, "search", "--resume", file, "--tokens", "240", "--all", "--save", file)
    after = load(file)
    assert after.size > before.size
    assert [r["right"] for r in found["results"]] == after.meta["right"] == [True, True, False]
    assert found["results"][0]["vote"]["answer"] == "42"
    assert "2 of 3 prompts right" in said(capsys, "show", file, status=0).out


# ------------------------------------------------------------------------------------------------ votes, blindness


def test_a_vote_prints_the_leaders_best_text_its_share_and_whether_it_is_right(capsys, speaker, asked):
    found = results(capsys, *asked, "--vote", "last-number")
    assert found["strategy"] == "best-of-n"
    six, half, dog = found["results"]
    assert six["vote"]["answer"] == "42"
    assert six["vote"]["share"] == pytest.approx(0.75)
    assert "42" in six["answer"]
    assert half["vote"]["answer"] == "0.25"  # 1/4 is the same
    assert dog["vote"] == {"answer": None, "share": None}  # nobody voted
    assert [r["right"] for r in found["results"]] == [True, True, False]
    assert (found["summary"]["right"], found["summary"]["share"]) == (2, pytest.approx(2 / 3))
    assert all(r["passed"] is None for r in found["results"])
    out = said(capsys, *asked, "--vote", "last-number", status=0).out
    assert "2 of 3 prompts right" in out
    assert "of the votes" in out
    listed = [line for line in out.splitlines() if line[4:].startswith((SIX, DOG))]
    assert listed[0].split()[-3:] == ["42", "75", "%"]
    assert listed[1].split()[-2:] == ["dog?", "16"]  # nodes; no answer and no share
    assert said(capsys, *asked, "--vote", "last-number", "-q", status=0).out.count("\n") == 3


def test_a_vote_that_is_decided_ends_the_search_and_all_goes_on(capsys, speaker, asked, monkeypatch):
    monkeypatch.setitem(SAYS, SIX, ["#### 42\n"])
    early, whole = (
        results(capsys, *asked, "--vote", "answer", *more)["results"][0]["tokens"]["sampled"]
        for more in ([], ["--all"])
    )
    assert early == 8 * 8  # one wave
    assert whole >= 120


def test_a_vote_is_weighted_where_the_user_says_who_scores(capsys, speaker, asked, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def likes_41(texts): return [1.0 if '41' in t else 0.1 for t in texts]")
    found = results(capsys, *asked, "--vote", "last-number", "--value", f"{file}:likes_41")
    six = found["results"][0]
    assert six["vote"]["answer"] == "41"
    assert six["vote"]["share"] == pytest.approx(1 / 1.3, abs=0.02)
    assert six["right"] is False
    out = said(capsys, *asked, "--vote", "last-number", "--value", f"{file}:likes_41", status=0).out
    assert "of the weighted votes" in out


def test_blind_the_best_by_value_is_marked_and_the_verifier_does_not_choose(capsys, speaker, asked, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def likes_41(texts): return [1.0 if '41' in t else 0.1 for t in texts]")
    seen = results(capsys, *asked, "--value", f"{file}:likes_41", status=1)
    assert seen["results"][0]["passed"] is True
    blind = results(capsys, *asked, "--value", f"{file}:likes_41", "--blind")
    assert (blind["results"][0]["answer"], blind["results"][0]["right"]) == ("so 41\n", False)
    assert blind["strategy"] == "babble"


def test_a_ballot_of_ones_own_votes(capsys, speaker, asked, tmp_path):
    (tmp_path / "mine.py").write_text("def short(text): return str(len(text) < 7)")
    found = results(capsys, *asked, "--vote", f"{tmp_path / 'mine.py'}:short")["results"][0]
    assert found["vote"]["answer"] in ("True", "False")


@pytest.mark.parametrize(
    ("code", "failure"),
    [("raise ValueError('no!')", "mine raised ValueError: no!"), ("return 3", "mine must return a text or ")],
)
def test_a_ballot_that_fails_once_is_no_vote_and_is_told_once(
    capsys, speaker, asked, tmp_path, code, failure
):
    file, graph = tmp_path / "mine.py", tmp_path / "graph"
    file.write_text(f"def mine(text):\n    if '41' in text: {code}\n    return text\n")
    how = ["--vote", f"{file}:mine", "--all", "--save", graph]
    out, err = said(capsys, *asked, *how, "--json", status=0)
    whole = json.loads(out)
    votes = [found["vote"] for found in whole["results"]]
    assert votes[0]["answer"] in SAYS[SIX][1:]
    assert votes[2] == {"answer": SAYS[DOG][0], "share": 1.0}
    failed = [n for n in range(load(graph).size) if load(graph).flags[n] & Flag.SCORER_FAILED]
    assert [load(graph).text(n) for n in failed] == ["so 41\n"] * len(failed) != []
    assert whole["summary"]["failures"] == len(failed)
    assert whole["summary"]["first_failure"].startswith(failure)
    assert f"first on node {failed[0]}: {failure}" in err
    again = results(capsys, "search", "--resume", graph)  # votes anew, and nothing is told twice
    assert again["summary"]["failures"] == len(failed)


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            '{"question": "a?", "answer": "1"}\n{"question": "b?"}',
            'needs "answer", a text or a number, got none at',
        ),
        ('{"question": "a?", "answer": true}', "got True at"),
        ('{"question": "a?", "answer": []}', "got [] at"),
        ('{"question": "a?", "answer": ""}', "an answer must not be empty"),
        ('{"question": "a?", "answer": 1}\n{"question": "a?", "answer": 2}', "a question has one answer"),
        ('{"text": "a?", "answer": 1}', 'must be an object with "prompt" or "question", got'),
        ("a?\nb?", 'needs "answer"'),
    ],
)
def test_a_file_that_has_no_answers_says_where(capsys, tmp_path, lines, words):
    file = tmp_path / "bad.jsonl" if lines.startswith("{") else tmp_path / "bad.txt"
    file.write_text(lines)
    err = said(capsys, "search", "--task", "answers", "--prompts", file, "--model", "x", status=2).err
    assert words in err
    assert file.name in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "answers"], "--task answers needs problems with answers, got none"),
        (["--task", "answer"], "did you mean 'answers'"),
        (["--system", "x", "a"], "add --chat"),
        (["--chat", "a"], "got the embedded one: add --model DIR"),
        (["--chat", "a", "--task", "countdown", "--model", "x"], "got --task countdown"),
        (["--resume", "x", "--chat", "--model", "y"], "--chat too"),
        (["--vote", "last-lime", "a", "--model", "x"], "did you mean 'last-line'"),
        (["--vote", "/no/such.py:f", "a", "--model", "x"], "/no/such.py"),
        (["--blind", "a", "--model", "x"], "--blind keeps a verifier out of the search, got no task"),
        (["--aggregate", "mean"], "add --process-model"),
        (["--separator", "x"], "add --process-model"),
        (["--process-model", "x", "--aggregate", "medium"], "--aggregate must be one of"),
        (["--process-model", "x", "--reward-model", "y"], "got --reward-model and --process-model"),
        (["--together", "0"], "--together must be above zero"),
    ],
)
def test_what_does_not_go_together_is_one_line(capsys, arguments, words):
    out, err = said(capsys, "search", *arguments, status=2)
    assert out == ""
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class T:\n    pass", "verify(prompt, text)"),
        ("T = 3", "which is a int"),
        ("class T:\n    def __init__(self, x): ...", "needs no arguments"),
        ("class TT: ...", "did you mean 'TT'"),
    ],
)
def test_a_task_file_that_is_no_use_is_bad_input(capsys, tmp_path, code, words):
    file = tmp_path / "mine.py"
    file.write_text(code)
    err = said(capsys, "search", "a", "--model", "x", "--task", f"{file}:T", status=2).err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("threshold", "right"), [([], False), (["--threshold", "0.5"], True)])
def test_a_threshold_is_what_marks_have_to_reach(capsys, speaker, tmp_path, threshold, right):
    file = tmp_path / "mine.py"
    file.write_text("class T:\n    def verify(self, prompt, text): return 0.7")
    how = ["search", HALF, "--model", "x", "--task", f"{file}:T", "--blind", "--tokens", "20", *threshold]
    assert results(capsys, *how)["results"][0]["right"] is right


@pytest.mark.parametrize("made", ["T", "T()"])
def test_a_task_of_ones_own_is_a_class_or_an_instance_and_is_resumed(capsys, speaker, tmp_path, made):
    file, graph = tmp_path / "mine.py", tmp_path / "graph"
    file.write_text(
        "class T:\n    name = 'mine'\n    def verify(self, prompt, text): return float('1/4' in text)\n"
        f"mine = {made}\n"
    )
    how = ["--model", "somewhere", "--task", f"{file}:mine", "--save", graph]
    assert results(capsys, "search", HALF, *how)["results"][0]["answer"] == "1/4\n"
    assert load(graph).meta["task"] == "mine"
    assert results(capsys, "search", "--resume", graph)["results"][0]["passed"] is True


def test_a_search_goes_on_from_any_directory(capsys, speaker, tmp_path, monkeypatch):
    own = (
        "class T:\n    def verify(self, prompt, text): return float('1/4' in text)\n"
        "def f(texts): return [0.5] * len(texts)\ndef last(text): return text[-2:]\n"
    )
    (tmp_path / "mine.py").write_text(own)
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    how = ["--task", "mine.py:T", "--value", "mine.py:f", "--vote", "mine.py:last", "--model", "model"]
    results(capsys, "search", HALF, *how, "--all", "--tokens", "20", "--save", "graph")
    kept = load("graph").meta["options"]
    assert kept["model"] == str(tmp_path / "model")
    assert kept["vote"] == f"{tmp_path / 'mine.py'}:last"
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = results(capsys, "search", "--resume", "../graph", "--tokens", "60")
    assert found["results"][0]["tokens"]["sampled"] > 20


def test_names_that_we_know_are_no_paths_even_where_there_are_folders_of_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("embedded", "countdown", "boxed"):
        (tmp_path / name).mkdir()
    known = {"model": "embedded", "task": "countdown", "vote": "boxed"}
    assert SearchOptions(**known).to_meta() == known
    typed = {"model": "gpt2", "value": "gone.py:f"}  # of a hub, and of no file here
    assert SearchOptions(**typed).to_meta() == typed


# ------------------------------------------------------------------------------------------------ chats, reward models


def test_a_chat_wraps_texts_and_leaves_chats_alone(capsys, models, problems, tmp_path):
    lines = tmp_path / "both.jsonl"
    chat = [{"role": "user", "content": HALF}]
    lines.write_text(
        json.dumps({"prompt": SIX, "answer": 42}) + "\n" + json.dumps({"prompt": chat, "answer": 0.25})
    )
    file = tmp_path / "graph"
    how = ["--model", models / "lm-chat", "--tokens", "20", "--max-new-tokens", "10", "--save", file]
    asked = ["search", "--task", "answers", "--prompts", lines, "--chat", "--system", "Be brief.", "--blind"]
    found = results(capsys, *asked, *how)
    graph = load(file)
    begin = f"<turn>system: Be brief.\n<turn>user: {SIX}\n<turn>assistant: "
    assert graph.prompts == [begin, f"<turn>user: {HALF}\n<turn>assistant: "]
    assert graph.meta["asked"] == dict(zip(graph.prompts, (SIX, HALF), strict=True))
    assert [r["prompt"] for r in found["results"]] == [SIX, chat]
    shown = said(capsys, "show", file, "--width", "100", status=0).out
    assert re.search(rf"^. . {re.escape(SIX)}  ", shown, re.MULTILINE)  # in the list, without the template


def test_an_estimate_of_a_file_of_chats_is_the_mean_of_its_prompts(capsys, models, problems, tmp_path):
    file = tmp_path / "graph.safetensors"
    how = ["--model", models / "lm-chat", "--tokens", "12", "--max-new-tokens", "6", "--trees", "2"]
    asked = ["estimate", "--task", "answers", "--prompts", problems, "--chat", "--system", "Be brief."]
    found = json.loads(said(capsys, *asked, *how, "--json", "--save", file, status=0).out)
    assert (found["prompt"], found["trees"]) == ("3 prompts, their mean", 6)
    graph = load(file)
    read = f"<turn>system: Be brief.\n<turn>user: {SIX}\n<turn>assistant: "
    assert graph.prompts[:2] == [read, read]
    assert [graph.meta["asked"][p] for p in graph.prompts[::2]] == [SIX, HALF, DOG]
    one = ["estimate", "--graph", file, "--threshold", "0", read, "--json"]
    assert json.loads(said(capsys, *one, status=0).out)["prompt"] == SIX
    for more in (["--prompts", problems], ["--chat"], ["--system", "x"]):
        err = said(capsys, "estimate", "--graph", file, *more, status=2).err
        assert f"--graph is estimated from as it was grown, got {more[0]} too" in err


def test_a_value_is_learned_on_chats_too(capsys, models, problems, tmp_path, monkeypatch):
    seen = []

    def collect(babbler, prompts, *args, **options):
        seen.extend(prompts)
        raise BadInput("that will do")

    monkeypatch.setattr("babblegraph.scoring.collect.collect", collect)
    twice = tmp_path / "twice.jsonl"
    twice.write_text(f"{Path(problems).read_text('utf-8')}\n" * 2, "utf-8")
    given = ["train-value", "--out", tmp_path / "v", "--task", "answers", "--prompts", twice]
    how = ["--model", models / "lm-chat", "--chat", "--system", "Be brief."]
    assert "that will do" in said(capsys, *given, *how, status=2).err
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SIX}]
    assert (len(seen), seen[0]) == (3, first)
    plain = [*given, "--model", models / "lm", "--chat"]
    assert "--chat needs a model with a chat template" in said(capsys, *plain, status=2).err


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_told_before_the_model_is_loaded(
    capsys, problems, tmp_path, monkeypatch, out
):
    def generator(plan):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(build, "generator", generator)
    (tmp_path / "file").write_text("mine")
    given = ["train-value", "--task", "answers", "--prompts", problems, "--model", "x"]
    err = said(capsys, *given, "--out", tmp_path / out, status=2).err
    assert err.count("\n") == 1
    assert "--out must be a folder that can be written to, got" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_model_without_a_chat_template_says_so(capsys, models):
    err = said(capsys, "search", "hello", "--chat", "--model", models / "lm", "-q", status=2).err
    assert "--chat needs a model with a chat template" in err
    assert err.count("\n") == 1


def test_a_chat_model_learns_on_what_users_say(capsys, models, problems, tmp_path):
    """Its trees begin as the template does, and a reward model reads what was asked."""
    how = [
        "--model",
        models / "lm-chat",
        "--chat",
        "--system",
        "Be brief.",
        "--max-new-tokens",
        "8",
        "--levels",
        "1",
    ]
    elite = ["--reward-model", models / "outcome-chat", "--top", "1", "--preset", "cem", "--draws", "4"]
    run = tmp_path / "run"
    said(capsys, "train", "--prompts", problems, *how, *elite, "--out", run, "-q", status=0)
    graph = load(next(run.rglob("graph.bg")))
    asked = {f"<turn>system: Be brief.\n<turn>user: {q}\n<turn>assistant: " for q in (SIX, HALF, DOG)}
    assert set(graph.prompts) == asked
    assert np.isfinite(graph.score[graph.is_leaf()]).all()
    said(capsys, "train", "--resume", run, "--levels", "2", "-q", status=0)
    assert (run / "levels" / "002").is_dir()


@pytest.mark.parametrize("kind", ["outcome", "process"])
@pytest.mark.parametrize("ending", ["", "-chat"])
def test_a_reward_model_reads_what_was_asked_not_the_generators_template(
    capsys, models, problems, tmp_path, kind, ending
):
    file, option = tmp_path / "graph", {"outcome": "--reward-model", "process": "--process-model"}[kind]
    how = ["--model", models / "lm-chat", "--tokens", "40", "--max-new-tokens", "12", "--save", file, "-q"]
    asked = ["search", "--task", "answers", "--prompts", problems, "--chat", "--blind", "-n", "2"]
    said(capsys, *asked, *how, option, models / f"{kind}{ending}", status=0)
    graph = load(file)
    leaves = np.flatnonzero(graph.is_leaf())
    assert len(leaves) > 2
    for leaf in leaves.tolist():
        question = [SIX, HALF, DOG][graph.root[leaf]]
        assert graph.score[leaf] == pytest.approx(
            by_hand(models / f"{kind}{ending}", kind, ending, question, graph.text(leaf)), abs=1e-5
        )


def by_hand(folder, kind, ending, question, text):
    """One text, one plain forward pass."""
    tokenizer = byte_tokenizer()
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    if kind == "outcome":
        model = LlamaForSequenceClassification.from_pretrained(folder)
        whole = (
            f"<turn>user: {question}\n<turn>assistant: {text.strip()}\n" if ending else f"{question}\n{text}"
        )
        with torch.no_grad():
            return float(model(torch.tensor([encode(whole)])).logits[0].softmax(-1)[-1])
    model = LlamaForTokenClassification.from_pretrained(folder)
    tokens = encode(f"<turn>user: {question}\n<turn>assistant: " if ending else f"{question}\n")
    ends = []
    for step in filter(None, text.split("\n")):
        tokens += encode(step) + encode("\n")
        ends.append(len(tokens) - 1)
    if not ends:
        return 1.0
    with torch.no_grad():
        return float(model(torch.tensor([tokens])).logits[0].softmax(-1)[ends, -1].min())


@pytest.mark.slow
def test_a_process_model_takes_its_separator_and_aggregate(capsys, models, problems, tmp_path):
    how = ["--model", models / "lm", "--tokens", "40", "--max-new-tokens", "12"]
    asked = ["search", "hello there", *how, "--process-model", models / "process"]
    scores = {
        name: results(capsys, *asked, "--separator", r" 8\n", "--aggregate", name)["results"][0]["score"]
        for name in ("min", "mean")
    }
    plain = results(capsys, *asked)["results"][0]["score"]
    assert plain not in scores.values()


def test_the_command_knows_every_aggregate():
    assert set(options.AGGREGATES) == set(AGGREGATES)


# ------------------------------------------------------------------------------------------------ plans


def test_held_out_problems_are_known_to_the_task(problems, tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text('{"question": "1 + 1?", "answer": 2}')
    asked = SearchOptions(task="answers", prompts=problems, model="x")
    task = build.plan(asked, needs_prompt=False, more=str(more)).task
    assert (task.expected("1 + 1?"), task.expected(SIX)) == ("2", "42")


def test_so_many_texts_as_were_asked_for_find_room_in_the_budget(problems):
    plan = build.plan(SearchOptions(prompts=problems, model="x", vote="answer", width=64))
    assert plan.budget.tokens == 64 * 1024
    plan = build.plan(SearchOptions(prompts=problems, model="x", vote="answer", width=64, max_new_tokens=100))
    assert plan.budget.tokens == 6400
    assert build.plan(SearchOptions(prompts=problems, model="x", width=64)).budget.tokens == 4000


def test_a_vote_makes_the_search_blind_and_asks_for_no_threshold(problems):
    plan = build.plan(SearchOptions(task="answers", prompts=problems, model="x", vote="answer"))
    assert isinstance(plan.task, Blind)
    assert isinstance(plan.marker, Answers)
    assert plan.threshold is None
    half = build.plan(SearchOptions(task="answers", prompts=problems, model="x", blind=True, threshold=0.5))
    assert half.threshold is None  # the marks' own
    seen = build.plan(SearchOptions(task="answers", prompts=problems, model="x"))
    assert (type(seen.task), seen.marker, seen.threshold) == (Answers, None, 1.0)


def test_many_prompts_are_searched_some_at_a_time(tmp_path, monkeypatch, capsys, speaker):
    file, most = tmp_path / "p.txt", []
    file.write_text("\n".join(f"{DOG}" for _ in range(80)))
    plain = Speaker.expand

    def watched(self, graph, chosen, *rest):
        most.append(len(np.unique(graph.root[chosen.ids])))
        return plain(self, graph, chosen, *rest)

    monkeypatch.setattr(Speaker, "expand", watched)
    for more, bound in (([], 32), (["--together", "5"], 5), (["--together", "99"], 80)):
        most.clear()
        said(capsys, "search", "--prompts", file, "--model", "x", "--tokens", "30", "-q", *more, status=0)
        assert max(most) == bound


def test_an_interrupted_run_counts_only_the_problems_that_were_begun(
    capsys, speaker, asked, monkeypatch, tmp_path
):
    plain = Speaker.expand

    def interrupted(self, graph, *rest):
        if graph.round == 2:
            signal.raise_signal(signal.SIGINT)
        return plain(self, graph, *rest)

    file = tmp_path / "graph"
    monkeypatch.setattr(Speaker, "expand", interrupted)
    more = ["--vote", "answer", "--together", "1", "--save", file]
    out = said(capsys, *asked, *more, status=130).out
    assert "1 of 1 prompts right 100.0 % (95 %: 20.7 to 100.0) · 2 not begun" in out
    assert load(file).meta["right"] == [True, None, None]
    monkeypatch.setattr(Speaker, "expand", plain)
    found = results(capsys, "search", "--resume", file)
    assert (found["summary"]["begun"], found["summary"]["right"]) == (3, 2)


def test_a_file_with_a_byte_order_mark_and_odd_line_ends_is_read(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_bytes('\ufeff{"prompt": "a\u2028b", "answer": 1}\r\n\r\n{"question": "c"}\r\n'.encode())
    found = read_problems(str(file))
    assert [(p.prompt, p.answer) for p in found] == [("a\u2028b", 1), ("c", None)]
    assert found[1].where.endswith(":3")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BadInput, match="got none"):
        read_problems(str(tmp_path / "empty"))


def test_nothing_of_this_loads_torch_before_the_model_is_loaded(problems):
    code = (
        "import sys; from babblegraph.cli import build; from babblegraph.cli.options import SearchOptions;"
        f"build.plan(SearchOptions(task='answers', prompts={problems!r}, model='x', vote='answer'));"
        "print('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


def test_a_resumed_chat_is_printed_as_what_was_asked(capsys, models, tmp_path):
    chat = ["search", "How much?", "--chat", "--model", models / "lm-chat", "--save", tmp_path / "graph"]
    more = ["--tokens", "60", "--max-new-tokens", "4"]
    found = results(capsys, *chat, *more)
    again = results(capsys, "search", "--resume", tmp_path / "graph", "--tokens", "90")
    assert found["results"][0]["prompt"] == again["results"][0]["prompt"] == "How much?"


def test_a_resumed_list_of_messages_is_printed_whole(capsys, models, tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How much?"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": chat}))
    how = ["--model", models / "lm-chat", "--save", tmp_path / "graph", "--max-new-tokens", "4"]
    results(capsys, "search", "--prompts", tmp_path / "chats.jsonl", *how, "--tokens", "20")
    again = results(capsys, "search", "--resume", tmp_path / "graph", "--tokens", "40")
    assert again["results"][0]["prompt"] == chat


@pytest.mark.parametrize("tokens", ["20", "60"])  # nothing left to draw, and something
def test_a_graph_goes_on_with_the_model_that_grew_it_only(capsys, models, tmp_path, tokens):
    graph = tmp_path / "graph"
    first = ["search", "How much?", "--model", models / "lm", "--tokens", "20", "--max-new-tokens", "4"]
    results(capsys, *first, "--save", graph)
    again = ["search", "--resume", graph, "--tokens", tokens]
    err = said(capsys, *again, "--model", "embedded", "-q", status=2).err
    assert f"must go on with the model that began it, '{models / 'lm'}', got another one" in err
    same = results(capsys, *again, "--model", models / "lm-chat")  # the same weights in another folder
    assert same["model"] == str(models / "lm")


@pytest.mark.parametrize("command", ["search", "estimate", "train", "train-value"])
def test_a_prompt_that_is_too_long_is_named(capsys, models, tmp_path, command):
    rows = [("How much?", "1"), ("Count 1 2 3 4 5 6 7 8 9. " * 100, "2"), ("How many?", "3")]
    file, out = tmp_path / "problems.jsonl", ["--out", tmp_path / "out"]
    file.write_text("\n".join(json.dumps({"prompt": q, "answer": a}) for q, a in rows))
    how = ["--task", "answers", "--prompts", file, *(out if command.startswith("train") else [])]
    err = said(capsys, command, *how, "--model", models / "lm", status=2).err
    assert re.search(
        r"context of 256 tokens, got \d+ in the one that begins 'Count 1 2 3 .*': shorten it", err
    )


def test_a_chat_that_is_too_long_is_named_by_what_its_user_says(capsys, models):
    how = ["--model", models / "lm-chat", "--chat", "--system", "Be brief. " * 200, "-q"]
    err = said(capsys, "search", "How much?", *how, status=2).err
    assert "in the one that begins 'How much?'" in err
