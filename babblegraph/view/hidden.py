"""What the lines of a drawn tree stand for without drawing it, counted for all lines of a frame at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.subtrees import expansions, maxima, sums, worth
from babblegraph.view import figures
from babblegraph.view.fates import fates, over
from babblegraph.view.fold import STOPPED, Kind, Line
from babblegraph.view.signs import WORDS, Signs

FINISHED = (Status.LEAF_END, Status.LEAF_STOP, Status.LEAF_LENGTH)  # counted together


class Folded(NamedTuple):
    """Siblings that share one line, and all that is below them.

    Args:
        counts: of the siblings, per status.
        nodes: of all their subtrees.
        best: the best score or value below; NaN where nothing is known.
        mass: log of what the siblings stand for together, as in `figures.mass`.
        fate: of all ends below.
    """

    counts: NDArray[np.intp]  # [statuses]
    nodes: int
    best: float
    mass: float
    fate: int


class Hidden(NamedTuple):
    """What a frame does not draw, by node.

    Args:
        folded: by the parent whose children share a line.
        below: nodes below a drawn one none of whose children are drawn, and the best of them.
        again: how often a drawn node was expanded again in a later round.
        winners: for drawn merged nodes, the node that stands for them.
        fates: of drawn nodes, of all ends below them.
    """

    folded: dict[int, Folded]
    below: dict[int, tuple[int, float]]
    again: dict[int, int]
    winners: dict[int, int]
    fates: dict[int, int]

    def words(self, line: Line, room: int, signs: Signs) -> str:
        """What a line stands for without drawing it, in as many words as there is room for."""
        if not line.hidden:
            return ""
        if line.kind is Kind.GAP:
            return f"{signs.gap} {line.hidden} more level{'s' if line.hidden > 1 else ''}"
        if line.kind is Kind.FOLD:
            return self._siblings(line, room, signs)
        n, best = self.below[line.node]
        few = f" {signs.ellipsis} {figures.count(n)}"
        more = f"{few} below"
        known = not math.isnan(best) and not over(self.fates[line.node])[0]
        every = f"{more}, best {best:.2f}" if known else more
        return next((words for words in (every, more, few) if len(words) <= room), "")

    def _siblings(self, line: Line, room: int, signs: Signs) -> str:
        folded, parts = self.folded[line.node], []
        for status in (Status.FRONTIER, Status.EXPANDED, *FINISHED, *STOPPED, Status.STEM):
            n = int(folded.counts[list(FINISHED)].sum() if status in FINISHED else folded.counts[status])
            if n and status not in FINISHED[1:]:
                parts.append(f"{n} {WORDS[status]}")
        said = f"{signs.ellipsis} {line.hidden} more"
        inside = f" ({figures.count(folded.nodes)} nodes)" if folded.nodes > line.hidden else ""
        if len(parts) == 1:
            return f"{said} {parts[0].split(maxsplit=1)[1]}{inside}"
        every = f"{said}{inside}: {', '.join(parts)}"
        return every if len(every) <= room else f"{said}: {', '.join(parts)}"


def hidden(graph: BabbleGraph, lines: Sequence[Line]) -> Hidden:
    """Counts what drawn lines hide.

    Complexity: O(N log depth), all of it in numpy.
    """
    drawn = np.array([x.node for x in lines if x.kind is Kind.NODE], np.intp)
    again, pairs = _again(graph, drawn), graph.merges.array
    winners = dict(pairs[np.isin(pairs[:, 0], drawn)].tolist()) if len(pairs) else {}
    ends = fates(graph)
    fate = dict(zip(drawn.tolist(), ends[drawn].tolist(), strict=True))
    if not any(x.hidden for x in lines):
        return Hidden({}, {}, again, winners, fate)
    nodes = sums(graph.parent, np.ones(graph.size, np.int64))
    best = maxima(graph.parent, worth(graph))
    heads = [x.node for x in lines if x.kind is Kind.NODE and x.hidden]
    under = {node: (int(nodes[node]) - 1, _best_child(graph, node, best)) for node in heads}
    return Hidden(_folded(graph, lines, nodes, best, ends), under, again, winners, fate)


def _folded(
    graph: BabbleGraph,
    lines: Sequence[Line],
    nodes: NDArray[np.int64],
    best: NDArray[np.float32],
    ends: NDArray[np.uint8],
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
    fate = np.zeros(len(parents), np.uint8)
    np.bitwise_or.at(fate, at, ends[ids])
    stopped = np.isin(graph.status[ids], (Status.PRUNED, Status.MERGED))
    kept = ~stopped if figures.is_weighted(graph) else np.ones(len(ids), np.bool_)  # others bear their weight
    np.logaddexp.at(mass, at[kept], figures.masses(graph, ids[kept]))
    top[top == -np.inf] = np.nan
    rows = zip(below.astype(int).tolist(), top.tolist(), mass.tolist(), fate.tolist(), strict=True)
    both = zip(parents, counts.reshape(-1, kinds), rows, strict=True)
    return {node: Folded(count, *row) for node, count, row in both}


def _best_child(graph: BabbleGraph, node: int, best: NDArray[np.float32]) -> float:
    found = best[graph.parent == node]
    return float("nan") if np.isnan(found).all() else float(np.nanmax(found))


def _again(graph: BabbleGraph, drawn: NDArray[np.intp]) -> dict[int, int]:
    """The rounds in which drawn nodes were expanded, but for the first: those with one only are left out."""
    among = np.zeros(graph.size, np.bool_)
    among[drawn] = True
    nodes, rounds = np.unique(expansions(graph, among)[:, 0], return_counts=True)
    return {int(node): int(n) - 1 for node, n in zip(nodes, rounds, strict=True) if n > 1}
