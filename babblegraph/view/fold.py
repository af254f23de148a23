"""Which nodes of a tree to draw when they do not all fit, and in which order: the view's only hard question.

All work over the whole graph is vectorised; Python loops run over drawn lines only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.view.promise import best_leaf, promise

MOST_PASSES = 12  # over the hidden children of drawn nodes, each a level deeper
STOPPED = (Status.LEAF_DEAD, Status.PRUNED, Status.MERGED)  # not worth a line only because they are new
LEVELS_KEPT = 3  # at the top of a path that is longer than the room


class Kind(Enum):
    """What a line stands for."""

    NODE = 0
    FOLD = 1  # siblings that are not drawn
    GAP = 2  # levels of one path that are not drawn


class Line(NamedTuple):
    """One line of the drawn tree.

    Args:
        kind: what it stands for.
        node: the node itself, or the one whose children are folded, or the first inside the gap.
        last: for each level from the top, whether the line's ancestor there is the last of its siblings.
        hidden: nodes that it stands for without drawing them.
    """

    kind: Kind
    node: int
    last: tuple[bool, ...]
    hidden: int = 0


def fold(graph: BabbleGraph, tree: int, height: int | None = None, focus: Sequence[int] = ()) -> list[Line]:
    """The lines to draw of one tree.

    Everything, where it fits. Otherwise the path to the best leaf, the newest nodes, the best siblings along
    what is drawn, and the best of the frontier; all other children of a drawn node become one line.

    Args:
        graph: any.
        tree: which of its trees.
        height: at most so many lines; None for no limit.
        focus: nodes to show if possible, such as those of the last round.
    Returns:
        The lines from top to bottom.
    Complexity: O(N + lines · depth), the N in numpy.
    """
    member = graph.root == tree
    ids = np.flatnonzero(member)
    children = np.bincount(graph.parent[ids[1:]], minlength=graph.size)
    picked = _Picked(graph.parent, children, tree, height)
    if height is None or len(ids) <= height:
        picked.add_all(ids[1:])
    else:
        _pick(graph, picked, member, focus, height)
    return picked.lines()


def _pick(
    graph: BabbleGraph, picked: _Picked, member: NDArray[np.bool_], focus: Sequence[int], height: int
) -> None:
    frontier = np.flatnonzero(member & (graph.status == Status.FRONTIER))
    best = best_leaf(graph, picked.root)
    if best is None and len(frontier):
        best = int(frontier[np.argmax(promise(graph, frontier))])
    if best is not None:
        picked.add_long(best, max(height // 2, min(height, 8)))
    new = np.asarray(focus, np.intp)
    new = new[member[new] & ~np.isin(graph.status[new], STOPPED)]
    for node in _best_first(graph, new, height):
        picked.add(node, picked.used_at_least(height // 2, height // 4))
    _pick_siblings(graph, picked, member, height - max(height // 5, 2))
    for node in _best_first(graph, frontier, height):
        picked.add(node, height)
    _pick_siblings(graph, picked, member, height)


def _pick_siblings(graph: BabbleGraph, picked: _Picked, member: NDArray[np.bool_], room: int) -> None:
    """Fills up with hidden children of what is drawn: the best child of each node, then the second best, …"""
    for _ in range(MOST_PASSES):
        drawn = picked.mask(graph.size)
        hidden = np.flatnonzero(member & ~drawn & drawn[graph.parent])
        hidden = hidden[(hidden != picked.root) & ~np.isin(hidden, list(picked.buried))]
        if not len(hidden) or picked.used >= room:
            return
        up = graph.parent[hidden]
        order = np.lexsort((hidden, -promise(graph, hidden), up))
        starts = np.flatnonzero(np.r_[True, np.diff(up[order]) != 0])
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        candidates = hidden[order][np.lexsort((graph.length[hidden[order]], rank))]
        if not sum(picked.add(int(node), room) for node in candidates[:room]):
            return


def _best_first(graph: BabbleGraph, ids: NDArray[np.intp], k: int) -> list[int]:
    """The k nodes of most promise, the newest of equals: the same on every processor, which partitions need not be."""
    worth = promise(graph, ids)
    if len(ids) > k:
        least = np.partition(worth, -k)[-k]
        equal = np.sort(ids[worth == least])
        better = ids[worth > least]
        ids = np.concatenate([better, equal[len(equal) - (k - len(better)) :]])
        worth = promise(graph, ids)
    return [int(i) for i in ids[np.lexsort((-ids, -worth))]]


class _Picked:
    """The nodes to draw, and how many lines they take: one each, and one for each folded group."""

    def __init__(
        self, parent: NDArray[np.int32], children: NDArray[np.intp], root: int, height: int | None
    ) -> None:
        self.parent, self.children, self.root, self.height = parent, children, root, height
        self.below: dict[int, list[int]] = {root: []}  # drawn node -> its drawn children
        self.gaps: dict[int, tuple[int, int]] = {}  # first node inside a gap -> (node below it, its levels)
        self.buried: set[int] = set()  # nodes inside gaps: nothing can hang from them
        self.used = 1

    def used_at_least(self, most: int, more: int) -> int:
        """A bound that leaves `more` lines beyond those in use, or `most` in all where that is more."""
        return min(max(most, self.used + more), self.height or most)

    def add_all(self, ids: Iterable[int]) -> None:
        """Draws every node; ids must be ascending."""
        for node in map(int, ids):
            self.below[node] = []
            self.below[int(self.parent[node])].append(node)
            self.used += 1

    def add(self, node: int, room: int) -> bool:
        """Draws a node and its ancestors if the tree stays within `room` lines."""
        chain: list[int] = []
        while node not in self.below:
            if self.used + len(chain) >= room or node in self.buried:
                return False
            chain.append(node)
            node = int(self.parent[node])
        if not chain or self.used + self._cost(node, chain) > room:
            return False
        self.used += self._cost(node, chain)
        for child in reversed(chain):
            self.below[node].append(child)
            self.below[child] = []
            node = child
        return True

    def add_long(self, node: int, room: int) -> None:
        """Draws the path to a node before anything else, only its two ends where it is longer than the room."""
        if self.add(node, room):
            return
        path = [node]
        while path[-1] != self.root:
            path.append(int(self.parent[path[-1]]))
        path.reverse()
        for top in range(LEVELS_KEPT, -1, -1):
            tail = self._tail(path, top, room)
            if tail >= min(2, top + 1):
                self._draw_ends(path, top, tail)
                return

    def _tail(self, path: Sequence[int], top: int, room: int) -> int:
        """How many nodes from the end of a path fit below a gap, with so many levels above it."""
        used = (
            2 + top + sum(int(self.children[n] > 1) for n in path[: top + 1])
        )  # the root, the gap, and folds
        tail = 0
        while tail < len(path) - top - 2:
            used += 1 + int(tail > 0 and self.children[path[-1 - tail]] > 1)
            if used > room:
                break
            tail += 1
        return tail

    def _draw_ends(self, path: Sequence[int], top: int, tail: int) -> None:
        below, inside = list(path[len(path) - tail :]), list(path[top + 1 : len(path) - tail])
        self.buried.update(inside)
        self.gaps[inside[0]] = below[0], len(inside)
        for parent, child in pairwise(path[: top + 2]):
            self.below.setdefault(parent, []).append(child)
        for parent, child in pairwise(below):
            self.below.setdefault(parent, []).append(child)
        self.below[below[-1]] = []
        drawn = [n for n, children in self.below.items() if children]
        self.used = len(self.below) + 1 + sum(int(self.children[n] > 1) for n in drawn)

    def mask(self, size: int) -> NDArray[np.bool_]:
        """Which nodes are drawn, [N]."""
        mask = np.zeros(size, np.bool_)
        mask[list(self.below)] = True
        return mask

    def lines(self) -> list[Line]:
        """The drawn lines, depth first, siblings oldest first."""
        self._unfold_single()
        found: list[Line] = []
        stack: list[Line] = [self._node(self.root, ())]
        while stack:
            line = stack.pop()
            found.append(line)
            if line.kind is Kind.FOLD:
                continue
            if line.kind is Kind.GAP:
                stack.append(self._node(self.gaps[line.node][0], (*line.last, True)))
                continue
            stack += reversed(self._lines_below(line))
        return found

    def _unfold_single(self) -> None:
        """Draws children that are folded alone: a line for one node may as well be that node."""
        single = [n for n, drawn in self.below.items() if drawn and self.children[n] - len(drawn) == 1]
        wanted = np.zeros(len(self.parent), np.bool_)
        wanted[single] = True
        for child in np.flatnonzero(wanted[self.parent] & ~self.mask(len(self.parent))):
            if self.parent[child] != NO_PARENT and child not in self.buried:
                self.below[int(self.parent[child])].append(int(child))
                self.below[int(child)] = []

    def _lines_below(self, line: Line) -> list[Line]:
        drawn = sorted(self.below[line.node])
        hidden = int(self.children[line.node]) - len(drawn)
        if not drawn:
            return []  # the line of the node says how many are hidden
        ends = [False] * (len(drawn) - 1) + [hidden == 0]
        found = [self._line(node, line, end) for node, end in zip(drawn, ends, strict=True)]
        if hidden:
            found.append(Line(Kind.FOLD, line.node, (*line.last, True), hidden))
        return found

    def _line(self, node: int, up: Line, last: bool) -> Line:
        if node in self.gaps:
            return Line(Kind.GAP, node, (*up.last, last), self.gaps[node][1])
        return self._node(node, (*up.last, last))

    def _node(self, node: int, last: tuple[bool, ...]) -> Line:
        return Line(Kind.NODE, node, last, 0 if self.below[node] else int(self.children[node]))

    def _cost(self, top: int, chain: Sequence[int]) -> int:
        """Lines that a chain of new nodes below a drawn one takes; the chain ends with the uppermost."""
        drawn, children = len(self.below[top]), int(self.children[top])
        folds = int(0 < drawn + 1 < children) - int(0 < drawn < children)
        return len(chain) + folds + sum(int(self.children[node] > 1) for node in chain[1:])
