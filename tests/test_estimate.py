"""Estimates: values, intervals, bounds and warnings, against full enumeration and plain formulas.

Random checks have fixed seeds; each says how likely it would be to fail by chance.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from table_lm import TableLM

from babblegraph.born import Born
from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.estimates import Estimate, expectation, probability
from babblegraph.graph import BabbleGraph
from babblegraph.intervals import log_odds, none_in, pass_at_k, ratios, stratified, student, t_quantile
from babblegraph.loop import search
from babblegraph.protocols import ALL
from babblegraph.scoring import Score
from babblegraph.status import Flag, Status
from babblegraph.strategies import frontier
from babblegraph.why_not import why_not


class TableTask:
    def __init__(self, lm):
        self.lm = lm

    def verify(self, prompt, text):
        return self.lm.score[tuple(ord(c) - 97 for c in text)]


def run(lm, prompts, strategy, seed=0, **options):
    options = {"budget": Budget(tokens=10**6)} | options
    *_, last = search(lm, prompts, score=Score(TableTask(lm)), strategy=strategy, seed=seed, **options)
    return last.graph


def leaves_by_hand(weights, scores, prompts=None, log_scale=0.0):
    """A closed forest: tree i has leaves of the weights and scores in row i."""
    prompts = prompts or ["p"] * len(weights)
    graph = BabbleGraph(prompts, [[0]] * len(prompts), {0: b"a"})
    parent = np.concatenate([[i] * len(w) for i, w in enumerate(weights)]).astype(int)
    log_p = np.log(np.concatenate(weights)) + log_scale
    born = Born.of_spans(parent, [[0]] * len(parent), log_p, Status.LEAF_END, np.zeros(len(parent)))
    ids = graph.add(born)
    graph.score[ids] = np.concatenate(scores)
    graph.meta |= {"aim": "estimate", "spent": {"counts": {"sampled": [5] * len(prompts)}}}
    return graph


def test_full_enumeration_is_exact_and_costs_no_error():
    lm = TableLM(3, 4, seed=2)
    found = probability(run(lm, ["p"] * 3, frontier(width=ALL, keep=None)), 0.6)
    truth = lm.probability(lambda t: lm.score[t] >= 0.6)
    assert abs(found.value - truth) < 1e-12
    assert found.error < 1e-12
    assert abs(found.log_evidence - np.log(truth)) < 1e-12
    assert found.divergence == -found.log_evidence


def test_the_interval_is_students_over_trees_and_of_the_log_odds_for_a_probability():
    graph = leaves_by_hand([[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]], [[1, 0], [1, 0], [1, 0]])
    found = probability(graph, 1.0)
    trees = np.array([0.5, 0.25, 0.9])
    half = 4.302652729911275 * trees.std(ddof=1) / np.sqrt(3)  # t quantile with two degrees, from tables
    assert abs(found.value - trees.mean()) < 1e-15
    p = trees.mean()
    middle, half_odds = np.log(p / (1 - p)), half / (p * (1 - p))
    ends = 1 / (1 + np.exp(-(middle + np.array([-1, 1]) * half_odds)))
    np.testing.assert_allclose((found.low, found.high), ends, atol=1e-9)
    plain = expectation(graph, lambda g, ids: g.score[ids])
    np.testing.assert_allclose((plain.low, plain.high), (p - half, p + half), atol=1e-9)
    assert found.trees == found.hits == 3
    assert found.tokens == 15
    w = np.array([0.5, 0.5, 0.25, 0.75, 0.9, 0.1])
    assert found.effective == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert found.heaviest == pytest.approx(0.3)
    assert any("fewer than 32" in w for w in found.warnings)


def test_prompts_are_strata():
    graph = leaves_by_hand([[0.2], [0.4], [0.9], [0.7]], [[1]] * 4, ["p", "p", "q", "q"])
    found = probability(graph, 1.0)
    assert found.value == pytest.approx(0.55)
    assert found.error == pytest.approx(np.sqrt((0.02 / 2 + 0.02 / 2) / 4))  # within prompts alone
    assert probability(graph, 1.0, prompt="q").value == pytest.approx(0.8)
    assert probability(graph, 1.0).log_value == pytest.approx(np.log(0.55))
    with pytest.raises(BadInput, match="prompt"):
        probability(graph, 1.0, prompt="r")


def test_a_prompt_with_few_trees_is_not_known_better_for_another_that_has_many():
    """Sixty trees of a sure prompt, two of an unsure one: with 60 degrees of freedom instead of 1, 70 % are covered.

    1,500 such forests; the odds of leaving 92 % to 98 % by chance are below 1e-6 where it covers 95 %.
    """
    draw, strata = np.random.default_rng(0), np.repeat([0, 1], [60, 2])
    covered = 0
    for _ in range(1500):
        per_tree = np.r_[draw.normal(0.2, 0.01, 60), draw.normal(0.6, 0.3, 2)]
        low, high = student(*stratified(per_tree, strata))
        covered += low <= 0.4 <= high
    assert 0.92 < covered / 1500 < 0.98


def test_one_tree_a_prompt_gives_a_value_without_an_interval():
    found = probability(leaves_by_hand([[0.2], [0.9]], [[1], [1]], ["p", "q"]), 1.0)
    assert found.value == pytest.approx(0.55)
    assert found.error is found.low is found.high is None
    assert "no interval" in found.warnings[0]


def test_without_a_hit_there_is_an_exact_bound_and_never_an_interval_of_width_zero():
    found = probability(leaves_by_hand([[1.0]] * 20, [[0.0]] * 20), 1.0)
    assert found.value is found.low is found.error is None
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 20))
    assert not any("exact" in w for w in found.warnings)
    assert str(found) == "not available: no hit in 20 trees, at most 0.14"
    heavy = probability(leaves_by_hand([[1.0]] * 19 + [[3.0]], [[0.0]] * 20), 1.0)
    assert heavy.high == pytest.approx(3 * (1 - 0.05 ** (1 / 20)))
    assert any("not exact" in w for w in heavy.warnings)


def test_a_bound_without_a_hit_covers_as_often_as_it_says():
    """Trees of one text: with P = 0.09 and 32 trees, no hit has the odds 0.91^32 = 0.0489 ≤ 0.05."""
    assert none_in(32) < 0.09
    assert (1 - none_in(32)) ** 32 == pytest.approx(0.05)


def test_where_everything_hits_the_interval_is_one_sided_too():
    graph = leaves_by_hand([[1.0]] * 20, [[1.0]] * 20)
    assert str(probability(graph, 1.0)) == "1 [1, 1]"  # nothing was left to chance
    graph.log_p_f[20:] = graph.log_inclusion[20:] = -3.0  # now each tree is one draw
    found = probability(graph, 1.0)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.05 ** (1 / 20))


def test_bounds_go_by_the_prompt_with_the_fewest_trees():
    """What two trees of a prompt may have missed, sixty of another one do not tell."""
    prompts = ["p"] * 60 + ["q"] * 2
    nothing = probability(leaves_by_hand([[1.0]] * 62, [[0.0]] * 62, prompts), 1.0)
    assert nothing.high == pytest.approx(none_in(4))
    assert nothing.reason == "no hit in 62 trees"
    graph = leaves_by_hand([[1.0]] * 62, [[0.0]] * 60 + [[1.0]] * 2, prompts)
    graph.log_p_f[62:] = graph.log_inclusion[62:] = -3.0  # each tree is one draw
    found = probability(graph, 1.0)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.5 * none_in(4), 0.5 + 0.5 * none_in(4)))


def test_trees_that_happen_to_agree_give_no_interval_of_width_zero():
    graph = leaves_by_hand([[0.5, 0.5]] * 40, [[1.0, 0.0]] * 40)
    graph.log_p_f[40:] -= 1
    graph.log_inclusion[40:] -= 1
    found, unseen = probability(graph, 1.0), none_in(40)
    assert found.low == pytest.approx(0.5 * (1 - unseen))
    assert found.high == pytest.approx(0.5 + 0.5 * unseen)
    plain = expectation(graph, lambda g, ids: 3 * g.score[ids] - 1)
    assert plain.value == pytest.approx(0.5)
    assert plain.low < plain.value < plain.high


def test_whether_trees_agree_is_asked_at_the_size_of_what_they_say():
    """Trees that differ by a tenth have an interval, however rare it is; a tenth, thrice, differs by rounding alone."""
    rare = [1e-14 * (0.9 + 0.2 * (i % 2)) for i in range(40)]
    graph = leaves_by_hand([[1.0, w] for w in rare], [[0.0, 1.0]] * 40)
    graph.log_p_f[40:] -= 1
    graph.log_inclusion[40:] -= 1  # chance decided
    for ratio in (False, True):
        found = probability(graph, 1.0, ratio=ratio)
        assert found.value == pytest.approx(1e-14)
        assert 0.9e-14 < found.low < found.value < found.high < 1.1e-14
    graph = leaves_by_hand([[0.9, 0.1]] * 3, [[0.0, 1.0]] * 3)
    graph.log_p_f[3:] -= 1
    graph.log_inclusion[3:] -= 1
    found = probability(graph, 1.0)
    assert found.low < 0.07 < 0.3 < found.high
    assert found.independent_tokens is None


def test_it_warns_of_degenerate_weights_and_of_few_hits():
    weights = [[1.0, 1e-6]] * 30 + [[60.0, 1.0]] * 10
    found = probability(leaves_by_hand(weights, [[0.0, 1.0]] * 2 + [[0.0, 0.0]] * 38), 1.0)
    said = " ".join(found.warnings)
    assert "effective sample size" in said
    assert "only 2 of 40 trees have a hit" in said
    off = probability(leaves_by_hand([[2.0]] * 40, [[1.0]] * 40), 1.0)
    assert "the weights of a tree sum to 2 on average, not to 1" in off.warnings
    lonely = probability(leaves_by_hand([[1.0]] * 40 + [[50.0]], [[1.0]] * 41), 1.0)
    assert any("one leaf holds 56% of all weight" in w for w in lonely.warnings)
    fine = probability(leaves_by_hand([[0.5, 0.5]] * 40, [[0.0, 1.0], [0.0, 0.0]] * 20), 1.0)
    assert fine.warnings == ()


def test_it_warns_of_leaves_that_could_not_be_scored_with_their_weight():
    lm = TableLM(3, 3, seed=1)

    class Fails(TableTask):
        def verify(self, prompt, text):
            return None if text.startswith("a") else 1.0

    rounds = search(lm, ["p"] * 40, score=Score(Fails(lm)), strategy=frontier(), budget=Budget(tokens=10**6))
    *_, last = rounds
    graph = last.graph
    lost = graph.is_leaf() & np.isnan(graph.score)
    share = np.exp(graph.log_weight(lost)).sum() / np.exp(graph.log_weight(graph.is_leaf())).sum()
    said = f"leaves with {share:.2g} of all weight could not be scored, and count as misses"
    assert probability(graph, 1.0).warnings[0] == said
    assert graph.meta["scorer_failures"] == lost.sum() > 0


def test_evidence_too_small_for_a_float_has_a_logarithm():
    found = probability(leaves_by_hand([[0.5, 0.5]] * 4, [[0, 1]] * 4, log_scale=-3000.0), 1.0)
    assert found.value == 0.0
    assert found.log_evidence == pytest.approx(np.log(0.5) - 3000)
    assert found.effective == pytest.approx(8)


def test_paths_of_4096_tokens_and_a_million_leaves_sum_stably():
    n = 10**6
    graph = leaves_by_hand([np.full(n, 1 / n)], [np.arange(n) % 10 == 0])
    leaves = np.arange(1, graph.size)
    graph.log_p_f[leaves] -= 4096 * 12.0  # 4,096 improbable tokens, drawn with the same probabilities
    graph.log_inclusion[leaves] -= 4096 * 12.0
    assert abs(probability(graph, 1.0).value - 0.1) < 1e-11


def test_under_g_the_same_trees_tell_of_the_moved_generator():
    """Weights p_g / inclusion against the enumeration of another table; |z| < 5.7, odds 1.2e-8 each."""
    base, moved = TableLM(3, 4, seed=2), TableLM(3, 4, seed=3)
    graph = run(base, ["p"] * 1500, frontier(width=3, keep=4))
    for i in np.arange(graph.trees, graph.size):
        text = base.generated(graph, i)
        graph.log_p_g[i] = sum(moved.table[text[:j]][text[j]] for j in range(len(text)))
    everything = expectation(graph, lambda g, ids: np.ones(len(ids)), under="g")
    assert abs(everything.value - 1) < 5.7 * everything.error
    elite = probability(graph, 0.6, under="g")
    truth = moved.probability(lambda t: base.score[t] >= 0.6)
    assert abs(elite.value - truth) < 5.7 * elite.error


def test_expectations_of_any_function_and_what_is_refused():
    graph = leaves_by_hand([[0.5, 0.5], [0.25, 0.75]], [[4, -2], [1, 0]])
    found = expectation(graph, lambda g, ids: g.score[ids])
    assert found.value == pytest.approx((1.0 + 0.25) / 2)
    assert np.isnan(found.log_value)
    for arguments, said in (({"under": "h"}, "under"), ({}, "finite")):
        with pytest.raises(BadInput, match=said) as error:
            expectation(graph, lambda g, ids: np.full(len(ids), np.nan), **arguments)
        assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match=r"h must give a number for each of 4 leaves, got the shape \(3,\)"):
        expectation(graph, lambda g, ids: np.ones(3))
    for threshold in (float("nan"), "0.5"):
        with pytest.raises(BadInput, match="a threshold must be a number, got"):
            probability(graph, threshold)


def test_a_function_that_is_0_wherever_one_looked_has_no_interval():
    graph = leaves_by_hand([[0.5, 0.5]] * 40, [[1.0, 0.0]] * 40)
    assert (
        str(expectation(graph, lambda g, ids: np.zeros(len(ids)))) == "0 [0, 0]"
    )  # nothing was left to chance
    graph.log_p_f[40:] -= 1
    graph.log_inclusion[40:] -= 1
    found = expectation(graph, lambda g, ids: np.zeros(len(ids)))
    assert (found.value, found.error, found.low, found.high) == (0.0, None, None, None)
    assert "h is 0 on every leaf that was found: there is no interval" in found.warnings


def test_leaves_that_the_base_can_never_write_have_no_ratio_and_say_so():
    graph = leaves_by_hand([[0.5, 0.5]] * 40, [[1.0, 0.0]] * 40)
    graph.log_p_f[40:] = -np.inf
    assert probability(graph, 1.0).value == 0
    assert probability(graph, 1.0, ratio=True).reason == "no leaf has any weight under f"


def test_a_ratio_pools_numerators_and_denominators_and_says_that_it_is_biased():
    graph = leaves_by_hand([[0.5, 0.7], [0.25, 0.35], [0.9, 0.3]], [[1, 0], [1, 0], [1, 0]])
    found = probability(graph, 1.0, ratio=True)
    up, down = np.array([0.5, 0.25, 0.9]), np.array([1.2, 0.6, 1.2])
    assert found.value == pytest.approx(up.sum() / down.sum())
    assert found.value != pytest.approx((up / down).mean())  # the wrong way: tree by tree
    residual = (up - found.value * down) / down.mean()
    assert found.error == pytest.approx(residual.std(ddof=1) / np.sqrt(3))
    assert any("a ratio of means is biased" in w for w in found.warnings)
    assert not any("sum to" in w for w in found.warnings)


def test_a_ratio_has_no_scale_and_survives_weights_too_small_for_a_float():
    weights = [[0.5, 0.7], [0.25, 0.35], [0.9, 0.3]]
    here = probability(leaves_by_hand(weights, [[1, 0]] * 3), 1.0, ratio=True)
    far = probability(leaves_by_hand(weights, [[1, 0]] * 3, log_scale=-3000.0), 1.0, ratio=True)
    assert far.value == pytest.approx(here.value, rel=1e-12)
    assert far.error == pytest.approx(here.error, rel=1e-9)
    assert far.log_evidence == pytest.approx(np.log(far.value))


def test_the_stated_bias_of_a_ratio_is_that_of_the_jackknife():
    """Two computations of the same second-order term: they differ by terms of the next order, 1/n of it."""
    draw = np.random.default_rng(0)
    down = draw.gamma(4, 0.25, 400)
    up = down * draw.random(400) + 0.3 * down**2
    _, bias = ratios(up, down, np.zeros(400, np.intp))
    whole = up.sum() / down.sum()
    left_out = (up.sum() - up) / (down.sum() - down)
    assert bias == pytest.approx(399 * (left_out.mean() - whole), rel=0.05)


def test_a_ratio_without_a_hit_has_a_bound_without_a_scale():
    weights, misses = [[0.5, 0.7], [0.25, 0.35], [0.9, 0.3]], [[0, 0]] * 3
    assert probability(leaves_by_hand(weights, misses), 1.0, ratio=True).high == pytest.approx(none_in(3))


def test_prompts_have_a_ratio_each():
    graph = leaves_by_hand(
        [[0.2, 0.2], [0.4, 0.4], [0.9, 0.1], [0.7, 0.3]], [[1, 0]] * 4, ["p", "p", "q", "q"]
    )
    assert probability(graph, 1.0, ratio=True).value == pytest.approx((0.5 + 0.8) / 2)


def test_a_path_of_4096_spans_keeps_its_logarithms_exactly():
    graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    step = -12.000244140625  # a whole number of 1/4096: sums are exact
    node = 0
    for _ in range(4096):
        (node,) = graph.add(Born.of_spans([node], [[0]], [step], log_inclusion=[step / 2]))
    assert graph.log_p_f[node] == 4096 * step
    assert graph.log_weight(node) == 4096 * step / 2
    graph.status[node] = Status.LEAF_END
    graph.score[node] = 1.0
    graph.meta |= {"aim": "estimate"}
    found = probability(graph, 1.0)
    assert found.value == 0.0
    assert found.log_evidence == 4096 * step / 2


def test_a_score_equal_to_the_threshold_passes_though_the_graph_keeps_it_short():
    """0.7 as a 32-bit number lies below 0.7 as a 64-bit one, and NumPy's own numbers have 64 bits."""
    graph = leaves_by_hand([[0.5, 0.5]] * 2, [[0.7, 0.1]] * 2)
    for threshold in (0.7, np.float64(0.7), np.quantile([0.7, 0.7], 0.5), np.float32(0.7)):
        assert probability(graph, threshold).value == pytest.approx(0.5)
        assert graph.reaches(threshold, [2, 3]).tolist() == [True, False]


