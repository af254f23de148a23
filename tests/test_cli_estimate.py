"""`babblegraph estimate` as a user meets it: a table, one JSON object, or one line that says what is wrong."""

from __future__ import annotations

import json
import signal

import pytest
from tiny_models import tiny_llama

from babblegraph.cli.main import main
from babblegraph.errors import BadInput
from babblegraph.graph_file import load

PUZZLE = "3 5 7 11>24"
SMALL = [
    "--task",
    "countdown",
    PUZZLE,
    "--trees",
    "6",
    "--tokens",
    "80",
    "--keep",
    "4",
    "--seed",
    "1",
    "--json",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small forest of the embedded model, estimated and saved."""
    file = tmp_path_factory.mktemp("estimate") / "graph.safetensors"
    assert main(["estimate", *SMALL, "--save", str(file)]) == 0
    return file


def test_one_json_object_tells_the_estimate_and_what_it_cost(capsys, tmp_path):
    assert main(["estimate", *SMALL, "--save", str(tmp_path / "graph.safetensors")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] == PUZZLE
    assert (found["trees"], found["threshold"], found["seed"]) == (6, 1.0, 1)
    assert found["value"] is None or 0 < found["value"] < 1.5
    assert 0 < found["tokens"] <= 6 * (80 + 60)
    assert 0 <= found["high"] <= 1.5
    assert found["effective"] > 1


@pytest.mark.parametrize("draws", ["systematic", "distinct"])
def test_draws_can_go_together_in_every_way(draws, capsys):
    small = ["--trees", "4", "--tokens", "60", "--keep", "4", "--draws", draws, "--json"]
    assert main(["estimate", "--task", "countdown", PUZZLE, *small]) == 0
    assert json.loads(capsys.readouterr().out)["trees"] == 4


def test_a_saved_graph_gives_the_same_table_again(saved, capsys):
    assert main(["estimate", "--graph", str(saved), "--threshold", "0"]) == 0
    out = capsys.readouterr().out
    for said in ("Estimate  3 5 7 11>24", "P(score reaches 0)", "tokens spent", "effective sample size"):
        assert said in out
    assert "6 trees a prompt are fewer than 32" in out
    assert main(["estimate", "--graph", str(saved), "--threshold", "1"]) == 0
    assert "no hit in 6 trees: at most" in capsys.readouterr().out


def test_a_file_of_prompts_gives_the_mean_of_what_each_gives_alone(tmp_path, capsys):
    small = ["--trees", "2", "--tokens", "60", "--keep", "4", "--threshold", "0", "--json"]
    lines = tmp_path / "puzzles.txt"
    lines.write_text(f"{PUZZLE}\n2 3 4>24\n")
    assert main(["estimate", "--prompts", str(lines), *small, "--save", str(tmp_path / "two.bg")]) == 0
    mean = json.loads(capsys.readouterr().out)
    assert (mean["prompt"], mean["trees"]) == ("2 prompts, their mean", 4)
    alone = []
    for prompt in (f"{PUZZLE}\n", "2 3 4>24\n"):
        given = ["--graph", str(tmp_path / "two.bg"), "--threshold", "0", "--json"]
        assert main(["estimate", prompt, *given]) == 0
        alone.append(json.loads(capsys.readouterr().out)["value"])
    assert mean["value"] == pytest.approx(sum(alone) / 2)


def test_of_several_prompts_the_one_that_is_asked_for_is_estimated(tmp_path, capsys):
    from test_estimate import leaves_by_hand

    graph = leaves_by_hand([[0.5, 0.5]] * 40, [[0.0, 0.0]] * 20 + [[1.0, 0.0]] * 20, ["a"] * 20 + ["b"] * 20)
    graph.save(tmp_path / "two.bg")

    def estimated(*arguments):
        assert (
            main(["estimate", *arguments, "--graph", str(tmp_path / "two.bg"), "--threshold", "1", "--json"])
            == 0
        )
        return json.loads(capsys.readouterr().out)

    never, half = estimated("a"), estimated("b", "--pass-at", "2")
    assert (never["prompt"], never["value"], never["trees"], never["hits"]) == ("a", None, 20, 0)
    assert (half["prompt"], half["value"], half["trees"], half["pass_at"]["value"]) == ("b", 0.5, 20, 0.75)
    both = estimated()
    assert (both["prompt"], both["value"]) == ("2 prompts, their mean", 0.25)


GROWING = [
    *(
        "--task=chain",
        "--model=x",
        "--temperature=0.5",
        "--seed=0",
        "--stop=a",
        "--prompts=x",
        "--device=cpu",
    ),
    *("--trees=32", "--tokens=1000", "--width=4", "--keep=16", "--draws=multinomial", "--trust-remote-code"),
]


@pytest.mark.parametrize("option", GROWING)
def test_a_saved_graph_takes_no_options_of_how_to_grow_one(saved, capsys, option):
    assert main(["estimate", "--graph", str(saved), "--threshold", "0", option]) == 2
    name = option.partition("=")[0]
    assert f"--graph is estimated from as it was grown, got {name} too: drop one" in capsys.readouterr().err


def test_a_prompt_of_a_saved_graph_is_named_as_it_was_asked_and_is_shown(saved, capsys):
    for prompt in (PUZZLE, f"{PUZZLE}\n"):  # the task adds the line's end
        assert main(["estimate", prompt, "--graph", str(saved), "--threshold", "0", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["prompt"], found["trees"]) == (PUZZLE, 6)
    assert main(["estimate", "2 3 4>24", "--graph", str(saved), "--threshold", "0"]) == 2
    assert "PROMPT must be one of the graph's, got '2 3 4>24'" in capsys.readouterr().err


def disk_is_full(graph, path):
    raise BadInput("the disk is full")


def test_an_estimate_is_printed_even_if_its_graph_cannot_be_saved(saved, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("babblegraph.graph_file.save", disk_is_full)
    more = ["--threshold", "0", "--save", str(tmp_path / "g.bg"), "--json"]
    assert main(["estimate", "--graph", str(saved), *more]) == 2
    found = capsys.readouterr()
    assert json.loads(found.out)["trees"] == 6
    assert found.err == "babblegraph: the disk is full\n"


def test_pass_at_k_and_the_ratio_are_there_for_the_asking(saved, capsys):
    more = ["--threshold", "0", "--pass-at", "3", "--ratio"]
    assert main(["estimate", "--graph", str(saved), *more]) == 0
    out = capsys.readouterr().out
    assert "pass@3" in out
    assert "a ratio of means is biased" in out
    assert main(["estimate", "--graph", str(saved), *more, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["value"] == pytest.approx(1.0)  # every text reaches 0, whatever its weight
    assert found["pass_at"]["k"] == 3
    assert found["pass_at"]["low"] <= found["pass_at"]["value"] <= found["pass_at"]["high"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trees", "0"], "--trees must be above zero, got 0"),
        (["--trees", "1"], "an interval needs two trees or more, got --trees 1"),
        (["--trees", "9999999999"], "--trees must be at most 1,000,000, got 9999999999"),
        (["--keep", "9999999999"], "--keep must be at most 2,147,483,647"),
        (["--tokens", "9999999999999999999999"], "--tokens must be at most 2,147,483,647"),
        (["-n", "9999999999999999999999"], "--width must be at most 2,147,483,647"),
        (["--pass-at", "0"], "--pass-at must be above zero"),
        (["--keep", "-1"], "--keep must be above zero"),
        (["--tokens", "0"], "--tokens must be above zero"),
        (["--top-k", "5"], "an estimate needs every text to be possible, got --top-k 5"),
        (["--top-p", "0.9"], "got --top-p 0.9"),
        (["--threshold", "nan"], "--threshold must be a number"),
        (["--task", "countdwn"], "did you mean 'countdown'?"),
        (["--graph", "missing.safetensors"], "missing.safetensors"),
        (["--temperature", "0"], "--temperature must be above zero"),
        (["--draws", "fresh"], "an estimate needs unbiased draws"),
        (["--width", "0"], "--width must be above zero"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, said, capsys):
    assert main(["estimate", PUZZLE, *arguments]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert len(found.err.splitlines()) == 1
    assert said in found.err


@pytest.mark.parametrize("bad", ["True", "'*' in text"])
def test_a_verifier_that_raises_is_told_and_gives_no_bound_on_its_own(bad, tmp_path, capsys):
    file = tmp_path / "mine.py"
    code = "class Mine:\n    def verify(self, prompt, text):\n"
    file.write_text(f"{code}        if {bad}:\n            raise ValueError('my bug')\n        return 0\n")
    asked = ["estimate", "2 3>6", "--task", f"{file}:Mine", "--trees", "8", "--tokens", "60", "--json"]
    every = bad == "True"
    assert main(asked) == (2 if every else 0)
    found = capsys.readouterr()
    assert len(found.err.splitlines()) == 1
    assert "the value or the task failed" in found.err
    assert found.err.endswith(": verify raised ValueError: my bug\n")
    assert every or "could not be scored" in json.loads(found.out)["warnings"][0]


def test_a_graph_that_was_searched_to_solve_is_refused_with_the_reason(tmp_path, capsys):
    from table_lm import TableLM

    graph = TableLM().start(["p"])
    graph.meta |= {"aim": "solve", "strategy": "babble"}
    graph.save(tmp_path / "solve.safetensors")
    assert main(["estimate", "--graph", str(tmp_path / "solve.safetensors"), "--threshold", "1"]) == 2
    assert (
        "had the aim solve, last with the strategy 'babble': its weights are biased"
        in capsys.readouterr().err
    )


def test_a_missing_threshold_is_said_before_anything_is_spent(tmp_path, characters, monkeypatch, capsys):
    for each in (tiny_llama(characters), characters):
        each.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("babblegraph.lm.babbler.Babbler.expand", lambda *given: pytest.fail("it babbled"))
    asked = ["estimate", "2 3", "--model", str(tmp_path / "model"), "--save", str(tmp_path / "g.bg")]
    assert main(asked) == 2
    assert "an estimate needs a threshold, got none: add --threshold" in capsys.readouterr().err
    assert not (tmp_path / "g.bg").exists()


@pytest.mark.parametrize("full", [False, True])
def test_ctrl_c_ends_an_estimate_after_the_round_and_loses_nothing(full, tmp_path, capsys, monkeypatch):
    from babblegraph import loop

    search = loop.search

    def interrupted(*given, **named):
        for number, each in enumerate(search(*given, **named)):
            yield each
            if number == 0:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "search", interrupted)
    file = tmp_path / "graph.bg"
    if full:
        monkeypatch.setattr("babblegraph.graph_file.save", disk_is_full)
    assert main(["estimate", *SMALL, "--save", str(file)]) == (2 if full else 130)
    out, err = capsys.readouterr()
    assert out == ""
    assert "stopping after this round" in err
    if full:
        assert "stopped before there is an estimate: the search ended" in err
        assert err.endswith("babblegraph: the disk is full\n")
        return
    assert f"stopped before there is an estimate, saved in {file}: the search ended with a weight of" in err
    assert load(file).round == 2
    assert main(["estimate", "--graph", str(file)]) == 2
