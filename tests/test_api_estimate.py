"""`bg.estimate` and `bg.multilevel`: one call, one estimate."""

from __future__ import annotations

import pytest

import babblegraph as bg
from babblegraph.ordering import by_value
from babblegraph.scoring import likelihood
from babblegraph.strategies import best_of_n, frontier
from babblegraph.why_not import why_not


@pytest.fixture
def babbler(llama, characters):
    return bg.Babbler(llama, characters, stop="\n", span=6, max_new_tokens=12)


class HasDigit:
    stop = ("\n",)

    def prepare(self, prompt):
        return prompt + ">"

    def verify(self, prompt, text):
        return float(any(c.isdigit() for c in text))


def test_one_call_searches_closes_and_estimates(babbler):
    found = bg.estimate(babbler, "1 2", task=HasDigit(), trees=12, budget=60, seed=1)
    again = bg.estimate(babbler, "1 2", task=HasDigit(), trees=12, budget=60, seed=1)
    assert found.reason == ""
    assert found.trees == 12
    assert 0 < found.low < found.value < found.high <= 1
    assert 0 < found.tokens < 12 * (60 + 12 * 16)
    assert (found.value, found.low) == (again.value, again.low)


def test_a_chat_or_a_value_or_a_strategy_may_be_given(babbler):
    options = {"value": likelihood, "threshold": 0.0, "trees": 4, "budget": 80}
    ordered = frontier(width=3, keep=4, order=by_value)
    found = bg.estimate(babbler, "1 2", strategy=ordered, ratio=True, **options)
    assert found.value == pytest.approx(1.0)  # every text reaches 0, and a ratio knows it


def test_it_reads_a_graph_too(babbler):
    prompts = ["1 2"] * 4 + ["3"] * 4
    options = {"task": HasDigit(), "strategy": frontier(keep=4), "budget": 80, "close": True}
    graph = bg.babble(babbler, prompts, **options).graph
    assert why_not(graph) == ""
    assert bg.estimate(None, None, graph=graph).trees == 8
    assert bg.estimate(None, "3>", graph=graph).trees == 4
    assert bg.estimate(None, None, graph=graph, threshold=2.0).value is None


def test_what_cannot_be_estimated_is_refused_in_one_line(babbler):
    graph = bg.babble(
        babbler, ["1 2"] * 2, value=likelihood, strategy=frontier(keep=4), budget=80, close=True
    ).graph
    for call, said in (
        (lambda: bg.estimate(None, "1 2"), "a generator or a graph"),
        (lambda: bg.estimate(babbler, "1 2", threshold=0.5, trees=1), "two trees"),
        (lambda: bg.estimate(babbler, "1 2", task=HasDigit(), strategy=best_of_n(n=2)), "closed"),
        (lambda: bg.estimate(None, None, graph=graph), "needs a threshold"),
        (lambda: bg.estimate(None, "nobody", graph=graph, threshold=0.5), "prompt of the graph"),
        *(
            (lambda more=more: bg.estimate(None, None, graph=graph, threshold=0.5, **more), "as it was grown")
            for more in (
                {"trees": 64},
                {"budget": 9},
                {"seed": 1},
                {"task": HasDigit()},
                {"value": likelihood},
            )
        ),
        (lambda: bg.multilevel(babbler, "1 2", threshold=1, task=HasDigit), "got the class HasDigit"),
        (lambda: bg.babble(babbler, "1 2", connectivity="entropy"), "a connectivity must be a function"),
    ):
        with pytest.raises(bg.BadInput, match=said) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"under": "h", "threshold": 0.5}, "under one of f, g, q, got 'h'"),
        ({}, "an estimate needs a threshold, got none"),
        ({"trees": 2.5, "threshold": 0.5}, "two trees or more, got 2.5"),
    ],
)
def test_what_could_not_be_estimated_is_said_before_anything_is_spent(babbler, options, said):
    asked = []

    def value(texts):
        asked.append(texts)
        return [0.5] * len(texts)

    with pytest.raises(bg.BadInput, match=said):
        bg.estimate(babbler, "1 2", value=value, **{"trees": 4, "budget": 40} | options)
    assert not asked
