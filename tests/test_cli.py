"""The command line: what it prints, with which status it exits, and that nothing is lost."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from babblegraph.born import Born
from babblegraph.cli import build
from babblegraph.cli.interrupt import Interruptible
from babblegraph.cli.loading import load_function, nearest, read_problems, unescaped
from babblegraph.cli.main import main
from babblegraph.cli.options import RESTARTS, SearchOptions
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.graph_file import load, save
from babblegraph.lm.babbler import EMBEDDED
from babblegraph.status import Flag, Gate, Status
from babblegraph.tasks.countdown import legal_lines

HUGE = "99999999999999999999999"
COUNTED = ("--tokens", "--nodes", "--max-new-tokens", "--span", "--together", "--top-k")
BYTES = {i: bytes([i]) for i in range(256)}


class Player:
    """A generator that plays random legal Countdown lines, one byte a token: no model is needed."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)

    def start(self, prompts, seed):
        return BabbleGraph(
            list(prompts), [list(p.encode()) for p in prompts], BYTES, seed, {"model": "player"}
        )

    def expand(self, graph, chosen, rng, meter, draws):
        graph.vocabulary.update(BYTES)  # a loaded graph knows only the tokens that it uses
        parents, spans, exhausted = [], [], []
        for node, draws in zip(chosen.ids.tolist(), chosen.draws.tolist(), strict=True):
            old = {graph.span_text(c) for c in graph.children(node)}
            lines = [x for line in legal_lines(_numbers(graph, node)) if (x := f"{line}\n") not in old]
            drawn = self.random.sample(sorted(lines), min(max(draws, 1), len(lines)))
            parents += [node] * len(drawn)
            spans += [list(line.encode()) for line in drawn]
            exhausted.append(Flag.EXHAUSTED if len(drawn) == len(lines) else 0)
        born = Born.of_spans(parents, spans, [-1.0] * len(spans))
        for name in ("sampled", "forwarded"):
            meter.count(name, graph.root[born.parent], born.lengths)
        return replace(
            born,
            expanded=chosen.ids.astype(np.int32),
            draws=chosen.draws.astype(np.int32),
            parent_flags=np.array(exhausted, np.uint8),
        )

    def release(self, graph, ids):
        pass


def _numbers(graph, node):
    text = graph.text(node).rstrip("\n").rpartition("\n")[2]
    return tuple(map(int, (text.partition(":")[2] or graph.prompt(node).partition(">")[0]).split()))


@pytest.fixture
def player(monkeypatch):
    """The command line with a player in place of a model."""
    monkeypatch.setattr(build, "generator", lambda plan: Player())
    monkeypatch.setattr(build, "value", lambda plan, generator: None)  # it has no verdict
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def saved(tmp_path):
    """A small saved graph: one finished, one dead, one pruned and one live node, and a second prompt."""
    graph = BabbleGraph(["1 2>3\n", "other"], [[49], [50]], BYTES, meta={"threshold": 1.0, "model": "player"})
    spans = [list(s) for s in (b"1+2=3:3\n", b"1*2=9\n", b"2-1=1:1\n", b"2/1")]
    status = [Status.LEAF_STOP, Status.LEAF_DEAD, Status.PRUNED, Status.FRONTIER]
    graph.add(Born.of_spans([0] * 4, spans, [-1.0] * 4, status))
    graph.gate[4] = Gate.NODE
    graph.score[2:4] = 1, 0
    graph.value[2:] = 1, 0, 0.2, 0.5
    file = tmp_path / "graph.safetensors"
    save(graph, file)
    return str(file)


