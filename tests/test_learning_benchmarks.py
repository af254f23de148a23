"""What the benchmarks of learning compute from a run is right."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import babblegraph as bg
from babblegraph.api import score_of
from babblegraph.learning.held_out import measure

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import cem
import drift
from exact import Solutions, at_least_one


@pytest.mark.slow
def test_the_exact_probability_is_what_samples_come_to():
    """Four puzzles × 1,000 samples, each z below 5.3: odds of 5e-7 in all."""
    babbler, task, n = bg.Babbler.embedded(), bg.Countdown(), 1000
    puzzles = [task.prepare(p) for p in ("2 3 4>24", "3 5 7>38", "2 5 6>60", "3 5 7 11>24")]
    exact, cold = Solutions(babbler, puzzles).probability(babbler.model, (1.0, 1e-3))
    held = measure(babbler, puzzles, score=score_of(task, None, 1.0), threshold=1.0, draws=n)
    sampled = np.array(held.passes) / n
    z = (sampled - exact) / np.sqrt(exact * (1 - exact) / n)
    assert (np.abs(z) < 5.3).all(), (exact, sampled)
    assert np.array_equal(cold > 0.5, np.array(held.greedily) > 0), "without temperature it is greedy"
    assert at_least_one(exact, 2) == pytest.approx(1 - (1 - exact) * (1 - exact))


def rows(arm: str, seed: int, solves, greedily) -> dict:
    return {
        "arm": arm,
        "seed": seed,
        "solves": solves,
        "greedily": greedily,
        "pass@1": 100 * float(np.mean(solves)),
        "greedy": 100 * float(np.mean(greedily)),
    }


def test_claims_are_paired_by_puzzle_and_averaged_over_seeds():
    base = rows("base", 0, [0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1])
    ours = [
        rows("expert, from the base, slowly", 0, [0.2, 0.4, 0.6, 0.8], [1, 1, 1, 1]),
        rows("expert, from the base, slowly", 1, [0.2, 0.4, 0.6, 0.8], [0, 1, 1, 1]),
    ]
    found = {c["name"]: c for c in cem.claims([base, *ours], k=2)}
    ratio = found["expert, from the base, slowly: pass@1 at T = 1 ÷ the base's"]
    assert ratio["value"] == pytest.approx(2.0)
    assert ratio["met"]
    greedy = found["expert, from the base, slowly: greedy, points"]
    assert greedy["value"] == pytest.approx(100 * np.mean([0.5, 1, 0, 0]))
    assert not greedy["met"], "four puzzles say little"
    some = np.array(base["solves"])
    gain = found["expert, from the base, slowly: pass@2, points"]["value"]
    assert gain == pytest.approx(100 * np.mean(at_least_one(2 * some, 2) - at_least_one(some, 2)))


def test_a_table_goes_to_f_opt_with_the_ratio_and_drifts_without():
    chosen = Namespace(samples=500, levels=30, replicas=2, threshold=0.7)
    held, drifted = (drift.row(power, epsilon, True, chosen) for power, epsilon in ((1.0, 0.1), (0.0, 0.0)))
    assert held["level 20"] < held["level 1"]
    assert drifted["level 20"] > 2 * held["level 20"]
    assert drifted["lost, %"] > held["lost, %"]
    assert held["biggest ratio"] <= 10 + 1e-9


def test_the_divergence_of_the_optimum_from_itself_is_what_the_floor_costs():
    f = np.array([0.5, 0.25, 0.25])
    best = np.array([0.0, 0.5, 0.5])
    assert drift.divergence(best, f, best) == pytest.approx(-np.log(1 - drift.FLOOR / 2), rel=1e-6)
    assert drift.divergence(best, f, f) == pytest.approx(np.log(2))
