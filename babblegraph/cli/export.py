"""`babblegraph export`: write a saved graph in a format that other programs read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph

FORMATS = ("graphml", "json", "dot", "svg", "html")
LARGE = 20_000  # nodes; from here on it takes long enough to say so


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A graph that --save wrote.")],
    to: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Standard output by default.")
    ] = None,
    width: Annotated[int, typer.Option(help="Of the SVG, in characters.", min=20)] = 100,
) -> None:
    """Write a saved graph as GraphML, node-link JSON, DOT, an SVG picture of the view, or one HTML page."""
    from babblegraph.cli.loading import check_writable, choose
    from babblegraph.graph_file import load, write_whole

    choose(to, FORMATS, "--to")
    if output is not None:
        check_writable(output, "--output")
    graph = load(file)
    if graph.size > LARGE and to not in ("svg", "html"):
        print(f"babblegraph: writing {graph.size} nodes as {to}", file=sys.stderr, flush=True)
    text = _writer(to, width)(graph)
    if output is None:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        write_whole(output, text.encode())


def _writer(to: str, width: int) -> Callable[[BabbleGraph], str]:
    if to == "svg":
        from babblegraph.view.svg import to_svg

        return lambda graph: to_svg(graph, width)
    if to == "html":
        from babblegraph.page import to_html

        return to_html
    from babblegraph import export as formats

    return {"graphml": formats.to_graphml, "json": formats.to_json, "dot": formats.to_dot}[to]