def said(capsys, *arguments, status):
    """What the command prints on both streams, once its exit status is as expected."""
    assert main(arguments) == status
    return capsys.readouterr()


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], "did you mean 'search'"),
        (["3 5 7 11>24"], "babblegraph search '3 5 7 11>24'"),
        (["search", "--tokns", "5"], "did you mean '--tokens'"),
        (["search", "--tokens", "many"], "--tokens"),
        (["search", "--tokens", "0"], "--tokens must be above zero, got 0"),
        (["search", "--nodes", "-3"], "--nodes must be above zero, got -3"),
        (["search", "--seconds", "nan"], "--seconds must be above zero, got nan"),
        (["search", "--seed", "-1"], "--seed must not be negative, got -1"),
        (["search", "--temperature", "0"], "--temperature must be above zero"),
        (["search", "--top-p", "1.5"], "--top-p must be above 0 and at most 1"),
        *(
            (["search", "--threshold", x], "--threshold must be a number from 0 to 1")
            for x in ("inf", "2", "-3")
        ),
        *((["search", name, HUGE], f"{name} must be at most 2,147,483,647, got {HUGE}") for name in COUNTED),
        (["search", "-n", HUGE], f"--width must be at most 2,147,483,647, got {HUGE}"),
        (["search", "--tokens", "9" * 400], f"got {'9' * 37}...: give a smaller number"),
        (["search", "--memory-limit", "1e300"], "--memory-limit must be at most 1,000,000, got 1e+300"),
        (["search", "--memory-limit", "inf"], "--memory-limit must be at most 1,000,000, got inf"),
        (["search", "--seconds", "inf"], "--seconds must be at most 1,000,000,000, got inf"),
        (["search", "--seed", HUGE], "--seed must be at most"),
        (["train-value", "--out", "x", "--threshold", "nan"], "--threshold must be a number from 0 to 1"),
        (["train-value", "--out", "x", "--copies", HUGE], "--copies must be at most 2,147,483,647"),
        (["train-value", "--out", "x", "--seed", HUGE], "--seed must be at most"),
        *(
            (["train-value", "--task", t, "--out", "x"], "give a file with --prompts")
            for t in ("chain", "queens")
        ),
        (["train", "once", "--out", "x"], "babblegraph train takes options only, got 'once'"),
        (["search", "--json", "-q"], "got both: drop one"),
        (["search", "--strategy", "greedy", "--span", "5"], "--span is not for greedy"),
        (["search", "--tokens", "4", "--tokens", "x"], "integer, got 'x'"),
        (["search", "--tokens=abc"], "integer, got 'abc'"),
        (["train", "--out", "x", "--json", "-q"], "got both: drop one"),
        *(
            (["search", f"--{name}", "\udc80"], f"--{name} must be UTF-8")
            for name in ("stop", "judge", "good")
        ),
        *(
            ([command, option, ""], f"{option} must name something, got ''")
            for command, option in (
                *(
                    ("search", f"--{name}")
                    for name in ("model", "task", "strategy", "value", "vote", "device")
                ),
                *(("search", f"--{name}") for name in ("prompts", "save", "resume", "reward-model")),
                *(("train", f"--{name}") for name in ("out", "resume")),
                ("train-value", "--out"),
            )
        ),
        (["train", "--out", "x", "--preset", ""], "--preset must name something, got ''"),
        (["train", "--out", "x", "--held-out", ""], "--held-out must name something, got ''"),
        (["search", "--good", ","], "--good must be words with commas in between, got none"),
        (["search", "-n", "0"], "--width must be above zero"),
        (["search", "--task", "contdown"], "did you mean 'countdown'"),
        (["search", "--strategy", "bable"], "did you mean 'babble'"),
        (["search", "--draws", "systemic", "a"], "did you mean 'systematic'"),
        (["search", "--restarts", "novel", "a"], "did you mean 'novelty'"),
        (["search", "--draws", "systematic"], "--draws needs the strategy frontier, got 'babble'"),
        (["search", ""], "must not be empty"),
        (["search", "--task", "countdown", "no puzzle"], "no puzzle"),
        (["search", "--model", "somewhere"], "needs a prompt"),
        (["search", "a", "--prompts", "b"], "only one of PROMPT, --prompts"),
        (["search", "--value", "a.py:f", "--judge", "b"], "only one of --value, --reward-model"),
        (["search", "--judge", "This is"], "--good WORDS and --bad WORDS"),
        (["search", "--good", "good"], "add --judge"),
        (["search", "--prompts", "/no/such/file"], "/no/such/file"),
        (["search", "--value", "nothing"], "must be FILE.py:NAME"),
        (["search", "--value", "/no/such.py:f"], "/no/such.py"),
        (["search", "--save", "/no/such/folder/graph"], "--save must be a file that can be written"),
        (["search", "--save", "/"], "got the folder"),
        (["search", "a", "--save", "/dev/null"], "--save must be a file, got the pipe or device '/dev/null'"),
        (["search", "--resume", "/no/such/graph"], "/no/such/graph"),
        (["search", "--resume", "x", "--seed", "3"], "--seed too"),
        (["show", "/no/such/graph"], "/no/such/graph"),
        (["show"], "FILE must be given, got none: babblegraph show --help"),
        (["export", "x"], "--to must be given"),
        (["search", "--tokens"], "'--tokens' requires an argument: babblegraph search --help"),
        (["search", "once", "upon", "a time"], "got more (upon a time): put quotes around all of it"),
        (["export", "/no/such/graph", "--to", "grapml"], "did you mean 'graphml'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, words):
    out, err = said(capsys, *arguments, status=2)
    assert out == ""
    assert err.startswith("babblegraph: ")
    assert err.count("\n") == 1
    assert words in err
    assert err.rstrip("\n").isprintable()


HOSTILE = "\x1b]0;x\x07 \x9b1m \u202e \u200b \x85 \udc80"


def test_json_and_messages_have_nothing_in_them_that_a_terminal_obeys(capsys, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(f"def value(texts):\n    raise ValueError({HOSTILE!r})\n")
    out, err = said(
        capsys, "search", "1 2 3>99", "--value", f"{file}:value", "--json", "--tokens", "40", status=1
    )
    assert json.loads(out)["summary"]["first_failure"] == f"value raised ValueError: {HOSTILE}"
    assert "ValueError: ␛]0;x␇" in err
    assert all(line.isprintable() for line in [*out.splitlines(), *err.split("\n")])


def test_a_hub_that_is_out_of_reach_is_told_once_and_not_at_every_retry(capsys, monkeypatch):
    """Its own warnings would be twenty lines before ours."""
    from huggingface_hub.utils import logging as hub

    from babblegraph.lm import Babbler

    told = []

    def unreachable(*arguments, **options):
        told.append(hub.get_logger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING))
        raise BadInput("a model must be there, got none: name another")

    before = hub.get_verbosity()
    hub.set_verbosity_warning()
    monkeypatch.setattr(Babbler, "from_pretrained", unreachable)
    _, err = said(capsys, "search", "hello", "--model", "no/where", "--quiet", status=2)
    hub.set_verbosity(before)
    assert told == [False]
    assert err.splitlines() == ["babblegraph: a model must be there, got none: name another"]


def test_a_damaged_graph_file_is_bad_input(capsys, saved):
    data = bytearray(Path(saved).read_bytes())
    data[-3] ^= 0xFF
    Path(saved).write_bytes(data)
    for command in (["show", saved], ["export", saved, "--to", "json"], ["search", "--resume", saved]):
        out, err = said(capsys, *command, status=2)
        assert out == ""
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f(texts): return [1.0]", "did you mean 'f'"),
        ("ff = 3", "which is a int"),
        ("def ff(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("exit(0)", "SystemExit"),
    ],
)
def test_a_value_file_that_is_no_use_is_bad_input(capsys, tmp_path, code, words):
    file = tmp_path / "mine.py"
    file.write_text(code)
    _, err = said(capsys, "search", "--value", f"{file}:ff", status=2)
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("wrong", ["prompts = 5", "def prepare(self, prompt): raise KeyError('mine')"])
def test_a_task_that_cannot_give_its_prompts_is_bad_input(capsys, tmp_path, wrong):
    file = tmp_path / "mine.py"
    file.write_text(f"class T:\n  prompts = ['a']\n  {wrong}\n  def verify(self, prompt, text): return 1\n")
    err = said(capsys, "search", "--task", f"{file}:T", status=2).err
    assert "a task must list its prompts and prepare each" in err


