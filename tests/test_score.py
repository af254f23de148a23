"""The score stage: cheap checks first, other people's functions contained."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import NO_STATE, BabbleGraph
from babblegraph.scoring import Score, function_value, likelihood
from babblegraph.scoring import score as score_module
from babblegraph.status import Flag, Gate, Status

LETTERS = {i: bytes([97 + i]) for i in range(26)}


def words(*texts, status=Status.FRONTIER):
    """A root "p" with a child for each text."""
    graph = BabbleGraph(["p"], [[15]], LETTERS)
    spans = [[ord(c) - 97 for c in text] for text in texts]
    ids = graph.add(Born.of_spans([0] * len(spans), spans, -np.arange(1.0, len(spans) + 1), status))
    return graph, ids, Meter(Budget(tokens=100), 1)


class Task:
    def verify(self, prompt, text):
        return len(text) / 10

    def value(self, prompt, text):
        return 0.0 if "x" in text else 1.0

    def done(self, prompt, text):
        return text.endswith("z")

    def state(self, prompt, text):
        return "".join(sorted(text))


def test_dead_nodes_keep_their_weight_and_score_zero():
    graph, ids, meter = words("ax", "ab")
    before = graph.log_weight().copy()
    Score(Task())(graph, ids, meter)
    assert graph.status[ids].tolist() == [Status.LEAF_DEAD, Status.FRONTIER]
    assert (graph.score[ids[0]], graph.value[ids[0]], graph.gate[ids[0]]) == (0, 0, Gate.NODE)
    np.testing.assert_array_equal(graph.log_weight(), before)


def test_a_text_that_the_task_calls_done_is_a_leaf_with_the_verifiers_score():
    graph, ids, meter = words("abz", "ab")
    Score(Task(), threshold=0.3)(graph, ids, meter)
    assert graph.status[ids].tolist() == [Status.LEAF_STOP, Status.FRONTIER]
    assert graph.score[ids[0]] == np.float32(0.3)
    assert np.isnan(graph.score[ids[1]])


def test_a_leaf_below_the_threshold_remembers_the_leaf_gate():
    graph, ids, meter = words("abz", "abcdefz", status=Status.LEAF_END)
    Score(Task(), threshold=0.5)(graph, ids, meter)
    assert graph.gate[ids].tolist() == [Gate.LEAF, Gate.NONE]


def test_equal_states_get_equal_keys():
    graph, ids, meter = words("ab", "ba", "bb", "bx")
    Score(Task())(graph, ids, meter)
    keys = graph.state_key[ids]
    assert keys[0] == keys[1] != keys[2]
    assert keys[3] == NO_STATE  # dead: nothing follows


def test_without_a_task_leaves_are_scored_by_the_value():
    graph, ids, meter = words("ab", "abc", status=[Status.LEAF_END, Status.FRONTIER])
    Score(value=function_value(lambda texts: [len(t) / 10 for t in texts]))(graph, ids, meter)
    np.testing.assert_allclose(graph.value[ids], [0.3, 0.4])  # prompts are part of the texts
    np.testing.assert_allclose(graph.score[ids], [0.3, np.nan])


def test_expensive_values_are_not_asked_about_what_is_already_decided():
    graph, ids, meter = words("ax", "abz", "ab")
    seen = []
    Score(Task(), function_value(lambda texts: seen.extend(texts) or [0.5] * len(texts)))(graph, ids, meter)
    assert seen == ["pab"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: float("nan"), "nan"),
        (lambda: float("inf"), "inf"),
        (lambda: 7.0, "7.0"),
        (lambda: [1, 2], "[1, 2]"),
        (lambda: "good", "good"),
        (lambda: None, "None"),
        (lambda: 10**400, "1000"),
        (lambda: torch.ones(1, requires_grad=True)[0] * 7, "7."),
    ],
)
def test_a_value_function_that_fails_on_one_text_costs_that_node_only(bad, message):
    graph, ids, meter = words("a", "b", "c")

    def value(texts):
        return [bad() if "b" in t else 0.5 for t in texts]

    Score(value=function_value(value))(graph, ids, meter)
    np.testing.assert_allclose(graph.value[ids], [0.5, np.nan, 0.5])
    assert ((graph.flags[ids] & Flag.SCORER_FAILED) != 0).tolist() == [False, True, False]
    assert graph.meta["scorer_failures"] == 1
    assert graph.failures[0]["text"] == "pb"
    assert message in graph.failures[0]["error"]


@pytest.mark.parametrize("how", [{"dtype": torch.bfloat16}, {"requires_grad": True}], ids=str)
def test_a_value_may_be_any_tensor(how):
    graph, ids, meter = words("a", "b")
    for value in (
        lambda texts: torch.full((len(texts),), 0.5, **how),
        lambda graph, ids, meter: torch.full((len(ids),), 0.5, **how),
    ):
        np.testing.assert_array_equal(function_value(value)(graph, ids, meter), 0.5)
    assert not graph.failures


def test_a_function_that_empties_its_list_of_texts_fails_and_the_search_goes_on():
    graph, ids, meter = words("a", "b")
    values = function_value(lambda texts: [0.5 for _ in iter(texts.pop, "pa")])(graph, ids, meter)
    assert np.isnan(values).all()
    assert graph.meta["scorer_failures"] == 2


def test_a_function_of_nodes_whose_values_are_no_probabilities_says_so():
    graph, ids, meter = words("a", "b", "c")
    Score(value=function_value(lambda graph, ids, meter: np.array([1 + 1e-9, -3.0, 4.5])))(graph, ids, meter)
    np.testing.assert_array_equal(graph.value[ids], [1.0, np.nan, np.nan])
    assert [f["error"] for f in graph.failures] == [f"a value must be in [0, 1], got {v}" for v in (-3, 4.5)]


def test_a_value_of_the_wrong_length_costs_only_the_nodes_it_cannot_answer():
    graph, ids, meter = words("a", "b", "c")
    Score(value=function_value(lambda texts: [0.5] * 2))(graph, ids, meter)
    assert np.isnan(graph.value[ids]).all()
    assert graph.meta["scorer_failures"] == 3


@pytest.mark.parametrize("name", ["verify", "value", "done", "state"])
@pytest.mark.parametrize(
    "error", [RuntimeError, SystemExit]
)  # what runs a generated program may meet its exit()
def test_a_task_that_raises_costs_the_node_only(name, error):
    graph, ids, meter = words("abz", "cdz")
    task = Task()
    real = getattr(task, name)

    def sometimes(prompt, text):
        if text.startswith("ab"):
            raise error("no idea")
        return real(prompt, text)

    setattr(task, name, sometimes)
    Score(task)(graph, ids, meter)
    assert graph.score[ids[1]] == np.float32(0.3)
    assert graph.flags[ids[0]] & Flag.SCORER_FAILED
    assert not graph.flags[ids[1]] & Flag.SCORER_FAILED
    assert "no idea" in graph.failures[0]["error"]


@pytest.mark.parametrize("name", ["verify", "value", "done"])
@pytest.mark.parametrize(
    "odd", ["yes", [1.0, 0.0], {"a": 1}, np.array([1.0, 0.0]), 1j, None, float("nan")], ids=str
)
def test_what_a_task_returns_and_cannot_be_read_costs_the_node_only(name, odd):
    graph, ids, meter = words("abz", "cdz")
    task = Task()
    real = getattr(task, name)
    setattr(task, name, lambda prompt, text: odd if text.startswith("ab") else real(prompt, text))
    Score(task)(graph, ids, meter)
    assert graph.score[ids[1]] == np.float32(0.3)
    assert not graph.flags[ids[1]] & Flag.SCORER_FAILED
    if name != "done":
        assert "must return a finite number" in graph.failures[0]["error"]
        assert graph.meta["scorer_failures"] == 1
    elif isinstance(odd, np.ndarray):  # all others are true or false in their way
        assert "must return true or false" in graph.failures[0]["error"]


def test_a_verifier_that_hangs_costs_its_node_only():
    class Hangs(Task):
        seconds = 0.05

        def verify(self, prompt, text):
            while text == "abz":
                pass
            return 1.0

    graph, ids, meter = words("abz", "cdz")
    Score(Hangs())(graph, ids, meter)
    assert np.isnan(graph.score[ids[0]])
    assert graph.score[ids[1]] == 1.0
    assert "no answer within 0.05 s" in graph.failures[0]["error"]


def test_a_verifier_without_a_limit_runs_in_the_thread_that_asks():
    class Here(Task):
        def verify(self, prompt, text):
            return float(threading.current_thread() is threading.main_thread())

    graph, ids, meter = words("abz")
    Score(Here())(graph, ids, meter)
    assert graph.score[ids[0]] == 1.0


def test_many_failures_are_counted_but_not_all_kept():
    graph, ids, meter = words(*["a"] * 300)
    Score(value=function_value(lambda texts: None))(graph, ids, meter)
    assert graph.meta["scorer_failures"] == 300
    assert len(graph.failures) == 100


def test_a_function_of_graph_ids_and_meter_gets_them():
    graph, ids, meter = words("a", "b")
    Score(value=function_value(lambda graph, ids, meter: graph.length[ids] / 10))(graph, ids, meter)
    np.testing.assert_allclose(graph.value[ids], 0.2)


@pytest.mark.parametrize(
    "bad", [lambda ids: 1 / 0, lambda ids: [0.5] * 5, lambda ids: [0.5] * (len(ids) - 1) + [np.nan]]
)
def test_a_function_of_nodes_that_fails_on_one_in_a_hundred_costs_that_node_only(bad):
    graph, ids, meter = words(*["a"] * 99, "b")

    def value(graph, ids, meter):
        return bad(ids) if ids[-1] == 100 else np.full(len(ids), 0.5)

    Score(value=function_value(value))(graph, ids, meter)
    np.testing.assert_allclose(graph.value[ids], [*[0.5] * 99, np.nan])
    assert np.flatnonzero(graph.flags & Flag.SCORER_FAILED).tolist() == [100]


def test_what_the_user_has_to_mend_ends_the_search():
    graph, ids, meter = words("a", "b")

    def value(graph, ids, meter):
        raise BadInput("a rule, got nothing: mend it")

    with pytest.raises(BadInput, match="mend it"):
        function_value(value)(graph, ids, meter)


@pytest.mark.parametrize("wrong", [3, lambda: 1, lambda a, b: 1])
def test_something_that_cannot_be_a_value_is_refused(wrong):
    with pytest.raises(BadInput) as error:
        function_value(wrong)
    assert "\n" not in str(error.value)


def test_likelihood_is_the_geometric_mean_of_token_probabilities():
    graph, ids, meter = words("a", "bcd")
    np.testing.assert_allclose(likelihood(graph, ids, meter), [np.exp(-1), np.exp(-2 / 3)])


def test_a_search_survives_a_value_function_that_always_raises(llama, characters):
    def broken(texts):
        raise ValueError("never works")

    babbler = bg.Babbler(llama, characters, span=4, max_new_tokens=8)
    with pytest.warns(
        RuntimeWarning, match=r"failed \d+ times, first on node 1: broken raised ValueError: never"
    ):
        result = bg.babble(babbler, "1 2>3", value=broken, budget=60)
    assert result.spent.sampled == 60
    assert result.graph.meta["scorer_failures"] == result.graph.size - 1


def test_connectivity_of_a_large_forest_is_computed_anew_only_as_it_grows(monkeypatch):
    """Calls are few, and what is known between them follows from the graph alone, as a resumed search needs."""
    monkeypatch.setattr(score_module, "SMALL", 50)
    draw, sizes = np.random.default_rng(0), []

    def connectivity(graph):
        sizes.append(graph.size)
        return draw.random(graph.size, np.float32)

    graph, ids, meter = words("a")
    while graph.size < 2_000:
        before = graph.connectivity.copy()
        Score(connectivity=connectivity)(graph, ids, meter)  # a new one each round: it must remember nothing
        if graph.size != (sizes or [0])[-1]:
            old = np.arange(graph.size - len(ids))
            np.testing.assert_array_equal(graph.connectivity[old], before[old])
            leaf = graph.is_leaf(ids)
            assert (graph.connectivity[ids[leaf]] == 0).all()
            parents = graph.parent[ids[~leaf]]
            np.testing.assert_array_equal(graph.connectivity[ids[~leaf]], graph.connectivity[parents])
        assert not np.isnan(graph.connectivity).any()
        status = draw.choice([Status.FRONTIER, Status.LEAF_END], size=7)
        ids = graph.add(Born.of_spans(draw.integers(0, graph.size, 7), [[0]] * 7, -np.ones(7), status))
    assert sizes[:7] == [2, 9, 16, 23, 30, 37, 44]
    assert len(sizes) <= 8 + np.log(2_000 / 50) / np.log(1.125)
    assert max(b / a for a, b in pairwise(sizes[7:])) < 1.125**2
