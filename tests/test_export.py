"""Exports: whatever a model babbles, other tools can read it back."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess

import networkx as nx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networkx.readwrite import json_graph

from babblegraph.born import Born
from babblegraph.export import to_dot, to_graphml, to_json, to_networkx
from babblegraph.graph import BabbleGraph
from babblegraph.status import Flag, Gate, Status

HOSTILE = [
    "",
    " ",
    "plain",
    "\"quoted\" and 'single'",
    "back\\slash\\",
    "\\n \\N \\G \\l \\",
    '\\"',
    "two\nlines\r\nand\ttab\x0b\x0c",
    "".join(map(chr, range(32))) + "\x7f\x80\x85\x9f",
    "<b>&amp;&lt;&#65;</b> ]]> <!-- -->",
    "<<b>html</b>>",
    "😀👩‍👩‍👧 é",
    "שלום עולם \u202eright to left\u202c",
    "\ufffd\ufffd",
    "\ufffe\uffff\U0001fffe",
    "\u2028line\u2029paragraph",
    "}; digraph {",
    "nan",
    "-inf",
]


@st.composite
def graphs(draw: st.DrawFn) -> BabbleGraph:
    """A random forest whose spans are any texts at all."""
    texts = draw(st.lists(st.text() | st.sampled_from(HOSTILE), min_size=1, max_size=12))
    trees = draw(st.integers(1, 2))
    graph = BabbleGraph(texts[:1] * trees, [[0]] * trees, {i: t.encode() for i, t in enumerate(texts)})
    for i in range(1, len(texts)):
        graph.add(Born.of_spans([draw(st.integers(0, graph.size - 1))], [[i]], [-i / 8]))
    for pair in draw(st.lists(st.tuples(*[st.integers(0, graph.size - 1)] * 2), max_size=3)):
        graph.merges.append(pair)
    graph.status[:] = np.resize([int(s) for s in Status], graph.size)
    graph.gate[:] = np.resize([int(g) for g in Gate], graph.size)
    graph.flags[:] = np.arange(graph.size) % (sum(Flag) + 1)
    graph.score[:] = np.resize([np.nan, 0.5, 1.0], graph.size)
    graph.died[:] = np.resize([-1, 3], graph.size)
    graph.log_p_f[:] = np.resize([-1.5, -np.inf], graph.size)
    return graph


@given(graphs())
@settings(deadline=None)
def test_nodes_and_edges_are_those_of_the_graph(graph: BabbleGraph) -> None:
    found = to_networkx(graph)
    assert list(found) == list(range(graph.size))
    children = {(int(up), i) for i, up in enumerate(graph.parent) if up >= 0}
    assert {(u, v) for u, v, kind in found.edges(data="kind") if "child" in kind} == children
    assert {(u, v) for u, v, kind in found.edges(data="kind") if "merge" in kind} == set(graph.merges)
    for i, attributes in found.nodes(data=True):
        assert attributes["text"] == graph.span_text(i)
        assert Status[attributes["status"].upper()] == graph.status[i]
        assert Gate[attributes["gate"].upper()] == graph.gate[i]
        flags = [Flag[word.upper()] for word in attributes.get("flags", "").split()]
        assert sum(flags) == graph.flags[i]
        assert attributes.get("prompt") == (graph.prompts[i] if i < graph.trees else None)
        assert attributes["tree"] == graph.root[i]
        for name in ("log_p_f", "log_p_g", "log_q", "log_inclusion", "count", "draws", "born", "length"):
            assert attributes[name] == getattr(graph, name)[i]
        assert attributes.get("died", -1) == graph.died[i]
        assert attributes.get("score", math.nan) == pytest.approx(float(graph.score[i]), nan_ok=True)
        assert "value" not in attributes
        assert attributes["log_weight"] == graph.log_p_f[i] - graph.log_inclusion[i]


@given(graphs())
@settings(deadline=None)
def test_every_attribute_is_a_plain_python_value(graph: BabbleGraph) -> None:
    for _, attributes in to_networkx(graph).nodes(data=True):
        assert {type(value) for value in attributes.values()} <= {str, int, float}
        assert not any(value != value for value in attributes.values())


@given(graphs())
@settings(deadline=None)
def test_graphml_read_back_by_networkx_is_the_same_graph(graph: BabbleGraph) -> None:
    found = nx.read_graphml(io.BytesIO(to_graphml(graph).encode()), node_type=int)
    assert_same(found, to_networkx(graph), text=in_xml)


@given(graphs())
@settings(deadline=None)
def test_json_read_back_by_networkx_is_the_same_graph(graph: BabbleGraph) -> None:
    found = json_graph.node_link_graph(json.loads(to_json(graph), parse_constant=pytest.fail), edges="edges")
    assert_same(found, to_networkx(graph), text=str)


@given(graphs())
@settings(deadline=None)
def test_dot_read_back_is_the_same_graph(graph: BabbleGraph) -> None:
    nodes, edges = read_dot(to_dot(graph))
    found = to_networkx(graph)
    assert nodes == {i: in_xml(text) for i, text in found.nodes(data="text")}
    assert edges == {(u, v): kind for u, v, kind in found.edges(data="kind")}


@pytest.mark.skipif(not shutil.which("dot"), reason="needs Graphviz")
@given(st.lists(st.text(), min_size=1, max_size=4))
@example(HOSTILE)
@settings(deadline=None, max_examples=10)
def test_graphviz_accepts_any_text_and_shows_it(texts: list[str]) -> None:
    graph = BabbleGraph(["root"], [[0]], {i: t.encode() for i, t in enumerate(texts)})
    graph.add(Born.of_spans([0] * len(texts), [[i] for i in range(len(texts))], [-1.0] * len(texts)))
    done = subprocess.run(["dot", "-Tjson"], input=to_dot(graph).encode(), capture_output=True, timeout=60)
    assert done.returncode == 0
    assert b"syntax error" not in done.stderr
    labels = [node["label"] for node in json.loads(done.stdout)["objects"]]
    shown = [label.replace("\\n", "\n").replace("\\\\", "\\").replace("&amp;", "&") for label in labels[1:]]
    wanted = [in_xml(text).replace("\\n", "\n") for text in texts]
    assert [s.replace("\\\n", "\n") for s in shown] == [w.replace("\\\n", "\n") for w in wanted]


def test_no_quotes_of_dot_hold_more_than_graphviz_reads() -> None:
    text = "é&\x07" * 20_000
    graph = BabbleGraph([text], [[0]], {0: b"a"})
    dot = to_dot(graph)
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', dot)
    assert max(len(part.encode()) for part in quoted) < 16_384  # Graphviz's own limit
    if shutil.which("dot"):
        done = subprocess.run(["dot", "-Tjson0"], input=dot.encode(), capture_output=True, timeout=60)
        assert done.returncode == 0
        assert len(json.loads(done.stdout)["objects"][0]["label"]) >= len(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_survive_every_format_visibly(text: str) -> None:
    graph = BabbleGraph([text], [[0]], {0: text.encode()})
    graph.add(Born.of_spans([0], [[0]], [-1.0]))
    assert json.loads(to_json(graph))["nodes"][1]["text"] == text
    assert nx.parse_graphml(to_graphml(graph), node_type=int).nodes[1]["text"] == in_xml(text)
    assert read_dot(to_dot(graph))[0] == {0: in_xml(text), 1: in_xml(text)}


def test_a_prompt_with_a_lone_surrogate_is_exported_visibly() -> None:
    graph = BabbleGraph(["p"], [[0]], {0: b"p"})
    graph.prompts = ["\udc80"]
    assert nx.parse_graphml(to_graphml(graph)).nodes["0"]["prompt"] == "\\udc80"
    assert json.loads(to_json(graph))["nodes"][0]["prompt"] == "\udc80"
    assert '"\\\\udc80"' in to_dot(graph)


def test_a_merge_along_an_edge_of_the_tree_keeps_both_kinds() -> None:
    graph = BabbleGraph(["p"], [[0]], {0: b"p"})
    graph.add(Born.of_spans([0, 1 - 1], [[0], [0]], [-1.0, -1.0]))
    graph.merges += [(0, 1), (2, 1), (1, 0)]
    kinds = {(u, v): kind for u, v, kind in to_networkx(graph).edges(data="kind")}
    assert kinds == {(0, 1): "child merge", (0, 2): "child", (2, 1): "merge", (1, 0): "merge"}


def test_a_node_impossible_under_both_generators_has_no_weight() -> None:
    graph = BabbleGraph(["p"], [[0]], {0: b"p"})
    graph.log_p_f[0] = graph.log_inclusion[0] = -np.inf
    assert "log_weight" not in to_networkx(graph).nodes[0]


def assert_same(found: nx.DiGraph, wanted: nx.DiGraph, text: type[str] | object) -> None:
    """Equal in nodes, edges and attributes, but for infinite numbers, which text formats leave out."""
    for _, attributes in wanted.nodes(data=True):
        for name, value in list(attributes.items()):
            if isinstance(value, float) and math.isinf(value):
                del attributes[name]
            elif isinstance(value, str):
                attributes[name] = text(value)  # type: ignore[operator]
    assert found.is_directed()
    assert dict(found.nodes(data=True)) == dict(wanted.nodes(data=True))
    assert {(u, v): d["kind"] for u, v, d in found.edges(data=True)} == nx.get_edge_attributes(wanted, "kind")


def in_xml(text: str) -> str:
    """What a text looks like where control characters are not allowed; slow twin of the exporter's rule."""
    return "".join(
        c if is_xml(ord(c)) else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    )