def test_a_traceback_is_shown_only_with_debug(capsys):
    assert "Traceback" not in said(capsys, "show", "/no/such", status=2).err
    for arguments in (["--debug", "show", "/no/such"], ["show", "/no/such", "--debug"]):
        assert "Traceback" in said(capsys, *arguments, status=2).err


def test_a_bug_is_one_line_too(capsys, monkeypatch):
    monkeypatch.setattr(build, "plan", lambda options: 1 // 0)
    err = said(capsys, "search", status=70).err
    assert (
        err
        == "babblegraph: internal error: ZeroDivisionError: integer division or modulo by zero; --debug shows where\n"
    )


# ------------------------------------------------------------------------------------------------ reading


def test_prompts_are_read_from_lines_and_from_json_lines(tmp_path):
    plain, lines = tmp_path / "p.txt", tmp_path / "p.jsonl"
    plain.write_text("one\n\n two \n", "utf-8")
    chat = [{"role": "user", "content": "hi"}]
    lines.write_text("\n".join(json.dumps({"prompt": p}) for p in ("ä\nb", chat)), "utf-8")
    assert [p.prompt for p in read_problems(str(plain))] == ["one", " two "]
    assert [p.prompt for p in read_problems(str(lines))] == ["ä\nb", chat]


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("p.csv", "prompt,answer\n1+1?,2\n", "a table"),
        ("p.json", '[\n  "one",\n  "two"\n]\n', "one JSON list"),
        ("p.txt", '[{"prompt": "one"},\n {"prompt": "two"}]\n', "one JSON list"),
    ],
)
def test_a_table_and_a_list_are_no_prompts_line_by_line(tmp_path, name, content, form):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=f"got {form} in .*: write it as JSON Lines"):
        read_problems(str(tmp_path / name))
    (tmp_path / "plain.txt").write_text("[1, 2]\n")
    assert [p.prompt for p in read_problems(str(tmp_path / "plain.txt"))] == ["[1, 2]"]


def test_standard_input_is_read_as_a_file_is_whatever_encoding_the_terminal_has(monkeypatch):
    def read(content, encoding="utf-8"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding=encoding))
        return [(p.prompt, p.answer) for p in read_problems("-")]

    assert read('\ufeff{"prompt": "a", "answer": 1}\r\n'.encode()) == [("a", 1)]
    assert read("é\n".encode(), "latin-1") == [("é", None)]
    with pytest.raises(BadInput, match="must be UTF-8, got '-'"):
        read("é\n".encode("latin-1"), "latin-1")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInput, match="got it closed"):
        read_problems("-")


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"text": 1}', '{"prompt": ""}', '{"prompt": [{"role": "user"}]}']
)
def test_a_bad_line_of_json_names_its_line(tmp_path, line):
    file = tmp_path / "p.jsonl"
    file.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(BadInput, match=r"p\.jsonl:2"):
        read_problems(str(file))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a" "b"}', r"p\.jsonl:2 column 16 \(Expecting ',' delimiter\): mend it$"),
        ('{"prompt": ' + "9" * 5000 + "}", r"p\.jsonl:2 \(Exceeds the limit .*\): mend it$"),
        ("[" * 100_000, r"p\.jsonl:2 \(maximum recursion depth .*\): mend it$"),
    ],
)
def test_where_json_is_broken_is_said_once(tmp_path, line, words):
    file = tmp_path / "p.jsonl"
    file.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(BadInput, match=words) as wrong:
        read_problems(str(file))
    assert "line 1" not in str(wrong.value)


