"""The live view's screen and charts: what a terminal would show of what is written, and what each chart counts."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text
from test_clean import hostile_graph, random_spans
from test_view import graph_of, random_graph, rounds_of, solved

from babblegraph.budget import Budget
from babblegraph.status import Status
from babblegraph.subtrees import passing
from babblegraph.view import charts, live
from babblegraph.view.frame import History, frame
from babblegraph.view.live import View
from babblegraph.view.screen import CLOSE, OPEN, Screen
from babblegraph.view.signs import ASCII, UNICODE

SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Terminal:
    """As much of a terminal as the screen uses; anything else that it is sent is an error. ASCII alone."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.rows, self.at, self.wraps = [[" "] * width for _ in range(height)], [0, 0], True

    def feed(self, text: str) -> None:
        while text:
            if found := SEQUENCE.match(text):
                self.obey(*found.groups())
                text = text[found.end() :]
                continue
            c, text = text[0], text[1:]
            assert c.isprintable(), repr(c)
            row, column = self.at
            if column >= self.width:
                assert not self.wraps
                column = self.width - 1
            self.rows[row][column] = c
            self.at = [row, column + 1]

    def obey(self, private: str, numbers: str, letter: str) -> None:
        row, column = self.at
        column = min(column, self.width - 1)
        if private:
            assert numbers in ("1049", "25", "7", "2026")
            self.wraps = letter == "h" if numbers == "7" else self.wraps
        elif letter == "H":
            self.at = [int(n) - 1 for n in numbers.split(";")]
            assert 0 <= self.at[0] < self.height
        elif letter == "K":
            self.rows[row][column:] = " " * (self.width - column)
        elif letter == "J":
            start = 0 if numbers == "2" else row
            self.rows[start:] = [[" "] * self.width for _ in range(self.height - start)]
        else:
            assert letter == "m", letter

    def shown(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]


def pretended(width: int, height: int) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={"TERM": "xterm"}
    )


LINES = st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=14), max_size=9)


@given(st.lists(LINES, min_size=1, max_size=5), st.integers(3, 12), st.integers(2, 8))
@settings(max_examples=80)
def test_the_terminal_shows_the_last_frame_whatever_came_before(frames, width, height):
    console = pretended(width, height)
    terminal = Terminal(width, height)
    with Screen(console, lambda: Text("status")) as screen:
        for lines in frames:
            screen.draw([Text(line) for line in lines])
            terminal.feed(console.file.getvalue())
            console.file.truncate(0)
            console.file.seek(0)
            wanted = [line[:width].rstrip() for line in lines[: height - 1]] + ["status"[:width]]
            assert terminal.shown() == wanted + [""] * (height - len(wanted))


def test_lines_that_did_not_change_are_not_written_again():
    console = pretended(40, 10)
    with Screen(console) as screen:
        screen.draw([Text("one"), Text("two"), Text("three")])
        before = len(console.file.getvalue())
        screen.draw([Text("one"), Text("TWO"), Text("three")])
        written = console.file.getvalue()[before:]
        assert "TWO" in written
        assert "one" not in written
        assert "three" not in written
        before = len(console.file.getvalue())
        screen.draw([Text("one"), Text("TWO"), Text("three")])
        assert len(console.file.getvalue()) == before
    assert console.file.getvalue().startswith(OPEN)
    assert console.file.getvalue().endswith(CLOSE)


def test_after_a_resize_everything_is_written_anew_in_the_new_width():
    console = pretended(40, 10)
    with Screen(console) as screen:
        screen.draw([Text("a long line of text")])
        console.size = (8, 5)
        before = len(console.file.getvalue())
        screen.draw()
        written = console.file.getvalue()[before:]
    assert "\x1b[2J" in written
    assert "a long l\x1b" in written


def test_a_terminal_that_does_not_know_its_size_gets_the_usual_one():
    leader, follower = pty.openpty()  # 0 × 0 until somebody says otherwise
    with os.fdopen(leader, "rb"), os.fdopen(follower, "w") as file:
        assert tuple(os.get_terminal_size(file.fileno())) == (0, 0)
        console = Console(file=file, force_terminal=True, _environ={})
        screen = Screen(console)
        assert screen.size == (console.width, console.height)
        assert min(screen.size) > 0


