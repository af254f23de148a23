"""`babblegraph export`: write a saved graph in a format that other programs read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph

FORMATS = ("graphml", "json", "dot", "svg", "html")
WIDTH = 100  # characters of an SVG, by default
LARGE = 20_000  # nodes; from here on it takes long enough to say so


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A graph that --save wrote.")],
    to: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Standard output by default.")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help=f"Of the SVG, in characters; {WIDTH} by default.", min=20, show_default=False),
    ] = None,
) -> None:
    """Write a saved graph as GraphML, node-link JSON, DOT, an SVG picture of the view, or one HTML page."""
    from babblegraph.cli.loading import check_writable, choose
    from babblegraph.graph_file import load, write_whole

    choose(to, FORMATS, "--to")
    if width is not None and to != "svg":
        raise BadInput(f"--width is of the SVG, got --to {to}: leave it out")
    if output is not None:
        check_writable(output, "--output", whole=False)
    graph = load(file)
    if graph.size > LARGE and to not in ("svg", "html"):
        print(f"babblegraph: writing {graph.size} nodes as {to}", file=sys.stderr, flush=True)
    text = _writer(to, WIDTH if width is None else width)(graph)
    data = (text if text.endswith("\n") else text + "\n").encode()
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)  # these formats are UTF-8, whatever the terminal is
    elif Path(output).is_file() or not Path(output).exists():
        write_whole(output, data)
    else:  # a pipe or a device, which must not be replaced by a file
        Path(output).write_bytes(data)


def _writer(to: str, width: int) -> Callable[[BabbleGraph], str]:
    if to == "svg":
        from babblegraph.view.svg import to_svg

        return lambda graph: to_svg(graph, width)
    if to == "html":
        from babblegraph.page import to_html

        return to_html
    from babblegraph import export as formats

    return {"graphml": formats.to_graphml, "json": formats.to_json, "dot": formats.to_dot}[to]
