"""What the lines of a drawn tree stand for without drawing it, counted for all lines of a frame at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.subtrees import maxima, sums, worth
from babblegraph.view import figures
from babblegraph.view.fold import Kind, Line


class Folded(NamedTuple):
    """Siblings that share one line, and all that is below them.

    Args:
        counts: of the siblings, per status.
        nodes: of all their subtrees.
        best: the best score or value below; NaN where nothing is known.
        mass: log of what the siblings stand for together, as in `figures.mass`.
    """

    counts: NDArray[np.intp]  # [statuses]
    nodes: int
    best: float
    mass: float


class Hidden(NamedTuple):
    """What a frame does not draw, by node.

    Args:
        folded: by the parent whose children share a line.
        below: nodes below a drawn one none of whose children are drawn, and the best of them.
        again: how often a drawn node was expanded again in a later round.
        winners: for drawn merged nodes, the node that stands for them.
    """

    folded: dict[int, Folded]
    below: dict[int, tuple[int, float]]
    again: dict[int, int]
    winners: dict[int, int]


def hidden(graph: BabbleGraph, lines: Sequence[Line]) -> Hidden:
    """Counts what drawn lines hide.

    Complexity: O(N log depth), all of it in numpy.
    """
    drawn = np.array([x.node for x in lines if x.kind is Kind.NODE], np.intp)
    again, pairs = _again(graph, drawn), graph.merges.array
    winners = dict(pairs[np.isin(pairs[:, 0], drawn)].tolist()) if len(pairs) else {}
    if not any(x.hidden for x in lines):
        return Hidden({}, {}, again, winners)
    nodes = sums(graph.parent, np.ones(graph.size, np.int64))
    best = maxima(graph.parent, worth(graph))
    heads = [x.node for x in lines if x.kind is Kind.NODE and x.hidden]
    under = {node: (int(nodes[node]) - 1, _best_child(graph, node, best)) for node in heads}
    return Hidden(_folded(graph, lines, nodes, best), under, again, winners)


def _folded(
    graph: BabbleGraph, lines: Sequence[Line], nodes: NDArray[np.int64], best: NDArray[np.float32]
) -> dict[int, Folded]:
    parents = [x.node for x in lines if x.kind is Kind.FOLD]
    if not parents:
        return {}
    slot = np.full(graph.size, -1, np.int32)
    slot[parents] = np.arange(len(parents))
    mine = (slot[graph.parent] >= 0) & (graph.parent != NO_PARENT)
    mine[[x.node for x in lines if x.kind is not Kind.FOLD]] = False
    ids = np.flatnonzero(mine)
    at = slot[graph.parent[ids]].astype(np.intp)
    kinds = len(Status)
    counts = np.bincount(at * kinds + graph.status[ids], minlength=kinds * len(parents))
    below = np.bincount(at, weights=nodes[ids], minlength=len(parents))
    top, mass = np.full(len(parents), -np.inf), np.full(len(parents), -np.inf)
    np.fmax.at(top, at, best[ids])
    stopped = np.isin(graph.status[ids], (Status.PRUNED, Status.MERGED))
    kept = ~stopped if figures.is_weighted(graph) else np.ones(len(ids), np.bool_)  # others bear their weight
    np.logaddexp.at(mass, at[kept], figures.masses(graph, ids[kept]))
    top[top == -np.inf] = np.nan
    rows = zip(
        counts.reshape(-1, kinds), below.astype(int).tolist(), top.tolist(), mass.tolist(), strict=True
    )
    return {node: Folded(*row) for node, row in zip(parents, rows, strict=True)}


def _best_child(graph: BabbleGraph, node: int, best: NDArray[np.float32]) -> float:
    found = best[graph.parent == node]
    return float("nan") if np.isnan(found).all() else float(np.nanmax(found))


def _again(graph: BabbleGraph, drawn: NDArray[np.intp]) -> dict[int, int]:
    """The rounds in which the children of drawn nodes were born, but for the first."""
    slot = np.full(graph.size, -1, np.int32)
    slot[drawn] = np.arange(len(drawn))
    ids = np.flatnonzero((graph.parent != NO_PARENT) & (slot[graph.parent] >= 0))
    at = slot[graph.parent[ids]].astype(np.int64)
    rounds = np.unique(at * (graph.round + 1) + graph.born[ids]) // (graph.round + 1)
    times = np.bincount(rounds, minlength=len(drawn)) - 1
    return {int(node): int(n) for node, n in zip(drawn, times, strict=True) if n > 0}