def test_the_spinner_turns_by_itself_and_only_its_line_is_written():
    console, turns = pretended(40, 10), iter(range(1000))
    with Screen(console, lambda: Text(f"turn {next(turns)}")) as screen:
        screen.draw([Text("tree")])
        begin = time.monotonic()
        while "turn 2" not in console.file.getvalue() and time.monotonic() - begin < 20:
            time.sleep(0.02)
    assert "turn 2" in console.file.getvalue()
    assert console.file.getvalue().count("tree") == 1


def test_a_status_said_while_a_frame_is_drawn_does_not_tear_it():
    """As when Ctrl-C is handled in the middle of a frame."""
    console = pretended(40, 10)
    screen = Screen(console, lambda: Text("status"))

    class Interrupting(Text):
        @property
        def cell_len(self):
            screen.draw()
            return super().cell_len

    with screen:
        screen.draw([Interrupting("one"), Text("two")])
    terminal = Terminal(40, 10)
    terminal.feed(console.file.getvalue())
    assert terminal.shown()[:4] == ["one", "two", "status", ""]


def in_a_terminal(program):
    """What a terminal gets from a program, and its exit status."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        parts = []
        try:
            while part := os.read(master, 65536):
                parts.append(part)
        except OSError:  # the other end is closed
            pass
        os.close(master)
    return b"".join(parts).decode(), process.returncode


SHOWS = (
    "import os, sys, tempfile\n"
    "from rich.text import Text\n"
    "from babblegraph.view.console import PlainConsole\n"
    "from babblegraph.view.screen import Screen\n"
)


def test_what_others_print_meanwhile_is_printed_when_the_screen_is_closed():
    text, status = in_a_terminal(
        SHOWS + "with Screen(PlainConsole()) as screen:\n"
        "    screen.draw([Text('the frame')])\n"
        "    print('from python'); sys.stdout.flush()\n"
        "    os.write(2, b'from c\\n')\n"
        "    screen.draw([Text('another frame')])\n"
        "print('the report')\n"
    )
    assert status == 0, text
    inside, after = text.split(CLOSE)
    assert "the frame" in inside
    assert "from" not in inside
    assert "from python\r\nfrom c\r\n" in after
    assert after.endswith("the report\r\n")


def test_a_search_can_be_watched_where_no_temporary_file_can_be_made():
    text, status = in_a_terminal(
        SHOWS + "def full():\n"
        "    raise OSError(28, 'No space left on device')\n"
        "tempfile.TemporaryFile = full\n"
        "with Screen(PlainConsole()) as screen:\n"
        "    screen.draw([Text('the frame')])\n"
        "print('the report')\n"
    )
    assert status == 0, text
    inside, after = text.split(CLOSE)
    assert "the frame" in inside
    assert after == "the report\r\n"


def test_frames_take_no_more_than_their_share_of_the_processor(monkeypatch):
    """Clocks by hand: a frame takes 10 ms, a round 1 ms; the view may have 1.5 % of it, and one frame ahead."""
    now = 0.0

    class Clock:
        monotonic = process_time = thread_time = staticmethod(lambda: now)

    monkeypatch.setattr(live, "time", Clock)
    view = View(pretended(80, 24), Budget(tokens=1000))
    drawn = 0

    def slow_frame(found):
        nonlocal now, drawn
        now, drawn = now + 0.01, drawn + 1
        return [Text("frame")]

    monkeypatch.setattr(view, "_frame", slow_frame)
    graph = graph_of("a")
    found = next(rounds_of([(graph, [1])]))
    with view:
        for _ in range(20_000):
            view.show(found)
            now += 0.001
    assert view.cost == pytest.approx(0.01 * drawn)
    assert 20 < drawn <= 1 + live.SHARE * now / 0.01
    assert drawn <= now * live.REDRAWS


def test_a_search_that_grows_from_one_node_is_soon_seen_again(monkeypatch):
    """A frame of a small graph costs about as much as one of a graph a thousand times its size."""
    now = 0.0

    class Clock:
        monotonic = process_time = thread_time = staticmethod(lambda: now)

    monkeypatch.setattr(live, "time", Clock)
    view, seen = View(pretended(80, 24), Budget(tokens=1000)), []

    def frame(found):
        nonlocal now
        now += 0.006
        seen.append(now)
        return [Text("frame")]

    monkeypatch.setattr(view, "_frame", frame)
    small, large = (next(rounds_of([(graph_of(*"a" * n), [1])])) for n in (1, 1000))
    with view:
        view.show(small)
        for _ in range(1500):
            view.show(large)
            now += 0.001
    assert len(seen) >= 2
    assert seen[1] - seen[0] < 1.0


# ------------------------------------------------------------------------------------------------ charts and frames


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=60), st.integers(1, 30))
def test_a_sparkline_keeps_to_its_width_and_rises_with_its_values(values, width):
    for signs in (UNICODE, ASCII):
        line = charts.sparkline(values, width, signs, 0.0)
        assert cell_len(line) <= width
        if len(values) <= width and not np.isnan(values).any():
            order = np.argsort(values, kind="stable")
            heights = np.array([signs.bars.index(c) for c in line])[order]
            assert (np.diff(heights) >= 0).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(2, 40), st.integers(1, 4))
def test_a_histogram_has_a_bar_where_there_is_a_value_and_is_highest_where_most_are(values, width, height):
    *bars, axis = [line.plain for line in charts.histogram(values, width, height)]
    counts = np.histogram(values, bins=width, range=(0, 1))[0]
    tall = [sum(UNICODE.bars.index(row[i]) for row in bars) for i in range(width)]
    assert [t > 0 for t in tall] == [c > 0 for c in counts]
    assert tall[int(counts.argmax())] == height * (len(UNICODE.bars) - 1)
    assert cell_len(axis) == width


@pytest.mark.parametrize("reach", [1, 5, None])
@pytest.mark.parametrize("width", [28, 60])
def test_the_map_counts_every_node_once(reach, width):
    graph = random_graph(500, 3, reach)
    graph.meta["threshold"] = 0.9
    lines = charts.depth_map(graph, width)
    assert max(cell_len(line.plain) for line in lines) <= width
    assert sum(int(line.plain.split()[-1]) for line in lines[1:]) == graph.size
    passed = next(line.plain for line in lines if "passed" in line.plain)
    assert int(passed.split()[-1]) == passing(graph).sum()


def test_the_map_is_darkest_at_the_depth_where_most_nodes_are():
    graph = graph_of(*["x"] * 50)
    live_row = next(line.plain for line in charts.depth_map(graph, 40) if "live" in line.plain)
    assert live_row.split("live")[1][5:].startswith(" " * 4 + "████")
    assert (graph.status[1:] == Status.FRONTIER).all()


@pytest.mark.parametrize(("width", "height"), [(40, 10), (56, 22), (80, 23), (149, 30), (150, 30), (250, 60)])
@pytest.mark.parametrize("make", [graph_of, solved, lambda: random_graph(3000, 1, 30), None])
def test_a_frame_has_exactly_the_lines_and_at_most_the_cells_of_its_terminal(width, height, make):
    graph = hostile_graph(random_spans(200, 8), 1) if make is None else make()
    history = History()
    for _ in range(3):
        history.see(graph, 10.0)
    for signs in (UNICODE, ASCII):
        lines = frame(graph, width=width, height=height, history=history, signs=signs)
        assert len(lines) == height
        assert max(cell_len(line.plain) for line in lines) <= width


def test_a_long_history_is_thinned_out_and_keeps_its_end():
    graph, history = solved(), History()
    for i in range(1000):
        history.see(graph, float(i))
    assert len(history.rate) <= 241
    assert history.rate[-1] == 999.0
    assert (np.diff(history.rate) > 0).all()