def test_a_value_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("ONE = 1.0")
    (tmp_path / "mine.py").write_text(
        "from neighbour_of_mine import ONE\ndef f(texts): return [ONE] * len(texts)"
    )
    assert load_function(f"{tmp_path}/mine.py:f")(["a", "b"]) == [1.0, 1.0]


def test_names_that_are_nothing_like_any_get_no_guess():
    assert nearest("xyzzy", ["search"]) is None


def test_escapes_of_stop_strings_are_read():
    assert unescaped(r"\n\t\\n") == "\n\t\\n"


def test_a_resumed_search_keeps_what_is_not_said_again():
    old = SearchOptions(task="countdown", judge="x", good=("a",), bad=("b",), temperature=0.7, stop=("\n",))
    saved = json.loads(json.dumps(old.to_meta()))
    assert SearchOptions(tokens=5).resumed(saved) == SearchOptions(**saved | _tuples(saved), tokens=5)
    new = SearchOptions(value="v.py:f", temperature=1.0).resumed(saved)
    assert (new.judge, new.good, new.value, new.temperature, new.task) == (
        None,
        (),
        "v.py:f",
        1.0,
        "countdown",
    )


def test_another_strategy_does_not_inherit_the_width_and_the_draws_of_the_one_before():
    saved = {"strategy": "frontier", "width": 9, "draws": "systematic", "span": 3}
    same = SearchOptions(resume="x").resumed(saved)
    assert (same.strategy, same.width, same.draws, same.span) == ("frontier", 9, "systematic", 3)
    other = SearchOptions(resume="x", strategy="greedy").resumed(saved)  # which takes neither
    assert (other.width, other.draws, other.span) == (None, None, 3)
    assert SearchOptions(resume="x", strategy="dvts", width=2).resumed(saved).width == 2


def test_a_resumed_search_goes_on_after_an_answer_passes_until_it_is_told_not_to(capsys, player, tmp_path):
    file = str(tmp_path / "graph")
    resume = ["search", "--resume", file, "--save", file, "-q"]
    said(capsys, "search", "2 3 4>24", "--all", "--tokens", "100", "--save", file, "-q", status=0)
    before = load(file)
    assert before.best(1)
    said(capsys, *resume, "--tokens", "200", status=0)
    assert (after := load(file)).size > before.size
    said(capsys, *resume, "--tokens", "300", "--no-all", status=0)
    assert load(file).size == after.size


def test_what_decides_how_a_graph_grows_is_remembered_and_what_is_of_the_machine_is_not():
    said = {"every": True, "together": 3, "memory_limit": 2.0, "device": "cpu", "trust_remote_code": True}
    saved = SearchOptions(**said).to_meta()
    assert saved == {"every": True, "together": 3}
    assert SearchOptions(every=False, together=5).resumed(saved) == SearchOptions(every=False, together=5)


def _tuples(saved):
    return {name: tuple(x) for name, x in saved.items() if isinstance(x, list)}


# ------------------------------------------------------------------------------------------------ search


def test_json_is_one_object_and_nothing_else(capsys, player):
    out, _ = said(capsys, "search", "2 3 4>24", "--json", "--seed", "3", status=0)
    found = json.loads(out)
    assert out.count("\n") == 1
    assert set(found) == {"results", "summary", "seconds", "seed", "model", "strategy", "engine", "version"}
    assert (found["seed"], found["strategy"]) == (3, "babble")
    (result,) = found["results"]
    assert set(result) == {"prompt", "answer", "score", "passed", "tokens", "nodes", "pruned"}
    assert set(result["tokens"]) == {"sampled", "forwarded", "prefilled", "scored"}
    assert (result["prompt"], result["score"], result["passed"]) == ("2 3 4>24", 1.0, True)
    assert result["answer"].rstrip().endswith(":24")


def test_no_answer_that_passes_is_status_1(capsys, player):
    out, _ = said(capsys, "search", "1 1>999", "--tokens", "300", "--json", status=1)
    (result,) = json.loads(out)["results"]
    assert result["passed"] is False


def test_a_verifier_that_raises_is_told_and_is_no_success(capsys, player, tmp_path):
    file = tmp_path / "mine.py"
    code = "from babblegraph import Countdown\n\nclass Mine(Countdown):\n"
    file.write_text(f"{code}    def verify(self, prompt, text):\n        raise ValueError('my bug')\n")
    asked = ["search", "2 3>6", "--task", f"{file}:Mine", "--tokens", "60"]
    out, err = said(capsys, *asked, "--json", status=1)
    summary = json.loads(out)["summary"]
    assert summary["failures"] > 0
    assert summary["first_failure"] == "verify raised ValueError: my bug"
    line = f"the value or the task failed {summary['failures']} times, first on node "
    assert line in err
    out, err = said(capsys, *asked, "--quiet", status=1)
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"babblegraph: {line}")
    assert err.endswith(": verify raised ValueError: my bug\n")


