"""`babblegraph show`: draw a saved graph."""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import Annotated

import typer

from babblegraph.errors import BadInput


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A graph that --save wrote.")],
    width: Annotated[
        int | None, typer.Option(help="In characters; that of the terminal by default.", show_default=False)
    ] = None,
    height: Annotated[int, typer.Option(help="Lines of the tree, at most; 0 for all.")] = 40,
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
    speed: Annotated[float, typer.Option(help="Of --replay; 2 is twice as fast.")] = 1.0,
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
    if height < 0:
        raise BadInput(f"--height must not be negative, got {height}: use 0 for all lines")
    if not 0 < speed < math.inf:
        raise BadInput(f"--speed must be above zero, got {speed:g}: 1 is the usual pace")
    ways = {"--node": node is not None, "--replay": replay, "--diff": diff is not None, "--traps": traps}
    ways["--interactive"] = interactive
    if len(given := [name for name, is_given in ways.items() if is_given]) > 1:
        raise BadInput(f"show does one thing at a time, got {' and '.join(given)}: drop one")
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

        play(console, graph, speed=speed, tree=tree)
    if node is not None:
        from babblegraph.view.node import node_report

        print_lines(console, partial(node_report, graph, node), width)
    elif other is not None:
        from babblegraph.view.diff import diff_report

        print_lines(console, partial(diff_report, graph, other, height=height or None), width)
    elif traps:
        from babblegraph.view.traps import trap_report

        print_lines(console, partial(trap_report, graph), width)
    else:
        print_report(console, graph, width=width, height=height or None, tree=tree)


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput("--interactive needs a terminal, got a pipe or a file: leave it out")


def _check_range(option: str, number: int | None, size: int) -> None:
    if number is not None and not 0 <= number < size:
        raise BadInput(
            f"{option} must be one of the graph's 0 to {size - 1}, got {number}: choose one of these"
        )