def is_xml(code: int) -> bool:
    """Char of XML 1.0, section 2.2, without the carriage return."""
    ranges = [(0x9, 0xA), (0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x10FFFF)]
    return any(low <= code <= high for low, high in ranges)


def read_dot(dot: str) -> tuple[dict[int, str], dict[tuple[int, int], str]]:
    """Labels by node and kinds by edge, by the grammar of DOT's quoted strings."""
    quoted = r'"((?:[^"\\]|\\.)*)"'
    lines = dot.split("\n")
    assert (lines[0], lines[-2:]) == ("digraph babblegraph {", ["}", ""])
    nodes, edges = {}, {}
    for line in lines[3:-2]:
        whole = re.fullmatch(rf"  (\d+)(?: -> (\d+))? \[(?:\w+={quoted} ?)+\]", line)
        assert whole, line
        attributes = dict(re.findall(rf"(\w+)={quoted}", line))
        if whole[2]:
            edges[int(whole[1]), int(whole[2])] = attributes["kind"]
        else:
            nodes[int(whole[1])] = unquoted(attributes["label"])
    return nodes, edges


def unquoted(label: str) -> str:
    marks = {'\\"': '"', "\\\\": "\\", "\\n": "\n", "&amp;": "&"}
    assert not re.search(r'\\[^"\\n]', label.replace("\\\\", ""))
    return re.sub(r'\\["\\n]|&amp;', lambda match: marks[match[0]], label)
