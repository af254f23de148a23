"""A cascade of gates before a strategy's own pruning: weak and local first, with a probe of what they reject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Strategy
from babblegraph.prune import roulette
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Gate, Status
from babblegraph.strategies.common import refuse_contest

Ids = NDArray[np.intp]
TURN = 100  # of the roulettes: beyond those that strategies take


class Stage(NamedTuple):
    """One gate of a cascade."""

    name: str
    measure: Callable[[BabbleGraph], NDArray[np.floating]]  # graph -> [N], the larger the better
    share: float  # of a tree's nodes of one depth that pass, by the quantile of all that were seen there
    floor: int = 4  # so many nodes of each depth pass, whatever their rank


def gated(strategy: Strategy, stages: Sequence[Stage], *, probe: float = 0.05) -> Strategy:
    """The same strategy behind a cascade of gates.

    A new node goes from gate to gate. At each it is compared with all nodes that its tree has ever had at this
    depth: thresholds are quantiles of the generator's own scores, since one that was set on finished texts would
    stop everything. A rejected node lives on with the probability `probe`, and its weight is divided by it, so
    that weighted sums stay unbiased, and what becomes of it tells how many kills were wrong; see `gates.table`.

    Complexity: O(N) a round beside the measures.
    Source: design/scoring.md, "Gates".

    Args:
        strategy: what else is done.
        stages: the gates, in order.
        probe: the probability that a rejected node lives, from 0 to 1; with 0 the gates are biased.

    Raises:
        BadInput: no stage, a share, floor or probe out of bounds, two stages of one name, no probe where weights
            count, or a strategy whose nodes compete on, such as `stochastic_beam`.
    """
    _check(strategy, stages, probe)

    def prune(graph: BabbleGraph, rng: Rng) -> Ids:
        new = np.flatnonzero((graph.born == graph.round) & (graph.status == Status.FRONTIER))
        stopped = [np.zeros(0, np.intp)]
        for turn, stage in enumerate(stages):
            rejected = _rejected(graph, new, stage)
            killed = _played(graph, rejected, probe, rng, turn)
            _note(graph, stage.name, len(new), rejected, killed)
            stopped.append(killed)
            new = np.setdiff1d(new, killed)
        return np.concatenate([*stopped, strategy.prune(graph, rng)])

    return strategy._replace(name=f"{strategy.name}+gates", prune=prune)


def by_value(graph: BabbleGraph) -> NDArray[np.floating]:
    """The value of every node, as a stage's measure."""
    return graph.value


def by_connectivity(graph: BabbleGraph) -> NDArray[np.floating]:
    """The connectivity of every node, as a stage's measure."""
    return graph.connectivity


def _rejected(graph: BabbleGraph, new: Ids, stage: Stage) -> Ids:
    """Which new nodes are below the quantile of their tree and depth, beyond the floor."""
    if not len(new):
        return new
    score = np.nan_to_num(np.asarray(stage.measure(graph), np.float64), nan=-np.inf)
    wanted = np.unique(np.stack([graph.root[new], graph.depth[new]], 1), axis=0)
    found = []
    for tree, depth in wanted.tolist():
        everyone = np.flatnonzero((graph.root == tree) & (graph.depth == depth))
        mine = new[(graph.root[new] == tree) & (graph.depth[new] == depth)]
        before = int((graph.gate[everyone] != Gate.NODE).sum()) - len(mine)  # that have passed already
        order = mine[np.lexsort((mine, -score[mine]))]
        owed = max(0, stage.floor - before)
        may = np.quantile(score[everyone], 1 - stage.share, method="lower")
        below = order[owed:]
        found.append(below[score[below] < may])
    return np.sort(np.concatenate(found))


def _played(graph: BabbleGraph, rejected: Ids, probe: float, rng: Rng, turn: int) -> Ids:
    """Those of the rejected that die."""
    if not len(rejected):
        return rejected
    if probe:
        killed = roulette(graph, rejected, probe, rng, turn=TURN + turn)
        graph.flags[np.setdiff1d(rejected, killed)] |= np.uint8(Flag.PROBE)
        return killed
    graph.stop_nodes(rejected, Status.PRUNED, Gate.NODE)
    graph.flags[rejected] |= np.uint8(Flag.BIASED)
    return rejected


def _note(graph: BabbleGraph, name: str, entered: int, rejected: Ids, killed: Ids) -> None:
    """What a graph remembers of a gate: plain JSON."""
    gates = graph.meta.setdefault("gates", {})
    gate = gates.setdefault(name, {"entered": 0, "rejected": 0, "probes": []})
    gate["entered"] += int(entered)
    gate["rejected"] += len(rejected)
    gate["probes"] += np.setdiff1d(rejected, killed).tolist()


def _check(strategy: Strategy, stages: Sequence[Stage], probe: float) -> None:
    refuse_contest("gates", strategy)
    if not len(stages):
        raise BadInput("a cascade needs at least one gate, got none: give a Stage")
    if len({stage.name for stage in stages}) < len(stages):
        raise BadInput(f"gates must have different names, got {[s.name for s in stages]}: rename one")
    for stage in stages:
        if not 0 < stage.share <= 1 or stage.floor < 1:
            raise BadInput(
                f"a gate's share must be above 0 and at most 1 and its floor at least 1, got {stage.share:g} and "
                f"{stage.floor}: 0.5 and 4 are a start"
            )
    if not 0 <= probe <= 1:
        raise BadInput(f"a probe must be a probability, got {probe:g}: 0.05 lets one in twenty live")
    if strategy.aim == "estimate" and not probe:
        raise BadInput("gates without a probe are biased, got probe=0 where weights count: raise it")
