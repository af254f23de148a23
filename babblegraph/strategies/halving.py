"""Sequential halving: first steps, sampled without replacement, that share the rollouts until the best is left."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import keep_best_of
from babblegraph.randomness import Rng, chain, uniforms
from babblegraph.status import Flag, Status
from babblegraph.strategies.common import idle_places, need_positive, need_whole, nothing, room_left, totals

GUMBEL = 1 << 48  # a word of random keys, beyond every token id
VISITS = 50  # the paper's c_visit: how far values outweigh the generator's own preference

Ids = NDArray[np.intp]


def halving(
    *,
    actions: int = 8,
    rollouts: int = 48,
    scale: float = 1.0,
    width: int = 1,
    threshold: float | None = None,
) -> Strategy:
    """Draws distinct first steps, gives each a few rollouts, drops the worse half, gives the others more, and so on.

    First steps are drawn one after the other without replacement, which is the order of Gumbel-perturbed
    log-probabilities. Half of them is dropped by g + log q + (50 + most visits) · scale · Q, where g + log q is the
    perturbed log-probability and Q the mean score of the finished texts below. When one is left, others are drawn,
    and twice as many rollouts are shared; when all were, single rollouts go on from the best places near the root.

    Aim `solve`; weights are biased. Complexity: O(N) a round.
    Good for: values that say nothing before the end; it looks at first steps only, below them it just samples.
    Source: Danihelka et al., "Policy improvement by planning with Gumbel", 2022; Karnin, Koren & Somekh, "Almost
    optimal exploration in multi-armed bandits", 2013.

    Args:
        actions: m first steps of a generation.
        rollouts: n whole texts that the first generation shares; see `schedule`.
        scale: the paper's c_scale.
        width: rollouts of a prompt in flight.
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: fewer than two actions, or another number that is not above zero.
    """
    need_whole("actions", actions, 2)
    need_whole("rollouts", rollouts)
    need_whole("width", width)
    need_positive("scale", scale)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room = room_left(graph, meter, threshold)
        owed = _owed(graph)
        owed = owed[room[graph.root[owed]] > 0]
        ids, draws = [owed], [(graph.count - graph.draws)[owed]]
        busy = np.bincount(graph.root[owed], minlength=graph.trees) > 0
        idle = idle_places(graph, room)  # where all first steps had their turn
        for tree in np.flatnonzero((room > 0) & ~busy).tolist():
            more = _next(graph, tree)
            more = more if len(more) else idle[graph.root[idle] == tree]
            ids.append(more)
            draws.append(np.ones(len(more), np.intp))
        chosen = np.concatenate(ids)
        return Chosen(chosen, np.concatenate(draws).astype(np.intp)) if len(chosen) else nothing()

    def _next(graph: BabbleGraph, tree: int) -> Ids:
        """The root, while its generation is not complete; else those of the live that had the fewest rollouts."""
        now = _generation(graph, tree, actions)
        if not now.complete or not len(now.live):
            return np.array([tree] if graph.flags[tree] & Flag.EXHAUSTED == 0 else [], np.intp)
        order = now.live[np.lexsort((now.live, graph.draws[now.live]))]
        return order[graph.draws[order] < _goal(now, actions, rollouts)][:width]

    def prune(graph: BabbleGraph, rng: Rng) -> Ids:
        owed = np.bincount(graph.root[_owed(graph)], minlength=graph.trees) > 0
        now = [_generation(graph, tree, actions) for tree in np.flatnonzero(~owed).tolist()]
        now = [g for g in now if g.complete and len(g.live)]
        now = [g for g in now if (graph.draws[g.live] >= _goal(g, actions, rollouts)).all()]
        if not now:
            return np.zeros(0, np.intp)
        leaves = graph.is_leaf().astype(np.float64)
        found = totals(graph, leaves)
        mean = totals(graph, leaves * np.nan_to_num(graph.value)) / np.maximum(found, 1)
        stopped = []
        for g in now:
            rank = _perturbed(graph, g)[np.isin(g.all, g.live)]
            rank = rank + (VISITS + _goal(g, actions, rollouts)) * scale * mean[g.live]
            last = g.halvings + 1 == len(schedule(actions, rollouts)) or len(g.live) == 1
            keep = 0 if last else math.ceil(len(g.live) / 2)
            stopped.append(keep_best_of(graph, g.live, graph.root[g.live], rank, keep))
        return np.concatenate(stopped)

    return Strategy("halving", select, prune, "solve", draws=Draws.FRESH)


def schedule(actions: int, rollouts: int) -> list[tuple[int, int]]:
    """How many first steps are left in each phase, and how many rollouts each of them gets in it.

    >>> schedule(8, 48)
    [(8, 2), (4, 4), (2, 8)]
    >>> schedule(6, 12)
    [(6, 1), (3, 1), (2, 2)]
    """
    phases = max(1, math.ceil(math.log2(actions)))
    left = [math.ceil(actions / 2**i) for i in range(phases)]
    return [(m, max(1, rollouts // (phases * m))) for m in left]


class _Generation(NamedTuple):
    """The first steps that share rollouts now."""

    number: int
    all: Ids  # in the order in which they were drawn
    live: Ids
    halvings: int
    complete: bool


def _generation(graph: BabbleGraph, tree: int, actions: int) -> _Generation:
    drawn = np.array(graph.children(tree), np.intp)
    number = max(len(drawn) - 1, 0) // actions
    mine = drawn[number * actions :]
    halvings = len(np.unique(graph.died[mine[graph.status[mine] == Status.PRUNED]]))
    complete = len(mine) == actions or bool(graph.flags[tree] & Flag.EXHAUSTED)
    return _Generation(number, mine, mine[graph.status[mine] <= Status.EXPANDED], halvings, complete)


def _goal(now: _Generation, actions: int, rollouts: int) -> int:
    """Rollouts that each live first step should have at the end of this phase."""
    return sum(n for _, n in schedule(actions, rollouts * 2**now.number)[: now.halvings + 1])


def _owed(graph: BabbleGraph) -> Ids:
    """Unfinished rollouts."""
    return np.flatnonzero((graph.status <= Status.EXPANDED) & (graph.depth > 1) & (graph.count > graph.draws))


def _perturbed(graph: BabbleGraph, now: _Generation) -> NDArray[np.float64]:
    """g + log q of first steps drawn without replacement, given their order, [m].

    Sampling without replacement is an exponential race: the i-th comes after the one before it by an exponential
    time at the rate of all that are left, and −log of its time is its perturbed log-probability.
    """
    q = np.exp(graph.log_q[now.all])
    left = np.maximum(1 - np.cumsum(q) + q, q)
    u = uniforms(chain(graph.key[now.all], GUMBEL), 0, 0)
    return -np.log(np.cumsum(-np.log1p(-u) / left))
