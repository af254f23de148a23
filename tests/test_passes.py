"""pass@k from weighted trees."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from table_lm import TableLM
from test_estimate import leaves_by_hand, run

from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.intervals import none_in, pass_at_k, some_of
from babblegraph.passes import pass_at
from babblegraph.strategies import frontier


@pytest.mark.parametrize(("n", "k"), [(5, 1), (6, 3), (6, 6), (7, 2)])
def test_some_of_is_the_mean_over_all_subsets(n, k):
    x = np.random.default_rng(n).gamma(1, 0.3, n)
    slow = np.mean([1 - np.prod(1 - x[list(s)]) for s in combinations(range(n), k)])
    assert some_of(x, k) == pytest.approx(slow, rel=1e-12)


def test_trees_of_one_text_give_the_usual_pass_at_k():
    found = pass_at(leaves_by_hand([[1.0]] * 10, [[1.0]] * 3 + [[0.0]] * 7), 1.0, 5)
    assert found.value == pytest.approx(pass_at_k(10, 3, 5))


@pytest.mark.slow
def test_pass_at_k_of_weighted_trees_is_unbiased():
    """150 forests of 8 trees, k = 4: |z| < 5, odds 6e-7."""
    lm = TableLM(3, 4, seed=2)
    truth = 1 - (1 - lm.probability(lambda t: lm.score[t] >= 0.8)) ** 4
    found = [
        pass_at(run(lm, ["p"] * 8, frontier(width=2, keep=2), seed=seed), 0.8, 4).value for seed in range(150)
    ]
    found = np.array([0.0 if x is None else x for x in found])
    assert abs(found.mean() - truth) < 5 * found.std(ddof=1) / np.sqrt(len(found))


def test_the_interval_is_that_of_the_probability_mapped():
    graph = leaves_by_hand([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]], [[1, 0]] * 3)
    one, two = probability(graph, 1.0), pass_at(graph, 1.0, 2)
    assert two.low == pytest.approx(1 - (1 - one.low) ** 2)
    assert two.high == pytest.approx(1 - (1 - one.high) ** 2)
    assert pass_at(graph, 1.0, 1).value == one.value
    assert pass_at(graph, 1.0, 1).low == one.low


def test_more_samples_than_trees_are_possible_but_said_to_be_biased():
    graph = leaves_by_hand([[0.5, 0.5], [0.25, 0.75]], [[1, 0]] * 2)
    found = pass_at(graph, 1.0, 3)
    assert found.value == pytest.approx(1 - (1 - 0.375) ** 3)
    assert any("pass@3 is biased" in w for w in found.warnings)


def test_prompts_are_averaged_after_they_are_mapped():
    graph = leaves_by_hand([[0.2], [0.4], [0.9], [0.7]], [[1]] * 4, ["p", "p", "q", "q"])
    found = pass_at(graph, 1.0, 2)
    assert found.value == pytest.approx((1 - 0.8 * 0.6 + 1 - 0.1 * 0.3) / 2)
    assert found.low < found.value < found.high


def test_prompts_whose_trees_agree_give_no_interval_of_width_zero():
    """One never passes, the other one always: each may have missed its other kind of text."""
    graph = leaves_by_hand([[1.0]] * 16, [[0.0]] * 8 + [[1.0]] * 8, ["p"] * 8 + ["q"] * 8)
    graph.log_p_f[16:] = graph.log_inclusion[16:] = -3.0  # each tree is one draw
    found, unseen = pass_at(graph, 1.0, 4), none_in(8)
    assert found.value == 0.5
    assert found.low == pytest.approx((0 + 1 - unseen**4) / 2)
    assert found.high == pytest.approx((1 - (1 - unseen) ** 4 + 1) / 2)


def test_the_interval_of_a_rare_and_a_sure_prompt_covers_as_often_as_it_says():
    """Two prompts of 8 trees of one text each, P = .24 and 1, over all counts of hits: 1 in 9 forests has none."""
    p, missed = 0.24, 0.0
    truth = (1 - (1 - p) ** 4 + 1) / 2
    for hits in range(9):
        scores = [[float(i < hits)] for i in range(8)] + [[1.0]] * 8
        graph = leaves_by_hand([[1.0]] * 16, scores, ["p"] * 8 + ["q"] * 8)
        graph.log_p_f[16:] = graph.log_inclusion[16:] = -3.0
        found = pass_at(graph, 1.0, 4)
        missed += (not found.low <= truth <= found.high) * comb(8, hits) * p**hits * (1 - p) ** (8 - hits)
    assert missed < 0.05


def test_without_a_hit_there_is_a_bound_for_k_too():
    graph = leaves_by_hand([[1.0]] * 20, [[0.0]] * 20)
    found = pass_at(graph, 1.0, 3)
    assert found.value is None
    assert found.high == pytest.approx(1 - 0.05 ** (3 / 20))
    with pytest.raises(BadInput, match="k of at least 1"):
        pass_at(graph, 1.0, 0)
