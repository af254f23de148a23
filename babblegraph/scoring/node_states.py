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

        Nodes that are not known are cells of their own. k-means of scipy.

        Args:
            clusters: at most, over all trees.
            seed: of the first centres.
        """

        def found(graph: BabbleGraph) -> NDArray[np.int64]:
            from scipy.cluster.vq import kmeans2

            ids, x = self.of(graph)
            cell = -2 - np.arange(graph.size)
            if len(ids):
                k = min(clusters, len(np.unique(x, axis=0)))
                cell[ids] = kmeans2(x, k, minit="++", seed=seed, missing="warn" if k == 1 else "raise")[1]
            return cell

        return found


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
