"""`babblegraph show`: draw a saved graph."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Annotated

import typer

from babblegraph.errors import BadInput

HEIGHT = 40  # lines of the tree, by default
IDLE = {  # options of how to show a graph that have no effect on one way or another
    "--node": ("--height", "--tree"),
    "--diff": ("--tree",),
    "--traps": ("--height", "--tree"),
    "--interactive": ("--width", "--height", "--tree"),
}


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A graph that --save wrote.")],
    width: Annotated[
        int | None, typer.Option(help="In characters; that of the terminal by default.", show_default=False)
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(help=f"Lines of the tree, at most; 0 for all, {HEIGHT} by default.", show_default=False),
    ] = None,
    tree: Annotated[
        int | None, typer.Option(help="Which prompt's tree, from 0; the best by default.", show_default=False)
    ] = None,
    node: Annotated[
        int | None, typer.Option(help="Everything about one node instead.", show_default=False)
    ] = None,
    number: Annotated[
        int | None, typer.Option("--round", help="The graph as it was after a round.", show_default=False)
    ] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Play the search again.")] = False,
    speed: Annotated[
        float | None, typer.Option(help="Of --replay; 2 is twice as fast.", show_default=False)
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Compare with another search of the prompt.", show_default=False),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option("--interactive", "-i", help="Explore it, full-screen; needs babblegraph\\[explore]."),
    ] = False,
    traps: Annotated[
        bool, typer.Option("--traps", help="Which branches cost much and gave nothing.")
    ] = False,
) -> None:
    """Draw a saved graph: the tree, the answer, the path to it, the gates and the budget."""
    from babblegraph.graph_file import load
    from babblegraph.history import at_round
    from babblegraph.view.console import PlainConsole
    from babblegraph.view.live import print_lines, print_report

    if width is not None and width < 20:
        raise BadInput(f"--width must be at least 20, got {width}: make it wider")
    if height is not None and height < 0:
        raise BadInput(f"--height must not be negative, got {height}: use 0 for all lines")
    if speed is not None and not 0 < speed < math.inf:
        raise BadInput(f"--speed must be above zero, got {speed:g}: 1 is the usual pace")
    ways = {"--node": node is not None, "--replay": replay, "--diff": diff is not None, "--traps": traps}
    ways["--interactive"] = interactive
    if len(given := [name for name, is_given in ways.items() if is_given]) > 1:
        raise BadInput(f"show does one thing at a time, got {' and '.join(given)}: drop one")
    how = {"--width": width, "--height": height, "--tree": tree, "--speed": speed}
    _refuse_idle([name for name, one in how.items() if one is not None], given[0] if given else None)
    lines = (HEIGHT if height is None else height) or None
    graph, other = load(file), None if diff is None else load(diff)
    console = PlainConsole(width=width)
    _check_range("--round", number, graph.round + 1)
    graph = graph if number is None else at_round(graph, number)
    _check_range("--tree", tree, graph.trees)
    _check_range("--node", node, graph.size)
    if interactive:
        from babblegraph.explore import explore

        _check_terminal()
        explore(graph)
        return
    if replay:
        from babblegraph.view.replay import replay as play

        play(console, graph, speed=1.0 if speed is None else speed, tree=tree)
    if node is not None:
        from babblegraph.view.node import node_report

        print_lines(console, partial(node_report, graph, node), width)
    elif other is not None:
        from babblegraph.view.diff import diff_report

        print_lines(console, partial(diff_report, graph, other, height=lines), width)
    elif traps:
        from babblegraph.view.traps import trap_report

        print_lines(console, partial(trap_report, graph), width)
    else:
        print_report(console, graph, width=width, height=lines, tree=tree)


def _refuse_idle(given: list[str], way: str | None) -> None:
    """What was typed and would change nothing in what is shown."""
    if "--speed" in given and way != "--replay":
        raise BadInput("--speed is of --replay, got it without: add --replay or drop it")
    for name in given:
        if name in IDLE.get(way or "", ()):
            raise BadInput(f"{name} changes nothing that {way} shows, got both: drop one")


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput("--interactive needs a terminal, got a pipe or a file: leave it out")


def _check_range(option: str, number: int | None, size: int) -> None:
    if number is not None and not 0 <= number < size:
        raise BadInput(
            f"{option} must be one of the graph's 0 to {size - 1}, got {number}: choose one of these"
        )
