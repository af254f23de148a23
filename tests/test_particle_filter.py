"""Particle filtering: resamplers alone, by exact integration; and the evidence against full enumeration.

z-tests: |z| < 5.7 each, fewer than 40 of them, odds of a false alarm below 40 · 1.2e-8 = 5e-7.
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from marks import slow_but
from table_lm import TableLM
from test_loop import TableTask, noisy_value, run, tree_sums, z_score

from babblegraph.status import Status
from babblegraph.strategies import particle_filter
from babblegraph.strategies.resamplers import multinomial, residual, systematic
from babblegraph.why_not import why_not

SHARES = [
    [1.0],
    [0.5, 0.5],
    [0.7, 0.2, 0.1],
    [0.25, 0.25, 0.5],
    [0.9, 1e-9, 0.1 - 1e-9],
    [1 / 3, 1 / 3, 1 / 3],
]


def pieces(share, k, scheme):
    """The mean number of copies: constant between the edges of each uniform, so a sum over their pieces is exact."""
    edges = np.cumsum(share)
    if scheme is systematic:
        cuts = np.unique(np.r_[0, 1, (edges * k) % 1])
        axes = [cuts]
    elif scheme is residual:
        rest = np.array(share) * k - np.floor(np.array(share) * k + 1e-12)
        left = round(rest.sum())
        cuts = np.unique(np.r_[0, 1, np.cumsum(np.maximum(rest, 0)) / max(left, 1)])
        axes = [cuts] * left
    else:
        axes = [np.unique(np.r_[0, edges / edges[-1]])] * k
    total = np.zeros(len(share))
    for choice in product(*[range(len(c) - 1) for c in axes]):
        weight = np.prod([c[i + 1] - c[i] for c, i in zip(axes, choice, strict=True)])
        u = np.full(k, 0.5)
        u[: len(axes)] = [(c[i] + c[i + 1]) / 2 for c, i in zip(axes, choice, strict=True)]
        counts = scheme(np.array(share), u)
        assert counts.sum() == k
        total += weight * counts
    return total


@pytest.mark.parametrize("scheme", [multinomial, systematic, residual])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_every_resampler_gives_each_its_share_on_average(scheme, share, k):
    np.testing.assert_allclose(pieces(share, k, scheme), k * np.array(share), atol=1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_systematic_and_residual_never_go_below_the_whole_part(share):
    for u in np.linspace(0.01, 0.99, 7):
        for scheme in (systematic, residual):
            counts = scheme(np.array(share), np.full(6, u))
            assert (counts >= np.floor(6 * np.array(share) - 1e-9)).all()
        assert (systematic(np.array(share), np.full(6, u)) <= np.ceil(6 * np.array(share) + 1e-9)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"resampler": systematic},
        {"resampler": multinomial, "effective": 1.0},
        {"resampler": residual, "effective": 1.0},
        {"particles": 3, "value_power": 2.0, "effective": 0.9},
        {"particles": 8, "value_power": 3.0, "effective": 1.0, "entropy": 0.9},
    ],
    ids=["systematic", "multinomial", "residual", "few", "annealed"],
)
@pytest.mark.parametrize("span", slow_but([2], [1, 2]))
def test_the_evidence_is_unbiased_whatever_the_value_says(options, span):
    lm = TableLM(3, 4, seed=8, span=span)
    graph = run(lm, ["p"] * 600, particle_filter(**options), TableTask(lm), noisy_value(1), seed=3)
    assert why_not(graph) == ""
    assert abs(z_score(tree_sums(graph, lambda g, i: 1.0), 1.0)) < 5.7
    truth = lm.probability(lambda t: t[:2] != (2, 2) and lm.score[t] >= 0.7)
    hit = tree_sums(
        graph, lambda g, i: g.status[i] != Status.LEAF_DEAD and lm.score[lm.generated(g, i)] >= 0.7
    )
    assert abs(z_score(hit, truth)) < 5.7


@pytest.mark.parametrize("resampler", [multinomial, systematic, residual])
def test_particles_that_the_base_can_never_write_leave_the_estimate_unbiased(resampler):
    """Where none that goes on has a weight, all have an equal chance: no NaN gets into the weights of the others."""
    lm = TableLM(2, 3, seed=1, moved=4)
    lm.table[()] = np.array([-np.inf, 0.0])
    lm.moved.table[()] = np.log([0.7, 0.3])
    graph = run(lm, ["p"] * 1500, particle_filter(particles=2, effective=1.0, resampler=resampler))
    sums = tree_sums(graph, lambda graph, i: 1.0)
    assert (sums == 0).any()
    assert abs(z_score(sums, 1.0)) < 5.7


def test_a_wrong_correction_would_be_noticed():
    """The negative control: dividing by the copies twice."""
    lm = TableLM(3, 4, seed=8)
    strategy = particle_filter(effective=1.0, value_power=3.0)

    def prune(graph, rng):
        before = graph.log_inclusion.copy()
        stopped = strategy.prune(graph, rng)
        graph.log_inclusion[:] += graph.log_inclusion - before
        return stopped

    graph = run(lm, ["p"] * 600, strategy._replace(prune=prune), TableTask(lm), noisy_value(1), seed=3)
    assert abs(z_score(tree_sums(graph, lambda g, i: 1.0), 1.0)) > 6


def test_as_many_particles_go_on_as_there_are_and_each_draws_once():
    lm = TableLM(3, 5, seed=2)
    graph = run(lm, ["p"] * 10, particle_filter(particles=12, effective=1.0), TableTask(lm), noisy_value(4))
    inner = np.flatnonzero(graph.status == Status.EXPANDED)
    np.testing.assert_array_equal(graph.draws[inner[inner >= 10]], graph.count[inner[inner >= 10]])
    per_level = Counter()
    for i in inner[inner >= 10].tolist():
        per_level[int(graph.root[i]), int(graph.depth[i])] += int(graph.count[i])
    assert set(per_level.values()) == {12}


def test_entropic_annealing_keeps_more_first_steps_alive():
    lm, alive = TableLM(6, 4, seed=2), []
    for entropy in (0.0, 0.9):
        options = {"particles": 12, "value_power": 6.0, "effective": 1.0, "entropy": entropy}
        graph = run(lm, ["p"] * 50, particle_filter(**options), None, noisy_value(4))
        alive.append(((graph.status == Status.EXPANDED) & (graph.depth == 1)).sum())
    assert alive[1] > 1.2 * alive[0]


def test_filters_that_begin_again_spend_the_budget_and_give_no_estimate():
    lm = TableLM(6, 5, seed=2)
    graph = run(
        lm, ["p"], particle_filter(particles=3, again=True), TableTask(lm), noisy_value(4), budget=100
    )
    assert graph.meta["spent"]["counts"]["sampled"][0] >= 90
    assert "solve" in why_not(graph)
