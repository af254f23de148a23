"""BabbleGraph against a forest of plain Python objects: every batched method has a slow twin here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babblegraph.born import Born
from babblegraph.columns import Pairs
from babblegraph.errors import BadInput
from babblegraph.graph import COLUMNS, NEVER, NO_PARENT, BabbleGraph
from babblegraph.status import Flag, Gate, Status

# "é", "€" and "😀" come in pieces, so that characters are split over tokens and over spans; 13 is never valid
WORDS = [
    b"a",
    b"b",
    b"\n",
    b"\xc3",
    b"\xa9",
    b"\xe2",
    b"\x82",
    b"\xac",
    b"\xf0\x9f",
    b"\x98",
    b"\x80",
    b"",
    b"ab",
]
VOCABULARY = dict(enumerate([*WORDS, b"\xff"]))
SPANS = st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=4)


@dataclass
class PlainNode:
    """One node as a Python object."""

    parent: PlainNode | None
    tokens: list[int]
    log_q: float = 0.0
    children: list[PlainNode] = field(default_factory=list)

    def path(self) -> list[PlainNode]:
        return [*(self.parent.path() if self.parent else []), self]


@st.composite
def forests(draw: st.DrawFn) -> tuple[BabbleGraph, list[PlainNode]]:
    """A random forest, grown in random batches, and its slow twin."""
    prompts = draw(st.lists(st.sampled_from(["p", "q", "é"]), min_size=1, max_size=3))
    roots = [draw(st.lists(st.integers(0, 12), min_size=1, max_size=3)) for _ in prompts]
    graph, nodes = BabbleGraph(prompts, roots, dict(VOCABULARY)), [PlainNode(None, r) for r in roots]
    for batch in draw(st.lists(st.integers(0, 6), max_size=5)):
        parents = [draw(st.integers(0, len(nodes) - 1)) for _ in range(batch)]
        spans = [draw(SPANS) for _ in parents]
        log_q = [draw(st.floats(-30, 0)) for _ in parents]
        graph.add(Born.of_spans(parents, spans, log_q))
        born = [PlainNode(nodes[p], s, q) for p, s, q in zip(parents, spans, log_q, strict=True)]
        for node in born:
            assert node.parent is not None
            node.parent.children.append(node)
        nodes += born
    return graph, nodes


def plain_text(data: bytes) -> str:
    """Decodes after cutting off a last character of which bytes are missing, found by trying."""
    tails = [bytes([a]) + b"\x80" * n for a in range(0x80, 0xC0) for n in range(3)]
    for cut in range(1, min(3, len(data)) + 1):
        if any(is_one_character(data[-cut:] + tail) for tail in tails):
            return data[:-cut].decode(errors="replace")
    return data.decode(errors="replace")


def is_one_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


@given(forests())
@settings(deadline=None)
def test_children_and_paths_are_those_of_plain_python(forest: tuple[BabbleGraph, list[PlainNode]]) -> None:
    graph, nodes = forest
    number = {id(node): i for i, node in enumerate(nodes)}
    assert graph.size == len(nodes)
    for i, node in enumerate(nodes):
        assert graph.children(i) == [number[id(child)] for child in node.children]
        assert graph.path(i) == [number[id(step)] for step in node.path()]
        assert graph.depth[i] == len(node.path()) - 1
        assert graph.parent[i] == (number[id(node.parent)] if node.parent else NO_PARENT)
        assert graph.root[i] == number[id(node.path()[0])]
        assert graph.prompt(i) == graph.prompts[number[id(node.path()[0])]]


@given(forests())
@settings(deadline=None)
def test_texts_and_tokens_are_those_of_plain_python(forest: tuple[BabbleGraph, list[PlainNode]]) -> None:
    graph, nodes = forest
    for i, node in enumerate(nodes):
        tokens = [t for step in node.path() for t in step.tokens]
        assert graph.span(i).tolist() == node.tokens
        assert graph.path_tokens(i).tolist() == tokens
        assert graph.length[i] == len(tokens)
        generated = b"".join(VOCABULARY[t] for step in node.path()[1:] for t in step.tokens)
        assert graph.text(i) == plain_text(generated)


@given(forests())
@settings(deadline=None)
def test_log_probabilities_add_up_along_the_path(forest: tuple[BabbleGraph, list[PlainNode]]) -> None:
    graph, nodes = forest
    for i, node in enumerate(nodes):
        total = math.fsum(step.log_q for step in node.path())
        for column in (graph.log_q, graph.log_p_f, graph.log_p_g, graph.log_inclusion):
            assert column[i] == pytest.approx(total)
        assert graph.log_weight(i) == pytest.approx(0, abs=1e-9)


@given(forests(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_many_adds_in_batches_equal_adds_one_by_one(
    forest: tuple[BabbleGraph, list[PlainNode]], chance
) -> None:
    graph, nodes = forest
    number = {id(node): i for i, node in enumerate(nodes)}
    single = BabbleGraph(graph.prompts, [n.tokens for n in nodes if n.parent is None], dict(VOCABULARY))
    for node in nodes[single.size :]:
        single.add(Born.of_spans([number[id(node.parent)]], [node.tokens], [node.log_q]))
        if chance.random() < 0.2:
            single.add(Born.of_spans([], [], []))
    for name in COLUMNS.keys() - {"key"}:  # of_spans numbers keys by their place in the batch
        np.testing.assert_array_equal(getattr(graph, name), getattr(single, name), err_msg=name)
    np.testing.assert_array_equal(graph.tokens, single.tokens)
    np.testing.assert_array_equal(graph.token_log_q, single.token_log_q)


def test_adding_nothing_changes_nothing() -> None:
    graph = small()
    assert graph.add(Born.of_spans([], [], [])).tolist() == []
    assert (graph.size, graph.frontier().tolist()) == (1, [0])


def test_an_expansion_without_children_still_counts_its_draws() -> None:
    graph = small()
    flags = np.array([Flag.EXHAUSTED], np.uint8)
    nothing = replace(
        Born.of_spans([], [], []),
        expanded=np.array([0], np.int32),
        draws=np.array([3], np.int32),
    )
    graph.add(replace(nothing, parent_flags=flags))
    assert graph.status[0] == Status.EXPANDED
    assert (graph.draws[0], graph.flags[0], graph.children(0)) == (3, Flag.EXHAUSTED, [])


def test_a_graph_grows_to_100_000_nodes_and_keeps_every_row() -> None:
    rng = np.random.default_rng(0)
    graph, parents = BabbleGraph(["p", "q"], [[0], [1]], dict(VOCABULARY)), [NO_PARENT, NO_PARENT]
    while graph.size < 100_000:
        parent = rng.integers(0, graph.size, 5_000)
        graph.add(Born.of_spans(parent, [[i % 14] for i in range(5_000)], -rng.random(5_000)))
        parents += parent.tolist()
    assert graph.parent.tolist() == parents
    children: list[list[int]] = [[] for _ in parents]
    for i, up in enumerate(parents):
        if up != NO_PARENT:
            children[up].append(i)
    assert all(graph.children(i) == children[i] for i in range(graph.size))
    np.testing.assert_array_equal(graph.tokens[2:], np.arange(graph.size - 2) % 5_000 % 14)


def test_a_node_takes_at_most_160_bytes_beside_its_tokens_room_to_grow_included() -> None:
    graph = small()
    while graph.size < 50_000:
        graph.add(Born.of_spans(np.arange(1_000) % graph.size, [[0]] * 1_000, np.zeros(1_000)))
        allocated = sum(column.nbytes for column in graph._columns.values())
        assert allocated <= 160 * max(graph.size, 64)
        assert len(graph._tokens) <= 1.25 * max(len(graph.tokens), 64)


def test_pairs_are_a_list_of_tuples() -> None:
    pairs, plain = Pairs(), []
    for n in (1, 0, 70, 300):
        more = [(len(plain) + i, i) for i in range(n)]
        pairs += more
        plain += more
        assert (len(pairs), list(pairs), bool(pairs)) == (len(plain), plain, bool(plain))
    pairs.append((5, 6))
    pairs.extend(np.array([[7, 8]]))
    plain += [(5, 6), (7, 8)]
    assert pairs == plain
    assert (pairs[-2], pairs[3:5], (5, 6) in pairs) == ((5, 6), plain[3:5], True)
    assert pairs.array.tolist() == [list(pair) for pair in plain]
    with pytest.raises(IndexError):
        pairs[len(plain)]


@pytest.mark.parametrize("character", ["é", "€", "😀", "\ufffd", "ש"])
def test_a_character_split_over_spans_shows_when_it_is_whole(character: str) -> None:
    data = character.encode()
    graph = BabbleGraph(["p"], [[0]], {i: bytes([i]) for i in range(256)})
    at, shown = 0, []
    for byte in b"x" + data:
        [at] = graph.add(Born.of_spans([at], [[byte]], [-1.0]))
        shown.append(graph.text(at))
    assert shown == ["x"] * len(data) + ["x" + character]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\xff", "a\ufffd"),  # never the start of a character: no reason to wait
        (b"a\x80", "a\ufffd"),
        (b"\xff \xe2\x82", "\ufffd "),  # an invalid byte before does not bring the open one back
        (b"\xe2a", "\ufffda"),
        (b"\xf0\x9f\x98", ""),
        (b"", ""),
    ],
)
def test_invalid_bytes_are_replaced_and_open_ones_left_out(data: bytes, text: str) -> None:
    graph = small()
    graph.vocabulary[99] = data
    assert graph.text(graph.add(Born.of_spans([0], [[99]], [-1.0]))[0]) == text


def test_a_root_has_no_generated_text_and_its_prompt_as_span_text() -> None:
    graph = BabbleGraph(["hello"], [[0]], {0: b"h"})
    assert (graph.text(0), graph.span_text(0), graph.prompt(0)) == ("", "hello", "hello")


def test_best_orders_by_score_then_log_probability_then_age() -> None:
    graph = leaves(scores=[0.5, 1.0, 0.5, 0.5], log_q=[-3.0, -9.0, -1.0, -3.0])
    assert graph.best(9) == [2, 3, 1, 4]
    assert graph.best(2) == [2, 3]
    assert graph.best() == [2]


def test_best_never_names_dead_unscored_or_unfinished_nodes() -> None:
    graph = leaves(scores=[0.9, math.nan, 0.8, 0.7, 0.6, 0.5], log_q=[-1.0] * 6)
    for node, status in ((1, Status.LEAF_DEAD), (3, Status.PRUNED), (4, Status.MERGED), (5, Status.FRONTIER)):
        graph.status[node] = status
    assert graph.best(9) == [6]


def test_best_of_one_tree_stays_in_it() -> None:
    graph = BabbleGraph(["p", "q"], [[0], [0]], dict(VOCABULARY))
    graph.add(Born.of_spans([0, 1, 1], [[0]] * 3, [-1.0] * 3, Status.LEAF_END))
    graph.score[2:] = [1.0, 0.2, 0.4]
    assert (graph.best(9, tree=1), graph.best(9, tree=0)) == ([4, 3], [2])


def test_add_marks_parents_expanded_and_counts_their_draws() -> None:
    graph = small()
    graph.add(Born.of_spans([0, 0], [[0], [1]], [-1.0, -1.0]))
    assert graph.status.tolist() == [Status.EXPANDED, Status.FRONTIER, Status.FRONTIER]
    graph.stop_nodes([1], Status.PRUNED, Gate.NODE)
    graph.add(Born.of_spans([0, 2], [[0], [1]], [-1.0, -1.0]))
    assert graph.draws.tolist() == [3, 0, 1, 0, 0]
    assert graph.frontier().tolist() == [3, 4]


def test_a_stopped_node_remembers_gate_and_round_until_it_is_expanded_again() -> None:
    graph = small()
    graph.add(Born.of_spans([0], [[0]], [-1.0]))
    graph.round = 7
    graph.stop_nodes([1], Status.PRUNED, Gate.NODE)
    assert (graph.status[1], graph.gate[1], graph.died[1]) == (Status.PRUNED, Gate.NODE, 7)
    graph.add(Born.of_spans([1], [[0]], [-1.0]))
    assert (graph.status[1], graph.gate[1], graph.died[1]) == (Status.EXPANDED, Gate.NONE, NEVER)
    assert graph.born.tolist() == [0, 0, 7]


def test_leaves_are_the_four_finished_states() -> None:
    graph = leaves(scores=[0.0] * len(Status), log_q=[0.0] * len(Status))
    graph.status[1:] = list(Status)
    finished = [Status.LEAF_END, Status.LEAF_STOP, Status.LEAF_LENGTH, Status.LEAF_DEAD]
    assert [Status(s) for s in graph.status[graph.is_leaf()]] == finished


def test_the_same_prompt_twice_gives_two_keys_and_another_seed_another() -> None:
    keys = [int(k) for seed in (0, 1) for k in BabbleGraph(["p", "p", "q"], [[0]] * 3, {}, seed).key]
    assert len(set(keys)) == 6
    assert BabbleGraph(["q"], [[0]], {}, 1).key[0] == keys[5]  # alone or among others


@pytest.mark.parametrize(("prompts", "tokens"), [([], []), (["p"], [[]])])
def test_a_graph_without_prompt_or_without_tokens_is_refused(
    prompts: list[str], tokens: list[list[int]]
) -> None:
    with pytest.raises(BadInput, match="got"):
        BabbleGraph(prompts, tokens, {})


def small() -> BabbleGraph:
    return BabbleGraph(["p"], [[0]], dict(VOCABULARY))


def leaves(scores: list[float], log_q: list[float]) -> BabbleGraph:
    """A root and finished leaves 1 … M below it."""
    graph = small()
    graph.add(Born.of_spans([0] * len(scores), [[0]] * len(scores), log_q, Status.LEAF_STOP))
    graph.score[1:] = scores
    return graph
