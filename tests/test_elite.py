"""The elite: who is chosen, what each weighs, and what happens where nobody can be."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_lm import TableLM

from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.learning.chances import chance
from babblegraph.learning.elite import LOWEST, NONE, SAME, UNFINISHED, elite
from babblegraph.learning.leaves import Leaves, gather, joined, log_weights
from babblegraph.learning.soft import exponential, rank
from babblegraph.loop import search
from babblegraph.protocols import ALL
from babblegraph.randomness import Rng
from babblegraph.strategies import best_of_n, frontier

FALSE_ALARM_Z = 4.9  # two-sided odds of 1e-6


def leaves_of(score, *, prompt=None, log_f=None, log_g=None, text=None, unbiased=True, base=0.0) -> Leaves:
    """Leaves as if each tree had one, equally likely samples of g but for a share that came from the base."""
    score = np.asarray(score, np.float64)
    m = len(score)
    prompt = np.zeros(m, np.int64) if prompt is None else np.asarray(prompt, np.int64)
    of_base = np.arange(m) < round(base * m)
    share = 1 / np.bincount(prompt)[prompt]
    zero = np.zeros(m)
    return Leaves(
        prompts=tuple(f"p{i}" for i in range(prompt.max() + 1)),
        prompt=prompt,
        tree=np.arange(m),
        trees=prompt,
        share=share,
        of_base=of_base,
        text=tuple(map(str, range(m))) if text is None else tuple(text),
        tokens=tuple(
            np.array([0, i if text is None else sum(map(ord, text[i]))], np.int32) for i in range(m)
        ),
        start=np.ones(m, np.int64),
        score=score,
        log_f=zero if log_f is None else np.asarray(log_f, np.float64),
        log_g=zero if log_g is None else np.asarray(log_g, np.float64),
        log_share=np.log(share),
        biased="" if unbiased else "weights are unbiased only of other searches",
    )


def whole(lm: TableLM, threshold: float = 0.6):
    """A graph that holds every text, with its score."""

    def score(graph, ids, meter):
        for i in ids[graph.is_leaf(ids)].tolist():
            graph.score[i] = lm.score[lm.generated(graph, i)]

    way = frontier(width=ALL, keep=None, merge=False)
    *_, last = search(lm, ["x"], score=score, strategy=way, budget=Budget(tokens=10**6))
    return last.graph


def test_with_exact_expectations_the_elite_is_the_optimal_distribution():
    lm = TableLM(3, 4, seed=1)
    leaves = gather(whole(lm))
    assert leaves.unbiased
    assert len(leaves) == 81
    chosen = elite(leaves, power=1.0, threshold=0.6)
    passing = [t for t in lm.texts if np.float32(lm.score[t]) >= 0.6]
    total = np.logaddexp.reduce([lm.log_p[t] for t in passing])
    optimal = {t: lm.log_p[t] - total for t in passing}
    found = {tuple(leaves.tokens[i][1:].tolist()): w for i, w in zip(chosen.leaf, chosen.weight, strict=True)}
    assert found.keys() == optimal.keys()
    divergence = sum(np.exp(lp) * (lp - np.log(found[t])) for t, lp in optimal.items())
    assert abs(divergence) < 1e-10
    assert chance(leaves, threshold=0.6).value == pytest.approx(
        lm.probability(lambda t: t in optimal), abs=1e-12
    )


@pytest.mark.parametrize("n", [1, 50])
def test_counts_of_independent_samples_are_weights(n):
    lm = TableLM(3, 3, seed=2)

    def score(graph, ids, meter):
        graph.score[ids[graph.is_leaf(ids)]] = 1.0

    *_, last = search(
        lm, ["x", "y"], score=score, strategy=best_of_n(n=n, width=n), budget=Budget(tokens=10**6)
    )
    leaves = gather(last.graph, samples=[n])
    assert leaves.unbiased
    assert np.allclose(np.bincount(leaves.prompt, np.exp(log_weights(leaves, 0.0))), 1.0)
    assert chance(leaves, threshold=0.5).value == pytest.approx(1.0)
    assert not gather(last.graph, samples=[n + 1]).unbiased, "one sample is missing"
    last.graph.log_q -= 0.7 * last.graph.is_leaf()  # as if drawn at another temperature
    assert np.allclose(gather(last.graph, samples=[n]).log_share, leaves.log_share + 0.7)


@given(
    st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=4, max_size=40),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_the_ratio_to_the_base_never_exceeds_one_over_epsilon(pairs, epsilon):
    log_f, log_g = np.array(pairs).T
    leaves = leaves_of(np.ones(len(pairs)), log_f=log_f, log_g=log_g, base=epsilon)
    share = leaves.from_base[0]
    if share > 0:
        ratio = log_weights(leaves, 1.0) - leaves.log_share
        assert (ratio <= -np.log(share) + 1e-9).all()


def test_thresholds_are_quantiles_of_the_weight_per_prompt_and_never_above_the_last_one():
    leaves = leaves_of([0.1, 0.2, 0.3, 0.4, 0.9, 0.8, 0.7, 0.6], prompt=[0, 0, 0, 0, 1, 1, 1, 1])
    chosen = elite(leaves, rho=0.5)
    assert chosen.gamma.tolist() == [0.3, 0.8]
    assert sorted(chosen.leaf.tolist()) == [2, 3, 4, 5]
    assert np.allclose(np.bincount(leaves.prompt[chosen.leaf], chosen.weight), 1.0)
    assert elite(leaves, rho=0.5, threshold=0.75).gamma.tolist() == [0.3, 0.75]
    pooled = elite(leaves, rho=0.5, pooled=True)
    assert pooled.gamma.tolist() == [0.6, 0.6]
    assert pooled.skipped[0] == NONE


def test_the_k_best_texts_of_each_prompt():
    leaves = leaves_of([0.1, 0.5, 0.5, 0.9], text=["a", "b", "b", "c"], unbiased=False)
    assert elite(leaves, top=1).leaf.tolist() == [3]
    two = elite(leaves, top=2)
    assert {leaves.text[i] for i in two.leaf} == {"b", "c"}
    assert two.weight.tolist() == [0.5, 0.5]


def test_of_ties_at_the_kth_best_some_are_taken_and_what_is_better_always():
    seeds = [Rng(seed) for seed in range(20)]
    tied = leaves_of([0.9, 0.5, 0.5, 0.5, 0.1], unbiased=False)
    found = [elite(tied, top=2, rng=rng) for rng in seeds]
    assert all(0 in one.leaf and len(one.leaf) == 2 for one in found)
    assert {i for one in found for i in one.leaf.tolist()} == {0, 1, 2, 3}
    assert all(one.weight.tolist() == [0.5, 0.5] for one in found), "each of the best counts the same"
    above = leaves_of([0.9, 0.8, 0.7, 0.1], unbiased=False)
    assert all(elite(above, top=1, threshold=0.5, rng=rng).leaf.tolist() == [0] for rng in seeds)


def test_weighted_ties_at_the_kth_best_stand_for_those_that_are_left_out():
    log_f = np.log([0.5, 0.2, 0.1, 0.1, 0.1])
    leaves = leaves_of([0.9, 0.5, 0.5, 0.5, 0.1], log_f=log_f, log_g=np.zeros(5))
    runs = np.zeros((800, 5))
    for seed in range(len(runs)):
        one = elite(leaves, power=1.0, top=2, rng=Rng(seed))
        runs[seed, one.leaf] = one.weight
    assert runs.mean(0) == pytest.approx([5 / 9, 2 / 9, 1 / 9, 1 / 9, 0], abs=0.04)


def test_fewer_texts_than_k_above_the_lowest_score_are_the_best_ones_all_the_same():
    leaves = leaves_of([0, 0, 0, 1], unbiased=False)
    assert elite(leaves, top=2, threshold=1.0).leaf.tolist() == [3]
    assert elite(leaves, top=2, pooled=True).skipped == (LOWEST,)


def test_why_a_prompt_has_no_elite():
    nan = np.nan
    score = [0, 0, 1, 1, 0.5, 0.5, nan, nan, 0, 1]
    leaves = leaves_of(score, prompt=np.repeat(range(5), 2))
    chosen = elite(leaves, threshold=1.0)
    assert chosen.skipped == (NONE, SAME, NONE, UNFINISHED, "")
    assert chosen.leaf.tolist() == [9]
    assert elite(leaves, threshold=1.0, lowest_too=True).skipped[1] == ""
    assert elite(leaves_of([0, 0, 0, 1]), rho=0.5).skipped == (LOWEST,)


def test_a_constant_score_gives_an_empty_elite_and_no_weight_that_is_no_number():
    chosen = elite(leaves_of(np.ones(6), prompt=[0, 0, 0, 1, 1, 1]), rho=0.1)
    assert len(chosen.leaf) == 0
    assert chosen.effective == 0
    assert set(chosen.skipped) == {SAME}


@pytest.mark.slow
def test_a_cap_thins_without_bias():
    """Each text's mean weight over many thinnings is its weight without: z-test, odds 1e-6 over all texts."""
    draw = np.random.default_rng(0)
    log_f = draw.normal(size=12)
    leaves = leaves_of(np.r_[np.zeros(2), np.ones(10)], log_f=log_f, log_g=np.zeros(12))
    plain = elite(leaves, power=1.0, threshold=1.0)
    total = np.exp(log_weights(leaves, 1.0)[plain.leaf]).sum()
    runs = np.zeros((4000, 12))
    for seed in range(len(runs)):
        some = elite(leaves, power=1.0, threshold=1.0, cap=4, rng=Rng(seed))
        assert len(some.leaf) == 4
        unnormalised = some.weight  # Fearnhead–Clifford keeps the sum of the weights up to the last draw
        runs[seed, some.leaf] = unnormalised * total
    target = np.zeros(12)
    target[plain.leaf] = plain.weight * total
    spread = runs.std(0, ddof=1) / np.sqrt(len(runs))
    z = np.abs(runs.mean(0) - target)[2:] / np.maximum(spread[2:], 1e-12)
    assert z.max() < 6.0, z  # odds below 1e-7; normalising adds a bias well below that here


