"""Which nodes of a forest are on which line: folding, sorting, filtering and searching, all of it in numpy.

Every change lays all lines out anew in O(N log depth), a hundredth of a second for 100,000 nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, NO_STATE, BabbleGraph
from babblegraph.status import Gate, Status
from babblegraph.step_text import owners
from babblegraph.subtrees import below, passing, sums, worth
from babblegraph.view.fates import fates
from babblegraph.view.promise import promise

ORDERS = ("born", "value", "best below", "tokens below", "probability")


class Filter(NamedTuple):
    """What to show, with all that is above it; an empty filter shows everything.

    Args:
        text: part of a node's own text; capital letters of ASCII are like small ones.
        status: one of the names of `Outline.statuses`.
        gate: which gate stopped it.
        least: of its score or value.
    """

    text: str = ""
    status: str = ""
    gate: Gate = Gate.NONE
    least: float = 0.0


class Outline:
    """The lines of a forest as it is folded, sorted and filtered now.

    Args:
        graph: any; it must not grow meanwhile.
        is_open: which nodes are unfolded, [N], changed in place; none by default.

    >>> from babblegraph.born import Born
    >>> graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    >>> _ = graph.add(Born.of_spans([0, 0], spans=[[0], [0, 0]], log_q=[-1.0, -2.0]))
    >>> outline = Outline(graph)
    >>> outline.toggle(0)
    >>> outline.rows.tolist()
    [0, 1, 2]
    """

    def __init__(self, graph: BabbleGraph, is_open: NDArray[np.bool_] | None = None) -> None:
        self.graph = graph
        self.below = below(graph)
        self.worth = worth(graph)
        self.passed = passing(graph)
        self.fates = fates(graph)
        self.children = np.bincount(graph.parent[graph.trees :], minlength=graph.size)
        self.is_open = np.zeros(graph.size, np.bool_) if is_open is None else is_open
        self.marked: list[int] = []
        self.order = ORDERS[0]
        self.filter = Filter()
        self.found = np.zeros(graph.size, np.bool_)  # what the filter asks for
        self.rows = np.zeros(0, np.intp)  # the nodes on the lines, from top to bottom
        self._text: tuple[bytes, NDArray[np.int64]] | None = None
        self.sort(ORDERS[0])

    @property
    def statuses(self) -> list[str]:
        """The statuses that occur, by what a filter calls them."""
        names = [s.name.lower() for s in Status if (self.graph.status == s).any()]
        return ["passed", *names] if self.passed.any() else names

    def sort(self, order: str) -> None:
        """Puts siblings in another order: as they were born, or the largest of something first."""
        graph, self.order = self.graph, order
        keys: dict[str, NDArray[Any]] = {
            "born": np.arange(graph.size),
            "value": -np.nan_to_num(self.worth, nan=-1),
            "best below": -np.nan_to_num(self.below.best, nan=-1),
            "tokens below": -self.below.tokens,
            "probability": -graph.log_p_g,
        }
        ids = np.lexsort((np.arange(graph.size), keys[order], graph.parent))
        sizes = self.below.nodes[ids]
        before = np.cumsum(sizes) - sizes
        first = np.r_[True, np.diff(graph.parent[ids]) != 0]
        before -= np.repeat(before[first], np.diff(np.r_[np.flatnonzero(first), len(ids)]))
        place = np.empty(graph.size, np.int64)
        place[ids] = before
        place[graph.trees :] += 1
        self._by_place = np.argsort(_path_sums(graph.parent, place), kind="stable")
        self._lay_out()

    def toggle(self, node: int) -> None:
        """Folds or unfolds one node."""
        self.is_open[node] ^= True
        self._lay_out()

    def open_below(self, node: int) -> None:
        """Unfolds a node and all below it."""
        inside = np.zeros(self.graph.size, np.int64)
        inside[node] = 1
        self.is_open |= _path_sums(self.graph.parent, inside) > 0
        self._lay_out()

    def close_all(self) -> None:
        """Folds everything."""
        self.is_open[:] = False
        self._lay_out()

    def reveal(self, node: int, drop_filter: bool = True) -> int:
        """Unfolds all above a node, and drops a filter that hides it; its line, 0 where it has none."""
        up = int(self.graph.parent[node])
        while up != NO_PARENT:
            self.is_open[up] = True
            up = int(self.graph.parent[up])
        self._lay_out()
        if (line := self.line(node)) is None and drop_filter:
            self.set_filter(Filter())
            line = self.line(node)
        return 0 if line is None else line

    def line(self, node: int) -> int | None:
        """The line a node is on; None where it is folded away or filtered out."""
        found = np.flatnonzero(self.rows == node)
        return int(found[0]) if len(found) else None

    def next_found(self, node: int, by: int) -> int | None:
        """What the filter found next after a node, or before it, folded away or not; None where it found nothing."""
        order = self._by_place
        places, here = np.flatnonzero(self.found[order]), int(np.flatnonzero(order == node)[0])
        if not len(places):
            return None
        ahead = places[places > here] if by > 0 else places[places < here]
        return int(order[(ahead if len(ahead) else places)[0 if by > 0 else -1]])

    def set_filter(self, wish: Filter) -> None:
        """Shows only what a filter asks for, and all above it, unfolded."""
        self.filter, graph = wish, self.graph
        self.found = np.zeros(graph.size, np.bool_)
        if wish != Filter():
            self.found[:] = True
            if wish.status == "passed":
                self.found &= self.passed
            elif wish.status:
                self.found &= graph.status == Status[wish.status.upper()]
            if wish.gate != Gate.NONE:
                self.found &= graph.gate == wish.gate
            if wish.least > 0:
                self.found &= self.worth >= np.float32(wish.least)
            if wish.text:
                self.found &= self.with_text(wish.text)
            above = sums(graph.parent, self.found.astype(np.int64)) - self.found > 0
            self.is_open |= above
        self._lay_out()

    def with_text(self, text: str) -> NDArray[np.bool_]:
        """The nodes whose own text, of a root the prompt, contains another, [N]."""
        graph, found = self.graph, np.zeros(self.graph.size, np.bool_)
        if self._text is None:
            pieces = [graph.vocabulary[token] for token in graph.tokens.tolist()]
            ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
            self._text = b"".join(pieces).lower(), np.r_[0, ends]
        data, ends = self._text
        wanted, at, hits = text.encode("utf-8", "surrogatepass").lower(), 0, []
        while (at := data.find(wanted, at)) >= 0:
            hits.append(at)
            at += 1
        begin = np.array(hits, np.int64)
        token = np.searchsorted(ends, begin, side="right") - 1
        node = owners(graph)[token]
        inside = begin + len(wanted) <= ends[graph.stop[node]]
        found[node[inside]] = True
        prompts = [prompt.encode("utf-8", "surrogatepass").lower() for prompt in graph.prompts]
        found[: graph.trees] = [wanted in prompt for prompt in prompts]
        return found

    def elites(self) -> list[int]:
        """The leaves that pass, the best first; without a threshold the finished ones."""
        graph = self.graph
        ids = np.flatnonzero(self.passed)
        if graph.meta.get("threshold") is None:
            ids = np.flatnonzero(graph.is_leaf() & (graph.status != Status.LEAF_DEAD))
        return [
            int(i)
            for i in ids[np.lexsort((ids, -graph.log_p_g[ids], -np.nan_to_num(graph.score[ids], nan=-1)))]
        ]

    def worst_kill(self) -> int | None:
        """The node that should least have been pruned.

        That is one whose state was also reached on the way to a leaf that passes, which proves it; else the one
        with the highest value times connectivity.
        """
        graph = self.graph
        ids = np.flatnonzero(graph.status == Status.PRUNED)
        if not len(ids):
            return None
        good = (self.below.hits > 0) & (graph.state_key != NO_STATE)
        places = set(zip(graph.root[good].tolist(), graph.state_key[good].tolist(), strict=True))
        proven = np.array([(graph.root[i], graph.state_key[i]) in places for i in ids])
        return int(ids[np.lexsort((ids, -promise(graph, ids), ~proven))[0]])

    def best_unexplored(self) -> int | None:
        """The live node with the highest value times connectivity that was never expanded."""
        ids = self.graph.frontier()
        return int(ids[np.argmax(promise(self.graph, ids))]) if len(ids) else None

    def _lay_out(self) -> None:
        parent = self.graph.parent
        hidden = np.zeros(self.graph.size, np.int64)
        inner = parent != NO_PARENT
        hidden[inner] = ~self.is_open[parent[inner]]
        shown = _path_sums(parent, hidden) == 0
        if self.filter != Filter():
            shown &= sums(parent, self.found.astype(np.int64)) > 0
        self.rows = self._by_place[shown[self._by_place]]


def _path_sums(parent: NDArray[np.int32], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of x over each node and all above it, [N]; every pass doubles how far up it looks."""
    total, up = x.copy(), parent
    while len(ids := np.flatnonzero(up != NO_PARENT)):
        more = total[up[ids]]  # a copy: what this pass adds must not be read in it
        total[ids] += more
        far = np.full(len(up), NO_PARENT, up.dtype)
        far[ids] = up[up[ids]]
        up = far
    return total


def next_of(places: Sequence[int], here: int | None) -> int | None:
    """The one after `here` in a ring of nodes; the first where `here` is none of them."""
    if not places:
        return None
    return places[(places.index(here) + 1) % len(places)] if here in places else places[0]
