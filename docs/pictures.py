"""Draws the pictures of the README and of the guide anew: `python docs/pictures.py`.

They are real searches with fixed seeds, by the model that ships with the package. The explorer's picture needs the
extra `explore`; without it the old one stays.
"""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

from rich.console import Console, Group

import babblegraph as bg
from babblegraph.scoring import JudgeValue
from babblegraph.strategies import babble, best_of_n
from babblegraph.view.diff import diff_report
from babblegraph.view.frame import History
from babblegraph.view.replay import picture
from babblegraph.view.svg import as_svg, portable, to_svg
from babblegraph.view.traps import trap_report

HERE = Path(__file__).parent
PUZZLE = "3 5 7 11>24"
WIDTH = 100


def main() -> None:
    solved = searched(seed=1)
    for name, width, height in (("search", WIDTH, 32), ("search-narrow", 60, 24)):
        write(name, to_svg(solved, width=width, height=height))
    every = searched(babble(), seed=1, tokens=3000)
    other = searched(best_of_n(), seed=0, tokens=3000)
    write("live", drawn(Group(*at_round(every, 30, (WIDTH, 34)))))
    write("diff", drawn(diff_report(every, other, width=WIDTH, height=24)))
    write("traps", drawn(trap_report(every, width=WIDTH)))
    explorer(every)


def searched(strategy=None, *, seed, tokens=4000):
    """A search with the model's own verdict as value."""
    babbler = bg.Babbler.embedded()
    value, task = JudgeValue(babbler), bg.Countdown()
    found = bg.babble(babbler, PUZZLE, task=task, value=value, strategy=strategy, seed=seed, budget=tokens)
    found.graph.meta |= {"task": "countdown"}
    return found.graph


def at_round(graph, number, size):
    """The live view as it was after a round, with all that went before in its sparklines."""
    history = History()
    for before in range(number):
        picture(graph, before, size, history)
    return picture(graph, number, size, history)


def drawn(shown):
    """Something for the terminal as SVG."""
    console = Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        _environ={},
    )
    console.print(shown)
    return as_svg(console, "babblegraph")


def explorer(graph):
    """The explorer at the best leaf, in a terminal that Textual pretends to be."""
    try:
        from babblegraph.explore.app import Explorer
    except ModuleNotFoundError:
        print("explore.svg stays as it was: pip install 'babblegraph[explore]' for a new one")
        return

    async def taken():
        app = Explorer(graph)
        async with app.run_test(size=(120, 32)) as pilot:
            for key in ("s", "left", "left", "down"):
                await pilot.press(key)
            await pilot.press("b")
            await pilot.pause()
            return app.export_screenshot(title="babblegraph show graph.bg --interactive")

    write("explore", portable(re.sub(r"terminal-\d+", "babblegraph", asyncio.run(taken()))))


def write(name, svg):
    (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
