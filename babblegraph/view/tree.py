"""The babble tree as lines of text: what each node says, what it is worth, and which gate stopped it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group
from rich.text import Text

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Flag, Gate, Status
from babblegraph.step_text import no_text, step_text
from babblegraph.subtrees import passing
from babblegraph.view import figures
from babblegraph.view.charts import value_colour
from babblegraph.view.fates import over
from babblegraph.view.fold import STOPPED, Kind, Line, fold
from babblegraph.view.guides import Guides
from babblegraph.view.hidden import Folded, hidden
from babblegraph.view.promise import best_leaf
from babblegraph.view.signs import (
    AGAIN,
    FAILED,
    GATES,
    PASSED,
    QUIET,
    STRONG,
    STYLES,
    UNICODE,
    WORDS,
    Signs,
)
from babblegraph.view.text import fit, fit_figures, pad

BRIEF = {
    Status.LEAF_END: "done",
    Status.LEAF_STOP: "done",
    Status.LEAF_LENGTH: "length",
    Status.STEM: "held",
}
STEP, LEAST = 8, 24  # the columns move in steps, lest they tremble while the tree grows
LEAST_TEXT = 12  # cells of a node's own text, before anything is said of what is below it


class Column(NamedTuple):
    """One column right of the text, and from which width of the view on it is there."""

    name: str
    cells: int
    since: int


COLUMNS = (
    Column("status", 14, 72),
    Column("brief", 6, 0),  # the same in fewer letters
    Column("value", 7, 0),
    Column("conn", 5, 90),
    Column("mass", 7, 60),  # a log-weight or a log-probability
    Column("node", 8, 76),
)


def tree(
    graph: BabbleGraph,
    *,
    width: int,
    height: int | None = None,
    tree: int = 0,
    focus: Sequence[int] = (),
    signs: Signs = UNICODE,
) -> Group:
    """One tree of the graph, drawn.

    Args:
        graph: any.
        width: in cells; no line is longer, and none wraps.
        height: at most so many lines, the headings included; None for no limit.
        tree: which of the graph's trees.
        focus: nodes to show if possible, such as those of the last round.
        signs: what to draw with.
    Returns:
        One `Text` a line.
    """
    return Group(*tree_lines(graph, width, height, tree, focus, signs))


def tree_lines(
    graph: BabbleGraph,
    width: int,
    height: int | None = None,
    tree: int = 0,
    focus: Sequence[int] = (),
    signs: Signs = UNICODE,
) -> list[Text]:
    """The lines of `tree`."""
    lines = fold(graph, tree, None if height is None else max(height - 1, 1), focus)
    best = best_leaf(graph, tree)
    path = set() if best is None else set(graph.path(best))
    brush = _Brush(graph, width, signs, path, set(map(int, focus)))
    return brush.draw(lines)


class _Brush:
    """Draws the lines of one frame."""

    def __init__(self, graph: BabbleGraph, width: int, signs: Signs, best: set[int], new: set[int]) -> None:
        self.graph, self.width, self.signs, self.best, self.new = graph, width, signs, best, new
        self.threshold, self.passes = graph.meta.get("threshold"), passing(graph)
        brief = width < COLUMNS[0].since
        self.columns = [c for c in COLUMNS if width >= c.since and (brief or c.name != "brief")]
        self.room = max(width - sum(c.cells + 1 for c in self.columns), 1)

    def draw(self, lines: Sequence[Line]) -> list[Text]:
        """All lines below their headings; the columns stand as near to the text as they can."""
        self.hidden = hidden(self.graph, lines)
        self.guides = Guides(lines, self.best, self.signs, 3 if self.width >= 64 else 2)
        starts = [self._start(line) for line in lines]
        longest = max(x.cell_len for x in starts)
        self.room = min(self.room, max(-(-longest // STEP) * STEP, LEAST))
        rows = (self._finish(x, line) for x, line in zip(starts, lines, strict=True))
        return [self._headings(), *rows]

    def _headings(self) -> Text:
        row = Text(no_wrap=True).append(pad(fit("span", self.room), self.room), QUIET)
        for c in self.columns:
            name = {"brief": "status", "mass": figures.mass_name(self.graph)}.get(c.name, c.name)
            row.append(" " + name.rjust(c.cells), QUIET)
        return row

    def _start(self, line: Line) -> Text:
        """The guides of a line, its sign and its text."""
        row = self.guides.lead(line, self.room)
        if line.kind is not Kind.NODE:
            room = self._room_of(line) - row.cell_len
            return row.append(fit_figures(self.hidden.words(line, room, self.signs), room, self.signs), QUIET)
        graph, node = self.graph, line.node
        sign, style = self._sign(node)
        faded = self._is_over(node)
        row.append(sign + " ", f"{QUIET} {style}" if faded else style)
        again = self._again_words(node, self.room - row.cell_len)
        more = self.hidden.words(line, self.room - row.cell_len - len(again) - LEAST_TEXT, self.signs)
        said = step_text(graph, node, 6 * self.width) or no_text(graph, node)
        room = self.room - row.cell_len - len(again) - len(more)
        said = fit(said, room, self.signs, middle=graph.parent[node] == NO_PARENT)
        row.append(said, STRONG if node in self.best else QUIET if faded else "")
        return row.append(again, f"{QUIET} {AGAIN}" if faded else AGAIN).append(more, QUIET)

    def _room_of(self, line: Line) -> int:
        """Cells of a line's text: what is folded needs many words, and may have no status beside them."""
        free = line.kind is Kind.FOLD and not over(self.hidden.folded[line.node].fate)[0]
        return self.room + (self.columns[0].cells if free else 0)

    def _finish(self, row: Text, line: Line) -> Text:
        """Adds the columns."""
        if line.kind is Kind.GAP:
            return row
        place, faded = self.room, QUIET if line.kind is Kind.NODE and self._is_over(line.node) else ""
        for column in self.columns:
            row.append(" " * (place + 1 - row.cell_len))
            place += column.cells + 1
            if line.kind is Kind.FOLD:
                self._folded_cell(row, column, self.hidden.folded[line.node])
            else:
                self._cell(row, column, line.node, faded)
        return row

    def _folded_cell(self, row: Text, column: Column, folded: Folded) -> None:
        """Of siblings that share a line: the best below, and what they stand for together."""
        if column.name == "value":
            self._value(row, folded.best, column.cells, QUIET)
        elif column.name in ("status", "brief"):
            self._word(row, column, *over(folded.fate, column.name == "brief"))
        elif column.name == "mass" and folded.mass > -math.inf:
            row.append(figures.log(folded.mass, self.signs).rjust(column.cells), QUIET)

    def _cell(self, row: Text, column: Column, node: int, faded: str) -> None:
        graph = self.graph
        if column.name in ("status", "brief"):
            what, style = self._what(node, column.name == "brief")
            self._word(row, column, what, f"{faded} {style}".strip())
        elif column.name == "value":
            score = float(graph.score[node])
            self._value(row, float(graph.value[node]) if math.isnan(score) else score, column.cells, faded)
        elif column.name == "conn":
            row.append(figures.share(float(graph.connectivity[node])).rjust(column.cells), faded)
        elif column.name == "mass":
            weight = figures.log(figures.mass(graph, node), self.signs)
            weight = "" if graph.parent[node] == NO_PARENT else weight
            row.append(weight.rjust(column.cells), faded or QUIET)
        else:
            row.append(f"#{node}".rjust(column.cells), QUIET)

    def _word(self, row: Text, column: Column, word: str, style: str) -> None:
        if word:
            row.append(fit(word, column.cells, self.signs).rjust(column.cells), style)

    def _value(self, row: Text, value: float, cells: int, faded: str) -> None:
        text = figures.share(value)
        if not text:
            row.append(" " * cells)
            return
        sparks = self.signs.sparks
        spark = sparks[round(min(max(value, 0), 1) * (len(sparks) - 1))] + " " if sparks else ""
        spark = spark if len(spark + text) <= cells else ""
        row.append((spark + text).rjust(cells), f"{faded} {value_colour(value)}".strip())

    def _sign(self, node: int) -> tuple[str, str]:
        if self._passed(node):
            return self.signs.passed, PASSED
        status = Status(int(self.graph.status[node]))
        return self.signs.status[status], STYLES[status] + (" bold" if node in self.new else "")

    def _what(self, node: int, brief: bool) -> tuple[str, str]:
        """A word on what became of a node, and its style."""
        graph = self.graph
        status, gate = Status(int(graph.status[node])), Gate(int(graph.gate[node]))
        if self._passed(node):
            return "passed", PASSED
        if status == Status.MERGED and node in self.hidden.winners:
            return f"{self.signs.arrow} #{self.hidden.winners[node]}", STYLES[status]
        if status == Status.LEAF_DEAD:
            return WORDS[status] if brief else f"{WORDS[status]}, worth 0", STYLES[status]
        if gate != Gate.NONE:
            name = GATES[gate]
            return ("pruned" if brief and gate == Gate.NODE else name), STYLES[Status.PRUNED]
        if graph.flags[node] & Flag.SCORER_FAILED:
            return "failed" if brief else "value failed", FAILED
        if status == Status.EXPANDED or graph.parent[node] == NO_PARENT:
            return over(self.hidden.fates[node], brief)
        if status == Status.FRONTIER:
            return ("new", "bold cyan") if node in self.new else ("", "")
        word = WORDS[status]
        if self.threshold is not None and status in (Status.LEAF_END, Status.LEAF_STOP):
            word = "failed"
        return (BRIEF.get(status, word) if brief and word != "failed" else word), STYLES[status]

    def _is_over(self, node: int) -> bool:
        """Whether nothing more can come of a node, as far as the search knows."""
        return int(self.graph.status[node]) in STOPPED or bool(over(self.hidden.fates[node])[0])

    def _again_words(self, node: int, room: int) -> str:
        """How often a node was expanded again later, where there is room for it."""
        again = self.hidden.again.get(node, 0)
        said = f" {self.signs.again} {again}" if again else ""
        return said if len(said) <= room else ""

    def _passed(self, node: int) -> bool:
        return bool(self.passes[node])
