"""The babble graph: a forest of partial generations, kept as columns.

One row is one node: a span of tokens appended to its parent's. Ids are append-only (`parent[i] < i`), rows
never move, pruning changes a status. N is the number of nodes, T that of tokens that all spans hold together.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.born import Born
from babblegraph.columns import LEAST, Column, Pairs, with_room
from babblegraph.errors import BadInput
from babblegraph.randomness import prompt_key
from babblegraph.status import Gate, Status

if TYPE_CHECKING:
    import networkx as nx

Ids = int | slice | Sequence[int] | NDArray[Any]  # anything that picks rows
NO_PARENT, NO_STATE, NEVER = -1, -1, -1  # sentinels of parent, state_key and died
OPEN = "open_round"  # where the meta says that a round was cut off: "score", it can be finished; "weights", it cannot


class BabbleGraph:
    """A forest of partial generations, one tree a prompt.

    Args:
        prompts: the text of each tree's root.
        prompt_tokens: its token ids, one list a prompt.
        vocabulary: the bytes of every token id that may occur.
        seed: of the random keys.
        meta: anything that should be remembered of the run; it must be plain JSON.

    Raises:
        BadInput: no prompt, or a prompt without tokens.

    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b", 2: b"c"})
    >>> born = Born.of_spans([0, 0], spans=[[2], [0, 0]], log_q=[-1.0, -2.0])
    >>> ids = graph.add(born)
    >>> [graph.text(i) for i in ids], graph.frontier().tolist()
    (['c', 'aa'], [1, 2])
    """

    parent = Column(np.int32, NO_PARENT)
    root = Column(np.int32)
    start = Column(np.int64)  # the span is tokens[start:stop]
    stop = Column(np.int64)
    length = Column(np.int32)  # tokens from the start of the prompt to the end of the span
    depth = Column(np.int32)  # nodes above it
    log_p_f = Column(np.float64)
    log_p_g = Column(np.float64)
    log_q = Column(np.float64)
    log_inclusion = Column(np.float64)
    count = Column(np.int32, 1)
    draws = Column(np.int32)  # draws made *from* the node so far
    value = Column(np.float32, np.nan)
    connectivity = Column(np.float32, np.nan)
    score = Column(np.float32, np.nan)  # of finished leaves
    state_key = Column(np.int64, NO_STATE)
    key = Column(np.uint64)
    status = Column(np.uint8)
    gate = Column(np.uint8)
    flags = Column(np.uint8)
    born = Column(np.int32)
    died = Column(np.int32, NEVER)
    first_child = Column(np.int32, NO_PARENT)
    last_child = Column(np.int32, NO_PARENT)
    next_sibling = Column(np.int32, NO_PARENT)

    def __init__(
        self,
        prompts: Sequence[str],
        prompt_tokens: Sequence[Sequence[int]],
        vocabulary: dict[int, bytes],
        seed: int = 0,
        meta: dict[str, Any] | None = None,
    ) -> None:
        _check_prompts(prompts, prompt_tokens)
        self.size = 0
        self._columns: dict[str, NDArray[Any]] = {
            name: np.empty(LEAST, c.dtype) for name, c in COLUMNS.items()
        }
        self._tokens = np.empty(LEAST, np.int32)
        self._token_log_q = np.empty(LEAST, np.float32)
        self._token_size = 0
        self.prompts = list(prompts)
        self.vocabulary = vocabulary
        self.round = 0
        self.merges = Pairs()  # (loser, winner)
        self.failures: list[dict[str, Any]] = []  # what value functions raised, and on which node
        self.meta: dict[str, Any] = {"seed": seed, **(meta or {})}
        seen: dict[str, int] = {}
        for i, (prompt, tokens) in enumerate(zip(prompts, prompt_tokens, strict=True)):
            occurrence = seen[prompt] = seen.get(prompt, -1) + 1
            self._add_root(i, np.asarray(tokens, np.int32), prompt_key(seed, prompt, occurrence))

    def __repr__(self) -> str:
        leaves = int((self.is_leaf() & (self.status != Status.LEAF_DEAD)).sum())
        return f"<BabbleGraph: {self.trees} trees, {self.size} nodes, {leaves} finished leaves>"

    @property
    def trees(self) -> int:
        """The number of trees; the root of tree i is node i."""
        return len(self.prompts)

    @property
    def tokens(self) -> NDArray[np.int32]:  # [T]
        """All spans, one after the other; node i has `tokens[start[i]:stop[i]]`."""
        return self._tokens[: self._token_size]

    @property
    def token_log_q(self) -> NDArray[np.float32]:  # [T]
        """log q of every token of `tokens`, given all before it; 0 for prompts."""
        return self._token_log_q[: self._token_size]

    def add(self, born: Born) -> NDArray[np.int32]:
        """Appends what an expansion brought.

        Args:
            born: M nodes; see `Born`.
        Returns:
            Their ids, [M].
        Complexity: O(M log M + T), amortised.
        """
        parent = born.parent
        stop = self._add_tokens(born.tokens, born.token_log_q) + np.cumsum(born.lengths, dtype=np.int64)
        ids = self._append(
            len(parent),
            parent=parent,
            root=self.root[parent],
            start=stop - born.lengths,
            stop=stop,
            length=self.length[parent] + born.lengths,
            depth=self.depth[parent] + 1,
            log_p_f=self.log_p_f[parent] + born.log_p_f,
            log_p_g=self.log_p_g[parent] + born.log_p_g,
            log_q=self.log_q[parent] + born.log_q,
            log_inclusion=self.log_inclusion[parent] + born.log_inclusion,
            count=born.count,
            status=born.status,
            flags=born.flags,
            key=born.key,
            born=self.round,
        )
        self._link(ids, parent)
        np.add.at(self.count, born.repeats[:, 0], born.repeats[:, 1])
        self.draws[born.expanded] += born.draws
        self.status[born.expanded] = Status.EXPANDED
        self.gate[born.expanded] = Gate.NONE
        self.died[born.expanded] = NEVER
        self.flags[born.expanded] |= born.parent_flags
        return ids

    def stop_nodes(self, ids: Ids, status: Status, gate: Gate = Gate.NONE) -> None:
        """Gives nodes another status, and remembers the gate that stopped them and the round."""
        self.status[ids] = status
        self.gate[ids] = gate
        self.died[ids] = self.round

    def is_leaf(self, ids: Ids = slice(None)) -> NDArray[np.bool_]:
        """Whether nodes are finished leaves, dead ones included."""
        status = self.status[ids]
        return (status >= Status.LEAF_END) & (status <= Status.LEAF_DEAD)

    def reaches(self, threshold: float, ids: Ids = slice(None)) -> NDArray[np.bool_]:
        """Whether scores are at least a threshold, compared in the 32 bits that they are kept in; NaN never is."""
        return self.score[ids] >= float(threshold)  # with NumPy's own 64 bits 0.7 would not reach 0.7

    def frontier(self) -> NDArray[np.intp]:
        """The ids of live nodes that were never expanded."""
        return np.flatnonzero(self.status == Status.FRONTIER)

    def children(self, node: int) -> list[int]:
        """The ids of a node's children, oldest first."""
        found, child, follow = [], int(self.first_child[node]), self.next_sibling
        while child != NO_PARENT:
            found.append(child)
            child = int(follow[child])
        return found

    def path(self, node: int) -> list[int]:
        """The ids from the root to the node, both included."""
        found, parent = [int(node)], self.parent
        while (up := int(parent[found[-1]])) != NO_PARENT:
            found.append(up)
        return found[::-1]

    def span(self, node: int) -> NDArray[np.int32]:
        """The token ids of one node's own span."""
        return self.tokens[self.start[node] : self.stop[node]]

    def path_tokens(self, node: int) -> NDArray[np.int32]:
        """All token ids from the start of the prompt to the end of the node."""
        return np.concatenate([self.span(i) for i in self.path(node)])

    def text(self, node: int) -> str:
        """What was generated from the end of the prompt to the end of the node.

        A character whose last bytes are not generated yet is left out; invalid bytes become U+FFFD.
        """
        return self._decode([i for i in self.path(node) if self.parent[i] != NO_PARENT])

    def span_text(self, node: int) -> str:
        """The text of one node's own span; for a root, the prompt."""
        return self.prompts[node] if self.parent[node] == NO_PARENT else self._decode([node])

    def prompt(self, node: int) -> str:
        """The prompt of the tree that a node belongs to."""
        return self.prompts[int(self.root[node])]

    def best(self, k: int = 1, tree: int | None = None) -> list[int]:
        """The k best finished leaves by score, then by log-probability; dead ones never.

        Args:
            k: how many, at most.
            tree: of this tree only.
        """
        live = self.is_leaf() & (self.status != Status.LEAF_DEAD) & ~np.isnan(self.score)
        if tree is not None:
            live &= self.root == tree
        ids = np.flatnonzero(live)
        return [int(i) for i in ids[np.lexsort((-self.log_p_g[ids], -self.score[ids]))][:k]]

    def log_weight(self, ids: Ids = slice(None)) -> NDArray[np.float64]:
        """log of the unbiased weight under f: log_p_f − log_inclusion (see the docs on statistics)."""
        return self.log_p_f[ids] - self.log_inclusion[ids]

    def save(self, path: str | Path) -> None:
        """Writes the graph to one file, atomically; see `graph_file.save`."""
        from babblegraph.graph_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> BabbleGraph:
        """Reads and checks a file that `save` wrote; see `graph_file.load`."""
        from babblegraph.graph_file import load

        return load(path)

    def to_networkx(self) -> nx.DiGraph:
        """The forest as a networkx graph with plain attributes; see `export.to_networkx`."""
        from babblegraph.export import to_networkx

        return to_networkx(self)

    def _repr_html_(self) -> str:
        """How a notebook shows the graph; see `page.in_notebook`."""
        from babblegraph.page import in_notebook

        return in_notebook(self)

    def _decode(self, nodes: Sequence[int]) -> str:
        data = b"".join(self.vocabulary[int(t)] for i in nodes for t in self.span(i))
        return codecs.getincrementaldecoder("utf-8")("replace").decode(data)  # keeps an open character back

    def _add_root(self, i: int, tokens: NDArray[np.int32], key: int) -> None:
        at, n = self._add_tokens(tokens, np.zeros(len(tokens), np.float32)), len(tokens)
        self._append(1, root=i, start=at, stop=at + n, length=n, key=np.uint64(key))

    def _add_tokens(self, tokens: NDArray[np.int32], log_q: NDArray[np.float32]) -> int:
        at, end = self._token_size, self._token_size + len(tokens)
        self._tokens = with_room(self._tokens, at, len(tokens))
        self._token_log_q = with_room(self._token_log_q, at, len(tokens))
        self._tokens[at:end], self._token_log_q[at:end] = tokens, log_q
        self._token_size = end
        return at

    def _append(self, m: int, **given: Any) -> NDArray[np.int32]:
        """Adds m rows and returns their ids; a column that is not given gets what it is filled with."""
        rows = slice(self.size, self.size + m)
        for name, column in COLUMNS.items():
            self._columns[name] = with_room(self._columns[name], self.size, m)
            self._columns[name][rows] = given.get(name, column.fill)
        self.size += m
        return np.arange(rows.start, rows.stop, dtype=np.int32)

    def _link(self, ids: NDArray[np.int32], parent: NDArray[np.int32]) -> None:
        """Hangs new nodes at the ends of their parents' lists of children, oldest first."""
        if not len(ids):
            return
        order = ids[np.argsort(parent, kind="stable")]
        up = self.parent[order]
        same = up[1:] == up[:-1]
        self.next_sibling[order[:-1][same]] = order[1:][same]
        heads, tails = order[np.r_[True, ~same]], order[np.r_[~same, True]]
        parents, old = self.parent[heads], self.last_child[self.parent[heads]]
        fresh = old == NO_PARENT
        self.first_child[parents[fresh]] = heads[fresh]
        self.next_sibling[old[~fresh]] = heads[~fresh]
        self.last_child[parents] = tails


COLUMNS = {name: c for name, c in vars(BabbleGraph).items() if isinstance(c, Column)}  # as they are declared


def _check_prompts(prompts: Sequence[str], prompt_tokens: Sequence[Sequence[int]]) -> None:
    if not len(prompts):
        raise BadInput("a search needs at least one prompt, got none: pass a text or a list of texts")
    for prompt, tokens in zip(prompts, prompt_tokens, strict=True):
        if not len(tokens):
            raise BadInput(f"a prompt must have at least one token, got {prompt!r}: give it some text")
