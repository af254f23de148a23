"""The graph for other tools: networkx, GraphML, JSON (node-link) and DOT."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any

import networkx as nx
import numpy as np

from babblegraph.graph import NEVER, NO_PARENT, BabbleGraph
from babblegraph.status import Flag, Gate, Status

NUMBERS = (
    *("value", "connectivity", "score", "log_p_f", "log_p_g", "log_q", "log_inclusion"),
    *("count", "draws", "length", "born", "died"),
)
# What XML 1.0 has no way to write, and the carriage return, which every XML reader turns into a line feed.
UNPRINTABLE = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
QUOTED = 3000  # characters in one pair of DOT's quotes, of at most five bytes each
DOT_STYLE = {
    "pruned": 'style="dashed" color="gray60" fontcolor="gray60"',
    "merged": 'style="dotted"',
    "leaf_dead": 'color="red"',
    "leaf_end": 'peripheries="2"',
    "leaf_stop": 'peripheries="2"',
    "leaf_length": 'peripheries="2"',
    "stem": 'shape="point"',
}


def to_networkx(graph: BabbleGraph) -> nx.DiGraph:
    """The graph as networkx knows it, with plain Python values.

    Args:
        graph: N nodes.
    Returns:
        Nodes 0 … N−1 with the attributes text (of the span; of a root, the prompt), status, gate, flags,
        tree, log_weight, numbers by the names of the graph's columns, and for roots prompt. What is not
        known (NaN, died of a node that lives) is left out. Edges have a kind: "child", "merge" (from loser
        to winner), or "child merge".
    Complexity: O(N + T).

    >>> from babblegraph.born import Born
    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b"})
    >>> _ = graph.add(Born.of_spans([0, 0], spans=[[1], [0, 0]], log_q=[-1.0, -2.0]))
    >>> found = to_networkx(graph)
    >>> found.nodes[2]["text"], found.nodes[2]["status"], list(found.edges(data="kind"))
    ('aa', 'frontier', [(0, 1, 'child'), (0, 2, 'child')])
    """
    found = nx.DiGraph()
    columns = {name: getattr(graph, name).tolist() for name in NUMBERS}
    columns["tree"] = graph.root.tolist()
    with np.errstate(invalid="ignore"):  # of a node that is impossible under f and q alike
        columns["log_weight"] = graph.log_weight().tolist()
    status, gate, flags = graph.status.tolist(), graph.gate.tolist(), graph.flags.tolist()
    for i, numbers in enumerate(zip(*columns.values(), strict=True)):
        known = {name: x for name, x in zip(columns, numbers, strict=True) if not math.isnan(x)}
        if known["died"] == NEVER:
            del known["died"]
        words = {"status": Status(status[i]).name.lower(), "gate": Gate(gate[i]).name.lower()}
        if flags[i]:
            words["flags"] = " ".join(flag.name.lower() for flag in Flag if flag.name and flag & flags[i])
        found.add_node(i, text=graph.span_text(i), **words, **known)
    for i, prompt in enumerate(graph.prompts):
        found.nodes[i]["prompt"] = prompt
    parents = graph.parent.tolist()
    found.add_edges_from(((up, i) for i, up in enumerate(parents) if up != NO_PARENT), kind="child")
    for loser, winner in graph.merges:
        found.add_edge(loser, winner, kind="child merge" if parents[winner] == loser else "merge")
    return found


def to_graphml(graph: BabbleGraph) -> str:
    r"""The graph as GraphML, for Gephi, yEd, Cytoscape or networkx.

    Characters that XML cannot hold are written as escapes (a bell becomes `\x07`); infinite numbers are left
    out.

    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b"})
    >>> nx.parse_graphml(to_graphml(graph), node_type=int).nodes[0]["text"]
    'ab'
    """
    out = io.BytesIO()
    nx.write_graphml_xml(_finite(to_networkx(graph), printable=True), out, named_key_ids=True)
    return out.getvalue().decode("utf-8")


def to_json(graph: BabbleGraph) -> str:
    """The graph as node-link JSON, for d3 or networkx; infinite numbers, which JSON has not, are left out.

    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b"})
    >>> json.loads(to_json(graph))["nodes"][0]["text"]
    'ab'
    """
    found = nx.node_link_data(_finite(to_networkx(graph), printable=False), edges="edges")
    return json.dumps(found, allow_nan=False)


def to_dot(graph: BabbleGraph) -> str:
    r"""The graph in Graphviz's language: a node's label is its text, its style its status.

    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b'"'})
    >>> print(to_dot(graph).splitlines()[3][:36])
      0 [label="ab" status="frontier" ga
    """
    found = _finite(to_networkx(graph), printable=True)
    lines = ["digraph babblegraph {", '  graph [charset="UTF-8"]', '  node [shape="box"]']
    for i, attributes in found.nodes(data=True):
        label = f"label={_dot_label(attributes.pop('text'))}"
        attributes.pop("prompt", None)  # of a root, whose label it is
        rest = [f'{name}="{value}"' for name, value in attributes.items()]
        style = DOT_STYLE.get(attributes["status"], "")
        lines.append(f"  {i} [{' '.join([label, *rest, style]).rstrip()}]")
    for up, down, kind in found.edges(data="kind"):
        style = "" if "child" in kind else ' style="dashed" constraint="false"'
        lines.append(f'  {up} -> {down} [kind="{kind}"{style}]')
    return "\n".join([*lines, "}", ""])


def _finite(found: nx.DiGraph, *, printable: bool) -> nx.DiGraph:
    """Drops infinite numbers in place, and makes texts printable where the format asks for it."""
    for _, attributes in found.nodes(data=True):
        for name, value in list(attributes.items()):
            if isinstance(value, float) and math.isinf(value):
                del attributes[name]
            elif isinstance(value, str) and printable:
                attributes[name] = UNPRINTABLE.sub(_escape, value)
    return found


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _dot_label(text: str) -> str:
    """A text in quotes: Graphviz reads backslashes, quotes and HTML entities in labels; a line feed would end the line.

    One pair of quotes takes 16,384 bytes at most, and any number of them can be added.
    """
    marks: dict[str, Any] = {"\\": "\\\\", '"': '\\"', "&": "&amp;", "\n": "\\n"}
    parts = [text[at : at + QUOTED] for at in range(0, len(text), QUOTED)] or [""]
    return " + ".join(f'"{part.translate(str.maketrans(marks))}"' for part in parts)