@pytest.mark.parametrize("how", [["--vote", "last-line"], ["--blind"]])
def test_a_verifier_that_raises_at_the_end_loses_no_search(capsys, player, tmp_path, how):
    file = tmp_path / "mine.py"
    code = "from babblegraph import Countdown\n\nclass Mine(Countdown):\n"
    file.write_text(f"{code}    def verify(self, prompt, text):\n        raise ValueError('my bug')\n")
    out, err = said(
        capsys, "search", "2 3>6", "--task", f"{file}:Mine", "--tokens", "60", *how, "--json", status=0
    )
    found = json.loads(out)
    assert found["results"][0]["answer"]
    assert (found["summary"]["right"], found["summary"]["failures"]) == (0, 1)
    assert "the value or the task failed 1 time, first on node" in err


def test_the_report_has_tree_answer_path_gates_and_budget(capsys, player):
    out, err = said(capsys, "search", "2 3 4>24", status=0)
    for word in (
        "2 3 4>24",
        "Answer",
        "Path",
        "Gates",
        "node gate",
        "leaf gate",
        "Budget",
        "sampled tokens",
    ):
        assert word in out
    assert err.startswith("babblegraph: loading the model embedded\n")
    assert "\x1b" not in out + err
    assert max(map(len, out.splitlines())) <= 100


def test_without_a_prompt_the_default_puzzle_of_countdown_is_searched():
    plan = build.plan(SearchOptions())
    assert (plan.prompts, plan.task.name, plan.model) == (["3 5 7 11>24"], "countdown", "embedded")
    assert (plan.threshold, plan.seed, plan.strategy) == (1.0, 0, "babble")


def test_quiet_prints_the_answer_only(capsys, player):
    out, err = said(capsys, "search", "--quiet", "2 3>6", status=0)
    assert out.strip() in ("2*3=6:6", "3*2=6:6")
    assert err == ""


def test_answers_of_several_prompts_have_a_line_each_whether_there_are_any_or_not(capsys, player, tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("1 1>99\n2 3 4>24\n2 3>6\n")
    out, _ = said(capsys, "search", "-q", "--prompts", str(file), "--tokens", "400", status=1)
    none, two, one = out.splitlines()
    assert (none, two.count("\\n"), two[-3:], one[-2:]) == ("", 1, ":24", ":6")


def test_without_a_threshold_a_prompt_without_an_answer_is_status_1(capsys):
    short = ["search", "hi", "--model", str(EMBEDDED), "--tokens", "1", "--json"]
    (result,) = json.loads(said(capsys, *short, status=1).out)["results"]
    assert (result["answer"], result["passed"]) == (None, None)


@pytest.mark.parametrize("how", ["--json", "--quiet"])
def test_what_a_users_function_prints_is_no_answer(how, capsys, player, tmp_path):
    file = tmp_path / "mine.py"
    code = "from babblegraph import Countdown\n\nprint('loaded')\n\nclass Mine(Countdown):\n"
    file.write_text(f"{code}    def verify(self, *both):\n        print('asked')\n        return 1\n")
    out, err = said(capsys, "search", "2 3>6", "--task", f"{file}:Mine", how, status=0)
    assert "loaded" in err
    assert "asked" in err
    assert len(out.splitlines()) == 1
    assert "asked" not in out


def test_many_prompts_have_a_line_each(capsys, player, tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("2 3>6\n4 5>9\n1 1>99\n")
    out, _ = said(capsys, "search", "--prompts", str(file), "--json", "--tokens", "200", status=1)
    assert [r["passed"] for r in json.loads(out)["results"]] == [True, True, False]
    out, _ = said(capsys, "search", "--prompts", str(file), "--tokens", "200", status=1)
    assert out.count("2 3>6") >= 1
    assert out.count("1 1>99") >= 1


def test_a_saved_search_can_be_resumed_and_shown(capsys, player, tmp_path):
    file = str(tmp_path / "graph")
    said(capsys, "search", "1 2 3>99", "--tokens", "20", "--save", file, "--quiet", status=1)
    before = load(file)
    out, _ = said(capsys, "search", "--resume", file, "--tokens", "200", "--save", file, "--json", status=1)
    after = load(file)
    assert after.size > before.size
    assert after.prompts == before.prompts == ["1 2 3>99\n"]
    assert json.loads(out)["results"][0]["tokens"]["sampled"] > 20
    assert "1 2 3>99" in said(capsys, "show", file, status=0).out


@pytest.mark.parametrize("more", ["20", "60"])
def test_a_resumed_search_tells_its_prompt_as_it_was_given(capsys, player, tmp_path, more):
    file = str(tmp_path / "graph")
    first = said(capsys, "search", "1 2 3>99", "--tokens", "20", "--save", file, "--json", status=1).out
    again = said(capsys, "search", "--resume", file, "--tokens", more, "--json", status=1).out
    assert [json.loads(out)["results"][0]["prompt"] for out in (first, again)] == ["1 2 3>99"] * 2
    assert json.loads(first)["model"] == json.loads(again)["model"] == "embedded"


def test_a_resumed_search_is_saved_where_it_was_read_unless_another_file_is_named(capsys, player, tmp_path):
    file, other = str(tmp_path / "graph"), str(tmp_path / "other")
    said(capsys, "search", "1 2 3>99", "--tokens", "20", "--save", file, "-q", status=1)
    before = load(file).size
    said(capsys, "search", "--resume", file, "--tokens", "60", "--save", other, "-q", status=1)
    assert load(file).size == before < load(other).size
    err = said(capsys, "search", "--resume", file, "--tokens", "60", status=1).err
    assert f"saved in {file}" in err.splitlines()[-1]
    assert load(file).size == load(other).size


def test_a_resumed_search_that_is_interrupted_keeps_what_was_added(capsys, player, monkeypatch, tmp_path):
    class Interrupted(Player):
        def expand(self, graph, *rest):
            if graph.round == before.round + 2:
                signal.raise_signal(signal.SIGINT)
            return super().expand(graph, *rest)

    file = str(tmp_path / "graph")
    said(capsys, "search", "1 2 3>99", "--tokens", "20", "--save", file, "-q", status=1)
    before = load(file)
    monkeypatch.setattr(build, "generator", lambda plan: Interrupted())
    said(capsys, "search", "--resume", file, "--tokens", "200", "-q", status=130)
    assert load(file).round == before.round + 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "of 20 tokens: give more --tokens"),
        (["--tokens", "10"], "of 10 tokens: give more --tokens"),
        (["--nodes", "1"], "of 1 nodes: give more"),
        (["--seconds", "1e-9"], "of 1e-09 seconds: give more"),
    ],
)
@pytest.mark.parametrize("how", [[], ["--json"], ["-q"]])
def test_a_budget_that_is_spent_is_told_and_the_file_is_left_alone(
    capsys, player, tmp_path, more, words, how
):
    file = tmp_path / "graph"
    said(capsys, "search", "1 2 3>99", "--tokens", "20", "--save", str(file), "-q", status=1)
    before = file.stat()
    err = said(capsys, "search", "--resume", str(file), *more, *how, status=1).err
    assert f"nothing was added to {file}, its budget is spent, " in err.splitlines()[-1]
    assert words in err.splitlines()[-1]
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_search_that_is_over_says_what_goes_on_after_an_answer(capsys, player, tmp_path):
    file = str(tmp_path / "graph")
    said(capsys, "search", "2 3>6", "--save", file, "-q", status=0)
    out, err = said(capsys, "search", "--resume", file, "--tokens", "9000", "-q", status=0)
    assert out.strip() in ("2*3=6:6", "3*2=6:6")
    assert err.startswith(
        f"babblegraph: nothing was added to {file}, no prompt has anything left to try: --all"
    )


