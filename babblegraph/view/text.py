"""Generated text cut to a number of cells, and what a node adds to its parent's text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, get_character_cell_size

from babblegraph import clean
from babblegraph.clean import UNKNOWN
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.view.signs import UNICODE, Signs

MOST_READ = 6  # characters read for each cell of room: enough, and a novel in one span stays cheap


def fit(text: str, width: int, signs: Signs = UNICODE, middle: bool = False) -> str:
    """Any text as one safe line of at most `width` cells.

    Args:
        text: anything at all.
        width: in terminal cells.
        signs: what stands for control characters.
        middle: cut out the middle rather than the end.

    >>> fit("3+4=7:7\\n\\x1b[2J", 12)
    '3+4=7:7⏎␛[2J'
    >>> fit("a long line of text", 8), fit("a long line of text", 9, middle=True)
    ('a long …', 'a lo…text')
    """
    room = MOST_READ * max(width, 1) + 16
    if len(text) > room:
        text = text[: room // 2] + UNKNOWN + text[-(room // 2) :] if middle else text[:room]
    line = visible(text, signs)
    if cell_len(line) <= width:
        return line
    room = width - len(signs.ellipsis)
    if room <= 0:
        return head(line, max(width, 0))
    if not middle:
        return head(line, room) + signs.ellipsis
    tail = _tail(line, room // 2)
    return head(line, room - cell_len(tail)) + signs.ellipsis + tail


def visible(text: str, signs: Signs = UNICODE) -> str:
    """The text on one safe line, in the characters that `signs` may use; see `clean.visible`."""
    return clean.visible(text, signs.controls, ascii_only=signs.ascii_only)


def head(line: str, width: int) -> str:
    """The longest start of a safe line that fits into `width` cells."""
    if cell_len(line) <= width:
        return line
    used = 0
    for i, c in enumerate(line):
        used += get_character_cell_size(c)
        if used > width:
            return line[:i]
    return line


def pad(line: str, width: int) -> str:
    """A safe line with spaces up to `width` cells."""
    return line + " " * (width - cell_len(line))


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


def no_text(graph: BabbleGraph, node: int) -> str:
    """What to write for a node without text: an end of text has no letters, and a stem no tokens."""
    status = int(graph.status[node])
    return {Status.STEM: "(held back)", Status.LEAF_END: "(end)"}.get(Status(status), "(no text)")


def _bytes(graph: BabbleGraph, tokens: NDArray[np.int32]) -> bytes:
    return b"".join(graph.vocabulary[int(t)] for t in tokens)


def _tail(line: str, width: int) -> str:
    used = 0
    for i in range(len(line) - 1, -1, -1):
        used += get_character_cell_size(line[i])
        if used > width:
            return line[i + 1 :]
    return line


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
