"""Figures of a value against slow twins that go through every pair of rollouts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from babblegraph.scoring.reliability import auc_by_prompt, by_depth, reliability


def rollouts(seed, nodes=60, prompts=5, levels=6):
    """Nodes with whole numbers of rollouts, and the same one row a rollout."""
    draw = np.random.default_rng(seed)
    weight = draw.integers(1, 5, nodes)
    passed = draw.binomial(weight, draw.random(nodes) ** 2)
    value = draw.integers(0, levels, nodes) / levels
    prompt = draw.integers(0, prompts, nodes)
    single = np.repeat(np.arange(nodes), weight)
    within = np.arange(len(single)) - np.repeat(np.cumsum(weight) - weight, weight)
    outcome = within < passed[single]
    return value, passed / weight, weight, prompt, single, outcome


def slow_auc(value, outcome):
    up, down = value[outcome], value[~outcome]
    if not len(up) or not len(down):
        return np.nan
    return np.mean([(a > b) + (a == b) / 2 for a in up for b in down])


@pytest.mark.parametrize("seed", range(5))
def test_areas_are_shares_of_pairs_within_each_prompt(seed):
    value, label, weight, prompt, single, outcome = rollouts(seed)
    found = auc_by_prompt(value, label, weight.astype(float), prompt)
    slow = [
        slow_auc(value[single[mine]], outcome[mine])
        for mine in (prompt[single] == p for p in range(prompt.max() + 1))
    ]
    np.testing.assert_allclose(found, slow)


@pytest.mark.parametrize("seed", range(5))
def test_brier_and_skill_are_those_of_single_rollouts(seed):
    value, label, weight, prompt, single, outcome = rollouts(seed)
    found = reliability(value, label, weight, prompt)
    brier = np.mean((value[single] - outcome) ** 2)
    of_prompt = [outcome[prompt[single] == p] for p in range(prompt.max() + 1)]
    known = sum(len(x) * x.var(ddof=1) for x in of_prompt) / sum(map(len, of_prompt))
    assert found.brier == pytest.approx(brier)
    assert found.skill == pytest.approx(1 - brier / known)
    assert found.skill_base == pytest.approx(1 - brier / np.var(outcome))


def test_a_value_that_knows_each_nodes_rate_is_calibrated_and_has_skill():
    draw = np.random.default_rng(0)
    rate = draw.random(4000)
    label = draw.binomial(1, rate).astype(float)
    found = reliability(rate, label, np.ones(4000), np.zeros(4000))
    assert found.calibration_error < 0.03
    assert found.skill > 0.2
    shifted = reliability(rate**3, label, np.ones(4000), np.zeros(4000))
    assert shifted.auc == pytest.approx(found.auc)  # ranking does not see it
    assert shifted.calibration_error > 0.15
    assert shifted.brier > found.brier


def test_a_value_that_knows_only_the_prompt_has_no_skill_and_ranks_nothing():
    """Also where a prompt has few rollouts, whose own mean would look better than the truth by a third.

    A false alarm needs five standard errors (0.0062, over 40 seeds): odds 6e-7.
    """
    draw = np.random.default_rng(0)
    truth = np.repeat(draw.random(10_000), 3)
    label, prompt = draw.binomial(1, truth).astype(float), np.repeat(np.arange(10_000), 3)
    found = reliability(truth, label, np.ones(30_000), prompt)
    assert found.auc == 0.5
    assert abs(found.skill) < 5 * 0.0062
    assert np.isnan(reliability([0.5, 0.5], [0.0, 1.0], [1, 1], [0, 1]).skill), "no prompt's rate can be told"


def test_depths_are_measured_apart_and_bins_hold_all_rollouts():
    value, label, weight, prompt, *_ = rollouts(1)
    depth = np.arange(60) % 3
    found = by_depth(value, label, weight, prompt, depth)
    assert list(found) == [0, 1, 2]
    for d, figures in found.items():
        mine = depth == d
        assert figures == reliability(value[mine], label[mine], weight[mine], prompt[mine])
        assert sum(b.weight for b in figures.bins) == weight[mine].sum()


def test_prompts_with_one_outcome_have_no_area():
    found = reliability([0.1, 0.2], [1.0, 1.0], [1, 1], [0, 0])
    assert np.isnan(found.auc)
    assert found.prompts == 0
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (plain["auc"], plain["skill"], plain["brier"]) == (None, None, found.brier)
