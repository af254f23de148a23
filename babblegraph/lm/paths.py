"""Which nodes hold which slots: a path for each, the slots taken in an expansion, and what is given up for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from babblegraph.lm.forward import Row
from babblegraph.lm.layout import Ints
from babblegraph.lm.store import UNKNOWN, Slots, Store

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph


ALIKE = 32  # tokens with which prompts begin alike at least, so that sharing them saves more than it costs


class Paths:
    """The held paths of one forest's nodes.

    Args:
        store: where their slots are.

    Attributes:
        held: node -> slots of its path; the last token may not be computed yet.
        evicted: paths given up for want of memory.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held: dict[int, Slots] = {}
        self.evicted = 0
        self._busy: set[int] = set()  # nodes that are being worked on, and keep their paths
        self._fresh: list[Slots] = []  # taken in this expansion
        self._kept: list[int] = []  # nodes that the last expansion promised to the graph
        self._unsure: set[int] = set()  # nodes whose paths are held but not computed yet
        self._starts: dict[bytes, int] = {}  # what the first token of a text follows, by how the text begins

    def hold(self, nodes: Sequence[int], paths: Sequence[Slots]) -> None:
        """Holds paths for nodes that the graph is promised."""
        self.store.hold(*paths)
        self.held.update(zip(nodes, paths, strict=True))
        self._kept += nodes

    def release(self, ids: Ints) -> None:
        """Gives up the paths of nodes."""
        paths = (self.held.pop(i, None) for i in ids.tolist())
        self.store.drop(*(path for path in paths if path is not None))

    def begin(self, size: int) -> None:
        """A new expansion of a graph of so many nodes: promised ones that it did not get are given up."""
        self.release(np.array([i for i in self._kept if i >= size], np.int64))
        self._kept = []

    def renumber(self, first: int, order: Ints) -> None:
        """Promised node `first` + i is from now on what was `first` + `order[i]`; what is not named is given up."""
        number = {first + old: first + new for new, old in enumerate(order.tolist())}
        self.release(np.array([i for i in self._kept if i not in number], np.int64))
        self.held = {number.get(i, i): path for i, path in self.held.items()}
        self._kept = list(number.values())

    def end(self) -> None:
        """This part of the expansion is over: what no node holds is free again."""
        for slots in reversed(self._fresh):
            self.store.sweep(slots)
        self._fresh = []

    def restore(self, size: int) -> None:
        """After an interruption: keeps the nodes below `size` whose keys and values are complete, frees the rest."""
        self.held = {i: path for i, path in self.held.items() if i < size and i not in self._unsure}
        self._unsure, self._fresh = set(), []
        self.store.rebuild(self.held.values())

    def touch(self, ids: Ints) -> None:
        """These nodes are worked on: they are the last whose paths may be given up."""
        self._busy = set(ids.tolist())
        for i in ids.tolist():
            if i in self.held:
                self.held[i] = self.held.pop(i)

    def completing(self, graph: BabbleGraph, ids: Ints) -> Iterator[Row]:
        """The rows that complete nodes' paths, which are held from then on; `completed` when they are computed.

        Rows may rely on each other: a pass writes all new keys before it reads, and batches run in order.
        """
        for i in ids.tolist():
            path = self.held.get(i)
            if path is not None and len(path) == graph.length[i]:
                continue
            self._unsure.add(i)
            row = self._missing(graph, i, path)
            if path is not None:
                self.store.drop(path)
            self.held[i] = row.path
            if len(row.tokens):
                yield row

    def completed(self) -> None:
        self._unsure = set()

    def fly(self, slots: Slots) -> None:
        """These belong to the expansion; they are free at its end, unless a node holds them."""
        self._fresh.append(slots)

    def take(self, m: int) -> Slots:
        """Free slots; where there is no memory for more, at the price of other paths."""
        if not self.store.reserve(m):
            self._evict(m)
        return self.store.take(m)

    def aside(self, beginning: Ints, text: Ints, tree: int) -> Row:
        """The row of a text that no node has, its last token always among the new ones; holds its path.

        Args:
            beginning: the tokens with which other texts that are read aside begin, too.
            text: all of its tokens.
        """
        return self._row([], self._start(beginning), text, len(text) - 1, tree, "scored")

    def _missing(self, graph: BabbleGraph, node: int, path: Slots | None) -> Row:
        """The row that completes a node's path, from what the trie already has of it; holds the path."""
        tree = int(graph.root[node])
        if path is not None:
            return self._row(path.tolist(), int(path[-1]), last_token(graph, node), 1, tree, "forwarded")
        text = graph.path_tokens(node)
        return self._row([], self._start(text[: graph.length[tree]]), text, len(text), tree, "prefilled")

    def _row(self, have: list[int], before: int, rest: Ints, named: int, tree: int, kind: str) -> Row:
        """What of `rest` the trie does not have after `have`; of what it gets the first `named` can be found."""
        k = 0
        while k < named and (slot := self.store.find(before, int(rest[k]))) != UNKNOWN:
            have.append(slot)
            before, k = slot, k + 1
        known = np.array(have, np.int64)
        self.store.pin(known)
        self.store.hold(known)  # before others may be given up for the new ones
        new = self.take(len(rest) - k)
        self.store.hold(new)
        found = named - k
        self.store.connect(new[:found], np.r_[np.int64(before), new[:-1]][:found], rest[k:named])
        return Row(np.concatenate([known, new]), rest[k:], tree, kind)

    def _start(self, prompt: Ints) -> int:
        """What the first token of a prompt follows: the same for prompts that begin alike, which share so much."""
        return self._starts.setdefault(prompt[:ALIKE].tobytes(), -1 - len(self._starts))

    def _evict(self, wanted: int) -> None:
        """Gives up paths, the longest unused first, until so many slots are free."""
        flying = np.unique(np.concatenate([*self._fresh, np.zeros(0, np.int64)]))
        self.store.references[flying] += 1
        for node in [i for i in self.held if i not in self._busy]:
            if self.store.free >= wanted:
                break
            self.store.drop(self.held.pop(node))
            self.evicted += 1
        self.store.references[flying] -= 1


def last_token(graph: BabbleGraph, node: int) -> Ints:
    """A node's last token; a stem has no span of its own, its `start` and `stop` are its parent's."""
    return graph.tokens[graph.stop[node] - 1 : graph.stop[node]]
