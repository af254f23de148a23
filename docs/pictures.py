"""Draws the pictures of the README and of the guide anew: `python docs/pictures.py`.

They are real searches with fixed seeds, by the model that ships with the package. The explorer's picture needs the
extra `explore`, that of the page Chromium; without them the old ones stay. Seconds are those of the processor.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console, Group

import babblegraph as bg
from babblegraph.page import to_html
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
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    solved = searched(seed=3)
    for name, width, height in (("search", WIDTH, 32), ("search-narrow", 60, 24)):
        write(name, to_svg(solved, width=width, height=height))
    every = searched(babble(), seed=1, tokens=3000)
    other = searched(best_of_n(), seed=0, tokens=3000)
    write("live", drawn(Group(*at_round(every, 30, (WIDTH, 34)))))
    write("diff", drawn(diff_report(every, other, width=WIDTH, height=24)))
    write("traps", drawn(trap_report(every, width=WIDTH)))
    explorer(every)
    page(every)


def searched(strategy=None, *, seed, tokens=4000):
    """A search with the model's own verdict as value."""
    babbler = bg.Babbler.embedded()
    value, task, start = JudgeValue(babbler), bg.Countdown(), time.process_time()
    found = bg.babble(babbler, PUZZLE, task=task, value=value, strategy=strategy, seed=seed, budget=tokens)
    found.graph.meta |= {"task": "countdown"}
    found.graph.meta["spent"]["seconds"] = (
        time.process_time() - start
    )  # a busy machine only adds to the clock
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
            for key in ("s", "left", "left", "down", "b"):
                await pilot.press(key)
            await pilot.pause()
            return app.export_screenshot(title="babblegraph show graph.bg --interactive")

    write("explore", portable(re.sub(r"terminal-\d+", "babblegraph", asyncio.run(taken()))))


def page(graph):
    """The HTML page as Chromium shows it."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print("page.png stays as it was: no Chromium is installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.html"
        file.write_text(to_html(graph), "utf-8")
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,700")
        target = f"--screenshot={HERE / 'page.png'}"
        subprocess.run([browser, *flags, target, file.as_uri()], check=True, capture_output=True)


def write(name, svg):
    (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
