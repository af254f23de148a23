"""The first trees of a forest as a graph of their own, to keep and to look at."""

from __future__ import annotations

import numpy as np

from babblegraph.graph import COLUMNS, NO_PARENT, BabbleGraph

LINKS = ("parent", "root", "first_child", "last_child", "next_sibling")  # columns that hold ids


def first_trees(graph: BabbleGraph, n: int) -> BabbleGraph:
    """A graph of the first n trees alone; what they look like does not depend on the others.

    Args:
        graph: a forest.
        n: at least 1; with no more trees than that the graph itself is returned.

    Complexity: O(N + T).
    """
    if graph.trees <= n:
        return graph
    keep = np.flatnonzero(graph.root < n)
    place = np.full(graph.size + 1, NO_PARENT, np.int32)  # one more, so that "none" stays "none"
    place[keep] = np.arange(len(keep), dtype=np.int32)
    roots = [graph.span(i).tolist() for i in range(n)]
    found = BabbleGraph(graph.prompts[:n], roots, graph.vocabulary, int(graph.meta["seed"]), dict(graph.meta))
    later = keep[n:]
    length = (graph.stop - graph.start)[later]
    at = np.repeat(graph.start[later] - np.cumsum(length) + length, length) + np.arange(length.sum())
    first = found._add_tokens(graph.tokens[at], graph.token_log_q[at])
    found._append(len(later))
    for name in COLUMNS:
        column = getattr(graph, name)[keep]
        getattr(found, name)[:] = place[column] if name in LINKS else column
    found.stop[n:] = first + np.cumsum(length)
    found.start[n:] = found.stop[n:] - length
    found.start[:n] = np.cumsum([0, *map(len, roots)])[:-1]
    found.stop[:n] = np.cumsum(list(map(len, roots)))
    found.round = graph.round
    kept = [one for one in graph.failures if place[one["node"]] != NO_PARENT]
    found.failures = [one | {"node": int(place[one["node"]])} for one in kept]
    found.merges.extend(place[graph.merges.array[place[graph.merges.array[:, 0]] != NO_PARENT]])
    spent = graph.meta.get("spent", {})
    counts = {name: list(column)[:n] for name, column in spent.get("counts", {}).items()}
    found.meta["spent"] = {**spent, "counts": counts}
    return found
