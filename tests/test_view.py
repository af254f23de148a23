"""The view: what it draws of a graph, that it never breaks the frame, and that it stays cheap on large graphs."""

from __future__ import annotations

import io
import re
import time
import unicodedata
from xml.dom import minidom

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.estimates import Estimate
from babblegraph.graph import BabbleGraph
from babblegraph.loop import Round
from babblegraph.protocols import Chosen
from babblegraph.status import Flag, Gate, Status
from babblegraph.stem import hold_back
from babblegraph.step_text import step_text
from babblegraph.view import tables
from babblegraph.view.estimates import estimate_report, interval
from babblegraph.view.fold import Kind, fold
from babblegraph.view.footer import bar, footer, time_left
from babblegraph.view.live import View, can_move, moving_tree, watch
from babblegraph.view.node import node_report
from babblegraph.view.report import best_tree, path, report, whole_text
from babblegraph.view.signs import ASCII, BEST, STYLES, UNICODE, signs_of
from babblegraph.view.svg import to_svg
from babblegraph.view.text import fit, visible
from babblegraph.view.tree import tree, tree_lines

BYTES = {i: bytes([i]) for i in range(256)}
WIDTHS = (40, 60, 100, 200, 250)
EMOJI = "👩‍👩‍👧‍👦👍🏽🇩🇪❤️"
HOSTILE = (
    "\x1b[2J\x1b[H", "\x1b]0;title\x07", "a\r\nb\tc", "\x00\x08\x7f\x9b31m", "\u202eright\u2066to\u2069left\u200f",
    "z" + "\u0301\u0302\u0303" * 40, "\u0301alone", "漢字かなカナ" * 9, EMOJI * 5, "\ufeff\u200b\u2028\u2029\ue000",
    "[bold red]markup[/] :smile: [link=x]", "\ud7ff\U000e0001\U000e0100", "क्षि" * 20, "\ufdfd" * 9, "x" * 5000, "",
)  # fmt: skip


def graph_of(*spans, prompts=("p",), parent=None, status=Status.FRONTIER, **meta):
    """A graph with one node a span: below the first root, or below the given parents."""
    graph = BabbleGraph(list(prompts), [[0]] * len(prompts), BYTES, meta=meta)
    data = [list(s.encode("utf-8", "surrogatepass") if isinstance(s, str) else s) for s in spans]
    if data:
        parents = [0] * len(data) if parent is None else parent
        graph.add(Born.of_spans(parents, data, [-1.0] * len(data), status))
    return graph


def solved():
    """A prompt with a path that passes, and a dead, a pruned, a merged and a live node beside it."""
    graph = graph_of("one\n", "two\n", "three\n", "four\n", "five\n", prompts=["3 5 7>38\n"], threshold=1.0)
    graph.add(Born.of_spans([1, 1], [list(b"yes\n"), list(b"no\n")], [-0.5, -2.0], Status.LEAF_STOP))
    graph.stop_nodes(2, Status.LEAF_DEAD)
    graph.stop_nodes(3, Status.PRUNED, Gate.NODE)
    graph.stop_nodes(4, Status.MERGED)
    graph.merges.append((4, 1))
    graph.value[1:] = 0.9, 0, 0.2, 0.8, 0.5, 1, 0
    graph.connectivity[1:6] = 0.5
    graph.score[[2, 6, 7]] = 0, 1, 0
    graph.meta["spent"] = Meter(Budget(tokens=100), 1).to_json()
    graph.meta["budget"] = {"tokens": 100}
    return graph


def random_graph(size, seed, reach=None):
    """A graph of so many nodes; each is born below one of the last `reach` nodes."""
    draw = np.random.default_rng(seed)
    graph = graph_of(threshold=1.0)
    while graph.size < size:
        m = min(size - graph.size, int(draw.integers(1, 9)) if reach else 5000)
        low = max(0, graph.size - reach) if reach else 0
        graph.add(Born.of_spans(draw.integers(low, graph.size, m), [[97, 98]] * m, [-1.0] * m))
    bare, x = graph.first_child == -1, draw.random(size)
    bare[0] = False
    graph.value[:], graph.connectivity[:] = draw.random(size), draw.random(size)
    for status, low, high in (
        (Status.LEAF_STOP, 0, 0.2),
        (Status.LEAF_DEAD, 0.2, 0.5),
        (Status.PRUNED, 0.5, 0.8),
    ):
        graph.status[bare & (x >= low) & (x < high)] = status
    leaf = graph.status == Status.LEAF_STOP
    graph.score[leaf] = draw.random(int(leaf.sum()))
    return graph


