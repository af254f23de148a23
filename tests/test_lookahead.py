"""Lookahead: the mean of rollouts, paid for, and the same whoever else is asked about."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import character_tokenizer, tiny_llama

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import LookaheadValue
from babblegraph.status import Flag
from babblegraph.tasks import Blind

TOKENIZER = character_tokenizer()


class Digits:
    """A finished text is worth the share of its characters that are digits; `=` is dead."""

    def verify(self, prompt, text):
        assert prompt in ("1 2>3", "4>5")
        return sum(c.isdigit() for c in text) / max(len(text), 1)

    def value(self, prompt, text):
        return float("=" not in text)

    def done(self, prompt, text):
        return len(text) >= 6


@pytest.fixture
def grown():
    babbler = bg.Babbler(tiny_llama(TOKENIZER), TOKENIZER, span=2, max_new_tokens=12)
    graph = babbler.start(["1 2>3", "4>5"])
    meter = Meter(Budget(tokens=10**6), 2)
    graph.add(babbler.expand(graph, Chosen(np.arange(2), np.full(2, 5)), Rng(0), meter))
    return babbler, graph


def meter_of(graph):
    return Meter(Budget(tokens=10**6), graph.trees)


@pytest.mark.slow
def test_a_lookahead_estimates_the_expected_score(grown):
    """1,000 rollouts a node against the same by plain sampling of another seed: |z| < 5.5, odds 4e-7 for ten."""
    babbler, graph = grown
    ids = np.arange(2, graph.size)
    one, two = (
        LookaheadValue(babbler, task=Digits(), rollouts=1000, spans=6, seed=seed)(graph, ids, meter_of(graph))
        for seed in (1, 2)
    )
    assert np.abs(one - two).max() < 5.5 * 0.5 * np.sqrt(2 / 1000)  # scores in [0, 1] deviate by 1/2 at most
    assert one.std() > 0.02  # nodes differ
    assert (one != two).any()


def test_values_do_not_depend_on_who_else_is_asked_about(grown):
    babbler, graph = grown
    ids = np.random.default_rng(0).permutation(np.arange(2, graph.size))
    value = LookaheadValue(babbler, task=Digits(), rollouts=8, spans=6)
    together = value(graph, ids, meter_of(graph))
    alone = [value(graph, ids[k : k + 1], meter_of(graph))[0] for k in range(len(ids))]
    np.testing.assert_allclose(together, alone)


def test_equal_texts_of_two_prompts_are_scored_as_of_their_own():
    """ "1" with a 2 and "12" read alike; the task tells them apart."""

    class Shorter:
        def verify(self, prompt, text):
            return float(prompt == "1" and text.startswith("2"))

    babbler = bg.Babbler(tiny_llama(TOKENIZER), TOKENIZER, span=2, max_new_tokens=4)
    graph = babbler.start(["1", "12"])
    (node,) = graph.add(Born.of_spans([0], [TOKENIZER("2")["input_ids"]], [-1.0]))
    value = LookaheadValue(babbler, task=Shorter(), rollouts=2, spans=8)
    assert value(graph, np.array([1, node]), meter_of(graph)).tolist() == [0.0, 1.0]


def test_rollouts_are_paid_for_and_leave_the_graph_as_it_was(grown):
    babbler, graph = grown
    size, tokens, meter = graph.size, graph.tokens.copy(), meter_of(graph)
    LookaheadValue(babbler, task=Digits(), rollouts=8)(graph, np.array([2, 3]), meter)
    assert graph.size == size
    np.testing.assert_array_equal(graph.tokens, tokens)
    assert meter.counts["sampled"][0] > 8
    assert meter.counts["sampled"][1] == 0
    assert meter.counts["prefilled"][0] >= graph.length[[2, 3]].sum() - 2


def test_texts_that_are_cut_off_count_with_the_value_where_they_stand(grown):
    babbler, graph = grown
    ids = np.arange(2, graph.size)

    def share(texts):
        return [len(t) / 100 for t in texts]

    found = LookaheadValue(babbler, value=share, rollouts=3, spans=1)(graph, ids, meter_of(graph))
    length = [len(graph.prompt(i)) + len(graph.text(i)) for i in ids.tolist()]
    ahead = 100 * found - length  # spans of two tokens; the one that ends a text is not seen
    assert (ahead > 0.9).all()
    assert ahead.max() == pytest.approx(2)
    nothing = LookaheadValue(babbler, task=Digits(), rollouts=3, spans=1)(graph, ids, meter_of(graph))
    np.testing.assert_array_equal(nothing, 0)


def test_what_fails_on_a_rollout_is_told_of_the_node_it_began_at(grown):
    class Failing(Digits):
        def verify(self, prompt, text):
            raise ValueError("no")

    babbler, graph = grown
    ids = np.arange(2, graph.size)
    LookaheadValue(babbler, task=Failing(), rollouts=8, spans=6)(graph, ids, meter_of(graph))
    assert graph.meta["scorer_failures"] > 1
    assert graph.failures[0]["error"] == "verify raised ValueError: no"
    assert {f["node"] for f in graph.failures} == set(np.flatnonzero(graph.flags & Flag.SCORER_FAILED))


def test_where_a_task_does_not_verify_the_value_scores_finished_texts(grown):
    babbler, graph = grown
    value = LookaheadValue(babbler, task=Blind(Digits()), value=lambda texts: [0.7] * len(texts), spans=9)
    ids = np.arange(2, graph.size)
    found = value(graph, ids, meter_of(graph))
    alive = ["=" not in graph.text(i) for i in ids]
    assert not graph.failures
    assert (found > 0).any()
    assert (found[alive] <= 0.7 + 1e-6).all()
    with pytest.raises(BadInput, match="a lookahead needs a task or a value"):
        LookaheadValue(babbler, task=Blind(Digits()))


def test_a_search_can_use_it(grown):
    babbler, _ = grown
    value = LookaheadValue(babbler, task=Digits(), rollouts=2)
    found = bg.babble(babbler, ["1 2>3", "4>5"], task=Digits(), value=value, budget=200, threshold=2.0)
    assert np.isfinite(found.graph.value[found.graph.frontier()]).all()


@pytest.mark.parametrize(
    ("options", "rule"), [({}, "neither"), ({"task": Digits(), "rollouts": 0}, "at least 1")]
)
def test_wrong_options_are_refused(grown, options, rule):
    with pytest.raises(BadInput, match=rule):
        LookaheadValue(grown[0], **options)
