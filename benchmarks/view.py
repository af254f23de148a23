"""What it costs to watch a search, and how long one waits for the picture of a large graph.

Watching: the processor time of all frames over that of the search, on a real search with the embedded model and on one
that only grows a graph, which is the worst case. Waiting: the fastest of some fresh processes, by the clock and in
seconds of the processor; a busy machine adds to the former. Frames are drawn into memory; what the terminal does with
them is left out.
"""

from __future__ import annotations

import asyncio
import io
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.graph import BabbleGraph
from babblegraph.loop import Round
from babblegraph.page import to_html
from babblegraph.protocols import Chosen
from babblegraph.status import Gate, Status
from babblegraph.view.frame import History, frame
from babblegraph.view.live import REDRAWS, View
from babblegraph.view.replay import picture
from babblegraph.view.screen import TICK_SECONDS, Screen

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report

SIZES = ((80, 24), (200, 50))
SPAN, WORDS, BATCH = 10, 5000, 64
LARGE = 100_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=20.0, help="of each search that is watched")
    chosen = options.parse_args()
    seconds = 2.0 if chosen.quick else chosen.seconds
    nodes = 5_000 if chosen.quick else LARGE
    repeats = 1 if chosen.quick else 5
    rows = [watched("embedded model", searched(seconds), size) for size in SIZES]
    rows += [watched("a graph that grows", growing(nodes), size) for size in SIZES]
    for n in (100, nodes // 10, nodes):
        rows += [frames(made(n), size, 10 * repeats) for size in SIZES]
    graph = made(nodes)
    rows.append(replayed(graph, 10 * repeats))
    with tempfile.TemporaryDirectory() as folder:
        rows += waits(graph, Path(folder), repeats)
    for row in rows:
        for name in rows_names():
            row.setdefault(name, None)
    report("The view", rows, claims(rows, nodes), chosen, packages=("rich", "textual"))


def rows_names():
    return ("what", "nodes", "screen", "share of CPU", "frames/s", "ms", "s", "CPU s", "MB")


def watched(what, rounds, size):
    """Consumes a search inside a live view, and weighs the one against the other."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=size[0], height=size[1], _environ={"TERM": "xterm"}
    )
    view, drawn = View(console, Budget(tokens=1 << 30)), 0
    screen = view._screen
    draw = screen.draw

    def counted(lines=None):
        nonlocal drawn
        drawn += lines is not None
        draw(lines)

    screen.draw = counted
    start, clock = time.process_time(), time.monotonic()
    with view:
        for last in view.follow(rounds):
            size_now = last.graph.size
    spent, passed = time.process_time() - start, time.monotonic() - clock
    ticks = passed / TICK_SECONDS * tick_cost(screen)
    return {
        "what": f"watching: {what}",
        "nodes": size_now,
        "screen": f"{size[0]}x{size[1]}",
        "share of CPU": (view.cost + ticks) / spent,
        "frames/s": drawn / passed,
    }


def tick_cost(screen, n=200):
    """Seconds of the processor for one turn of the spinner."""
    start = time.thread_time()
    for _ in range(n):
        screen._sequence(screen.clock(), 80)
    return (time.thread_time() - start) / n


def searched(seconds):
    """A real search."""
    import babblegraph as bg

    babbler = bg.Babbler.embedded()
    prompts = ["3 5 7 11>24", "2 3 4>24", "1 2 3 4>24"]
    way = bg.strategies.babble()  # goes on after the first answer
    return bg.rounds(babbler, prompts, task=bg.Countdown(), budget=Budget(seconds=seconds), strategy=way)


def growing(nodes):
    """Rounds of a search without a model: all that they cost is to add nodes."""
    graph, meter = made(64), Meter(Budget(tokens=1 << 30), 1)
    draw, begin = np.random.default_rng(1), time.monotonic()
    while graph.size < nodes or time.monotonic() - begin < 5:
        graph.round += 1
        born = add(graph, BATCH, draw)
        meter.count("sampled", 0, BATCH * SPAN)
        yield Round(graph, Chosen(born[:1], born[:1]), born, np.zeros(0, np.intp), meter.read())


def made(nodes):
    """A tree with every status, spans of ten tokens, rounds."""
    graph, draw = (
        BabbleGraph(["p"], [[0]], {i: f" {i}".encode() for i in range(WORDS)}),
        np.random.default_rng(0),
    )
    while graph.size < nodes:
        graph.round += 1
        add(graph, min(BATCH, nodes - graph.size), draw)
    graph.meta |= {"threshold": 0.999, "strategy": "none"}
    return graph


def add(graph, m, draw):
    """Adds m nodes below random ones, and gives each a fate."""
    up = draw.integers(0, graph.size, m)
    up = up[graph.status[up] <= Status.EXPANDED]
    if not len(up):
        up = np.zeros(1, np.int64)
    spans = draw.integers(0, WORDS, (len(up), SPAN)).tolist()
    born = graph.add(Born.of_spans(up, spans, [-10.0] * len(up)))
    graph.value[born], fate = draw.random(len(born)), draw.random(len(born))
    graph.stop_nodes(born[fate < 0.3], Status.LEAF_DEAD, Gate.NODE)
    graph.stop_nodes(born[(fate >= 0.3) & (fate < 0.5)], Status.PRUNED, Gate.NODE)
    graph.stop_nodes(born[fate > 0.9], Status.LEAF_STOP)
    graph.score[born[fate > 0.9]] = graph.value[born[fate > 0.9]]
    return born


def frames(graph, size, repeats):
    """One frame of the live view, made and written."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=size[0], height=size[1], _environ={"TERM": "xterm"}
    )
    screen, history, cost = Screen(console), History(), []
    for _ in range(repeats):
        start = time.thread_time()
        history.see(graph, 100.0)
        screen.draw(frame(graph, width=size[0], height=size[1] - 1, history=history))
        cost.append(time.thread_time() - start)
    screen_name = f"{size[0]}x{size[1]}"
    return {
        "what": "one frame",
        "nodes": graph.size,
        "screen": screen_name,
        "ms": 1e3 * statistics.median(cost),
    }


