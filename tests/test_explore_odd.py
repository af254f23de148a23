"""The explorer where little is shown: rounds without what is filtered, filters that leave nothing, narrow terminals."""

from __future__ import annotations

import pytest
from test_explore import driven, explored, grown

from babblegraph.born import Born
from babblegraph.explore.lines import Lines
from babblegraph.explore.outline import Filter, Outline
from babblegraph.explore.rounds import Rounds
from babblegraph.graph import BabbleGraph
from babblegraph.status import Gate


def test_the_next_filter_is_there_in_a_round_that_has_none_of_the_one_before():
    async def play(driver):
        driver.app.outline.filter = Filter(status="pruned", gate=Gate.NODE)
        await driver.press("{", "f", "g")
        assert driver.app.outline.filter == Filter()

    driven(grown(), play)


def test_a_filter_that_leaves_nothing_keeps_the_chosen_node():
    async def play(driver):
        app = driver.app
        assert await driver.press("slash", *"zzz", "enter") == 7
        assert not len(app.outline.rows)
        assert "no line" in driver.text("status")
        await driver.press("space", "down", "end", "s")
        assert app.outline.marked == [7]
        assert await driver.press("escape") == 7

    driven(explored(), play)


def test_all_that_was_found_is_gone_through_though_it_is_folded_away():
    async def play(driver):
        await driver.press("slash", "e", "enter", "home", "c")
        assert "5 found" in driver.text("status")
        assert [await driver.press("n") for _ in range(5)] == [2, 7, 4, 6, 1]
        await driver.press("c")
        assert await driver.press("N") == 6

    driven(explored(), play)


def test_right_never_goes_to_a_node_that_is_no_child():
    async def play(driver):
        driver.app.outline.set_filter(Filter(status="expanded"))
        driver.app.outline.toggle(2)
        assert driver.app.outline.rows.tolist() == [0, 2, 6]  # the children of 2 are hidden
        driver.app.go(2)
        driver.app.outline.is_open[2] = True
        assert await driver.press("right") == 2
        assert await driver.press("up", "right") == 2

    driven(explored(), play)


def test_the_title_is_cut_where_the_bar_of_rounds_begins():
    async def play(driver):
        shown = driver.app.query_one("#title")
        assert driver.text("title").endswith("…")
        assert len(driver.text("title")) <= shown.size.width

    graph = grown()
    graph.meta.update(task="a task with a long name", model="a model of some size", strategy="a strategy")
    driven(graph, play, (80, 20))


def test_lines_gone_to_while_the_text_alone_is_shown_are_in_sight_afterwards():
    async def play(driver):
        pane = driver.app.pane
        await driver.press("tab")
        await driver.hit(*["j"] * 12)
        await driver.press("tab")
        assert pane.cursor == 12
        assert any(line.startswith("›") for line in driver.said())

    driven(BabbleGraph([f"p{i}" for i in range(30)], [[0]] * 30, {0: b"a"}), play, (60, 10))


def test_a_terminal_without_room_for_the_bar_of_rounds_says_the_round_below():
    async def play(driver):
        assert "round" not in driver.text("status")
        await driver.press("[", "[")
        assert "round 4 of 6" in driver.text("status")

    driven(grown(), play, (60, 12))


def test_a_prompt_with_half_a_surrogate_can_be_copied():
    async def play(driver):
        await driver.press("y")
        assert driver.app.clipboard == "a?b"

    driven(BabbleGraph(["a\ud800b"], [[0]], {0: b"a"}), play)


def test_a_menu_pauses_the_search_that_is_played_and_keeps_to_its_node():
    async def play(driver):
        app = driver.app
        await driver.press("{", "r", "a")
        assert not app.rounds.plays
        assert "▷" in driver.text("rounds")
        node = app.pane.node
        app.rounds.post_message(Rounds.Chosen(6))  # it was on its way
        await driver.press("home", "enter")  # mark
        assert (app.pane.node, app.outline.marked) == (node, [node])

    driven(grown(), play)


def test_a_menu_is_whole_in_a_narrow_terminal_and_after_one_became_small():
    async def inside(driver):
        region = driver.app.screen.query_one("#menu").region
        assert driver.app.screen.region.contains_region(region)

    async def play(driver):
        await driver.press("end", "a")
        await inside(driver)
        await driver.pilot.resize_terminal(30, 11)
        await driver.pilot.pause(0.1)
        await inside(driver)

    driven(explored(), play, (60, 12))
    driven(explored(), play, (20, 12))


@pytest.mark.parametrize(
    ("piece", "n", "said"),
    [(b"a\n", 5000, "4602 lines left out: y copies all"), (b"word ", 20_000, "…"), (b"abc ", 300, "")],
)
def test_a_very_long_text_is_shown_without_its_middle_and_says_so(piece, n, said):
    graph = BabbleGraph(["p\n"], [[0]], {0: b"p", 1: piece, 2: b"END"})
    graph.add(Born.of_spans([0], [[1] * n + [2]], [-1.0]))
    parts = [str(part) for part in Lines(Outline(graph)).details(1, 40).renderables]
    whole = parts[parts.index("The whole text") + 1 :]
    assert len(whole) <= 401
    assert sum(map(len, whole)) <= 21_000
    assert (whole[0], whole[-1][-3:]) == ("p⏎", "END")
    assert said in "\n".join(whole)
    assert said or "…" not in "\n".join(whole)
    assert (" more" in parts[parts.index("The whole text") - 3]) == (n > 2000)


def test_the_round_of_a_birth_shows_the_node_that_was_asked_for_and_no_step_leaves_a_node_in_vain():
    async def play(driver):
        app = driver.app
        app.go(4)
        await app.run_action("birth")
        await driver.pilot.pause()
        assert (app.graph.round, app.pane.node) == (2, 4)
        await driver.press("}")
        app.go(1)
        assert await driver.press("]") == 1

    driven(grown(), play)
