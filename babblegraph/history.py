"""A graph as it was: nodes remember the rounds in which they were born and stopped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import COLUMNS, NEVER, NO_PARENT, BabbleGraph
from babblegraph.status import Gate, Status

OF_THE_END = (
    "vote",
    "right",
    "token_gate",
    "scorer_failures",
)  # in the meta: nobody knows what they were before
STOPPED_LATER = (Status.PRUNED, Status.MERGED, Status.LEAF_DEAD)  # what a node can become after it was born


def at_round(graph: BabbleGraph, number: int) -> BabbleGraph:
    """The forest as it was when a round had ended.

    Nodes that were born later are not there; what was stopped later is live, or expanded where it had children. Values
    and scores are given at birth, so they are those of the time. What a graph does not remember is how it stands at
    the end: weights and draws, which later rounds change, and a node that was pruned and revived counts as never
    pruned. Votes, marks and what the token gate counted belong to the end alone, and are left out before it.

    Args:
        graph: any; it is not changed, and what is shared with it must not be either.
        number: of the round, from 0 (the prompts alone) to `graph.round`.
    Returns:
        A graph to look at. Its `meta` has no "spent", but `span_tokens`, all that its spans hold, and `at_round`.
    Raises:
        BadInput: no such round.
    Complexity: O(N).

    >>> from babblegraph.born import Born
    >>> graph = BabbleGraph(["a"], [[0]], {0: b"a"})
    >>> for graph.round in (1, 2):
    ...     _ = graph.add(Born.of_spans([graph.size - 1], spans=[[0]], log_q=[-1.0]))
    >>> at_round(graph, 1).frontier().tolist(), at_round(graph, 0).size
    ([1], 1)
    """
    if not 0 <= number <= graph.round:
        raise BadInput(f"a round must be one of 0 to {graph.round}, got {number}: choose one of these")
    size = max(int(np.searchsorted(graph.born, number, side="right")), graph.trees)
    found = BabbleGraph(graph.prompts, [[0]] * graph.trees, graph.vocabulary, meta=graph.meta)
    found.size, found.round = size, number
    found.failures = [failure for failure in graph.failures if failure.get("node", 0) < size]
    found._columns = {name: getattr(graph, name)[:size].copy() for name in COLUMNS}
    found._tokens, found._token_log_q = graph.tokens, graph.token_log_q
    found._token_size = int(found.stop.max())
    for name in ("first_child", "next_sibling"):  # ids are in the order of birth
        link = getattr(found, name)
        link[link >= size] = NO_PARENT
    found.last_child[:] = NO_PARENT
    np.maximum.at(found.last_child, found.parent[graph.trees :], np.arange(graph.trees, size, dtype=np.int32))
    later = (found.died > number) & np.isin(found.status, STOPPED_LATER)
    found.gate[later], found.died[later] = Gate.NONE, NEVER
    found.score[later & (found.status == Status.LEAF_DEAD)] = np.nan
    grew = _expanded(found)
    live = later | ((found.status == Status.EXPANDED) & ~grew & _expanded(graph)[:size])
    empty = (found.start == found.stop) & (found.parent != NO_PARENT)
    found.status[live] = np.where(grew, Status.EXPANDED, np.where(empty, Status.STEM, Status.FRONTIER))[live]
    merges: NDArray[np.int32] = graph.merges.array
    if len(merges):
        there = merges[(merges < size).all(axis=1)]
        found.merges.extend(there[found.status[there[:, 0]] == Status.MERGED])
    for name in ("spent", *(OF_THE_END if number < graph.round else ())):
        found.meta.pop(name, None)
    spans = found.stop - found.start
    found.meta["at_round"] = [number, graph.round]
    found.meta["span_tokens"] = int(spans[graph.trees :].sum())
    return found


def _expanded(graph: BabbleGraph) -> NDArray[np.bool_]:
    """Which nodes have children with tokens, [N]: a stem below a node is there before the node is expanded."""
    found = np.zeros(graph.size, np.bool_)
    found[graph.parent[(graph.parent != NO_PARENT) & (graph.stop > graph.start)]] = True
    return found