def test_a_graph_that_cannot_be_saved_where_it_was_read_is_told_before_the_model_is_loaded(
    capsys, player, monkeypatch, tmp_path
):
    def refused(file, option):
        raise BadInput(f"{option} must be a file that can be written, got {file!r}: Permission denied")

    file = str(tmp_path / "graph")
    said(capsys, "search", "1 2 3>99", "--tokens", "20", "--save", file, "-q", status=1)
    monkeypatch.setattr("babblegraph.cli.loading.check_writable", refused)
    monkeypatch.setattr(build, "generator", lambda plan: pytest.fail("the model is loaded"))
    err = said(capsys, "search", "--resume", file, "--tokens", "90", status=2).err
    assert "--resume without --save must be a file that can be written" in err


@pytest.mark.parametrize("measure", RESTARTS)
def test_restarts_are_chosen_by_any_measure_and_resumed_with_it(capsys, player, tmp_path, measure):
    file = str(tmp_path / "graph.safetensors")
    asked = ["search", "1 2 3>99", "--tokens", "60", "-q", "--save", file]
    said(capsys, *asked, "--restarts", measure, status=1)
    assert load(file).meta["strategy"] == "babble+restarts"
    said(capsys, "search", "--resume", file, "--tokens", "90", "-q", "--save", file, status=1)
    assert load(file).meta["strategy"] == "babble+restarts"


def test_a_search_that_fails_on_the_way_still_saves(capsys, player, monkeypatch, tmp_path):
    class Fragile(Player):
        def expand(self, graph, *rest):
            if graph.round == 3:
                raise RuntimeError("the machine is on fire")
            return super().expand(graph, *rest)

    monkeypatch.setattr(build, "generator", lambda plan: Fragile())
    file = tmp_path / "graph"
    err = said(capsys, "search", "1 2 3>99", "--save", str(file), status=70).err
    assert "on fire" in err
    assert load(file).size > 1


def test_an_answer_is_printed_even_if_it_cannot_be_saved(capsys, player, monkeypatch, tmp_path):
    def full(graph, path):
        raise BadInput("the disk is full")

    monkeypatch.setattr("babblegraph.graph_file.save", full)
    out, err = said(capsys, "search", "2 3>6", "--save", str(tmp_path / "graph"), "--quiet", status=2)
    assert out.strip() in ("2*3=6:6", "3*2=6:6")
    assert err == "babblegraph: the disk is full\n"


