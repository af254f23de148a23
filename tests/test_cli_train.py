"""`babblegraph train`: whole runs from a shell's point of view, on a tiny model of the user's own."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from tiny_models import byte_tokenizer, tiny_llama
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from babblegraph.cli.main import main
from babblegraph.cli.train_output import Output
from babblegraph.errors import BadInput
from babblegraph.learning import Level, Ranks, launched
from babblegraph.learning.chances import Chance
from babblegraph.learning.held_out import Held, Measure
from babblegraph.learning.update import Learned
from babblegraph.scoring import LearnedValue
from babblegraph.tasks.training import task_prompts
from babblegraph.view.levels import level_line, levels_report
from babblegraph.view.signs import ASCII, UNICODE

PROMPTS = [
    "Once upon a time",
    "This is a good",
    "The numbers are",
    "The next line",
    "It was very good",
    "The end",
]
THREES = [
    (2, 3, 4),
    (3, 5, 7),
    (2, 5, 6),
    (1, 4, 8),
    (2, 7, 3),
    (4, 2, 9),
    (5, 3, 2),
    (6, 2, 5),
    (1, 9, 2),
    (3, 4, 4),
]
SMALL = [
    "--levels",
    "1",
    "--draws",
    "6",
    "--held-draws",
    "4",
    "--epochs",
    "1",
    "--batch",
    "4",
    "--lr",
    "1e-3",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a model, prompts as text and as JSON Lines, held-out prompts, and a value function."""
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_tokenizer()
    tiny_llama(tokenizer).save_pretrained("model")
    tokenizer.save_pretrained("model")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:4]))
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": p}) for p in PROMPTS[:4]))
    (tmp_path / "held.txt").write_text("\n".join(PROMPTS[4:]))
    (tmp_path / "worth.py").write_text(
        "def vowels(texts):\n    return [sum(c in 'aeiou' for c in t) / (1 + len(t)) for t in texts]\n"
        "class Task:\n    def verify(self, prompt, text): return 1.0\n"
    )
    return tmp_path


def train(*arguments) -> int:
    own = ["train", "--model", "model", "--span", "3", "--max-new-tokens", "6", *SMALL]
    return main([*own, *arguments])