def test_soft_elites():
    leaves = leaves_of([0.0, 0.5, 1.0])
    ranked = elite(leaves, soft=rank(3))
    assert ranked.leaf.tolist() == [1, 2]
    assert ranked.weight[1] / ranked.weight[0] == pytest.approx(
        (1 - (2 / 3) ** 3) / ((2 / 3) ** 3 - (1 / 3) ** 3)
    )
    sharp = elite(leaves, soft=exponential(beta=0.5))
    assert sharp.weight[1] / sharp.weight[0] == pytest.approx(np.e)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rho": 0.0},
        {"rho": 1.0},
        {"top": 0},
        {"cap": 0},
        {"rho": 0.1, "top": 1},
        {"power": 1.5},
        {"threshold": np.nan},
    ],
)
def test_what_cannot_be_chosen_is_refused(wrong):
    with pytest.raises(BadInput):
        elite(leaves_of([0.0, 1.0]), **wrong)


def test_weights_toward_the_base_need_unbiased_leaves():
    with pytest.raises(BadInput, match="unbiased"):
        elite(leaves_of([0.0, 1.0], unbiased=False), power=1.0, threshold=1.0)


def test_joining_what_processes_found_gives_what_one_finds():
    score = [0.0, 1.0, 0.5, 1.0, 1.0, 0.0]
    one = leaves_of(score, prompt=[0, 0, 1, 1, 2, 2])
    parts = [leaves_of([0.0, 1.0, 1.0, 0.0], prompt=[0, 0, 1, 1]), leaves_of([0.5, 1.0])]
    names = [("p0", "p2"), ("p1",)]
    parts = [part.__class__(**{**part.__dict__, "prompts": n}) for part, n in zip(parts, names, strict=True)]
    both = joined(parts, ["p0", "p1", "p2"])
    assert sorted(both.tree) == list(range(6)), "each leaf has had a tree of its own"
    assert np.array_equal(both.trees[both.tree], both.prompt)
    mine, theirs = (elite(x, power=1.0, threshold=1.0) for x in (one, both))
    assert np.allclose(mine.weight, theirs.weight)
    assert [one.score[i] for i in mine.leaf] == [both.score[i] for i in theirs.leaf]
    assert chance(both, threshold=1.0).value == pytest.approx(chance(one, threshold=1.0).value)