@pytest.mark.parametrize("module", ["babblegraph", "babblegraph.cli"])
def test_an_interrupt_while_the_command_is_loaded_is_one_line(module, tmp_path):
    (tmp_path / "typer.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    where = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = subprocess.Popen(
        [sys.executable, "-m", module, "search", "7"],
        env=os.environ | {"PYTHONPATH": where},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background ignores
    )
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "loading\n"
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=30)
    assert (command.returncode, said) == (130, "babblegraph: interrupted\n")


def test_the_first_interrupt_waits_for_the_round_and_the_second_does_not():
    told = []
    with Interruptible(told.append) as interrupt:
        seen = []
        for i in interrupt.until_stopped(range(5)):
            seen.append(i)
            if i == 1:
                signal.raise_signal(signal.SIGINT)
        assert seen == [0, 1]
        assert interrupt.status == 130
        assert len(told) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_saves_the_graph_and_exits_with_130(capsys, player, monkeypatch, tmp_path):
    class Interrupted(Player):
        def expand(self, graph, *rest):
            if graph.round == 3:
                signal.raise_signal(signal.SIGINT)
            return super().expand(graph, *rest)

    monkeypatch.setattr(build, "generator", lambda plan: Interrupted())
    file = tmp_path / "graph"
    out, err = said(capsys, "search", "1 2 3>99", "--save", str(file), status=130)
    assert "stopping after this round" in err
    assert "Budget" in out
    assert load(file).round == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_a_hangup_save_the_graph_too_and_nohup_keeps_its_word(
    capsys, player, monkeypatch, tmp_path, number
):
    class Interrupted(Player):
        def expand(self, graph, *rest):
            if graph.round == 3:
                signal.raise_signal(number)
            return super().expand(graph, *rest)

    monkeypatch.setattr(build, "generator", lambda plan: Interrupted())
    file = str(tmp_path / "graph")
    before = signal.signal(number, signal.SIG_DFL)
    try:
        said(capsys, "search", "1 2 3>99", "--save", file, status=128 + number)
        assert load(file).round == 3
        assert signal.getsignal(number) is signal.SIG_DFL
        if number == signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)
            said(capsys, "search", "1 2 3>99", "--save", file, status=1)
    finally:
        signal.signal(number, before)


def test_sigterm_ends_every_command_as_ctrl_c_does_with_a_status_of_its_own(capsys, monkeypatch):
    def terminated(plan):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(build, "generator", terminated)
    for command in (["search", "1 2>3"], ["estimate", "1 2>3"]):
        assert "babblegraph: interrupted" in said(capsys, *command, status=143).err


# ------------------------------------------------------------------------------------------------ show, export


def test_show_draws_a_saved_graph(capsys, saved):
    out, err = said(capsys, "show", saved, "--width", "80", status=0)
    assert err == ""
    for word in ("1+2=3:3", "passed", "dead", "node gate", "Gates"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


def test_show_tells_everything_about_one_node(capsys, saved):
    out, _ = said(capsys, "show", saved, "--node", "4", status=0)
    for word in ("Node 4", "pruned", "node gate", "2-1=1:1"):
        assert word in out


@pytest.mark.parametrize("option", ["--tree", "--node"])
def test_show_knows_which_trees_and_nodes_there_are(capsys, saved, option):
    assert f"{option} must be one of" in said(capsys, "show", saved, option, "17", status=2).err


def test_show_goes_back_to_a_round_and_plays_the_search_again(capsys, saved):
    out, _ = said(capsys, "show", saved, "--round", "0", status=0)
    assert "as of round 0 of 0" in out
    out, _ = said(capsys, "show", saved, "--replay", "--speed", "50", status=0)
    assert out.startswith("round 0 of 0")
    assert "Gates" in out


def test_show_compares_two_searches_and_reports_traps(capsys, saved):
    out, _ = said(capsys, "show", saved, "--diff", saved, status=0)
    assert "places" in out
    assert "only A" not in out
    assert "3 branches have no leaf that passes" not in said(capsys, "show", saved, "--traps", status=0).out
    assert "2 branches have no leaf that passes" in said(capsys, "show", saved, "--traps", status=0).out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--round", "3"], "--round must be one of the graph's 0 to 0, got 3"),
        (["--speed", "0", "--replay"], "--speed must be above zero, got 0"),
        (["--traps", "--replay"], "show does one thing at a time, got --replay and --traps"),
        (["--diff", "/no/such"], "/no/such"),
        (["--speed", "2"], "--speed is of --replay"),
        (["--traps", "--height", "5"], "--height changes nothing that --traps shows"),
        (["--node", "1", "--tree", "0"], "--tree changes nothing that --node shows"),
        (["--diff", "/no/such", "--tree", "0"], "--tree changes nothing that --diff shows"),
    ],
)
def test_show_says_in_one_line_what_it_cannot_do(capsys, saved, options, word):
    err = said(capsys, "show", saved, *options, status=2).err
    assert word in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("form", "start"),
    [("graphml", "<?xml"), ("json", "{"), ("dot", "digraph"), ("svg", "<svg"), ("html", "<!doctype html>")],
)
def test_export_writes_every_format_to_a_file_or_to_standard_output(capsys, saved, tmp_path, form, start):
    out, _ = said(capsys, "export", saved, "--to", form, status=0)
    assert out.startswith(start)
    file = tmp_path / f"graph.{form}"
    assert said(capsys, "export", saved, "--to", form, "--output", str(file), status=0).out == ""
    assert file.read_text("utf-8").strip() == out.strip()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_exports_are_utf_8_whatever_the_terminal_is(saved, encoding):
    for form in ("svg", "html", "dot"):
        command = [sys.executable, "-m", "babblegraph.cli", "export", saved, "--to", form]
        here = {**os.environ, "PYTHONIOENCODING": encoding}
        found = subprocess.run(command, capture_output=True, env=here, check=True)
        assert found.stderr == b""
        assert found.stdout.decode().strip().endswith((">", "}"))


