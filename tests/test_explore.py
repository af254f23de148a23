"""The explorer: every key pressed in a terminal that Textual pretends to be."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from test_clean import hostile_graph, random_spans
from test_view import graph_of, random_graph, solved

from babblegraph.born import Born
from babblegraph.errors import BadInput
from babblegraph.explore import explore
from babblegraph.explore.outline import ORDERS, Filter
from babblegraph.status import Gate, Status

textual = pytest.importorskip(
    "textual", reason="the explorer needs Textual: pip install babblegraph[explore]"
)

from textual.events import MouseScrollDown  # noqa: E402
from textual.widgets import OptionList  # noqa: E402

from babblegraph.explore.app import Explorer  # noqa: E402
from babblegraph.explore.keys import KEYS, Help  # noqa: E402
from babblegraph.explore.menu import Menu  # noqa: E402
from babblegraph.explore.tree import TreeView  # noqa: E402


class Driver:
    """An explorer in a pretended terminal."""

    def __init__(self, app, pilot):
        self.app, self.pilot = app, pilot

    async def press(self, *keys):
        for key in keys:
            await self.pilot.press(key)
        await self.pilot.pause()
        return self.app.pane.node

    async def hit(self, *keys):
        """As `press`, without waiting for a screen at rest after every key: a tenth of the time."""
        for key in keys:
            name = key if len(key) > 1 or key.isalnum() else unicodedata.name(key).lower().replace("-", "_")
            self.app.simulate_key(name.replace(" ", "_"))
            for pump in (self.app, self.app.screen, self.app.pane, self.app):  # the way of a key, and back
                done = asyncio.Event()
                pump.call_later(done.set)
                await done.wait()
        return self.app.pane.node

    def said(self):
        """What every line of the tree shows."""
        pane = self.app.pane
        return [pane.render_line(y).text for y in range(pane.size.height)]

    def text(self, name):
        shown = self.app.query_one(f"#{name}").render()
        return str(shown)


def driven(graph, play, size=(120, 30)):
    """Runs a test inside an explorer."""

    async def run():
        app = Explorer(graph)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await play(Driver(app, pilot))

    asyncio.run(run())


def explored():
    """A graph with every kind of node: see `solved`; a second elite, a stem and a second prompt."""
    graph = graph_of(
        "one\n",
        "two\n",
        "three\n",
        "four\n",
        "five\n",
        prompts=["3 5 7>38\n", "other\n"],
        parent=[0] * 5,
        threshold=0.5,
    )
    graph.add(
        Born.of_spans(
            [2, 2, 6], [list(b"yes\n"), list(b"no\n"), list(b"six\n")], [-0.5, -2, -3], Status.LEAF_STOP
        )
    )
    graph.stop_nodes(3, Status.LEAF_DEAD)
    graph.stop_nodes(4, Status.PRUNED, Gate.NODE)
    graph.stop_nodes(5, Status.MERGED)
    graph.merges.append((5, 2))
    graph.value[2:] = 0.9, 0, 0.2, 0.8, 0.5, 1, 0, 0.7
    graph.score[[3, 7, 8, 9]] = 0, 1, 0, 0.7
    return graph


MOVES = [  # a key, and the node that is chosen afterwards; it begins at the best leaf
    ("home", 0), ("down", 2), ("j", 7), ("k", 2), ("up", 0), ("end", 1), ("pageup", 0), ("pagedown", 1), ("b", 1),
    ("home", 0), ("b", 7), ("left", 2), ("left", 2), ("down", 3), ("up", 2), ("right", 2), ("right", 7), ("h", 2),
    ("h", 2), ("l", 2), ("l", 7), ("e", 9), ("e", 7), ("E", 9), ("E", 7), ("w", 4), ("u", 1), ("b", 1),
    ("p", 1), ("home", 0), ("c", 0), ("down", 1), ("up", 0), ("enter", 0), ("down", 2), ("c", 0), ("o", 0), ("end", 1),
]  # fmt: skip


def test_every_key_that_moves_goes_where_it_says():
    async def play(driver):
        assert driver.app.pane.node == 7
        for i, (key, wanted) in enumerate(MOVES):
            assert await driver.hit(key) == wanted, (i, key)

    driven(explored(), play)


def test_a_merged_node_leads_to_the_one_that_stands_for_it_and_others_to_their_parent():
    async def play(driver):
        driver.app.go(5)
        assert await driver.press("p") == 2
        assert await driver.press("p") == 0

    driven(explored(), play)


def test_marks_are_set_shown_visited_and_taken_away():
    async def play(driver):
        assert await driver.press("m") == 7  # nothing is marked yet
        await driver.press("space")
        driver.app.go(3)
        await driver.press("space")
        assert driver.app.outline.marked == [7, 3]
        assert sum("! " in line for line in driver.said()) == 2
        assert [await driver.press("m") for _ in range(3)] == [7, 3, 7]
        await driver.press("space")
        assert driver.app.outline.marked == [3]

    driven(explored(), play)


def test_a_search_shows_what_it_finds_and_escape_shows_all_again():
    async def play(driver):
        await driver.press("home", "slash", *"e")
        assert driver.app.query_one("#search").has_class("shown")
        node = await driver.press("enter")
        found = np.flatnonzero(driver.app.outline.found).tolist()
        assert found == [1, 2, 4, 6, 7]  # other, one, three, five, yes
        assert node == 2
        assert [await driver.press("n") for _ in range(5)] == [7, 4, 6, 1, 2]
        assert [await driver.press("N") for _ in range(2)] == [1, 6]
        assert "5 found" in driver.text("status")
        await driver.press("escape")
        assert not driver.app.outline.found.any()
        await driver.press("slash", "q", "escape")
        assert driver.app.focused is driver.app.pane
        assert driver.app.is_running

    driven(explored(), play)


def test_filters_go_through_statuses_gates_and_values():
    async def play(driver):
        seen = []
        while not seen or seen[-1] != "":
            await driver.hit("f")
            seen.append(driver.app.outline.filter.status)
        assert seen == ["passed", "frontier", "expanded", "leaf_stop", "leaf_dead", "pruned", "merged", ""]
        await driver.press("g")
        assert np.flatnonzero(driver.app.outline.found).tolist() == [4]
        assert "node gate" in driver.text("status")
        await driver.press("g", *[">"] * 9)
        assert np.flatnonzero(driver.app.outline.found).tolist() == [2, 7]
        await driver.press("<")
        assert np.flatnonzero(driver.app.outline.found).tolist() == [2, 5, 7]
        await driver.press("escape")
        assert driver.app.outline.filter == Filter()

    driven(explored(), play)


def test_siblings_are_sorted_by_what_the_status_line_says():
    async def play(driver):
        seen = []
        for order in (*ORDERS[1:], ORDERS[0]):
            await driver.press("s")
            assert driver.app.outline.order == order
            assert (order in driver.text("status")) == (order != "born")
            seen.append([i for i in driver.app.outline.rows.tolist() if driver.app.graph.parent[i] == 0])
        assert seen[0] == [2, 5, 6, 4, 3]
        assert seen[-1] == [2, 3, 4, 5, 6]
        assert driver.app.pane.node == 7

    driven(explored(), play)


def test_help_opens_closes_and_names_every_key():
    async def play(driver):
        await driver.press("question_mark")
        assert isinstance(driver.app.screen, Help)
        await driver.press("end")  # it scrolls, where it does not fit
        assert isinstance(driver.app.screen, Help)
        assert driver.app.screen.query_one("#help").scroll_offset.y > 0
        await driver.press("x")
        assert not isinstance(driver.app.screen, Help)
        await driver.press("q")
        assert not driver.app.is_running

    driven(explored(), play, (80, 20))


def test_tab_goes_to_the_text_and_back():
    async def play(driver):
        await driver.press("tab")
        assert driver.app.focused is driver.app.query_one("#details")
        await driver.press("down", "tab")
        assert driver.app.focused is driver.app.pane
        assert driver.app.pane.node == 7

    driven(explored(), play)


def test_a_narrow_terminal_shows_the_tree_or_the_text():
    async def play(driver):
        pane, details = driver.app.pane, driver.app.query_one("#details")
        assert (pane.display, details.display) == (True, False)
        await driver.press("tab")
        assert (pane.display, details.display) == (False, True)
        await driver.press("tab")
        assert (pane.display, details.display) == (True, False)
        await driver.pilot.resize_terminal(120, 30)
        for _ in range(50):  # the terminal's new size arrives as a message
            await driver.pilot.pause(0.02)
            if details.display:
                break
        assert (pane.display, details.display) == (True, True)

    driven(explored(), play, (70, 20))


def test_the_chosen_line_has_a_sign_and_a_colour_of_its_own():
    async def play(driver):
        pane = driver.app.pane
        lines = [pane.render_line(y) for y in range(8)]
        marked = [line for line in lines if line.text.startswith("›")]
        assert len(marked) == 1
        assert "★ yes" in marked[0].text
        assert marked[0]._segments[0].style.bgcolor.name == "cyan"

    driven(explored(), play)


def test_all_bound_keys_are_in_the_help_and_in_these_tests():
    bound = {key for b in (*Explorer.BINDINGS, *TreeView.BINDINGS) for key in b.key.split(",")}
    named = {
        "slash": "/",
        "question_mark": "?",
        "greater_than_sign": ">",
        "less_than_sign": "<",
        "escape": "esc",
        "left_square_bracket": "[",
        "right_square_bracket": "]",
        "left_curly_bracket": "{",
        "right_curly_bracket": "}",
    }
    arrows = {"up": "↑", "down": "↓", "left": "←", "right": "→", "pageup": "PgUp", "pagedown": "PgDn"}
    helped = {word for keys, _ in KEYS for word in keys.split()}
    assert {(named | arrows).get(key, key) for key in bound} == helped
    source = Path(__file__).read_text("utf-8")
    for key in bound:
        assert f'"{key}"' in source or f'"{named[key]}"' in source, key


def test_the_mouse_chooses_and_folds():
    async def play(driver):
        pane = driver.app.pane
        row = driver.app.outline.line(6)
        await driver.pilot.click(TreeView, offset=(20, row))
        assert pane.node == 6
        row = driver.app.outline.line(2)
        await driver.pilot.click(TreeView, offset=(3, row))  # its fold sign
        assert pane.node == 2
        assert not driver.app.outline.is_open[2]
        assert any("one⏎ … 2 below, best 1.00" in line for line in driver.said())

    driven(explored(), play)


def test_the_wheel_scrolls_the_tree():
    async def play(driver):
        pane = driver.app.pane
        await driver.press("home")
        pane.post_message(MouseScrollDown(pane, 5, 5, 0, 0, 0, False, False, False))
        for _ in range(50):
            await driver.pilot.pause(0.02)
            if pane.scroll_offset.y:
                break
        assert pane.scroll_offset.y > 0

    graph = graph_of(*["x"] * 100)
    driven(graph, play)


def test_the_right_button_and_a_key_open_a_menu_that_does_what_it_says():
    async def play(driver):
        async def chosen(said):
            menu = driver.app.screen.query_one(OptionList)
            await driver.press("home", *["down"] * [str(o.prompt) for o in menu.options].index(said), "enter")

        app, row = driver.app, driver.app.outline.line(4)
        await driver.pilot.click(TreeView, offset=(20, row), button=3)
        assert isinstance(app.screen, Menu)
        assert app.pane.node == 4
        await chosen("mark")
        assert app.outline.marked == [4]
        await driver.press("a")
        await chosen("show only what the node gate stopped")
        assert np.flatnonzero(app.outline.found).tolist() == [4]
        await driver.press("a")
        await chosen("show only what is pruned")
        assert app.outline.filter == Filter(status="pruned")
        app.go(5)
        await driver.press("a")
        await chosen("go to #2, which stands for it")
        assert app.pane.node == 2
        is_open = bool(app.outline.is_open[2])
        await driver.press("a", "enter")
        assert bool(app.outline.is_open[2]) != is_open
        await driver.press("a", "x")
        assert not isinstance(app.screen, Menu)
        await driver.press("a")
        await driver.pilot.click(offset=(100, 25))
        assert not isinstance(app.screen, Menu)

    driven(explored(), play)


def test_the_whole_text_can_be_copied():
    async def play(driver):
        await driver.press("y")
        assert driver.app.clipboard == "3 5 7>38\none\nyes\n"

    driven(explored(), play)


def grown(rounds=6):
    """A graph of a few rounds: in each one node below the last, and one beside it that is pruned in the next."""
    graph = graph_of(threshold=1.0)
    for graph.round in range(1, rounds + 1):
        if graph.round > 1:
            graph.stop_nodes([graph.size - 1], Status.PRUNED, Gate.NODE)
            graph.died[graph.size - 1] = graph.round
        up = max(graph.size - 2, 0)
        graph.status[up] = Status.EXPANDED
        graph.add(Born.of_spans([up, up], [[97], [98]], [-1.0, -1.0]))
        graph.value[-2:] = 0.9, 0.1
    return graph


def test_rounds_are_gone_through_with_keys_and_what_is_born_is_chosen():
    async def play(driver):
        app = driver.app
        assert app.graph.size == 13
        assert [await driver.press("[") for _ in range(2)] == [9, 7]
        assert app.graph.size == 9
        assert "round 4 of 6" in driver.text("rounds")
        assert "new" in next(line for line in driver.said() if "#7" in line)
        assert not any("#10" in line for line in driver.said())
        status = [Status(int(app.graph.status[i])) for i in (6, 8)]
        assert status == [Status.PRUNED, Status.FRONTIER]  # 8 is pruned in round 5
        assert await driver.press("]") == 9
        assert await driver.press("{") == 0
        assert app.outline.rows.tolist() == [0]
        assert await driver.press("[", "]") == 1
        assert await driver.press("}") == 11
        assert app.graph is app.whole

    driven(grown(), play)


def test_marks_folds_filters_and_order_outlive_a_change_of_the_round():
    async def play(driver):
        app = driver.app
        await driver.press("o", "space", "s")
        marked, order = list(app.outline.marked), app.outline.order
        await driver.press("[", "[", "f")
        assert (app.outline.marked, app.outline.order) == (marked, order)
        wish, is_open = app.outline.filter, app.outline.is_open.copy()
        assert await driver.press("m") < app.graph.size  # the mark is not born yet
        await driver.press("]", "]")
        assert app.outline.filter == wish
        assert (app.outline.is_open[: len(is_open)] >= is_open).all()

    driven(grown(), play)


def test_keys_that_come_faster_than_the_screen_can_follow_are_all_obeyed():
    async def play(driver):
        app = driver.app
        for number in (
            5,
            4,
            3,
            2,
            6,
            1,
        ):  # without a pause: messages of earlier rounds are still on their way
            app.rounds.go(number)
            app.pane.move_to(len(app.outline.rows) - 1)
        await driver.pilot.pause()
        assert app.graph.size == 3
        assert app.is_running

    driven(grown(), play)


def test_r_plays_the_search_to_its_end_and_pauses(monkeypatch):
    async def play(driver):
        rounds, seen = driver.app.rounds, set()
        monkeypatch.setattr("babblegraph.explore.rounds.SECONDS", 1e4)
        monkeypatch.setattr("babblegraph.explore.rounds.LONGEST_STEP", 1e3)
        await driver.press("r")
        assert rounds.plays
        await driver.press("r")
        assert not rounds.plays
        assert rounds.number == 0
        monkeypatch.setattr("babblegraph.explore.rounds.SECONDS", 0.6)
        await driver.press("{", "r")
        for _ in range(200):
            await driver.pilot.pause(0.02)
            seen.add(driver.app.graph.size)
            if not rounds.plays and driver.app.graph is driver.app.whole:  # the screen follows a moment later
                break
        assert not rounds.plays
        assert rounds.number == rounds.last
        assert driver.app.graph is driver.app.whole
        assert len(seen) > 1

    driven(grown(), play)


def test_the_bar_of_rounds_takes_clicks():
    async def play(driver):
        app = driver.app
        for x, wanted in ((4, 5), (28, 6), (6, 0), (15, 3)):  # back, forth, the bar's left end, its middle
            await driver.pilot.click("#rounds", offset=(x - 1, 0))
            assert app.rounds.number == wanted, x
        await driver.pilot.click("#rounds", offset=(1, 0))
        assert app.rounds.plays

    driven(grown(), play)


def test_a_node_says_why_it_was_stopped_whom_it_beat_and_how_likely_its_tokens_were():
    graph = explored()
    graph.token_log_q[graph.start[6] : graph.stop[6]] = np.log([0.9, 0.3, 0.05, 0.001, 0.9])

    async def play(driver):
        details = {}
        for node in (2, 3, 4, 5, 6, 7):
            driver.app.go(node)
            await driver.pilot.pause()
            console = driver.app.console
            with console.capture() as shown:
                console.print(driver.app.lines.details(node, 60))
            details[node] = shown.get()
        assert "dead" in details[3] and "provably worth 0" in details[3]  # noqa: PT018
        assert "pruned by the node gate" in details[4]
        assert "the same state as #2" in details[5]
        assert "2 of 4" in details[6]  # 0.5 beats 0 and 0.2, not 0.9 and 0.8
        assert "passed" in details[7]
        assert "yes⏎" in details[7]
        heat = driver.app.lines.heat(6)
        assert [heat.plain[s.start : s.end] for s in heat.spans] == ["i", "v", "e"]
        assert [str(s.style) for s in heat.spans] == ["yellow underline", "magenta bold", "red reverse"]

    driven(graph, play)


@pytest.mark.parametrize("size", [(60, 12), (80, 24), (200, 50)])
def test_hostile_text_leaves_the_explorer_whole_at_any_size(size):
    graph = hostile_graph(random_spans(400, seed=6), 1)

    async def play(driver):
        await driver.press("home", "o")
        for key in ("down", "pagedown", "end", "home", "s", "f", "escape"):
            await driver.hit(key)
            for line in driver.said():
                assert not {c for c in line if not c.isprintable()}
        await driver.pilot.resize_terminal(100, 20)
        await driver.press("down")
        assert max(map(cell_len, driver.said())) <= driver.app.pane.size.width
        assert driver.app.is_running

    driven(graph, play, size)


@pytest.mark.parametrize("make", [graph_of, lambda: graph_of("a"), lambda: random_graph(400, 0, reach=1)])
def test_small_and_deep_graphs_survive_every_key(make):
    async def play(driver):
        driver.app.copy_to_clipboard = lambda text: None
        keys = [
            k
            for b in Explorer.BINDINGS
            for k in b.key.split(",")
            if k not in ("q", "slash", "question_mark", "a")
        ]
        await driver.hit(*keys, "down", "left", "right", "end")
        assert driver.app.is_running

    driven(make(), play)


@pytest.mark.slow
def test_a_hundred_thousand_nodes_open_and_move():
    graph = random_graph(100_000, 2)

    async def play(driver):
        assert time.perf_counter() - begin < 10  # about half a second on an idle core
        await driver.press("home", "o", "end", "s", "down", "up")
        assert len(driver.app.outline.rows) == 100_000

    begin = time.perf_counter()
    driven(graph, play)


def test_without_textual_the_user_is_told_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *rest):
        if name.startswith("babblegraph.explore.app"):
            raise ModuleNotFoundError("No module named 'textual'", name="textual")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(BadInput, match=r"pip install 'babblegraph\[explore\]'"):
        explore(graph_of())


def test_the_first_screen_shows_the_way_to_the_best_leaf():
    async def play(driver):
        lines = "\n".join(driver.said())
        assert "● 3 5 7>38⏎" in lines
        assert "★ yes⏎" in lines
        assert driver.app.pane.node == 6

    driven(solved(), play)
