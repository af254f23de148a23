"""The façades, on small random models: what a user gets back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from marks import slow_but
from transformers import BatchEncoding

import babblegraph as bg
from babblegraph.scoring import JudgeValue, likelihood
from babblegraph.status import Gate, Status
from babblegraph.strategies import STRATEGIES, best_of_n, frontier
from babblegraph.why_not import why_not


@pytest.fixture
def babbler(llama, characters):
    return bg.Babbler(llama, characters, stop="\n", span=6, max_new_tokens=20)


class EndsInDigit:
    stop = ("\n",)

    def prepare(self, prompt):
        if not prompt[:1].isdigit():
            raise bg.BadInput(f"a prompt must begin with a digit, got {prompt!r}: add one")
        return prompt + ">"

    def verify(self, prompt, text):
        return float(text[-1:].isdigit())


class Misspelt:
    def verfy(self, prompt, text):
        return 0.0


def test_public_names_are_what_they_say():
    for name in bg.__all__:
        assert getattr(bg, name) is not None
    assert callable(bg.search)
    assert {"babble", "Babbler", "strategies"} <= set(dir(bg))
    with pytest.raises(AttributeError):
        bg.nothing_of_that_name  # noqa: B018


def test_a_result_has_texts_best_first_and_equal_texts_once(babbler):
    result = bg.babble(babbler, "1 2", value=likelihood, budget=400)
    answers = result.best(10)
    scores = [a.score for a in answers]
    assert len(answers) == 10 == len({a.text for a in answers})
    assert scores == sorted(scores, reverse=True)
    assert result.text == answers[0].text == result.graph.text(answers[0].node)
    assert result.passed == [True]
    assert result.threshold is None
    assert repr(result).startswith(f"Result(graph=<BabbleGraph: 1 trees, {result.graph.size} nodes, ")


def test_texts_that_came_twice_remember_the_elite_gate(babbler):
    result = bg.babble(babbler, "1 2", value=likelihood, budget=600)
    graph = result.graph
    leaf = result.best(1)[0].node
    twin = next(int(i) for i in np.flatnonzero(graph.is_leaf()) if i != leaf)
    graph.start[twin], graph.stop[twin], graph.parent[twin] = (
        graph.start[leaf],
        graph.stop[leaf],
        graph.parent[leaf],
    )
    graph.score[twin] = graph.score[leaf]
    result.best(5)
    assert sorted([graph.gate[twin], graph.gate[leaf]]) == [Gate.NONE, Gate.ELITE]


def test_a_task_prepares_prompts_and_asks_for_a_perfect_score(babbler):
    result = bg.babble(babbler, ["1 2", "3"], task=EndsInDigit(), budget=600, seed=1)
    assert result.graph.prompts == ["1 2>", "3>"]
    assert result.threshold == 1.0
    for tree, passed in enumerate(result.passed):
        assert passed == (result.best(1, tree)[0].score == 1.0)
    with pytest.raises(bg.BadInput, match="must begin with a digit"):
        bg.babble(babbler, "yes", task=EndsInDigit())


def test_the_default_strategy_stops_a_prompt_at_its_first_success(babbler):
    result = bg.babble(babbler, ["1 2", "3"], task=EndsInDigit(), budget=5000, seed=1)
    assert result.passed == [True, True]
    assert result.spent.sampled < 2 * 5000
    for tree in range(2):
        hits = np.flatnonzero((result.graph.root == tree) & (result.graph.score == 1.0))
        assert len(set(result.graph.born[hits].tolist())) == 1  # of the last round of this tree


@pytest.mark.parametrize("name", slow_but(["babble", "frontier", "best-of-n"], STRATEGIES))
def test_every_strategy_runs_with_its_defaults(babbler, name):
    result = bg.babble(babbler, ["1 2", "3"], value=likelihood, strategy=STRATEGIES[name](), budget=150)
    assert 0 < result.spent.sampled <= 300
    assert result.graph.meta["strategy"] == name


def test_estimates_need_unbiased_weights_and_say_so(babbler):
    for_solving = bg.babble(babbler, "1 2", value=likelihood, strategy=best_of_n(n=4), budget=500)
    assert "aim solve" in str(for_solving.estimate)
    prompts = ["1 2"] * 4
    closed = bg.babble(
        babbler, prompts, value=likelihood, threshold=0.0, strategy=frontier(keep=4), budget=50_000
    )
    assert why_not(closed.graph) == ""
    assert closed.estimate.value == pytest.approx(1.0, abs=0.6)
    assert closed.estimate.error > 0


def test_truncated_sampling_gives_no_estimate(llama, characters):
    babbler = bg.Babbler(llama, characters, span=6, max_new_tokens=12, top_k=5)
    result = bg.babble(
        babbler, "1 2", value=likelihood, threshold=0.0, strategy=frontier(keep=2), budget=9999
    )
    assert "truncation" in str(result.estimate)
    gate = result.graph.meta["token_gate"]
    assert gate["passed"] * len(characters) == gate["entered"] * 5


def test_a_saved_graph_goes_on_as_if_never_stopped(babbler, tmp_path):
    options = {"value": likelihood, "budget": 200, "seed": 3}
    for number, each in enumerate(bg.rounds(babbler, ["1 2", "3 4"], **options)):
        if number == 3:
            each.graph.save(tmp_path / "part.bg")
            break
    loaded = bg.BabbleGraph.load(tmp_path / "part.bg")
    resumed = bg.babble(babbler, None, graph=loaded, **options)
    whole = bg.babble(babbler, ["1 2", "3 4"], **options)
    np.testing.assert_array_equal(resumed.graph.tokens, whole.graph.tokens)
    assert resumed.spent.sampled == whole.spent.sampled
    assert resumed.spent.prefilled > whole.spent.prefilled  # keys and values had to be computed again


def test_a_graph_goes_on_only_with_its_own_model(babbler, characters, tmp_path):
    from tiny_models import tiny_llama

    result = bg.babble(babbler, "1 2", value=likelihood, budget=50)
    result.graph.save(tmp_path / "graph.bg")
    other = bg.Babbler(tiny_llama(characters, seed=9), characters, stop="\n", span=6)
    with pytest.raises(bg.BadInput, match="with the model that began it"):
        bg.babble(other, None, graph=bg.BabbleGraph.load(tmp_path / "graph.bg"), value=likelihood, budget=90)


def test_a_graph_goes_on_with_its_own_seed_and_is_measured_by_the_threshold_that_is_asked_for(babbler):
    graph = bg.babble(babbler, "1 2", budget=30, seed=4).graph
    with pytest.raises(bg.BadInput, match="a graph goes on with its own seed, 4, got 5"):
        bg.babble(babbler, None, graph=graph, budget=60, seed=5)
    assert bg.babble(babbler, None, graph=graph, budget=60, seed=4).graph.meta["seed"] == 4
    spent = bg.babble(babbler, None, graph=graph, budget=10, threshold=0.5)
    assert (spent.spent, spent.threshold) == (None, 0.5)
    with pytest.raises(bg.BadInput, match="must be a BabbleGraph, got 'graph"):
        bg.babble(babbler, None, graph="graph.bg")


@pytest.mark.parametrize("asked", [{"k": -1}, {"k": 2.5}, {"k": "1"}, {"prompt": 1}, {"prompt": -1}])
def test_the_best_of_no_prompt_or_of_no_number_is_refused(babbler, asked):
    result = bg.babble(babbler, "1 2", budget=30)
    assert result.best(0) == []
    with pytest.raises(bg.BadInput, match=f"{next(iter(asked))} must be"):
        result.best(**asked)


def test_stopping_the_rounds_gives_memory_back_and_keeps_the_graph(babbler):
    rounds = bg.rounds(babbler, "1 2", value=likelihood, budget=400)
    graph = next(each.graph for each in rounds if each.graph.best(1))
    assert babbler.trie(graph).store.in_use > 0
    rounds.close()
    assert babbler.trie(graph).store.in_use == 0
    assert graph.best(1)


def test_the_judge_can_be_the_value(llama, characters):
    babbler = bg.Babbler(llama, characters, span=6, max_new_tokens=12)
    result = bg.babble(babbler, "1 2", value=JudgeValue(babbler, "", ["y"], ["n"]), budget=100)
    inner = result.graph.status <= Status.EXPANDED
    assert ((result.graph.value[inner][1:] > 0) & (result.graph.value[inner][1:] < 1)).all()
    paid = bg.babble(babbler, "1 2", value=JudgeValue(babbler, "=", ["y"], ["n"]), budget=100)
    assert paid.spent.scored > 0 == result.spent.scored


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": "  "}, "must not be empty"),
        ({"prompts": "1" * 200}, "must leave room"),
        ({"prompts": "1", "budget": 0}, "above zero"),
        ({"prompts": "1", "budget": bg.Budget(tokens=5), "seed": -1}, "not negative, got -1"),
        ({"prompts": [[{"role": "user", "content": "1"}]]}, "chat template"),
        ({"prompts": None}, "either prompts or a graph"),
        ({"prompts": BatchEncoding({"input_ids": [[1]], "attention_mask": [[1]]})}, "got a BatchEncoding"),
        ({"prompts": [1, 5000]}, "token ids must be those of the tokenizer, got 1 to 5000"),
        ({"prompts": "1", "task": "countdown"}, "must have verify.*got 'countdown'"),
        ({"prompts": "1", "task": Misspelt()}, "must have verify.*got Misspelt"),
        (
            {"prompts": "1", "task": EndsInDigit},
            r"must be an object, got the class EndsInDigit: pass EndsInD",
        ),
        ({"prompts": "1", "threshold": float("nan")}, "threshold must be a finite number, got nan"),
        ({"prompts": "1", "threshold": float("inf")}, "threshold must be a finite number, got inf"),
        ({"prompts": "1", "seed": "a"}, "seed must be a whole number, not negative, got 'a'"),
        ({"prompts": 5}, "prompts must be texts, chats or token ids, got 5"),
        ({"prompts": "1", "budget": 10.5}, "whole number of tokens, got 10.5"),
        ({"prompts": "1", "strategy": "best-of-n"}, "must be made by.*got 'best-of-n'"),
    ],
)
def test_bad_input_is_one_clear_line(babbler, arguments, message):
    with pytest.raises(bg.BadInput, match=message) as error:
        bg.babble(babbler, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prompt", [torch.tensor([1, 2]), np.array([1, 2]), list(np.array([1, 2])), [1, 2]])
@pytest.mark.parametrize("budget", [30.0, np.int64(30)])
def test_token_ids_and_whole_numbers_of_any_type_are_taken(babbler, prompt, budget):
    graph = bg.babble(babbler, prompt, budget=budget).graph
    assert graph.path_tokens(0).tolist() == [1, 2]
    assert graph.meta["budget"]["tokens"] == 30
