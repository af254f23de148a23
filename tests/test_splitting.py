"""Multilevel splitting against exact probabilities of tables."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from test_estimate import TableTask
from transformers import RepetitionPenaltyLogitsProcessor

import babblegraph as bg
from babblegraph import particles
from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.lm.spans import SpanRule
from babblegraph.scoring import Score
from babblegraph.splitting import _estimate, multilevel

Z = 5.8  # 12 z-tests: a false alarm has the odds 12 · 6.6e-9 = 8e-8 if normal, and below 1e-6 with 299 degrees


class Graded(TableTask):
    """Scores that leave only a few levels, so that many tie."""

    def __init__(self, lm, ties=0):
        super().__init__(lm)
        self.ties = ties
        for text, score in lm.score.items():  # a score that a part of the text already tells of
            order = np.mean([(a + i) % lm.v for i, a in enumerate(text)]) / (lm.v - 1)
            score = 0.5 * score + 0.5 * order
            lm.score[text] = float(np.float32(np.floor(score * ties) / ties if ties else score))

    def rare(self, mass):
        """The threshold of an event with at least this mass."""
        total = 0.0
        for text in sorted(self.lm.texts, key=lambda t: -self.lm.score[t]):
            total += np.exp(self.lm.log_p[text])
            if total >= mass:
                return self.lm.score[text]
        raise AssertionError


CASES = [(3, 4, 1, 0), (4, 5, 1, 0), (2, 8, 1, 0), (3, 4, 2, 0), (4, 5, 1, 12), (2, 8, 3, 20)]


@pytest.mark.parametrize(("v", "length", "span", "ties"), CASES)
def test_the_product_of_the_levels_is_unbiased(v, length, span, ties):
    lm = TableLM(v, length, seed=20, span=span)
    task = Graded(lm, ties)
    gamma = task.rare(0.01)
    truth = lm.probability(lambda t: lm.score[t] >= gamma)
    options = {"threshold": gamma, "trees": 300, "particles": 10, "seed": 0}
    found = multilevel(lm, "p", score=Score(task), **options)
    assert (np.diff(found.thresholds) > 0).all()
    assert found.thresholds[-1] == gamma
    assert abs(found.estimate.value - truth) < Z * found.estimate.error
    np.testing.assert_allclose(found.estimate.per_tree, found.shares.prod(1))


@pytest.mark.parametrize("mistake", [False, True])
def test_a_kernel_without_the_correction_for_length_is_caught(mistake, monkeypatch):
    """Texts of one to four tokens: cut at a random node of its path, a long one is cut near its end more often."""
    if mistake:
        monkeypatch.setattr(particles, "_way_back", lambda luck, before, after: np.full(len(luck), True))
    lm = TableLM(3, 4, seed=20, span=1)
    lm.rule = SpanRule(tokens=1, until=("b",))  # a text ends with the first b, or after four tokens
    truth = float(sum(np.exp(p) for t, p in lm.log_p.items() if 1 not in t[:3]))
    made = particles.Particles(lm, "p", Score(Stopped()), 1000, 1)
    at = made.texts(2)
    for turn in range(6):
        at = made.moved(at, 0.0, turn)
    long = (made.graph.length[at] == 5).mean(1)
    z = (long.mean() - truth) / (long.std(ddof=1) / np.sqrt(len(long)))
    assert (abs(z) > Z) == mistake


class Stopped:
    def verify(self, prompt, text):
        return 0.5


def test_levels_of_an_earlier_run_need_no_pilot_and_give_the_same_trees():
    lm = TableLM(4, 5, seed=20)
    task = Graded(lm)
    options = {"score": Score(task), "threshold": task.rare(0.02), "trees": 10, "particles": 12, "seed": 3}
    first = multilevel(lm, "p", **options)
    again = multilevel(lm, "p", thresholds=first.thresholds[:-1], **options)
    assert again.pilot_tokens == 0 < first.pilot_tokens
    np.testing.assert_array_equal(first.shares, again.shares)
    assert first.estimate.tokens == again.estimate.tokens + first.pilot_tokens


def test_it_costs_less_than_independent_texts_where_the_score_tells_the_way():
    """An event of 4e-3: at most half the tokens of independent sampling; measured about a quarter."""
    lm = TableLM(2, 8, seed=22)
    task = Graded(lm)
    gamma = task.rare(0.004)
    found = multilevel(lm, "p", score=Score(task), threshold=gamma, trees=100, particles=24).estimate
    assert found.tokens < found.independent_tokens / 2


def test_trees_whose_products_are_the_same_give_no_interval_of_width_zero():
    """Three times a tenth has a mean that is not quite a tenth: rounding is no deviation."""
    lm = TableLM(3, 4, seed=20)
    forest = particles.Particles(lm, "p", Score(Graded(lm)), 3, 0)
    forest.texts(2)
    found = _estimate(forest, np.full((3, 1), 0.1), (), 0)
    assert found.low < 0.07 < 0.3 < found.high
    assert found.independent_tokens is None


def test_a_threshold_that_nobody_reaches_gives_no_estimate_and_says_so():
    lm = TableLM(3, 4, seed=20)
    found = multilevel(lm, "p", score=Score(Graded(lm)), threshold=2.0, trees=3, particles=4).estimate
    assert found.value is None
    assert "no particle of 3 trees reached" in str(found)
    assert any("the pilot found too little above" in w for w in found.warnings)


def test_its_graph_gives_no_other_estimate():
    lm = TableLM(3, 4, seed=20)
    found = multilevel(lm, "p", score=Score(Graded(lm)), threshold=0.5, trees=3, particles=4)
    assert "had the aim levels, last with the strategy 'multilevel'" in str(probability(found.graph, 0.5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trees": 1}, "trees"),
        ({"particles": 1}, "particles"),
        ({"moves": 0}, "moves"),
        ({"trees": 2.5}, "trees must be a whole number"),
        ({"seed": -1}, "seed"),
        ({"threshold": float("nan")}, "a threshold must be a number"),
        ({"share": 1.0}, "share"),
        ({"thresholds": (0.5, 0.5)}, "must rise"),
        ({"thresholds": (0.95,)}, "must rise"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, said):
    lm = TableLM(3, 4, seed=20)
    with pytest.raises(BadInput, match=said) as error:
        multilevel(lm, "p", score=Score(Graded(lm)), **{"threshold": 0.9} | options)
    assert "\n" not in str(error.value)


def test_a_model_that_gives_no_numbers_is_refused_in_one_line():
    lm = TableLM(3, 4, seed=20)
    task = Graded(lm)
    lm.table[(1,)] = np.full(3, np.nan)
    with (
        pytest.warns(RuntimeWarning, match="NaN"),
        pytest.raises(BadInput, match="got no number for") as error,
    ):
        multilevel(lm, "p", score=Score(task), threshold=0.9, trees=4, particles=8)
    assert "\n" not in str(error.value)


def test_a_real_model_splits_and_another_distribution_than_its_own_is_refused(llama, characters):
    babbler = bg.Babbler(llama, characters, span=2, max_new_tokens=8)
    value = lambda texts: [t.count("1") / 8 for t in texts]  # noqa: E731
    options = {"value": value, "threshold": 0.25, "trees": 4, "particles": 8}
    found = bg.multilevel(babbler, "1 2", **options)
    again = bg.multilevel(babbler, "1 2", **options)
    np.testing.assert_array_equal(found.shares, again.shares)
    assert found.estimate.value is None or 0 < found.estimate.value <= 1
    assert not babbler.trie(found.graph).held
    penalty = RepetitionPenaltyLogitsProcessor(1.5)
    for other in ({"temperature": 2.0}, {"top_k": 1}, {"top_p": 0.5}, {"logits_processor": [penalty]}):
        changed = bg.Babbler(llama, characters, span=2, max_new_tokens=8, **other)
        with pytest.raises(BadInput, match="temperature 1") as error:
            bg.multilevel(changed, "1 2", **options)
        assert "\n" not in str(error.value)