def test_an_export_goes_through_links_and_into_pipes_and_replaces_neither(capsys, saved, tmp_path):
    out = said(capsys, "export", saved, "--to", "dot", status=0).out
    real, link, pipe = (tmp_path / name for name in ("real", "link", "pipe"))
    real.write_text("old")
    link.symlink_to(real)
    said(capsys, "export", saved, "--to", "dot", "-o", str(link), status=0)
    assert link.is_symlink()
    assert real.read_text() == out
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    said(capsys, "export", saved, "--to", "dot", "-o", str(pipe), status=0)
    assert reader.communicate(timeout=60)[0] == out
    assert pipe.is_fifo()
    assert {p.name for p in tmp_path.iterdir()} == {Path(saved).name, "link", "pipe", "real"}


def test_a_width_that_an_export_does_not_have_is_refused(capsys, saved):
    err = said(capsys, "export", saved, "--to", "html", "--width", "80", status=2).err
    assert "--width is of the SVG, got --to html" in err
    wide = [said(capsys, "export", saved, "--to", "svg", *w, status=0).out for w in ([], ["--width", "100"])]
    assert wide[0] == wide[1]


# ------------------------------------------------------------------------------------------------ the process


def test_help_comes_at_once_and_loads_no_torch():
    code = "import sys; from babblegraph.cli.main import main; main(['search', '-h']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--reward-model" in out
    assert out.splitlines()[-1] == "False"


def test_help_writes_a_line_end_as_it_is_typed(capsys):
    out = said(capsys, "search", "--help", status=0).out
    assert r"'\n'; may be repeated" in out
    assert r"\\n" not in out


def test_help_says_what_the_explorer_needs(capsys):
    assert "babblegraph[explore]" in said(capsys, "show", "--help", status=0).out  # no markup of rich


def test_without_arguments_the_command_explains_itself(capsys):
    out = said(capsys, status=0).out
    for word in ("search", "show", "export", "--version"):
        assert word in out


def test_a_closed_pipe_is_no_error(saved):
    command = f"{sys.executable} -m babblegraph.cli show {saved} --height 0 | true; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert found.stderr == ""
    assert found.stdout.strip() in ("0", "141")  # it may have been faster than the pipe


def test_a_value_function_of_a_file_scores_the_nodes(capsys, tmp_path):
    file = tmp_path / "value.py"
    file.write_text("def half(texts):\n    return [0.5] * len(texts)\n")
    saved = tmp_path / "graph"
    status = main(["search", "2 3 4>24", "--value", f"{file}:half", "--tokens", "60", "--save", str(saved)])
    assert status in (0, 1), capsys.readouterr().err
    graph = load(saved)
    inner = graph.value[graph.status <= Status.EXPANDED][1:]
    assert set(inner.tolist()) == {0.5}


@pytest.mark.parametrize("how", ["--json", "--quiet"])
def test_an_output_that_cannot_hold_every_letter_gets_them_escaped(how, player, monkeypatch):
    monkeypatch.setattr(BabbleGraph, "text", lambda graph, node: "2*3=6 ✓")
    for name in ("value", "done", "verify"):
        monkeypatch.setattr(f"babblegraph.tasks.Countdown.{name}", lambda task, prompt, text: 1.0)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    assert main(["search", "2 3>6", how]) == 0
    sys.stdout.flush()
    out = raw.getvalue().decode("cp1252").strip()
    if how == "--json":
        assert json.loads(out)["results"][0]["answer"] == "2*3=6 ✓"
    else:
        assert out == "2*3=6 \\u2713"


def test_a_closed_output_is_no_error(saved):
    command = f"{sys.executable} -m babblegraph.cli show {saved} >&-"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert found.stderr == ""


@pytest.mark.parametrize(
    ("damage", "word"), [("empty", "it has no config.json"), ("cut", "SafetensorError|deserializing header")]
)
def test_a_model_that_is_damaged_is_bad_input(capsys, tmp_path, damage, word):
    folder = tmp_path / "model"
    if damage == "empty":
        folder.mkdir()
    else:
        shutil.copytree(EMBEDDED, folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    _, err = said(capsys, "search", "2 3>6", "--model", str(folder), status=2)
    assert re.search(word, err)


def test_a_device_that_is_not_there_is_bad_input(capsys):
    _, err = said(capsys, "search", "2 3>6", "--device", "nonsense", status=2)
    assert "a device must be one that torch has here, got 'nonsense'" in err