def test_a_python_value_the_best_texts_of_each_prompt_and_a_file_of_prompts(home, capsys):
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels"]
    assert train(*given, "--preset", "raft", "--out", "run", "--json") == 0
    levels = [Level.from_json(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert [level.number for level in levels] == [0, 1]
    assert levels[1].elite == levels[1].taught == 4
    AutoModelForCausalLM.from_pretrained("run/levels/001")
    assert main(["train", "--resume", "run", "--levels", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 2


def test_training_says_when_nothing_is_held_out(home, capsys):
    given = ["--prompts", "prompts.txt", "--value", "worth.py:vowels", "--top", "1", "--json"]
    for more, said in (([], True), (["--held-out", "held.txt"], False)):
        assert train(*given, *more, "--out", f"run {said}") == 0
        assert ("no prompts are held out" in capsys.readouterr().err) == said


def test_who_interrupts_a_run_that_has_not_begun_is_not_told_to_go_on_with_it(home, capsys, monkeypatch):
    def interrupted(plan):
        raise KeyboardInterrupt

    monkeypatch.setattr("babblegraph.cli.build.generator", interrupted)
    given = [
        "--prompts",
        "prompts.txt",
        "--value",
        "worth.py:vowels",
        "--top",
        "1",
        "--out",
        "run",
        "--quiet",
    ]
    assert train(*given) == 130
    assert "the run had not begun" in capsys.readouterr().err

    def begun(number):
        def interrupted(plan):
            (home / "run").mkdir()
            (home / "run" / "config.json").write_text("{}")
            if number == signal.SIGINT:  # which a shell's background ignores
                raise KeyboardInterrupt
            signal.raise_signal(number)

        return interrupted

    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        shutil.rmtree(home / "run", ignore_errors=True)
        monkeypatch.setattr("babblegraph.cli.build.generator", begun(number))
        assert train(*given) == status
        assert "kept: babblegraph train --resume run" in capsys.readouterr().err


def test_a_folder_that_no_run_can_begin_in_is_told_before_the_model_is_loaded(home, capsys, monkeypatch):
    monkeypatch.setattr("babblegraph.cli.build.generator", lambda plan: pytest.fail("loaded"))
    (home / "old").mkdir()
    (home / "old" / "config.json").write_text("{}")
    (home / "full").mkdir()
    (home / "full" / "mine.txt").touch()
    for folder, said in (
        ("old", "new"),
        ("full", "empty"),
        ("prompts.txt", "one that can be written to"),
        ("prompts.txt/run", "one that can be written to"),
    ):
        assert (
            train("--prompts", "prompts.txt", "--value", "worth.py:vowels", "--top", "1", "--out", folder)
            == 2
        )
        assert f"a run's directory must be {said}" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "train-value"])
def test_problems_that_come_through_a_pipe_are_read_once(home, capsys, monkeypatch, command):
    def begun(plan):
        raise BadInput(f"begun with {len(plan.problems)}")

    monkeypatch.setattr("babblegraph.cli.build.generator", begun)
    lines = "".join(f'{{"prompt": "{n}+1?", "answer": {n + 1}}}\n' for n in range(3))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    given = ["--task", "answers", "--prompts", "-", "--model", "model", "--out", "run"]
    assert main([command, *given]) == 2
    assert "begun with 3" in capsys.readouterr().err


LOUD = """print("loaded")

class Loud:
    def verify(self, prompt, text):
        print("asked")
        return float("e" in text)
"""


@pytest.mark.parametrize("how", ["--json", "--quiet"])
def test_what_a_users_task_prints_is_no_level(home, capsys, how):
    (home / "mine.py").write_text(LOUD)
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--task", "mine.py:Loud", "--out", "run"]
    assert train(*given, how) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["number"] for line in out.splitlines()] == ([0, 1] if how == "--json" else [])
    assert "loaded" in err
    assert "asked" in err


def test_what_a_users_task_prints_is_no_figure_of_a_value(home, capsys, monkeypatch):
    found = SimpleNamespace(to_json=lambda: {"auc": float("nan")})  # where no prompt has both outcomes
    monkeypatch.setattr(
        "babblegraph.scoring.fit.fit", lambda *data, **how: SimpleNamespace(held_out={1: found})
    )
    monkeypatch.setattr("babblegraph.scoring.learned.save", lambda *fitted, **notes: None)
    (home / "mine.py").write_text(LOUD)
    given = ["--model", "model", "--prompts", "prompts.txt", "--task", "mine.py:Loud", "--copies", "2"]
    assert main(["train-value", *given, "--out", "value", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "NaN" not in out
    found = json.loads(out)
    assert (found["folder"], found["held_out"]) == ("value", {"1": {"auc": None}})
    assert "loaded" in err
    assert "asked" in err


def test_the_base_judges_by_words_around_a_text(home, capsys):
    given = [
        "--prompts",
        "prompts.jsonl",
        "--held-out",
        "held.txt",
        "--judge",
        "This is",
        "--good",
        "good",
        "--bad",
        "bad",
    ]
    assert train(*given, "--rho", "0.3", "--levels", "2", "--out", "run", "--json") == 0
    levels = [Level.from_json(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert levels[2].elite > 0
    assert levels[2].gamma is not None


def test_a_reward_model_and_one_threshold_for_all_prompts(home, capsys):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(
        "llama", vocab_size=len(byte_tokenizer()), num_labels=1, pad_token_id=0, **sizes
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained("reward")
    byte_tokenizer().save_pretrained("reward")
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--reward-model", "reward"]
    assert train(*given, "--rho", "0.3", "--pooled", "--out", "run") == 0
    said = capsys.readouterr()
    assert "level 1" in said.err
    assert "best of 4" in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "run"], "got none: give --prompts FILE, or --task countdown or game24"),
        (
            ["--out", "run", "--task", "worth.py:Task"],
            "got --task worth.py:Task, which makes none: give --prompts",
        ),
        (["--out", "run", "--task", "queens"], "got --task queens, which makes none: give --prompts"),
        (["--prompts", "prompts.txt"], "--out"),
        (["--prompts", "prompts.txt", "--out", "run", "--resume", "run"], "both"),
        (["--prompts", "prompts.txt", "--out", "run", "--value", "worth.py:vowels"], "elite"),
        (["--prompts", "prompts.txt", "--out", "run", "--rho", "2"], "--rho must be"),
        *(
            (["--prompts", "prompts.txt", "--out", "run", *idle], f"{idle[0]} {why}")
            for idle, why in (
                (["--keep", "4"], "is of --sampler frontier"),
                (["--draws", "4", "--sampler", "babble"], "is of the samplers independent and frontier"),
                (["--epochs", "4", "--steps", "9"], "counts where --steps does not"),
                (["--replay", "1"], "is of --no-restart"),
                (["--pooled"], "is of a γ by --rho or --top"),
            )
        ),
        (["--prompts", "prompts.txt", "--out", "run", "--lr", "-1"], "--lr must be"),
        (["--prompts", "prompts.txt", "--out", "run", "--lambda", "3"], "--lambda must be"),
        (["--prompts", "prompts.txt", "--out", "run", "--cap", "0"], "--cap must be"),
        (["--prompts", "prompts.txt", "--out", "run", "--batch-prompts", "0"], "--batch-prompts must be"),
        (["--prompts", "prompts.txt", "--out", "run", "--preset", "best"], "preset"),
        (["--prompts", "prompts.txt", "--out", "run", "--preset", "brod"], "did you mean 'broad'?"),
        (["--prompts", "prompts.txt", "--out", "run", "--threshold", "2"], "a number from 0 to 1, got 2"),
        (["--prompts", "prompts.txt", "--out", "run", "--draws", "99999999999"], "--draws must be at most"),
        (
            ["--prompts", "prompts.txt", "--out", "run", "--batch-prompts", "9" * 30],
            "--batch-prompts must be",
        ),
        (["--prompts", "prompts.txt", "--out", "run", "--seed", "9" * 30], "--seed must be at most"),
        (["--prompts", "nowhere.txt", "--out", "run", "--rho", "0.1"], "nowhere"),
        (
            ["--prompts", "prompts.txt", "--out", "run", "--held-out", "prompts.txt", "--rho", "0.1"],
            "held-out",
        ),
        (["--resume", "nowhere"], "config.json"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(home, capsys, arguments, said):
    assert train(*arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "loading the model" not in line]
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.parametrize(("folder", "fix"), [("run/levels/001", "run"), ("model", "that one")])
def test_a_folder_that_is_no_runs_is_not_resumed_and_the_run_is_named(home, capsys, folder, fix):
    (home / folder).mkdir(parents=True, exist_ok=True)
    (home / folder / "config.json").write_text('{"model_type": "llama"}')
    assert main(["train", "--resume", folder]) == 2
    err = capsys.readouterr().err
    assert f"got '{folder}', whose config.json is no run's: take " in err
    assert err.endswith(f"{fix}\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("config", ["3", "[1, 2]", "{"])
def test_a_config_that_is_no_object_is_said_in_one_line(home, capsys, config):
    (home / "config.json").write_text(config)
    assert main(["train", "--resume", "."]) == 2
    assert "a run's directory must hold config.json, got '.'" in capsys.readouterr().err


def test_on_a_terminal_the_table_is_drawn_in_place(home, capsys, monkeypatch):
    monkeypatch.setattr("babblegraph.view.live.can_move", lambda console: True)
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels", "--top", "1"]
    assert train(*given, "--out", "run") == 0
    said = capsys.readouterr()
    assert "level  score" in said.out
    assert said.err == ""


def test_escapes_that_the_shell_leaves_alone_are_read(home, capsys):
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels", "--top", "1"]
    assert train(*given, "--stop", r"\n", "--out", "run", "--quiet") == 0
    assert json.loads((home / "run" / "config.json").read_text())["options"]["stop"] == ["\n"]


def test_a_resumed_run_goes_on_as_it_began(home, capsys):
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels", "--top", "1"]
    assert train(*given, "--out", "run", "--quiet") == 0
    assert capsys.readouterr().out == ""
    for more in (
        ["--lr", "1"],
        ["--prompts", "held.txt"],
        ["--device", "cpu"],
        ["--preset", "raft"],
        ["--chat"],
    ):
        assert main(["train", "--resume", "run", *more]) == 2
        assert f"got {more[0]} too" in capsys.readouterr().err
    (home / "prompts.txt").write_text((home / "prompts.txt").read_text().replace("a", "o", 1))
    assert main(["train", "--resume", "run", "--levels", "2"]) == 2
    assert "prompts" in capsys.readouterr().err


def test_a_run_goes_on_from_any_directory_and_one_with_paths_as_typed_from_its_own(home, capsys, monkeypatch):
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels", "--top", "1"]
    assert train(*given, "--out", "run", "--quiet") == 0
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert main(["train", "--resume", "../run", "--levels", "2", "--quiet"]) == 0
    config = json.loads((home / "run" / "config.json").read_text())
    typed = {"model": "model", "prompts": "prompts.txt", "value": "worth.py:vowels"}
    assert config["options"] | typed != config["options"]
    old = config | {"options": config["options"] | typed, "held_out": "held.txt"}  # as runs were once kept
    (home / "run" / "config.json").write_text(json.dumps(old))
    monkeypatch.chdir(home)
    assert main(["train", "--resume", "run", "--levels", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 3


def test_of_several_processes_the_first_one_speaks(home, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("babblegraph.learning.launched", Ranks)  # there is no other to wait for
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels", "--top", "1"]
    assert train(*given, "--out", "run", "--json") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_rank_without_a_world_is_of_nobody(monkeypatch):
    """A shell may have it from elsewhere: the only process, which writes the files, also speaks."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert launched().first
    assert Output(json=True, quiet=False, tensorboard=False).first


def test_what_is_no_number_of_processes_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(BadInput, match=r"WORLD_SIZE must be a whole number.*'two': unset it"):
        launched()


def test_what_is_missing_for_tensorboard_is_said_before_anything_is_done(home, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    given = ["--prompts", "prompts.txt", "--value", "worth.py:vowels", "--top", "1", "--tensorboard"]
    assert train(*given, "--out", "run") == 2
    assert "tensorboard" in capsys.readouterr().err
    assert not (home / "run").exists()


@pytest.mark.slow
def test_a_search_with_a_trained_level_is_guided_by_its_own_value_head(tmp_path, monkeypatch, capsys):
    """The shipped generator, searched by the default strategy, whose head is fitted anew at each level."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "puzzles.txt").write_text("\n".join(f"{a} {b} {c}>{a + b * c}" for a, b, c in THREES))
    (tmp_path / "held.txt").write_text("2 3 5>30\n")
    given = [
        "--prompts",
        "puzzles.txt",
        "--held-out",
        "held.txt",
        "--task",
        "countdown",
        "--sampler",
        "babble",
    ]
    few = ["--levels", "1", "--tokens", "80", "--epochs", "1", "--held-draws", "4", "--json"]
    assert main(["train", *given, *few, "--out", "run"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(0 <= area <= 1 for level in told for area in level["auc"].values())
    assert told[1]["auc"]
    asked, plain = [], LearnedValue.__call__

    def counted(self, graph, ids, meter):
        asked.append(self.babbler.fingerprint)
        return plain(self, graph, ids, meter)

    monkeypatch.setattr(LearnedValue, "__call__", counted)
    main(
        [
            "search",
            "--model",
            "run/levels/001",
            "--task",
            "countdown",
            "2 3 4>24",
            "-n",
            "4",
            "--tokens",
            "200",
        ]
    )
    card = json.loads((tmp_path / "run" / "levels" / "001" / "value.json").read_text())
    assert asked
    assert set(asked) == {card["generator"]}, "the head of this level, on this level's weights"


def levels(threshold: float | None = 1.0) -> list[Level]:
    def held(p: float, entropy: float) -> Held:
        one = Measure(p, p - 0.02, p + 0.02)
        found = (one, Measure(0.9), 64, Measure(p + 0.1), one, entropy, 0.3, 4.0)
        return Held(*found, (1, 2), (1, 1), (1, 0), 1000, threshold)

    learned = Learned(0.2, 0.1, 60, 1.5e-4, 1)
    chance = Chance(0.2, 0.15, 0.25)
    full = {"gamma": 1.0, "elite": 900, "taught": 300, "effective": 700.0, "p_f": chance, "p_g": chance}
    full |= {"learned": learned, "tokens": 200_000, "seconds": 80.0, "best": 1}
    return [
        Level(0, held=held(0.16, 5.6), seconds=12.0),
        Level(1, skipped={"no leaf passes": 212}, held=held(0.25, 4.4), **full),
        Level(2, skipped={"every score is the same": 512}, held=held(0.25, 4.4), best=1),
        Level(3, held=held(0.2, 1.0), alarm="the entropy fell", **full),
    ]


@pytest.mark.parametrize("width", [40, 60, 100, 200])
@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_the_table_fits_and_says_what_happened(width, signs):
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False, markup=False)
    console.print(levels_report(levels(), width=width, signs=signs, now="level 4: babbling"))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = out.getvalue()
    assert "pass@1" in text
    assert "25.0" in text
    assert "level 2 learned nothing" in text
    assert "level 3 is refused" in text
    if signs is ASCII:
        assert text.isascii()


@pytest.mark.parametrize("width", [40, 80])
def test_a_failure_in_wide_characters_is_told_to_its_end(width):
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False, markup=False)
    failed = Level(1, failures=1, failure="ValueError: " + "この値は数ではありません" * 5 + " 終わり 42")
    console.print(levels_report([failed], width=width))
    assert "終わり 42" in out.getvalue()
    assert "scoring failed 1 time, first:" in out.getvalue()
    assert out.getvalue().count("値") == 5
    assert max(map(cell_len, out.getvalue().splitlines())) <= width


def test_without_a_threshold_the_table_is_of_scores():
    out = io.StringIO()
    console = Console(file=out, width=100, color_system=None, highlight=False, markup=False)
    console.print(levels_report(levels(None), width=100, now="level 4: learning", through=(30, 120)))
    text = out.getvalue()
    assert "pass@" not in text
    assert "best of 64" in text
    assert "0.250" in text
    assert "━" * 12 + "─" * 36 in text, "a quarter is done"
    assert "best of 64 0.900" in level_line(levels(None)[1])


def test_the_plots_show_the_threshold_and_how_likely_it_is_reached():
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(levels_report(levels(), width=100))
    lines = [line.split() for line in out.getvalue().splitlines() if line]
    assert {"γ", "P(S≥γ)", "pass@1", "pass@64", "entropy"} <= {line[0] for line in lines}


def test_one_level_in_one_line():
    line = level_line(levels()[3])
    assert line.startswith("level 3")
    assert "alarm: the entropy fell" in line
    assert "\n" not in line
    assert np.all([name in line for name in ("pass@1", "greedy", "tokens")])


@pytest.mark.slow
def test_a_task_with_few_prompts_is_learned_on_all_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held.txt").write_text(task_prompts("game24", "validation", 1)[0])
    given = (
        "train --task game24 --preset narrow --held-out held.txt --out run --levels 1 --batch-prompts 5000"
    )
    small = "--max-new-tokens 6 --draws 1 --held-draws 1 --json"
    assert main([*given.split(), *small.split()]) == 0
    level = json.loads(capsys.readouterr().out.splitlines()[1])
    assert level["taught"] + sum(level["skipped"].values()) == 1102


def test_a_preset_that_begins_from_the_base_again_can_be_told_to_go_on(home, capsys):
    given = ["--prompts", "prompts.txt", "--held-out", "held.txt", "--value", "worth.py:vowels", "--top", "1"]
    for preset, option, restart in (("broad", "--no-restart", False), ("raft", "--restart", True)):
        assert train(*given, "--preset", preset, option, "--average", "0", "--out", preset, "--json") == 0
        assert json.loads((home / preset / "config.json").read_text())["settings"]["restart"] is restart