def test_one_heavy_tree_is_warned_of():
    graph = leaves_by_hand([[0.1, 0.9]] * 39 + [[0.9, 0.1]], [[0.02, 0.0]] * 39 + [[1.0, 0.0]])
    found = expectation(graph, lambda g, ids: g.score[ids])
    assert any("one of 40 trees brings 92% of it" in w for w in found.warnings)


def test_biased_open_and_truncated_graphs_are_refused_with_the_reason():
    graph = leaves_by_hand([[1.0]] * 3, [[1.0]] * 3)
    assert why_not(graph) == ""
    graph.meta["sampling"] = {"top_k": 5, "top_p": None}
    assert "truncation" in str(probability(graph, 1.0))
    assert probability(graph, 1.0, under="q").value == 1.0  # what was sampled from is declared to be meant
    graph.meta["sampling"] = {}
    graph.flags[4] |= np.uint8(Flag.BIASED)
    assert "biased gate" in str(probability(graph, 1.0))
    graph.flags[4] = 0
    graph.status[4] = Status.STEM
    assert "a weight of 1, of 3 in all, on unfinished nodes" in str(probability(graph, 1.0))
    graph.meta["aim"] = "solve"
    assert "aim solve" in str(probability(graph, 1.0))


def test_independent_sampling_would_have_needed_what_it_needed():
    """One text a tree is independent sampling: both counts agree but for the estimated variance."""
    lm = TableLM(3, 4, seed=2)
    found = probability(run(lm, ["p"] * 800, frontier(width=1, keep=None)), 0.6)
    assert found.tokens == 800 * 4
    assert found.independent_tokens == pytest.approx(found.tokens, rel=0.01)