def plain(renderable, width, encoding="utf-8", colour=None):
    """What a terminal of this width would get."""
    out = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    console = Console(
        file=out, width=width, force_terminal=colour is not None, color_system=colour, _environ={}
    )
    console.print(renderable, crop=False)
    out.flush()
    return out.buffer.getvalue().decode(encoding)


def lines_of(graph, width=100, height=None, **more):
    return [line.plain for line in tree_lines(graph, width, height, **more)]


GRAPHS = {
    "a root only": graph_of,
    "one node": lambda: graph_of("a"),
    "a solved prompt": solved,
    "a deep chain": lambda: random_graph(400, 0, reach=1),
    "a wide fan": lambda: graph_of(*["x"] * 10_000),
    "a bushy tree": lambda: random_graph(700, 1, reach=30),
    "hostile text": lambda: graph_of(*HOSTILE, prompts=["".join(HOSTILE)]),
}


# ------------------------------------------------------------------------------------------------ the frame


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_longer_than_the_view_and_none_wraps(name, width):
    graph = GRAPHS[name]()
    for signs in (UNICODE, ASCII):
        lines = tree_lines(graph, width, 30, signs=signs)
        assert len(lines) <= 30
        assert max(cell_len(line.plain) for line in lines) <= width
        shown = plain(tree(graph, width=width, height=30, signs=signs), width)
        assert shown.count("\n") == len(lines)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_report_keeps_to_its_width_with_and_without_colour(name, width):
    graph = GRAPHS[name]()
    without = plain(report(graph, width=width, height=20), width)
    assert max(map(cell_len, without.splitlines())) <= width
    assert "\x1b" not in without
    assert "\x1b[" in plain(report(graph, width=width, height=20), width, colour="standard")


@pytest.mark.parametrize("name", GRAPHS)
def test_an_ascii_terminal_gets_ascii(name):
    graph = GRAPHS[name]()
    text = plain(report(graph, width=80, height=20, signs=ASCII), 80, "ascii")
    assert text.isascii()
    text = plain(node_report(graph, graph.size - 1, width=80, signs=ASCII), 80, "ascii")
    assert text.isascii()


