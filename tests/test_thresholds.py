"""Thresholds: quantiles with ties, levels that grow, and cross-fitting against exact probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from test_estimate import leaves_by_hand, run

from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.strategies import frontier
from babblegraph.thresholds import cross_fit, next_level, quantile_threshold


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_a_quantile_is_the_largest_score_that_enough_reach(levels):
    draw = np.random.default_rng(levels)
    s, w = draw.integers(0, levels, 60).astype(float), draw.random(60)
    for share in (0.05, 0.3, 1.0):
        slow = max(x for x in s if w[s >= x].sum() >= share * w.sum() * (1 - 1e-12))
        assert quantile_threshold(s, share, w) == slow


def test_a_level_grows_though_scores_tie():
    s = np.r_[np.zeros(90), np.full(8, 0.5), np.full(2, 0.9)]
    first = next_level(s, -np.inf, 1.0, share=0.2)
    assert first.threshold == 0.0  # the quantile itself: all pass
    second = next_level(s, first.threshold, 1.0, share=0.2)
    assert second == (0.5, 0.1)
    third = next_level(s[s >= 0.5], 0.5, 1.0, share=0.5)
    assert third == (0.9, 0.2)
    assert next_level(s[s >= 0.9], 0.9, 1.0) is None  # nobody is above: the sample has to grow
    assert next_level(s, 0.0, 0.4, share=0.2) == (0.4, 0.1)  # never beyond the last level


def test_bad_shares_are_refused_in_one_line():
    graph = leaves_by_hand([[1.0]], [[1.0]])
    for call, said in (
        (lambda: quantile_threshold([], 0.1), "scores"),
        (lambda: quantile_threshold([1.0], 0.0), "share"),
        (lambda: cross_fit(graph, 2.0), "share"),
        (lambda: cross_fit(graph, 0.5), "two trees"),
    ):
        with pytest.raises(BadInput, match=said) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_cross_fitting_is_unbiased_where_the_same_trees_flatter_themselves():
    """300 forests of 4 texts: their mean against the truth for each one's own thresholds, |z| < 5, odds 6e-7.

    With γ from all trees, and P(S ≥ γ) from the same ones, the mean is wrong by more than five errors.
    """
    lm = TableLM(3, 4, seed=2)
    cross, naive = [], []
    for seed in range(300):
        graph = run(lm, ["p"] * 4, frontier(width=1, keep=None), seed=seed)
        found = cross_fit(graph, 0.3)
        first, second = found.thresholds["p"]
        cross.append(found.estimate.per_tree.mean() - (truth(lm, first) + truth(lm, second)) / 2)
        leaves = np.flatnonzero(graph.is_leaf())
        gamma = quantile_threshold(graph.score[leaves], 0.3, np.exp(graph.log_weight(leaves)))
        naive.append(probability(graph, gamma).value - truth(lm, gamma))
    z = lambda x: np.mean(x) / (np.std(x, ddof=1) / np.sqrt(len(x)))  # noqa: E731
    assert abs(z(cross)) < 5
    assert z(naive) > 5


def truth(lm, gamma):
    return lm.probability(lambda t: np.float32(lm.score[t]) >= gamma)


def test_halves_of_each_prompt_have_thresholds_of_their_own():
    weights, scores = [[1.0]] * 8, [[1.0], [2.0], [1.0], [2.0], [5.0], [6.0], [5.0], [6.0]]
    found = cross_fit(leaves_by_hand(weights, scores, ["p"] * 4 + ["q"] * 4), 0.5)
    assert found.thresholds == {"p": (1.0, 2.0), "q": (5.0, 6.0)}
    assert found.estimate.value == pytest.approx(
        0.5
    )  # the better half reaches the worse one's γ, not vice versa


def test_a_biased_graph_has_no_cross_fit_either():
    graph = leaves_by_hand([[1.0]] * 4, [[1.0]] * 4)
    graph.meta["aim"] = "solve"
    assert "aim solve" in str(cross_fit(graph, 0.5).estimate)
