"""What a node adds to its parent's text, though tokens end in the middle of characters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status


def step_text(graph: BabbleGraph, node: int, characters: int) -> str:
    """What a node adds to its parent's text, at most so many characters of it; for a root, the prompt.

    A character whose bytes two nodes share belongs to the one that ends it, as in `BabbleGraph.text`.
    """
    if graph.parent[node] == NO_PARENT:
        return graph.prompts[node]
    data, at = _bytes(graph, graph.span(node)[:characters]), node
    while data and 0x80 <= data[0] <= 0xBF:
        at = int(graph.parent[at])
        if graph.parent[at] == NO_PARENT:
            break
        before = _bytes(graph, graph.span(at)[-4:])
        opened = _open_bytes(before)
        data = before[len(before) - opened :] + data
        if before and opened < len(before):
            break
    return data[: len(data) - _open_bytes(data)].decode("utf-8", errors="replace")[:characters]


def owners(graph: BabbleGraph) -> NDArray[np.intp]:
    """The node in whose span each token lies, [T]: spans lie one after the other, and that of a stem is empty.

    The numbers where spans stop do not always rise with the nodes: a stem's is its parent's.
    """
    return np.repeat(np.arange(graph.size), graph.stop - graph.start)


def no_text(graph: BabbleGraph, node: int) -> str:
    """What to write for a node without text: an end of text has no letters, and a stem no tokens."""
    status = Status(int(graph.status[node]))
    if status == Status.LEAF_END:
        return "(end)"
    stem = graph.start[node] == graph.stop[node] and status != Status.FRONTIER
    return "(held back)" if stem else "(no text)"


def _bytes(graph: BabbleGraph, tokens: NDArray[Any]) -> bytes:
    return b"".join(graph.vocabulary[int(t)] for t in tokens)


def _open_bytes(data: bytes) -> int:
    """How many bytes at the end begin a character that is not complete."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if back < need else 0
        if byte < 0x80:
            return 0
    return 0