@pytest.mark.parametrize("threshold", [0.6, 0.9])
def test_the_interval_covers_the_truth_as_often_as_it_says(threshold):
    """2,000 forests of 32 trees out of a bank of 1,500, P = .5 and .06; the plain t interval covers 93 % of the second.

    The odds of leaving 93 % to 97 % by chance are 1e-4 for each, where the interval covers 95 %.
    """
    lm = TableLM(3, 4, seed=2)
    graph = run(lm, ["p"] * 1500, frontier(width=3, keep=4))
    hits = graph.is_leaf() & (graph.score >= threshold)
    bank = np.bincount(graph.root[hits], np.exp(graph.log_weight(hits)), minlength=graph.trees)
    forests = bank[np.random.default_rng(0).integers(0, len(bank), size=(2000, 32))]
    ends = [log_odds(x.mean(), x.std(ddof=1) / np.sqrt(32), 31) for x in forests]
    assert 0.93 < np.mean([low <= bank.mean() <= high for low, high in ends]) < 0.97


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),
    [
        (0.975, 2, 4.302652729911275),
        (0.95, 5, 2.015048372669157),
        (0.975, 10, 2.2281388519649385),
        (0.995, 30, 2.7499956535670585),
        (0.975, 120, 1.979930405052777),
        (0.025, 3, -3.182446305284263),
    ],
)
def test_t_quantiles_are_those_of_the_tables(p, degrees, expected):
    assert t_quantile(p, degrees) == pytest.approx(expected, rel=1e-9)


def test_t_quantiles_fall_without_a_step_where_the_series_begins():
    found = [t_quantile(0.975, n) for n in range(190, 215)]
    steps = -np.diff(found)
    assert (steps > 0).all()
    assert max(abs(b - a) for a, b in pairwise(steps)) < 2e-6


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (6, 2, 3), (6, 0, 2), (6, 6, 2), (7, 5, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n, c, k):
    subsets = list(combinations(range(n), k))
    assert pass_at_k(n, c, k) == pytest.approx(np.mean([min(s) < c for s in subsets]))


def test_pass_at_k_of_many_samples_agrees_with_whole_numbers():
    from math import comb

    for n, c, k in ((2000, 3, 100), (5000, 700, 7), (3000, 2990, 20)):
        assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), rel=1e-9)
    with pytest.raises(BadInput, match="pass@k"):
        pass_at_k(3, 1, 4)


def test_an_estimate_is_read_in_one_line():
    assert str(Estimate(0.25, 0.01, 9.0, low=0.2, high=0.3)) == "0.25 [0.2, 0.3]"
    assert str(Estimate(0.25, None, 9.0)) == "0.25"
