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
        a, b: graphs that have at least one prompt in common; trees that repeat a prompt are joined.
    Raises:
        BadInput: no prompt in common.
    Complexity: O(N), a loop over nodes.
    """
    others = set(b.prompts)
    common = {prompt: i for i, prompt in enumerate(p for p in dict.fromkeys(a.prompts) if p in others)}
    if not common:
        rule = "two graphs must have a prompt in common"
        raise BadInput(f"{rule}, got {a.prompts[0]!r} and {b.prompts[0]!r}: compare searches of one prompt")
    parents, nodes_a, nodes_b = [NO_PARENT] * len(common), [NOWHERE] * len(common), [NOWHERE] * len(common)
    places: dict[tuple[int, bytes], int] = {}
    of = []
    for graph, nodes in ((a, nodes_a), (b, nodes_b)):
        place = [NOWHERE] * graph.size
        for tree, prompt in enumerate(graph.prompts):
            place[tree] = root = common.get(prompt, NOWHERE)
            if root != NOWHERE and nodes[root] == NOWHERE:
                nodes[root] = tree
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
    """The places with a leaf that passes, each once; without a threshold, those with the best score of their prompt."""
    hit = passing(graph)
    if graph.meta.get("threshold") is None:
        best: dict[str, int] = {}
        for tree, prompt in enumerate(graph.prompts):
            for node in graph.best(1, tree=tree):
                if prompt not in best or graph.score[node] > graph.score[best[prompt]]:
                    best[prompt] = node
        hit[list(best.values())] = True
    found = places[hit]
    return np.unique(found[found != NOWHERE])


def span_bytes(graph: BabbleGraph, node: int) -> bytes:
    """What a node's own span is made of."""
    return b"".join(graph.vocabulary[token] for token in graph.span(node).tolist())
