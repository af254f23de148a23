"""Generated text is hostile: nothing of it is obeyed by a terminal or a page, whatever draws it."""

from __future__ import annotations

import io
import re
import unicodedata

import numpy as np
import pytest
from rich.cells import cell_len, get_character_cell_size
from rich.console import Console

from babblegraph.born import Born
from babblegraph.clean import visible
from babblegraph.graph import BabbleGraph
from babblegraph.status import Flag, Gate, Status
from babblegraph.view.node import node_report
from babblegraph.view.report import report
from babblegraph.view.signs import ASCII, UNICODE
from babblegraph.view.tree import tree

OURS = re.compile(r"\x1b\[[0-9;]*m")  # colours are the only sequences that a view may write
SPANS, BATCH = 10_000, 500
# Bytes that mean something to a terminal, so that random strings of them are worse than uniform ones.
NASTY = [
    b"\x1b", b"\x1b[", b"\x1b]0;", b"\x1bP", b"\x07", b"\x9b", b"\xc2\x9b", b"2J", b"H", b"?25h", b"m", b"\r", b"\n",
    b"\t", b"\x00", b"\x7f", b"\x08", "\u202e".encode(), "\u2066".encode(), "\u200b".encode(), "\u0301".encode() * 9,
    "漢".encode(), "👩‍👩‍👧".encode(), "שלום".encode(), "\ufe0f".encode(), "\u1160".encode(), b"\xff", b"\xe6\xbc",
]  # fmt: skip


def random_spans(n: int, seed: int) -> list[bytes]:
    """Half of them uniform bytes, half of them pieces that terminals know."""
    draw = np.random.default_rng(seed)
    found = []
    for i in range(n):
        size = int(draw.integers(0, 40))
        if i % 2:
            found.append(draw.integers(0, 256, size, np.uint8).tobytes())
        else:
            found.append(b"".join(NASTY[j] for j in draw.integers(0, len(NASTY), size)))
    return found


def hostile_graph(spans: list[bytes], seed: int) -> BabbleGraph:
    """The spans as nodes of a random tree, with every status; the prompt and a failure are hostile too."""
    draw = np.random.default_rng(seed)
    prompt = spans[0].decode("utf-8", "replace") or "p"
    graph = BabbleGraph([prompt], [[0]], {i: bytes([i]) for i in range(256)}, meta={"threshold": 0.5})
    for at in range(0, len(spans), 10):
        part = spans[at : at + 10]
        parent = draw.integers(0, graph.size, len(part))
        graph.add(Born.of_spans(parent, [list(s) for s in part], [-1.0] * len(part)))
    bare = (graph.first_child == -1) & (graph.parent >= 0)
    graph.status[bare] = draw.integers(0, len(Status), int(bare.sum()))
    graph.gate[graph.status == Status.PRUNED] = Gate.NODE
    graph.value[:], graph.score[graph.is_leaf()] = (
        draw.random(graph.size),
        draw.random(int(graph.is_leaf().sum())),
    )
    graph.flags[1] |= Flag.SCORER_FAILED
    graph.failures.append(
        {"node": 1, "error": spans[1].decode("latin-1"), "text": spans[2].decode("latin-1")}
    )
    graph.meta |= {"model": spans[3].decode("latin-1"), "task": spans[4].decode("latin-1")}
    return graph


def written(renderable, width: int, encoding: str = "utf-8") -> str:
    """What a terminal with colours would get."""
    out = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    Console(file=out, width=width, force_terminal=True, color_system="standard", _environ={}).print(
        renderable, crop=False
    )
    out.flush()
    return out.buffer.getvalue().decode(encoding)


def check_frame(text: str, width: int) -> None:
    """No sequence but colours, no character that is obeyed, no line beyond the frame."""
    plain = OURS.sub("", text)
    obeyed = {c for c in plain if unicodedata.category(c)[0] in "CZ"} - {" ", "\n"}
    assert not obeyed
    assert max(map(cell_len, plain.split("\n"))) <= width


@pytest.mark.slow
def test_ten_thousand_hostile_spans_leave_every_frame_whole() -> None:
    spans = random_spans(SPANS, seed=1)
    for at in range(0, SPANS, BATCH):
        width = (40, 60, 100, 200)[at // BATCH % 4]
        graph = hostile_graph(spans[at : at + BATCH], seed=at)
        signs = ASCII if at // BATCH % 3 == 2 else UNICODE
        shown = tree(graph, width=width, signs=signs)
        text = written(shown, width)
        assert text.count("\n") == len(shown.renderables) == graph.size + 1  # one line a node, none broken
        check_frame(text, width)
        check_frame(written(report(graph, width=width, height=12, signs=signs), width), width)
        for node in (1, graph.size - 1):
            check_frame(written(node_report(graph, node, width=width, signs=signs), width), width)


def test_every_character_of_unicode_becomes_one_of_a_known_width() -> None:
    for start in range(0, 0x110000, 0x1000):
        shown = visible("".join(f"a{chr(code)}" for code in range(start, start + 0x1000)))
        for c in set(shown):
            kind = unicodedata.category(c)
            assert kind[0] not in "CZ" or c == " ", hex(ord(c))
            assert get_character_cell_size(c) in ((0, 1) if kind[0] == "M" else (1, 2)), hex(ord(c))


def test_text_that_is_harmless_stays_as_it_is() -> None:
    for text in ("plain", "naïve café", "漢字", "Ελληνικά", "क्षि", "עברית", "x² + y²", "“quoted”", "🙂"):
        assert visible(text) == unicodedata.normalize("NFC", text)
