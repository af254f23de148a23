"""`babblegraph show`: draw a saved graph."""

from __future__ import annotations

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
) -> None:
    """Draw a saved graph: the tree, the answer, the path to it, the gates and the budget."""
    from babblegraph.graph_file import load
    from babblegraph.view.console import PlainConsole
    from babblegraph.view.live import print_report
    from babblegraph.view.node import node_report
    from babblegraph.view.signs import signs_of

    if width is not None and width < 20:
        raise BadInput(f"--width must be at least 20, got {width}: make it wider")
    if height < 0:
        raise BadInput(f"--height must not be negative, got {height}: use 0 for all lines")
    graph = load(file)
    console = PlainConsole(width=width)
    _check_range("--tree", tree, graph.trees)
    _check_range("--node", node, graph.size)
    if node is not None:
        console.print(
            node_report(graph, node, width=width or console.width, signs=signs_of(console.encoding))
        )
        return
    print_report(console, graph, width=width, height=height or None, tree=tree)


def _check_range(option: str, number: int | None, size: int) -> None:
    if number is not None and not 0 <= number < size:
        raise BadInput(
            f"{option} must be one of the graph's 0 to {size - 1}, got {number}: choose one of these"
        )
