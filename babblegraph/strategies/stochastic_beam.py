"""Stochastic beam search: texts without replacement, with weights that stay unbiased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Contest, Draws, Strategy
from babblegraph.randomness import Rng
from babblegraph.resample import reached
from babblegraph.status import Gate, Status
from babblegraph.strategies.common import need_whole, nothing

Ids = NDArray[np.intp]
BEAM = "beam"  # where the graph's meta keeps it


def stochastic_beam(*, width: int = 16) -> Strategy:
    """Keeps the `width` nodes of each tree with the largest perturbed log-probabilities, and goes on below them.

    In the end these are `width` different texts, as if drawn without replacement one after the other: none is
    computed twice, and improbable ones are among them. With κ the largest perturbed log-probability that was lost,
    the weight of a node is p(n) / (1 − exp(−exp(log q(n) − κ))), right in every round. No value function is asked
    where to go on.

    The numbers of the nodes in the beam and κ are kept in `graph.meta["beam"]`, so that a saved search can go on.

    Aim `estimate`. Complexity: O(N + trees · width · V) a round.
    Source: Kool, van Hoof & Welling, "Stochastic beams and where to find them", 2019; design/statistics.md.

    Args:
        width: nodes of a tree in the beam, at least 2: with one, the variance of a weight would be infinite.

    Raises:
        BadInput: a smaller width; in the search, a graph that another strategy or width began, or a generator that
            cannot draw without replacement.
    """
    need_whole("width", width, 2)  # one text has no weight of finite variance
    running: WeakKeyDictionary[BabbleGraph, Contest] = WeakKeyDictionary()

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        beam = Beam.of(graph, width)
        beam.save(graph)
        room = np.minimum(meter.tokens_left(), meter.nodes_left())
        roots = np.flatnonzero(graph.status[: graph.trees] == Status.FRONTIER)
        going = graph.status[beam.nodes] == Status.FRONTIER
        ids = np.r_[roots, beam.nodes[going]]
        perturbed = np.r_[np.full(len(roots), np.nan), beam.perturbed[going]]
        paid = room[graph.root[ids]] > 0
        if not paid.any():
            return nothing()
        ids, perturbed = ids[paid], perturbed[paid]
        running[graph] = Contest(perturbed, np.ones(len(ids), np.bool_), beam.kappa)
        return Chosen(ids, np.full(len(ids), width, np.intp), running[graph])

    def prune(graph: BabbleGraph, rng: Rng) -> Ids:
        born = np.flatnonzero(graph.born == graph.round)
        born = born[born >= graph.trees]
        contest = running.pop(graph, None)
        if contest is None:  # nothing was chosen here, but by a search that closes its trees
            contest = Contest(np.zeros(0), np.zeros(0, np.bool_), np.full(graph.trees, -np.inf))
            contest.born = np.full(len(born), np.nan)
        if len(contest.born) != len(born):
            raise BadInput(
                f"a stochastic beam needs a generator that draws without replacement, got {len(contest.born)} "
                f"perturbed numbers for {len(born)} nodes: use a Babbler"
            )
        beam = Beam.of(graph, width)
        stopped = beam.meet(graph, born, contest)
        beam.save(graph)
        return stopped

    return Strategy("stochastic-beam", select, prune, "estimate", Draws.DISTINCT, contest=True)


@dataclass
class Beam:
    """The nodes of all trees that are in the running, and what each tree has lost."""

    width: int
    nodes: Ids  # [K]
    perturbed: NDArray[np.float64]  # [K]
    kappa: NDArray[np.float64]  # [trees]

    @classmethod
    def of(cls, graph: BabbleGraph, width: int) -> Beam:
        """As the graph keeps it; empty where nothing is expanded yet."""
        saved: dict[str, Any] | None = graph.meta.get(BEAM)
        if saved is None:
            if graph.size > graph.trees:
                raise BadInput(
                    "a stochastic beam goes on with a graph that it began, got one of another strategy: begin anew"
                )
            return cls(width, np.zeros(0, np.intp), np.zeros(0), np.full(graph.trees, -np.inf))
        if saved["width"] != width:
            raise BadInput(
                f"a stochastic beam must keep its width, got {width} after {saved['width']}: give the same one"
            )
        kappa = np.array([-np.inf if x is None else x for x in saved["kappa"]])
        return cls(width, np.array(saved["nodes"], np.intp), np.array(saved["perturbed"]), kappa)

    def meet(self, graph: BabbleGraph, born: Ids, contest: Contest) -> Ids:
        """New nodes meet those that are there: the best stay, with their weights; returns the ids that are stopped.

        A tree in which something was drawn without a contest (a search that closes it) leaves with the weights
        that it has.
        """
        left = np.zeros(graph.trees, np.bool_)
        left[graph.root[born[np.isnan(contest.born)]]] = True
        nodes, perturbed = np.r_[self.nodes, born], np.r_[self.perturbed, contest.born]
        status = graph.status[nodes]
        live = ((status == Status.FRONTIER) | graph.is_leaf(nodes)) & ~left[graph.root[nodes]]
        nodes, perturbed = nodes[live], perturbed[live]
        tree = graph.root[nodes]
        order = np.lexsort((-perturbed, tree))
        rank = np.arange(len(order)) - np.searchsorted(tree[order], tree[order])
        kept, lost = np.sort(order[rank < self.width]), order[rank >= self.width]
        self.kappa = np.maximum(self.kappa, contest.bound)
        np.maximum.at(self.kappa, tree[lost], perturbed[lost])
        self.nodes, self.perturbed = nodes[kept], perturbed[kept]
        graph.log_inclusion[self.nodes] = reached(graph.log_q[self.nodes], self.kappa[tree[kept]])
        graph.stop_nodes(nodes[lost], Status.PRUNED, Gate.NODE)
        return nodes[lost]

    def save(self, graph: BabbleGraph) -> None:
        """Keeps it in the graph's meta, as plain JSON."""
        graph.meta[BEAM] = {
            "width": self.width,
            "nodes": self.nodes.tolist(),
            "perturbed": self.perturbed.tolist(),
            "kappa": [None if np.isneginf(x) else float(x) for x in self.kappa],
        }
