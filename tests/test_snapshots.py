"""What the view draws of fixed graphs, kept as files: a change of the picture is a change that someone looks at.

`python tests/test_snapshots.py` draws them anew. Escape sequences are written as \\e, so that the files can be read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Group
from test_view import HOSTILE, graph_of, plain, random_graph, solved

from babblegraph.born import Born
from babblegraph.graph import BabbleGraph
from babblegraph.status import Status
from babblegraph.view.frame import History, frame
from babblegraph.view.report import report
from babblegraph.view.signs import ASCII, UNICODE

FOLDER = Path(__file__).parent / "snapshots"
GRAPHS: dict[str, Callable[[], BabbleGraph]] = {
    "empty": graph_of,
    "one-node": lambda: graph_of("a"),
    "deep-chain": lambda: chain(300),
    "bushy": lambda: random_graph(400, 0, reach=9),
    "ten-thousand-wide": lambda: graph_of(*["x"] * 10_000),
    # those with wide characters last: of equals the newest are drawn
    "hostile": lambda: graph_of(*HOSTILE[9:], *HOSTILE[:9], prompts=["".join(HOSTILE)]),
    "solved": solved,
}
WIDTHS = (60, 100, 200)


def chain(length: int) -> BabbleGraph:
    """One node below the other, and a finished leaf at the end."""
    graph = graph_of()
    for i in range(length):
        graph.add(Born.of_spans([i], [list(f"step {i}\n".encode())], [-1.0]))
    graph.value[1:] = np.linspace(0, 1, length)
    graph.status[length], graph.score[length] = Status.LEAF_END, 1.0
    return graph


COLOURS = {"plain": None, "colour": "standard"}


def picture(name: str, width: int, colour: str) -> str:
    """The live frame and the final report of a graph, as a terminal would get them."""
    graph, history, signs = GRAPHS[name](), History(), ASCII if colour == "ascii" else UNICODE
    for _ in range(3):
        history.see(graph, 120.0)
    live = frame(graph, width=width, height=26, history=history, rate=120.0, signs=signs)
    shown = Group(*live, report(graph, width=width, height=10, signs=signs))
    encoding = "ascii" if colour == "ascii" else "utf-8"
    text = plain(shown, width, encoding, COLOURS.get(colour))
    return "".join(f"{line.rstrip()}\n" for line in text.replace("\x1b", "\\e").split("\n"))


CASES = [(name, width, colour) for name in GRAPHS for width in WIDTHS for colour in (*COLOURS, "ascii")]


@pytest.mark.parametrize(("name", "width", "colour"), CASES)
def test_a_fixed_graph_looks_as_it_did(name: str, width: int, colour: str) -> None:
    found, file = picture(name, width, colour), FOLDER / f"{name}-{width}-{colour}.txt"
    assert found == file.read_text("utf-8"), (
        f"python {Path(__file__).name} draws it anew: look at the difference"
    )
    if colour != "colour":
        assert max(map(cell_len, found.splitlines())) <= width


def test_there_is_no_picture_that_nobody_compares() -> None:
    assert {f.stem for f in FOLDER.iterdir()} == {f"{n}-{w}-{c}" for n, w, c in CASES}


if __name__ == "__main__":
    for case in CASES:
        (FOLDER / f"{case[0]}-{case[1]}-{case[2]}.txt").write_text(picture(*case), "utf-8")
