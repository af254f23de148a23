"""Everything about one node."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from babblegraph.graph import NEVER, NO_PARENT, BabbleGraph
from babblegraph.status import Flag, Gate, Status
from babblegraph.view import figures
from babblegraph.view.report import path, whole_text
from babblegraph.view.signs import GATES, QUIET, STYLES, TITLE, UNICODE, WORDS, Signs


def node_report(graph: BabbleGraph, node: int, *, width: int, signs: Signs = UNICODE) -> Group:
    """A node's status, numbers, the path to it and its whole text.

    Args:
        graph: any.
        node: an id.
        width: in cells.
        signs: what to draw with.
    """
    status = Status(int(graph.status[node]))
    head = Text.assemble(
        (f"Node {node}", TITLE), "  ", (f"{signs.status[status]} {WORDS[status]}", STYLES[status])
    )
    known = [f"{name} {value}" for name, value in facts(graph, node, signs) if value]
    lines: list[RenderableType] = [head, Padding(Text(f" {signs.dot} ".join(known), QUIET), (0, 0, 0, 2)), ""]
    lines += [*path(graph, node, width=width, signs=signs), "", Text("Text", TITLE)]
    lines += whole_text(graph.text(node), width, signs)
    return Group(*lines)


def facts(graph: BabbleGraph, node: int, signs: Signs = UNICODE) -> list[tuple[str, str]]:
    """Names and values of all that is known of a node; an empty value where nothing is."""
    gate, winners = Gate(int(graph.gate[node])), dict(graph.merges)
    flags = [f.name.lower().replace("_", " ") for f in Flag if graph.flags[node] & f and f.name]
    died = int(graph.died[node])
    return [
        ("stopped by the", GATES.get(gate, "")),
        ("stands for it:", f"#{winners[node]}" if node in winners else ""),
        ("score", _number(graph.score[node])),
        ("value", _number(graph.value[node])),
        ("connectivity", _number(graph.connectivity[node])),
        ("log weight", figures.log(figures.mass(graph, node), signs) if figures.is_weighted(graph) else ""),
        ("log p", figures.log(float(graph.log_p_g[node]), signs)),
        ("draws", str(int(graph.count[node]))),
        ("tokens", str(len(graph.span(node)))),
        ("children", str(len(graph.children(node)))),
        ("parent", "" if graph.parent[node] == NO_PARENT else f"#{graph.parent[node]}"),
        ("born in round", str(int(graph.born[node]))),
        ("stopped in round", "" if died == NEVER else str(died)),
        ("flags", ", ".join(flags)),
    ]


def _number(x: float) -> str:
    return "" if math.isnan(x) else f"{float(x):.3f}"
