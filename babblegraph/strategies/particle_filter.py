"""Particle filtering: texts that grow side by side, and are dealt out again by what they are worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.randomness import Rng, chain
from babblegraph.status import Gate, Status
from babblegraph.strategies.common import idle_places, log_priority, need_whole, nothing, room_left
from babblegraph.strategies.resamplers import Resampler, systematic

DEAL = 1 << 47  # a word of random keys, beyond every token id


def particle_filter(
    *,
    particles: int = 16,
    value_power: float = 1.0,
    resampler: Resampler = systematic,
    effective: float = 0.5,
    entropy: float = 0.0,
    again: bool = False,
    threshold: float | None = None,
) -> Strategy:
    """Sequential Monte Carlo: every particle grows by one span, then all are dealt out anew by w · V^a.

    A node stands for as many particles as its count says. Finished and dead texts keep their weight and leave; the
    particles are dealt out among those that go on. Whatever V says, Σ w h over the leaves is unbiased for E_f[h].

    Aim `estimate`, or `solve` with `again`, where weights are not unbiased. Complexity: O(N + F log F) a round.
    Good for: many finished texts at once, in proportion to what they are worth; estimates with a value that knows.
    Source: Gordon, Salmond & Smith, 1993; for language models Puri et al., "Rollout roulette", 2025; entropic
    annealing after Giannone et al., "Mitigating premature exploitation in particle-based Monte Carlo", 2025.

    Args:
        particles: of each prompt.
        value_power: a.
        resampler: of `strategies.resamplers`, or your own.
        effective: deal out anew when the effective number of particles falls below this share; 1 always does.
        entropy: entropic annealing: where the entropy of the shares is below this part of the largest possible,
            values are flattened to V^(a t) with the largest t that reaches it; 0 never does.
        again: when all have ended and budget is left, begin anew.
        threshold: stop a prompt's search at the first leaf that reaches it (only with `again`).

    Raises:
        BadInput: no particle, or shares outside 0 to 1.
    """
    need_whole("particles", particles)
    _check_share("effective", effective)
    _check_share("entropy", entropy)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold if again else None)
        live = graph.frontier()
        live = live[room[graph.root[live]] > 0]
        begin = idle_places(graph, room) if again else live[:0]
        ids = np.r_[live, begin]
        first = (ids < graph.trees) | (np.arange(len(ids)) >= len(live))
        draws = np.where(first, particles, graph.count[ids]).astype(np.intp)
        return Chosen(ids, draws) if len(ids) else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        live = graph.frontier()
        log_value = log_priority(graph, live, value_power, 0.0)
        stopped = [live[:0]]
        for tree in np.unique(graph.root[live]).tolist():
            ids = live[graph.root[live] == tree]
            share, spread = _shares(graph, ids, log_value[ids], entropy)
            if graph.count[ids].sum() == particles and spread >= effective * particles:
                continue  # all are there, and none of them too heavy
            u = rng.uniforms(chain(graph.key[[tree]], DEAL), np.arange(particles), graph.round)
            copies = resampler(share, u)
            on = copies > 0
            graph.log_inclusion[ids[on]] += np.log(particles * share[on]) - np.log(copies[on])
            graph.count[ids[on]] = copies[on]
            graph.stop_nodes(ids[~on], Status.PRUNED, Gate.NODE)
            stopped.append(ids[~on])
        return np.concatenate(stopped)

    return Strategy(
        "particle-filter",
        select,
        prune,
        "solve" if again else "estimate",
        draws=Draws.FRESH if again else Draws.MULTINOMIAL,
    )


def _shares(
    graph: BabbleGraph, ids: NDArray[np.intp], log_value: NDArray[np.float64], entropy: float
) -> tuple[NDArray[np.float64], float]:
    """What each node should get of the particles, [n], and the effective number of those that are there."""
    log_weight, copies = graph.log_weight(ids), graph.count[ids]
    heat = 1.0
    if entropy > 0:
        goal = entropy * np.log(copies.sum())
        low, heat = 0.0, 1.0
        if _entropy(log_weight + log_value, copies) < goal:
            for _ in range(20):  # bisection
                middle = (low + heat) / 2
                if _entropy(log_weight + middle * log_value, copies) < goal:
                    heat = middle
                else:
                    low = middle
            heat = low
    share = _normalised(log_weight + heat * log_value)
    return share, float(1 / (share**2 / copies).sum())


def _entropy(log_size: NDArray[np.float64], copies: NDArray[np.int32]) -> float:
    """Of the shares of single particles."""
    share = _normalised(log_size)
    return float(-(share * np.log(np.maximum(share / copies, 1e-300))).sum())


def _normalised(log_size: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.where(np.isnan(log_size), -np.inf, log_size)
    largest = known.max() if np.isfinite(known.max()) else 0.0  # where the base gives none of them a chance
    size = np.maximum(np.exp(known - largest), 1e-12)  # nobody is left without one
    return size / size.sum()


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise BadInput(f"{name} must be from 0 to 1, got {share:g}: it is a share of the particles")
