"""The score stage of the loop: from cheap to expensive, and nothing expensive for what is already decided."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Task, ValueFunction, verifies
from babblegraph.randomness import text_key
from babblegraph.scoring.contain import KEY, NUMBER, YES_OR_NO, contained
from babblegraph.scoring.time_limit import SECONDS, limited
from babblegraph.status import Flag, Gate, Status

Connectivity = Callable[[BabbleGraph], NDArray[np.float32]]
SMALL, GROWTH = (
    4096,
    1.125,
)  # nodes up to which connectivity is always up to date; growth that calls for it later


class Score:
    """Fills in value, connectivity, state and leaf score of new nodes; marks dead and finished ones.

    Args:
        task: its partial check marks dead nodes, its `done` finished ones, its verifier scores leaves.
        value: of nodes that are still open; of leaves too where there is no verifier.
        connectivity: of all nodes, graph -> [N]; asked every round in a small forest, in a large one each time
            that it has grown by an eighth. Until then a new node has its parent's, a leaf 0.
        threshold: what a leaf's score must reach to pass the leaf gate; None for no such gate.

    Raises:
        BadInput: a task whose verifier may take no time at all.
    """

    def __init__(
        self,
        task: Task | None = None,
        value: ValueFunction | None = None,
        connectivity: Connectivity | None = None,
        threshold: float | None = None,
    ) -> None:
        self.task, self.value, self.connectivity, self.threshold = task, value, connectivity, threshold
        self._call = limited(getattr(task, "seconds", SECONDS))

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.int32], meter: Meter) -> None:
        """One round's new nodes, [M]."""
        if self.task is not None:
            self._check(graph, ids)
        open_nodes = ids[graph.status[ids] == Status.FRONTIER]
        leaves = ids[graph.is_leaf(ids) & (graph.status[ids] != Status.LEAF_DEAD)]
        judged = open_nodes if verifies(self.task) else np.concatenate([open_nodes, leaves])
        graph.value[judged] = 1.0 if self.value is None else self._values(graph, judged, meter)
        self._score_leaves(graph, leaves)
        if self.connectivity is not None:
            self._connect(graph, ids, self.connectivity)

    def _connect(self, graph: BabbleGraph, ids: NDArray[np.int32], connectivity: Connectivity) -> None:
        """All anew where the forest is small or has passed a power of `GROWTH`: O(N) in total, not each round."""
        before = graph.size - len(ids)
        if graph.size <= SMALL or _power(before) < _power(graph.size):
            graph.connectivity[:] = connectivity(graph)
        else:
            graph.connectivity[ids] = np.where(graph.is_leaf(ids), 0.0, graph.connectivity[graph.parent[ids]])

    def _check(self, graph: BabbleGraph, ids: NDArray[np.int32]) -> None:
        """The task's own rules: dead, done, state."""
        value, done, state = (getattr(self.task, name, None) for name in ("value", "done", "state"))
        for i in ids.tolist():
            text = graph.text(i)
            both = graph.prompt(i), text
            if value is not None and contained(graph, i, text, NUMBER, value, *both) == 0:
                graph.stop_nodes(i, Status.LEAF_DEAD, Gate.NODE)
                graph.value[i] = graph.score[i] = 0.0
                continue
            if (
                done is not None
                and not graph.is_leaf(i)
                and contained(graph, i, text, YES_OR_NO, done, *both)
            ):
                graph.stop_nodes(i, Status.LEAF_STOP)
            if state is not None and (key := contained(graph, i, text, KEY, state, *both)) is not None:
                graph.state_key[i] = text_key(key)

    def _values(self, graph: BabbleGraph, ids: NDArray[Any], meter: Meter) -> NDArray[np.float64]:
        """Values in [0, 1]; NaN, which counts as the floor, where the function failed."""
        if not len(ids):
            return np.zeros(0)
        assert self.value is not None
        values = np.asarray(self.value(graph, ids, meter), np.float64)
        graph.flags[ids[np.isnan(values)]] |= np.uint8(Flag.SCORER_FAILED)
        return np.clip(values, 0.0, 1.0)

    def _score_leaves(self, graph: BabbleGraph, leaves: NDArray[np.int32]) -> None:
        if self.task is None or not verifies(self.task):
            graph.score[leaves] = graph.value[leaves]
        else:
            for i in leaves.tolist():
                text = graph.text(i)
                asked = (NUMBER, self.task.verify, graph.prompt(i), text)
                score = contained(graph, i, text, *asked, call=self._call)
                graph.score[i] = np.nan if score is None else score
                graph.value[i] = np.clip(graph.score[i], 0, 1)
        if self.threshold is not None:
            failed = leaves[~graph.reaches(self.threshold, leaves)]
            graph.gate[failed] = Gate.LEAF


def _power(size: int) -> int:
    return int(math.log(max(size, 1)) / math.log(GROWTH))