@given(st.integers(2, 300), st.integers(0, 99), st.sampled_from([1, 3, 20, 500]), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_a_folded_tree_accounts_for_every_child_of_what_it_draws(size, seed, reach, height):
    graph = random_graph(size, seed, reach)
    lines = fold(graph, 0, height, focus=[size - 1])
    assert len(lines) <= height
    drawn = [x.node for x in lines if x.kind is Kind.NODE]
    assert len(drawn) == len(set(drawn))
    assert drawn[0] == 0
    accounted = dict.fromkeys(drawn, 0)
    for line in lines:
        if line.kind is Kind.FOLD or (line.kind is Kind.NODE and line.hidden):
            accounted[line.node] += line.hidden
        if line.kind is Kind.GAP or (
            line.node and line.kind is Kind.NODE and graph.parent[line.node] in accounted
        ):
            accounted[int(graph.parent[line.node])] += 1
    assert accounted == {node: len(graph.children(node)) for node in drawn}


@given(st.integers(2, 60), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_without_a_limit_every_node_is_drawn_once(size, seed):
    drawn = [x.node for x in fold(random_graph(size, seed, 5), 0)]
    assert sorted(drawn) == list(range(size))


def test_the_work_for_a_large_graph_is_for_the_lines_that_are_drawn(monkeypatch):
    from babblegraph.view import tree as module

    read = []
    monkeypatch.setattr(module, "step_text", lambda graph, node, n: read.append(node) or "text")
    graph = random_graph(100_000, 2)
    monkeypatch.setattr(graph, "children", None)
    begin = time.perf_counter()
    lines = tree_lines(graph, 120, 40, focus=list(range(99_000, 100_000)))
    assert len(lines) <= 40
    assert len(read) < 40
    assert time.perf_counter() - begin < 2  # about 0.02 s on an idle core


# ------------------------------------------------------------------------------------------------ what is said


def test_every_status_has_its_own_sign_and_a_colour():
    for signs in (UNICODE, ASCII):
        leaves = {Status.LEAF_END, Status.LEAF_STOP}  # both are just finished
        assert len({signs.status[s] for s in Status if s not in leaves} | {signs.passed}) == len(Status) - 1
        assert all(cell_len(sign) == 1 for sign in (*signs.status.values(), signs.passed))
    assert set(STYLES) == set(Status)


def test_a_solved_tree_looks_like_this():
    assert [line.rstrip() for line in lines_of(solved(), 100)] == [
        "span                             status   value  conn   log w     node",
        "● 3 5 7>38⏎                                                         #0",
        "┡━ ● one⏎                                ▆ 0.90  0.50     0.0       #1",
        "│  ┡━ ★ yes⏎                     passed  ▇ 1.00           0.0       #6",
        "│  └─ ◆ no⏎                      failed  ▁ 0.00           0.0       #7",
        "├─ ✗ two⏎                 dead, worth 0  ▁ 0.00  0.50     0.0       #2",
        "├─ ⊘ three⏎                   node gate  ▂ 0.20  0.50     0.0       #3",
        "├─ ⇢ four⏎                         → #1  ▆ 0.80  0.50     0.0       #4",
        "└─ ○ five⏎                               ▄ 0.50  0.50     0.0       #5",
    ]


def test_a_narrow_ascii_terminal_gets_the_same_tree_in_fewer_letters():
    assert [line.rstrip() for line in lines_of(solved(), 40, signs=ASCII)] == [
        "span                     status   value",
        r"* 3 5 7>38\n",
        r"|=* one\n                          0.90",
        r"| |=@ yes\n              passed    1.00",
        r"| `-# no\n               failed    0.00",
        r"|-x two\n                  dead    0.00",
        r"|-/ three\n              pruned    0.20",
        r"|-> four\n                -> #1    0.80",
        r"`-o five\n                         0.50",
    ]


def test_the_way_to_the_best_leaf_is_one_heavy_line_from_the_prompt_to_its_end():
    graph = graph_of("a", "b", "c", threshold=1.0)
    graph.add(Born.of_spans([1, 2, 2, 3], [[100], [101], [102], [103]], [-1.0] * 4, Status.LEAF_STOP))
    graph.score[4:] = 0, 0, 1, 0
    lines = tree_lines(graph, 100)[1:]
    assert [re.split("[●◆★]", line.plain)[0].rstrip() for line in lines] == [
        *("", "┠─", "┃  └─", "┡━", "│  ┠─", "│  ┗━", "└─", "   └─")
    ]
    for line in lines:  # in colour exactly the heavy signs are green
        green = {line.plain[i] for x in line.spans if x.style == BEST for i in range(x.start, x.end)}
        assert green & set("├└│─┠┃┡┗━") == set(line.plain) & set("┠┃┡┗━")


def test_a_branch_says_what_became_of_it_when_all_its_ends_are_stopped():
    graph = graph_of("a", "b", "c", threshold=1.0)
    graph.add(Born.of_spans([1, 1, 2, 2, 3, 3], [[100 + i] for i in range(6)], [-1.0] * 6))
    graph.stop_nodes([4, 5, 6], Status.LEAF_DEAD)
    graph.stop_nodes([7], Status.PRUNED, Gate.NODE)
    said = {line.split()[-1]: line for line in lines_of(graph, 100)}
    assert "all dead" in said["#1"]
    assert "dead, pruned" in said["#2"]
    assert "stopped" not in said["#3"]  # its ends are live


def test_folded_siblings_are_counted_by_what_became_of_them():
    graph = graph_of(*[f"node {i}" for i in range(15)])
    graph.stop_nodes(np.arange(1, 10), Status.LEAF_DEAD)
    graph.stop_nodes(np.arange(10, 13), Status.PRUNED, Gate.NODE)
    graph.value[1:13], graph.value[13:] = 0.41, 0.9
    last = lines_of(graph, 100, 5)[-1]
    said, best, mass = "└─ … 13 more: 1 live, 9 dead, 3 pruned", "▆ 0.90", f"{np.log(10):.1f}"
    assert last.split("  ")[0] == said
    assert last.split()[-3:] == [*best.split(), mass]  # ten that are not pruned, of weight 1 each


def test_a_folded_subtree_says_how_many_are_in_it_and_the_best_of_them():
    graph = graph_of("a")
    for parent, letter in zip([1, 1, 3, 0, 5], "bcdef", strict=True):
        graph.add(Born.of_spans([parent], [[ord(letter)]], [-1.0]))
    graph.value[1:] = 0.1, 0.2, 0.3, 0.8, 0.9, 0.5
    text = "\n".join(lines_of(graph, 100, 4))
    assert "a … 3 below, best 0.80" in text
    assert "e … 1 below, best 0.50" in text


def test_a_node_that_was_expanded_again_is_marked():
    graph = graph_of("a", "b")
    for graph.round in (1, 2, 3):
        graph.add(Born.of_spans([1, 1], [[120], [121]], [-1.0, -1.0]))
    assert lines_of(graph, 100)[2].split()[3:5] == ["↻", "2"]


def test_a_node_that_was_held_back_before_it_was_expanded_is_not_marked_as_expanded_again():
    graph = graph_of("a")
    stem = int(hold_back(graph, [1])[0])
    graph.round = 1
    graph.add(Born.of_spans([1, stem], [[120], [121]], [-1.0, -1.0]))
    shown = plain(report(graph, width=100), 100)
    assert "↻" not in shown
    graph.round = 2
    graph.add(Born.of_spans([1], [[122]], [-1.0]))
    assert "↻ expanded again later" in plain(report(graph, width=100), 100)
    assert "a ↻ 1 " in lines_of(graph, 100)[2]
    assert "● (held back)" in shown


@pytest.mark.parametrize("width", [20, 44, 80, 100])
def test_the_path_to_a_leaf_more_than_a_thousand_steps_deep_keeps_its_figures_whole(width):
    graph = graph_of()
    for i in range(1200):
        graph.add(Born.of_spans([i], [list(b"a step that is much longer than the line " * 3)], [-1.0]))
    graph.value[1:] = 0.25
    lines = [line.plain for line in path(graph, 1200, width=width)]
    assert max(map(cell_len, lines)) <= width
    assert all(" 0.25" in line for line in lines[2:] if "more" not in line)
    assert len({line.index("0.25") for line in lines[2:] if "more" not in line}) == 1


def test_the_path_to_the_best_leaf_is_kept_however_small_the_room():
    graph = random_graph(3000, 5, reach=40)
    best = graph.best(1)[0]
    for height in (6, 12, 40):
        lines = fold(graph, 0, height)
        assert best in [x.node for x in lines if x.kind is Kind.NODE]


def test_a_path_deeper_than_the_room_loses_its_middle():
    graph = random_graph(500, 0, reach=1)
    text = "\n".join(lines_of(graph, 80, 20))
    assert "more levels" in text
    assert max(map(cell_len, text.splitlines())) <= 80


def test_a_failed_value_is_marked_and_reported():
    graph = graph_of("a", "b")
    graph.flags[1] |= Flag.SCORER_FAILED
    graph.failures.append({"node": 1, "error": "ValueError: \x1b[31mno\nvalue"})
    text = plain(report(graph, width=100), 100)
    assert "value failed" in text
    assert "The value or the task failed 1 time" in text
    assert "␛[31mno⏎value" in text


def test_an_unfinished_search_shows_how_far_it_came():
    graph = graph_of("a\n", "b\n")
    graph.value[1:] = 0.2, 0.7
    text = plain(report(graph, width=80), 80)
    assert "No answer" in text
    assert "1  b⏎" in text


def test_an_answer_is_printed_in_full_with_its_lines():
    text = plain(report(solved(), width=80), 80)
    assert "\n  one\n  yes\n" in text
    assert "★ passed" in text


@pytest.mark.parametrize("letter", ["x", "漢", "e\u0301\u0323"])
def test_the_work_for_a_text_on_one_line_grows_with_it_and_not_with_its_square(monkeypatch, letter):
    measured = 0

    def counted(text):
        nonlocal measured
        measured += len(text)
        return cell_len(text)

    monkeypatch.setattr("babblegraph.view.text.cell_len", counted)
    text = letter * 20_000
    lines = [line.plain for line in whole_text(text, 82)]
    assert "".join(line.removeprefix("  ") for line in lines) == visible(text)
    assert {cell_len(line) for line in lines[:-1]} == {82}
    assert measured < 10 * len(text)


def test_the_tree_with_the_best_right_answer_is_drawn_and_found_without_a_pass_over_the_graph_each(
    monkeypatch,
):
    prompts = [f"prompt {i}" for i in range(40)]
    graph = graph_of(*["a"] * 80, prompts=prompts, parent=[*range(40)] * 2, status=Status.LEAF_STOP)
    draw = np.random.default_rng(0)
    graph.score[40:] = draw.random(80)
    assert best_tree(graph) == graph.root[np.nanargmax(graph.score)]
    graph.meta["right"] = right = (draw.random(40) < 0.3).tolist()
    best = [max(graph.score[n] for n in graph.children(tree)) if right[tree] else 0 for tree in range(40)]
    monkeypatch.setattr("babblegraph.view.report.best_leaf", None)
    assert best_tree(graph) == np.argmax(best)
    graph.meta["right"] = [False] * 40
    assert best_tree(graph) == graph.root[np.nanargmax(graph.score)]


def test_gates_count_who_entered_and_who_passed():
    graph = solved()
    graph.meta["token_gate"] = {"entered": 1000, "passed": 40}
    assert tables.gate_counts(graph) == {
        Gate.TOKEN: (1000, 40),
        Gate.NODE: (7, 6),  # one was stopped there
        Gate.LEAF: (3, 1),  # the dead one is a finished leaf too
        Gate.ELITE: (1, 1),
    }
    text = plain(tables.gates(graph, width=80), 80)
    assert "96.0 %" in text


def test_the_elite_gate_counts_equal_texts_once():
    graph = graph_of("a", "b", "ab", parent=[0, 0, 0], threshold=0.5)
    graph.add(Born.of_spans([1], [[98]], [-1.0]))
    graph.status[[3, 4]] = Status.LEAF_END
    graph.score[[3, 4]] = 1.0
    assert tables.gate_counts(graph)[Gate.ELITE] == (2, 1)


def test_many_prompts_fold_into_a_table_around_the_one_in_focus():
    graph = graph_of(prompts=[f"prompt {i}" for i in range(50)], threshold=1.0)
    lines = [x.plain for x in tables.prompts(graph, width=80, height=8, focus=30)]
    assert len(lines) <= 8
    assert any(x.startswith("→ ● prompt 30") or x.startswith("→ ○ prompt 30") for x in lines)
    assert "more prompts" in lines[-1]


def test_the_footer_says_what_is_spent_and_what_is_left():
    graph, meter = solved(), Meter(Budget(tokens=100, seconds=1000), 1)
    meter.count("sampled", 0, 25)
    text = "\n".join(x.plain for x in footer(graph, meter.read(), meter.budget, width=100, rate=1234.0))
    for word in (
        "25 / 100 tokens",
        "1234 tokens/s",
        "left",
        "○ 1 live",
        "⊘ 1 pruned",
        "✗ 1 dead",
        "best 1.00",
    ):
        assert word in text
    for width in WIDTHS:
        assert all(cell_len(x.plain) <= width for x in footer(graph, meter.read(), meter.budget, width=width))


@given(st.floats(0, 1), st.integers(1, 60))
def test_a_bar_is_as_long_as_it_should_be(share, width):
    assert cell_len(bar(share, width).plain) == width


def test_the_time_left_is_that_of_the_bound_that_comes_first():
    meter = Meter(Budget(tokens=100, seconds=50), 1, earlier_seconds=10.0)
    meter.count("sampled", 0, 50)
    left = time_left(meter.read(), meter.budget)
    assert left is not None
    assert 9 < left < 11


# ------------------------------------------------------------------------------------------------ text


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("signs", [UNICODE, ASCII])
def test_hostile_text_becomes_one_safe_line(text, signs):
    line = visible(text, signs)
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]
    for width in (0, 1, 2, 7, 30):
        assert cell_len(fit(text, width, signs)) <= width
        assert cell_len(fit(text, width, signs, middle=True)) <= width


@given(st.text(), st.integers(0, 40))
def test_any_text_fits_and_obeys_nothing(text, width):
    for middle in (False, True):
        line = fit(text, width, middle=middle)
        assert cell_len(line) <= width
        assert not [c for c in line if unicodedata.category(c)[0] == "C"]


def test_a_text_cut_behind_piles_of_marks_says_so():
    assert fit("abc" + "\u0301" * 90 + "def", 10) == "abć\u0301\u0301…"
    assert fit("abc" + "\u0301" * 9 + "def", 10) == "abć\u0301\u0301def"


def test_marks_do_not_pile_up():
    assert sum(unicodedata.combining(c) > 0 for c in visible("z" + "\u0301\u0302\u0303" * 40)) <= 2


def test_a_character_cut_between_two_nodes_belongs_to_the_second():
    data = "aé漢b".encode()
    for cut in range(1, len(data)):
        graph = graph_of(data[:cut], data[cut:], parent=[0, 0])
        graph = graph_of(data[:cut])
        graph.add(Born.of_spans([1], [list(data[cut:])], [-1.0]))
        assert step_text(graph, 1, 99) + step_text(graph, 2, 99) == "aé漢b"


def test_bytes_that_are_no_text_are_shown_as_such():
    graph = graph_of(b"\x80\x80", b"\xff\xc3\x28")
    assert all("\ufffd" in step_text(graph, node, 9) for node in (1, 2))


# ------------------------------------------------------------------------------------------------ live and SVG


def rounds_of(graph_states):
    """Rounds as a search would yield them."""
    meter = Meter(Budget(tokens=1000), 1)
    for graph, born in graph_states:
        meter.count("sampled", 0, 4)
        yield Round(
            graph, Chosen(np.array([0]), np.array([1])), np.array(born), np.array([], int), meter.read()
        )


def growing(n=30):
    graph = graph_of(threshold=1.0)
    for i in range(n):
        born = graph.add(Born.of_spans([max(0, i - 1)], [list(f"step {i}\n".encode())], [-1.0]))
        graph.value[born] = 0.5
        graph.round += 1
        yield graph, born
    graph.status[graph.size - 1] = Status.LEAF_END
    graph.score[graph.size - 1] = 1.0
    yield graph, []


def terminal(**environ):
    out = io.StringIO()
    return Console(
        file=out, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm", **environ}
    ), out


def test_watching_in_a_terminal_redraws_and_leaves_it_as_it_was():
    console, out = terminal()
    last = watch(rounds_of(growing()), console, Budget(tokens=1000))
    text = out.getvalue()
    assert last is not None
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.index("searching") < text.index("step 0")
    assert "\x1b[?25l" not in text[text.index("\x1b[?25h") :]
    assert "Answer" in text[text.index("\x1b[?25h") :]


def test_frames_are_no_more_than_ten_a_second(monkeypatch):
    console, _ = terminal()
    view, drawn = View(console, Budget(tokens=1000)), []
    monkeypatch.setattr(view, "_frame", lambda found: drawn.append(found) or [Text("frame")])
    begin = time.monotonic()
    with view:
        for _ in view.follow(rounds_of(growing(200))):
            pass
    assert 1 <= len(drawn) <= 2 + 10 * (time.monotonic() - begin)


def test_the_status_of_a_narrow_terminal_is_cut_where_no_figure_is():
    console, _ = terminal()
    console.width = 24
    view = View(console, Budget(tokens=1000))
    view._screen = None
    view._status = "loading part 1234567890 of 9"
    assert view._clock().plain.split(maxsplit=1)[1] == "loading part …"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_cursor_comes_back_after_an_error(error):
    def broken():
        yield from rounds_of(growing(3))
        raise error

    console, out = terminal()
    with pytest.raises(error):
        watch(broken(), console, Budget(tokens=1000))
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1


def test_a_frame_fits_the_screen_and_its_footer_never_jumps_up():
    console, _ = terminal()
    view, heights = View(console, Budget(tokens=1000)), []
    for found in rounds_of(growing(60)):
        heights.append(len(view._frame(found)) + 1)  # and the status
    assert max(heights) <= 24
    assert heights == sorted(heights)


def test_without_colours_the_live_view_still_moves_and_writes_none():
    console, out = terminal(NO_COLOR="1")
    watch(rounds_of(growing()), console, Budget(tokens=1000))
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", out.getvalue()) for code in found.split(";")}
    assert codes <= {"", "0", "1", "2"}  # bold and dim at most
    assert "step 0" in out.getvalue()


def test_a_terminal_whose_cursor_cannot_be_moved_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console, out = terminal(TERM="dumb")
    errors = Console(file=io.StringIO(), width=80, _environ={})
    watch(rounds_of(growing()), console, Budget(tokens=1000), errors=errors)
    assert not can_move(console)
    assert "\x1b[?25" not in out.getvalue()
    assert "Answer" in out.getvalue()
    assert errors.file.getvalue().splitlines()[0] == "babblegraph: searching"


def test_in_a_pipe_progress_goes_to_standard_error_and_the_report_to_standard_output(monkeypatch):
    from babblegraph.view import live

    monkeypatch.setattr(live, "PLAIN_SECONDS", 0.0)
    console, errors = (Console(file=io.StringIO(), width=80, _environ={}) for _ in range(2))
    watch(rounds_of(growing()), console, Budget(tokens=1000), errors=errors)
    out, err = console.file.getvalue(), errors.file.getvalue()
    assert "\x1b" not in out + err
    assert "tokens" in err
    assert "step 0" in out
    assert "step 0" not in err


def test_a_quiet_view_says_nothing():
    console, errors = (Console(file=io.StringIO(), width=80, _environ={}) for _ in range(2))
    with View(console, Budget(tokens=1), errors=errors, quiet=True) as view:
        view.say("loading")
        assert len(list(view.follow(rounds_of(growing(3))))) == 4
        view.report(solved())
    assert console.file.getvalue() + errors.file.getvalue() == ""


def test_the_tree_to_watch_is_the_first_that_grew_and_has_no_answer():
    graph = graph_of("a", "b", "c", prompts=["x", "y", "z"], parent=[0, 1, 2], threshold=0.5)
    graph.status[3], graph.score[3] = Status.LEAF_END, 1
    assert moving_tree(graph, np.array([3, 4, 5])) == 1


def test_an_svg_is_the_same_for_the_same_graph_and_needs_nothing_from_outside():
    graph = graph_of(*HOSTILE, prompts=["<prompt> & more"])
    svg = to_svg(graph)
    assert svg == to_svg(graph)
    minidom.parseString(svg)
    assert "url(http" not in svg
    assert "@import" not in svg
    for text in minidom.parseString(to_svg(solved())).getElementsByTagName("text"):
        assert not text.firstChild.data.startswith("\xa0")


def test_signs_follow_the_encoding():
    assert signs_of("UTF-8") is UNICODE
    assert signs_of("ISO-8859-1") is ASCII
    assert signs_of(None) is ASCII


def test_a_search_that_solves_shows_log_probabilities_since_its_weights_mean_nothing():
    graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    graph.add(Born.of_spans([0], [[0]], [-1.5], log_inclusion=[0.0]))
    shown = {}
    for aim in ("estimate", "solve"):
        graph.meta["aim"] = aim
        graph.log_p_g[1] = -7.25
        shown[aim] = "\n".join(line.plain for line in tree_lines(graph, 100))
    assert "log w" in shown["estimate"] and "−1.5" in shown["estimate"]  # noqa: PT018
    assert "log p" in shown["solve"] and "−7.2" in shown["solve"]  # noqa: PT018


@pytest.mark.parametrize(
    "changed", [{}, {"value": None, "low": None, "high": 0.31, "reason": "no hit in 8 trees"}]
)
def test_a_warning_of_an_estimate_is_said_in_full_however_narrow(changed):
    fields = {"value": 0.5, "error": 0.1, "effective": 9.0, "low": 0.3, "high": 0.7, "trees": 8, "hits": 5}
    found = Estimate(**(fields | changed), warnings=("8 trees a prompt are fewer than 32: beware",))
    for width in (24, 44, 80):
        text = plain(estimate_report("p", 1.0, found, width=width), width)
        assert "warning: 8 trees a prompt are fewer than 32: beware" in " ".join(text.split())


def test_an_interval_is_given_as_a_half_width_only_where_both_halves_read_the_same():
    even = Estimate(0.5, 0.1, 9.0, low=0.2, high=0.8)
    assert interval(even) == "0.5 ± 0.3   (95 %: 0.2 to 0.8)"
    assert interval(even, ASCII) == "0.5 +- 0.3   (95 %: 0.2 to 0.8)"
    assert interval(Estimate(0.9866, 0.1, 9.0, low=0.748, high=0.9994)) == "0.9866   (95 %: 0.748 to 0.999)"


@pytest.mark.parametrize(
    ("independent", "words"),
    [
        (430.0, "430 tokens for the same interval   (0.43 times as many)"),
        (250_000.0, "250k tokens for the same interval   (250 times as many)"),
        (1.2, "1 token for the same interval"),
        (0.4, "under 1 token for the same interval"),
    ],
)
def test_what_independent_sampling_would_cost_reads_well_however_little(independent, words):
    fields = {"low": 0.3, "high": 0.7, "tokens": 1000, "independent_tokens": independent}
    text = plain(estimate_report("p", 1.0, Estimate(0.5, 0.1, 9.0, **fields), width=100), 100)
    assert re.search("independent sampling +(.*)", text).group(1).strip() == words
