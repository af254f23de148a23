"""Hidden states of nodes, kept small: which nodes are alike where the task does not say."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.scoring.function import function_value

if TYPE_CHECKING:
    from babblegraph.lm.babbler import Babbler

BLOCK = 2048  # nodes whose similarities to all others are computed at once
LLOYD, ALIKE = 20, 1e-6  # steps of k-means, at most; a cosine of 1 but for rounding


class NodeStates:
    """A value that also remembers what the generator had in mind at each node that it was asked about.

    Hidden states come from forward passes that ran; they are kept as a random projection, which keeps angles to
    within about 1/√width (Johnson and Lindenstrauss).

    Args:
        babbler: the generator.
        value: what is asked for the values; 1 without.
        layer: whose states, the last by default.
        width: numbers that are kept of each node.
    """

    def __init__(
        self,
        babbler: Babbler,
        value: Callable[..., Any] | None = None,
        *,
        layer: int | None = None,
        width: int = 64,
    ) -> None:
        last = int(babbler.model.config.get_text_config().num_hidden_layers)
        self.babbler, self.layer, self.width = babbler, last if layer is None else layer, width
        self.value = None if value is None else function_value(value)
        self._known: weakref.WeakKeyDictionary[BabbleGraph, tuple[NDArray[Any], NDArray[Any]]]
        self._known = weakref.WeakKeyDictionary()
        babbler.record([self.layer])

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> Any:
        """Values of nodes, [M] in [0, 1]."""
        if len(ids):
            states = self.babbler.hidden(graph, ids, [self.layer], meter).last[:, 0].cpu().numpy()
            self.remember(graph, ids, states)
        return np.ones(len(ids)) if self.value is None else self.value(graph, ids, meter)

    def remember(self, graph: BabbleGraph, ids: NDArray[Any], states: NDArray[Any]) -> None:
        """Keeps directions of nodes' states, [M, H]."""
        matrix = np.random.default_rng(states.shape[1]).normal(size=(states.shape[1], self.width))
        small = (states @ matrix).astype(np.float32)
        small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12)
        old = self._known.get(graph, (np.zeros(0, np.intp), np.zeros((0, self.width), np.float32)))
        self._known[graph] = np.r_[old[0], ids], np.concatenate([old[1], small])

    def of(self, graph: BabbleGraph) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The nodes that are known, [K], and their directions, [K, width]."""
        nothing = np.zeros(0, np.intp), np.zeros((0, self.width), np.float32)
        return self._known.get(graph, nothing)

    def links(self, graph: BabbleGraph, neighbours: int) -> NDArray[np.int64]:
        """Pairs (node, one of its most similar nodes of the same tree), [E, 2]."""
        ids, x = self.of(graph)
        found = [np.zeros((0, 2), np.int64)]
        for tree in np.unique(graph.root[ids]).tolist():
            mine = np.flatnonzero(graph.root[ids] == tree)
            found.append(ids[mine][nearest(x[mine], neighbours)])
        return np.concatenate(found)

    def cells(self, clusters: int = 64, seed: int = 0) -> Callable[[BabbleGraph], NDArray[np.int64]]:
        """Clusters of hidden states as cells, for `novelty` and `elite_routes` where a task names no states.

        Nodes that are not known are cells of their own.

        Args:
            clusters: at most, over all trees.
            seed: of the first centres.
        """

        def found(graph: BabbleGraph) -> NDArray[np.int64]:
            ids, x = self.of(graph)
            cell = -2 - np.arange(graph.size)
            if len(ids):
                cell[ids] = clustered(x, clusters, seed)
            return cell

        return found


def clustered(x: NDArray[np.float32], k: int, seed: int) -> NDArray[np.intp]:
    """k-means: the cluster of each row, [M], at most k of them; rows have length 1.

    Source: Lloyd, 1982; Arthur and Vassilvitskii, 2007 (the first centres).
    """
    draw = np.random.default_rng(seed)
    first, likeness = [int(draw.integers(len(x)))], np.full(len(x), -1.0)
    while True:
        likeness = np.maximum(likeness, x @ x[first[-1]])
        far = np.where(likeness < 1 - ALIKE, 1 - likeness, 0.0)  # half the squared distance
        if len(first) == k or not far.any():
            break
        first.append(int(draw.choice(len(x), p=far / far.sum())))
    centres, k = x[first], len(first)
    cell = np.full(len(x), -1)
    for _ in range(LLOYD):
        last, cell = cell, (x @ centres.T - (centres**2).sum(1) / 2).argmax(1)
        if (cell == last).all():
            break
        many = np.bincount(cell, minlength=k)
        sums = np.stack([np.bincount(cell, column, minlength=k) for column in x.T], 1)
        centres = np.where(many[:, None] > 0, sums / np.maximum(many, 1)[:, None], centres).astype(x.dtype)
    return cell


def nearest(x: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    """Pairs (row, one of the k rows with the largest cosine to it), [E, 2]; rows have length 1."""
    k = min(k, len(x) - 1)
    if k < 1:
        return np.zeros((0, 2), np.intp)
    pairs = []
    for at in range(0, len(x), BLOCK):
        likeness = x[at : at + BLOCK] @ x.T
        row = np.arange(len(likeness))
        likeness[row, at + row] = -np.inf
        best = np.argpartition(likeness, -k, axis=1)[:, -k:]
        pairs.append(np.stack([np.repeat(at + row, k), best.reshape(-1)], 1))
    return np.concatenate(pairs)
