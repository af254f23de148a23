"""Closing a forest: no weight is left on unfinished nodes when the budget ends, and no tree is cut short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import ALL, Chosen, Strategy
from babblegraph.prune import resample_frontier
from babblegraph.randomness import Rng
from babblegraph.status import Status

RESERVE = 0.25  # of every bound, kept for the rollouts that finish what the strategy has begun
NEVER = -1  # of a tree that did not begin to close

Counts = NDArray[np.int64]


class Closing:
    """Lets a strategy spend all but a reserve, then prunes what is left without bias and rolls it out.

    A tree is closed as soon as the strategy wants or may no more of it: its frontier and stems are pruned by
    weight to as many as the rest of the budget can finish (never fewer than one), and each is drawn on once a
    round, pruned again where the estimate of its cost was too low. Expansions are never cut short: what a cut
    draws again would depend on what was drawn. So a tree may end a little above its budget, by at most the last
    expansions' spans; `graph.meta["closing"]` counts it. A tree that waits for its turn is not closed before.

    Args:
        meter: the search's, with its budget.
        rng: one uniform for each tree and round.
        before: `graph.meta["closing"]` of earlier sittings, from which the counts go on.
    """

    def __init__(self, meter: Meter, rng: Rng, before: Mapping[str, Any] | None = None) -> None:
        self.meter, self.rng = meter, rng
        self.before = _by_tree(before, meter.trees)  # tokens that closing has cost earlier, [trees]
        self.unbounded = Meter(Budget(seconds=np.inf), meter.trees, meter.counts)  # shares the counts
        self.closing = np.zeros(meter.trees, np.bool_)
        self.stopped = np.zeros(0, np.intp)
        self.begun = np.zeros(meter.trees, np.int64)  # tokens sampled when a tree began to close

    def select(self, graph: BabbleGraph, strategy: Strategy) -> Chosen:
        """What the strategy chooses where it can be paid, and all that is left of the trees that close."""
        chosen = self._paid(graph, strategy.select(graph, self._within_reserve()))
        live = _unfinished(graph)
        busy = np.bincount(graph.root[chosen.ids], minlength=graph.trees) > 0
        left = np.bincount(graph.root[live], minlength=graph.trees) > 0
        begins = left & ~busy & ~self.closing
        if chosen.waiting is not None:
            begins &= ~chosen.waiting
        self.begun[begins] = self.meter.counts["sampled"][begins]
        self.closing |= begins
        self.stopped = self._prune(graph)
        live = _unfinished(graph)
        live = live[self.closing[graph.root[live]]]
        going = ~self.closing[graph.root[chosen.ids]]
        draws = np.r_[chosen.draws[going], np.ones(len(live), np.intp)]
        if chosen.contest is not None:
            chosen.contest.keep(going, len(live))
        return Chosen(np.r_[chosen.ids[going], live], draws, chosen.contest)

    def note(self, graph: BabbleGraph) -> NDArray[np.intp]:
        """After a round: counts what closing has cost; returns the ids that it stopped."""
        self.meter.peak_slots = max(self.meter.peak_slots, self.unbounded.peak_slots)
        sampled, bound = self.meter.counts["sampled"], self.meter.budget.tokens
        cost = self.before.copy()
        cost[self.closing] = np.maximum(cost, 0)[self.closing] + (sampled - self.begun)[self.closing]
        graph.meta["closing"] = {
            "trees": int((cost != NEVER).sum()),
            "tokens": int(cost[cost != NEVER].sum()),
            "over": 0 if bound is None else int(np.maximum(sampled - bound, 0).sum()),
            "by_tree": cost.tolist(),
        }
        return self.stopped

    def _within_reserve(self) -> Meter:
        """A meter that shows the budget without the reserve."""
        meter, budget, share = self.meter, self.meter.budget, 1 - RESERVE
        bounds = Budget(
            tokens=budget.tokens and max(int(share * budget.tokens), 1),
            nodes=budget.nodes and max(int(share * budget.nodes), 1),
            seconds=budget.seconds and share * budget.seconds,
        )
        return Meter(bounds, meter.trees, meter.counts, meter.peak_slots, meter.seconds)

    def _paid(self, graph: BabbleGraph, chosen: Chosen) -> Chosen:
        """The first nodes of each tree whose expected tokens the budget without the reserve can pay."""
        if not len(chosen):
            return chosen
        tree = graph.root[chosen.ids]
        draws = np.where(chosen.draws == ALL, _children(graph)[tree], chosen.draws)
        if chosen.contest is not None:  # all nodes of a tree share them
            draws = draws / np.bincount(tree)[tree]
        cost = draws * _span(graph)[tree]
        order = np.argsort(tree, kind="stable")
        before = np.cumsum(cost[order]) - cost[order]
        before -= np.maximum.accumulate(np.where(np.r_[True, np.diff(tree[order]) != 0], before, 0.0))
        meter = self._within_reserve()
        left = np.minimum(meter.tokens_left(), meter.nodes_left())
        paid = np.sort(order[before < left[tree[order]]])
        return chosen.only(paid)

    def _prune(self, graph: BabbleGraph) -> NDArray[np.intp]:
        """Prunes each closing tree to as many nodes as its budget can finish, at least one."""
        if not self.closing.any():
            return np.zeros(0, np.intp)
        to_go, span = _to_go(graph), _span(graph)
        affordable = np.minimum(self.meter.tokens_left(), self._tokens_in_time()) / to_go
        affordable = np.minimum(affordable, self.meter.nodes_left() / np.maximum(to_go / span, 1))
        most = np.clip(affordable, 1, graph.size).astype(np.intp)
        most[~self.closing] = graph.size
        return resample_frontier(graph, np.zeros(graph.size), most, self.rng, stems=True, turn=1)

    def _tokens_in_time(self) -> float:
        """How many tokens each tree can sample in what is left of the time, at the speed so far."""
        bound, seconds = self.meter.budget.seconds, self.meter.seconds
        if bound is None or not np.isfinite(bound):
            return np.inf
        speed = self.meter.counts["sampled"].sum() / max(seconds, 1e-3)
        return float(speed * max(bound - seconds, 0.0) / max(self.closing.sum(), 1))


def _by_tree(before: Mapping[str, Any] | None, trees: int) -> Counts:
    """Tokens that closing has cost each tree; `NEVER` for one that never began to close."""
    known = np.asarray((before or {}).get("by_tree", []), np.int64)  # of older files unknown
    return known if len(known) == trees else np.full(trees, NEVER)


def _unfinished(graph: BabbleGraph) -> NDArray[np.intp]:
    return np.flatnonzero((graph.status == Status.FRONTIER) | (graph.status == Status.STEM))


def _span(graph: BabbleGraph) -> NDArray[np.float64]:
    """Mean tokens of a span in each tree, [trees]; 1 where there is none."""
    length = (graph.stop - graph.start)[graph.trees :]
    own = graph.root[graph.trees :][length > 0]
    return _mean(own, length[length > 0], graph.trees, np.ones(graph.trees))


def _children(graph: BabbleGraph) -> NDArray[np.float64]:
    """Mean number of children that an expansion brought in each tree, [trees]; 1 where there was none."""
    born = np.bincount(graph.root[graph.trees :], minlength=graph.trees)
    expanded = np.bincount(graph.root[graph.status == Status.EXPANDED], minlength=graph.trees)
    return np.where(expanded > 0, born / np.maximum(expanded, 1), 1.0)


def _to_go(graph: BabbleGraph) -> NDArray[np.float64]:
    """Expected tokens from an unfinished node of each tree to its end, [trees].

    By the tree's finished texts; where there is none, as many again as the longest text has.
    """
    generated = graph.length - graph.length[graph.root]
    longest = np.zeros(graph.trees)
    np.maximum.at(longest, graph.root, generated)
    leaves, live = graph.is_leaf(), _unfinished(graph)
    whole = _mean(graph.root[leaves], generated[leaves], graph.trees, 2 * longest)
    here = _mean(graph.root[live], generated[live], graph.trees, np.zeros(graph.trees))
    return np.maximum(whole - here, _span(graph))


def _mean(
    tree: NDArray[np.int32], numbers: NDArray[np.integer], trees: int, otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    n = np.bincount(tree, minlength=trees)
    return np.where(n > 0, np.bincount(tree, numbers, minlength=trees) / np.maximum(n, 1), otherwise)
