"""Two searches of the same prompts, laid over each other: what they share, and what only one of them found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.subtrees import passing

NOWHERE = -1  # the place of a node in a graph that does not have it


class Union(NamedTuple):
    """The places of two graphs A and B: a place is a prompt and the spans from there, the same bytes in each step.

    Args:
        parent: of each place; -1 for prompts, [P].
        in_a, in_b: a node of A and of B at each place, the first of equal ones; -1 where there is none, [P].
        of_a, of_b: the place of every node of A and of B; -1 in trees whose prompt the other does not have, [N].
    """

    parent: NDArray[np.int32]
    in_a: NDArray[np.int32]
    in_b: NDArray[np.int32]
    of_a: NDArray[np.int32]
    of_b: NDArray[np.int32]

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Whether both graphs have been at a place, [P]."""
        return (self.in_a != NOWHERE) & (self.in_b != NOWHERE)


def union(a: BabbleGraph, b: BabbleGraph) -> Union:
    """Lays two graphs over each other.

    Nodes are the same place when their parents are and their spans have the same bytes, so the searches may differ in
    everything, but should end their spans alike.

    Args:
        a, b: graphs that have at least one prompt in common; equal prompts are matched in their order.
    Raises:
        BadInput: no prompt in common.
    Complexity: O(N), a loop over nodes.
    """
    trees_a, trees_b = _trees(a), _trees(b)
    common = [key for key in trees_a if key in trees_b]
    if not common:
        rule = "two graphs must have a prompt in common"
        raise BadInput(f"{rule}, got {a.prompts[0]!r} and {b.prompts[0]!r}: compare searches of one prompt")
    parents, nodes_a, nodes_b = [NO_PARENT] * len(common), [NOWHERE] * len(common), [NOWHERE] * len(common)
    places: dict[tuple[int, bytes], int] = {}
    of = []
    for graph, trees, nodes in ((a, trees_a, nodes_a), (b, trees_b, nodes_b)):
        place = [NOWHERE] * graph.size
        for i, key in enumerate(common):
            place[trees[key]], nodes[i] = i, trees[key]
        for node, up in enumerate(graph.parent.tolist()):
            if up == NO_PARENT or place[up] == NOWHERE:
                continue
            step = place[up], span_bytes(graph, node)
            at = places.setdefault(step, len(parents))
            if at == len(parents):
                parents.append(place[up])
                nodes_a.append(NOWHERE)
                nodes_b.append(NOWHERE)
            place[node] = at
            if nodes[at] == NOWHERE:
                nodes[at] = node
        of.append(np.array(place, np.int32))
    return Union(*(np.array(x, np.int32) for x in (parents, nodes_a, nodes_b)), *of)


def elites(graph: BabbleGraph, places: NDArray[np.int32]) -> NDArray[np.int32]:
    """The places with a leaf that passes, each once; without a threshold, those with the best score of their tree."""
    hit = passing(graph)
    if graph.meta.get("threshold") is None:
        hit[[node for tree in range(graph.trees) for node in graph.best(1, tree=tree)]] = True
    found = places[hit]
    return np.unique(found[found != NOWHERE])


def span_bytes(graph: BabbleGraph, node: int) -> bytes:
    """What a node's own span is made of."""
    return b"".join(graph.vocabulary[token] for token in graph.span(node).tolist())


def _trees(graph: BabbleGraph) -> dict[tuple[str, int], int]:
    """The trees by prompt and how often it occurred before."""
    seen: dict[str, int] = {}
    found = {}
    for i, prompt in enumerate(graph.prompts):
        seen[prompt] = seen.get(prompt, -1) + 1
        found[prompt, seen[prompt]] = i
    return found
