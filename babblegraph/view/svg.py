"""A graph as a picture: the same report as in the terminal, as SVG, the same bytes for the same graph."""

from __future__ import annotations

import html
import io
import re

from rich.cells import cell_len
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from babblegraph.graph import BabbleGraph
from babblegraph.view.report import report

THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65)),
        *((121, 192, 255), (210, 168, 255), (57, 197, 207), (201, 209, 217)),
    ],
)
TEXT = re.compile(
    r'(<text class="babblegraph-r\d+" x=")([\d.]+)(" y="[\d.]+" textLength=")([\d.]+)(".*?>)(.*?)</text>',
    re.DOTALL,
)
PART = re.compile(r"[^\xa0]+(?:\xa0[^\xa0]+)*")  # words with single spaces between them
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich would fetch a font from the network
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def to_svg(graph: BabbleGraph, width: int = 100, height: int | None = 40, tree: int | None = None) -> str:
    """The final report of a graph as an SVG picture, without references to anything outside it.

    Args:
        graph: any.
        width: in characters.
        height: lines of the tree, at most.
        tree: which tree to draw; by default the one with the best leaf.
    """
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={},
    )
    console.print(report(graph, width=width, height=height, tree=tree))
    return as_svg(console, "babblegraph")


def as_svg(console: Console, title: str) -> str:
    """What a recording console was given, as SVG."""
    return portable(console.export_svg(title=title, theme=THEME, unique_id="babblegraph"))


def portable(svg: str) -> str:
    """An SVG that rich wrote, whose classes begin with babblegraph, for renderers without its font or the network."""
    svg = FONT_FACE.sub("", svg).replace("Fira Code, monospace", FONTS)
    svg = svg.replace("font-family: Fira Code;", f"font-family: {FONTS};")
    return TEXT.sub(_as_words, svg)


def _as_words(match: re.Match[str]) -> str:
    """Splits a run of text where it has wide gaps, and gives each part a place of its own.

    Some renderers drop spaces at the ends of a run, and fonts without some sign shift what stands behind it.
    """
    start, x, middle, length, end, text = match.groups()
    plain = html.unescape(text).strip("\n")
    cell = float(length) / max(cell_len(plain), 1)
    parts = []
    for part in PART.finditer(plain):
        at = float(x) + cell_len(plain[: part.start()]) * cell
        inner = html.escape(part[0]).replace("\xa0", "&#160;")
        parts.append(f"{start}{at:.1f}{middle}{cell_len(part[0]) * cell:.1f}{end}{inner}</text>")
    return "".join(parts)