def test_a_crossed_quantile_is_not_the_share_that_was_asked_for():
    """Scores are independent of the tree: the truth of the crossed estimate is near ρ, but it varies."""
    draw = np.random.default_rng(3)
    found = [
        chance(leaves_of(draw.random(40), prompt=np.repeat(range(4), 10)), rho=0.2).value for _ in range(200)
    ]
    assert np.std(found) > 0.02
    assert abs(np.mean(found) - 0.2) < 0.05
    single = leaves_of([0.1, 0.2], prompt=[0, 1])
    assert chance(single, rho=0.5).value is None


def test_the_chance_is_of_the_same_threshold_as_the_elite():
    draw = np.random.default_rng(4)
    leaves = leaves_of(draw.random(400), prompt=np.repeat(range(20), 20))
    capped, alone = chance(leaves, rho=0.2, threshold=0.3), chance(leaves, threshold=0.3)
    assert capped == alone, "the quantile, about 0.8, never exceeds the final threshold"
    assert chance(leaves, rho=0.2, threshold=2.0) == chance(leaves, rho=0.2)


def test_a_pooled_quantile_is_crossed_between_prompts():
    """Scores of even and odd prompts are alike: ρ on average. Within prompts high and low ones differ by far."""
    draw = np.random.default_rng(5)
    height = np.repeat(np.arange(40) // 2 % 2, 10)
    found = [
        chance(leaves_of(draw.random(400) + height, prompt=np.repeat(range(40), 10)), rho=0.25, pooled=True)
        for _ in range(20)
    ]
    assert abs(np.mean([one.value for one in found]) - 0.25) < 0.02
    assert found[0].high - found[0].low > 0.1, (
        "half of the prompts have half of theirs above it, the others none"
    )
    assert chance(leaves_of([0.1, 0.2]), rho=0.5, pooled=True).value is None


def test_where_either_generator_has_one_tree_of_a_prompt_there_is_no_crossed_quantile():
    leaves = leaves_of([0.1, 0.9, 0.3], base=1 / 3)
    assert "two or more trees of each prompt from each generator" in chance(leaves, rho=0.5).reason


def test_no_hit_is_no_number():
    found = chance(leaves_of(np.zeros(30), prompt=np.repeat(range(10), 3)), threshold=0.5)
    assert found.value is None
    assert found.reason == "no hit in 10 prompts"


def drifted(levels: int, n: int, replicas: int, power: float, epsilon: float, table, seed: int):
    """g after so many levels of a tabular generator whose scores are all 1; one row a replica, [R, K]."""
    draw = np.random.default_rng(seed)
    f = np.asarray(table, np.float64)
    g = np.tile(f, (replicas, 1))
    of_base = round(epsilon * n)
    for _ in range(levels):
        for r in range(replicas):
            texts = np.r_[draw.choice(len(f), of_base, p=f), draw.choice(len(f), n - of_base, p=g[r])]
            with np.errstate(divide="ignore"):
                leaves = leaves_of(
                    np.ones(n),
                    text=[chr(97 + t) for t in texts],
                    log_f=np.log(f[texts]),
                    log_g=np.log(g[r][texts]),
                    base=epsilon,
                )
            chosen = elite(leaves, power=power, flat=False, lowest_too=True)
            g[r] = np.bincount(texts[chosen.leaf], chosen.weight, len(f))
    return g


@pytest.mark.slow
def test_without_the_ratio_the_generator_drifts_as_theory_says():
    """1 − Σg² shrinks by 1 − 1/N a level, though everything is elite: a z-test with odds of 1e-6."""
    f, n, levels = np.full(8, 1 / 8), 100, 100
    g = drifted(levels, n, 40, 0.0, 0.0, f, seed=5)
    spread = 1 - (g**2).sum(1)
    truth = (1 - (f**2).sum()) * (1 - 1 / n) ** levels
    z = (spread.mean() - truth) / (spread.std(ddof=1) / np.sqrt(len(spread)))
    assert abs(z) < FALSE_ALARM_Z, (spread.mean(), truth)
    assert truth < 0.33


@pytest.mark.slow
def test_with_the_ratio_and_a_tenth_from_the_base_it_does_not_drift():
    """N = 2,000 keeps KL(f ‖ g) below 0.01 nats; the expectation of KL is about (K − 1) / 2N = 0.002."""
    f = np.random.default_rng(0).dirichlet(np.full(8, 2.0))
    g = drifted(30, 2000, 1, 1.0, 0.1, f, seed=6)[0]
    assert float((f * np.log(f / g)).sum()) < 0.01


def test_every_text_of_the_table_is_there():
    lm = TableLM(2, 3, seed=0)
    assert {tuple(t[1:].tolist()) for t in gather(whole(lm)).tokens} == set(product(range(2), repeat=3))