def replayed(graph, repeats):
    """One frame of a replay, from the whole graph to the picture of a round."""
    history, cost = History(), []
    for number in np.linspace(0, graph.round, repeats).astype(int).tolist():
        start = time.thread_time()
        picture(graph, number, SIZES[0], history)
        cost.append(time.thread_time() - start)
    row = {
        "what": "replay, one frame",
        "nodes": graph.size,
        "screen": "80x24",
        "ms": 1e3 * statistics.median(cost),
    }
    return row | {"frames/s": 1 / statistics.median(cost)}


def waits(graph, folder, repeats):
    """From the command to the picture, in fresh processes."""
    file, page = folder / "graph.bg", folder / "graph.html"
    graph.save(file)
    show = [sys.executable, "-m", "babblegraph", "show", str(file), "--height", "40"]
    rows = [{"what": "babblegraph show", "nodes": graph.size, **fastest(show, repeats)}]
    start = time.perf_counter()
    page.write_text(to_html(graph), "utf-8")
    took = time.perf_counter() - start
    rows.append({"what": "export --to html", "nodes": graph.size, "s": took, "MB": page.stat().st_size / 1e6})
    if browser := next((path for name in BROWSERS if (path := shutil.which(name))), None):
        for what, fragment in (("the page in Chromium", ""), ("the page, all unfolded", "#open=1")):
            found = subprocess.run(
                [
                    browser,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--dump-dom",
                    page.as_uri() + fragment,
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            ready = re.search(r'data-ready="(\d+)"', found.stdout)
            rows.append({"what": what, "nodes": graph.size, "s": int(ready[1]) / 1e3 if ready else None})
    rows += explored(graph, file, repeats)
    return rows


def explored(graph, file, repeats):
    """The explorer's first screen in a fresh process, imports included, and a key in it."""
    try:
        import textual  # noqa: F401
    except ModuleNotFoundError:
        print("explorer: Textual is not installed (pip install babblegraph[explore])", file=sys.stderr)
        return []
    program = [sys.executable, __file__, "--explore", str(file)]
    return [
        {"what": "show --interactive", "nodes": graph.size, **fastest(program, repeats)},
        {"what": "explorer, one key", "nodes": graph.size, "ms": asyncio.run(per(graph, "action_move", 1))},
        {
            "what": "explorer, one round",
            "nodes": graph.size,
            "ms": asyncio.run(per(graph, "action_step", -1)),
        },
    ]


async def per(graph, action, by, n=20):
    """Milliseconds of the processor that an action of the explorer takes, the new screen included."""
    from babblegraph.explore.app import Explorer

    app = Explorer(graph)
    async with app.run_test(size=SIZES[1]) as pilot:
        app.action_open_below()
        await pilot.pause()
        start = time.process_time()
        for _ in range(n):
            getattr(app, action)(by)
            await pilot.pause()
        return 1e3 * (time.process_time() - start) / n


async def first_screen(file):
    from babblegraph.explore.app import Explorer

    app = Explorer(BabbleGraph.load(file))
    async with app.run_test(size=SIZES[1]) as pilot:
        await pilot.pause()


def fastest(command, repeats):
    """The least that fresh processes take, by the clock and of the processor: other programs only add to it."""
    took, worked = [], []
    for _ in range(repeats + 1):
        start, before = time.perf_counter(), used()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        took.append(time.perf_counter() - start)
        worked.append(used() - before)
    return {"s": min(took), "CPU s": min(worked)}


def used():
    """Seconds of the processor that this process's children have used."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def claims(rows, nodes):
    """What the README and the issues claim of the largest graph."""
    share = max(r["share of CPU"] for r in rows if r["share of CPU"] is not None)
    speed = max(r["frames/s"] for r in rows if r["what"].startswith("watching"))
    found = [
        claim("frames' share of the search's processor time, worst", share, "< 0.02", share < 0.02),
        claim("redraws a second, most", speed, f"<= {REDRAWS}", speed <= REDRAWS),
    ]
    for what, name, key, least, most in (
        ("babblegraph show", "seconds of the processor from command to picture", "CPU s", 0, 1),
        ("babblegraph show", "seconds by the clock from command to picture", "s", 0, 1),
        ("replay, one frame", "frames a second of a replay", "frames/s", REDRAWS, None),
        ("export --to html", "megabytes of the HTML page", "MB", 0, 20),
        ("the page in Chromium", "seconds until the page is ready", "s", 0, 2),
        ("show --interactive", "seconds of the processor until the explorer is ready", "CPU s", 0, 2),
        ("show --interactive", "seconds by the clock until the explorer is ready", "s", 0, 2),
        ("explorer, one round", "milliseconds of the processor a round", "ms", 0, 300),
        ("explorer, one key", "milliseconds of the processor a key", "ms", 0, 100),
    ):
        value = next((r[key] for r in rows if r["what"] == what), None)
        if value is not None:
            met = value >= least if most is None else value < most
            found.append(
                claim(f"{name}, {nodes:,} nodes", value, f">= {least}" if most is None else f"< {most}", met)
            )
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--explore"]:
        asyncio.run(first_screen(sys.argv[2]))
    else:
        main()
