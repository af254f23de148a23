"""One picture of a growing search: the tree, where things happen, what was spent, for any size of the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.text import Text

from babblegraph.budget import Budget, Spent
from babblegraph.graph import BabbleGraph
from babblegraph.status import Status
from babblegraph.view import charts, figures, tables
from babblegraph.view.footer import best_value, footer
from babblegraph.view.heading import title
from babblegraph.view.signs import QUIET, UNICODE, Signs
from babblegraph.view.tree import tree_lines

SIDE_FROM, SIDE, GAP = 150, 48, 3  # from which width on the charts stand beside the tree, in how many cells
CHARTS_FROM = 22, 56  # lines and cells; a smaller frame has no charts
BARS, NAMES = 3, 10  # lines of the histogram's bars, cells of the names of the sparklines
MOST_MAP, MOST_BARS = 60, 40  # cells
KEPT = 240  # moments; beyond that every second one is forgotten


class History:
    """What a search looked like at past moments: the best value and the tokens a second."""

    def __init__(self) -> None:
        self.best: list[float] = []
        self.rate: list[float] = []

    def see(self, graph: BabbleGraph, rate: float | None) -> None:
        """Remembers this moment."""
        self.best.append(best_value(graph))
        self.rate.append(math.nan if rate is None else rate)
        if len(self.best) > KEPT:
            self.best, self.rate = self.best[1::2], self.rate[1::2]


def frame(
    graph: BabbleGraph,
    *,
    width: int,
    height: int,
    tree: int = 0,
    focus: Sequence[int] = (),
    spent: Spent | None = None,
    budget: Budget | None = None,
    history: History | None = None,
    rate: float | None = None,
    more: str = "",
    signs: Signs = UNICODE,
) -> list[Text]:
    """The lines of one frame, exactly as many as there is room for.

    Args:
        graph: any.
        width, height: in cells and lines.
        tree: which tree to draw.
        focus: nodes to show if possible, such as those of the last round.
        spent, budget: for the two lines at the bottom; left out without them.
        history: for the sparklines; left out without it.
        rate: tokens a second.
        more: what else to say in the title.
        signs: what to draw with.
    """
    top, bottom = [title(graph, width, signs, more)], []
    if spent is not None and budget is not None:
        bottom = footer(graph, spent, budget, width=width, rate=rate, signs=signs)
    room = height - len(top) - len(bottom)
    if graph.trees > 1:
        top += tables.prompts(graph, width=width, height=max(room // 3, 4), focus=tree, signs=signs)
    history = history or History()
    if width >= SIDE_FROM:
        room = height - len(top) - len(bottom)
        side = _stacked(graph, history, rate, room, signs)
        left = width - SIDE - GAP
        drawn = tree_lines(graph, left, max(room, 2), tree, focus, signs)
        middle = charts.beside([drawn, side], [left, SIDE], GAP)
    else:
        panel = _panel(graph, history, rate, width, signs)
        room = height - len(top) - len(bottom) - len(panel)
        if height < CHARTS_FROM[0] or width < CHARTS_FROM[1]:
            room, panel = room + len(panel), []
        drawn = tree_lines(graph, width, max(room, 2), tree, focus, signs)
        middle = [*drawn, *[Text()] * (room - len(drawn)), *panel]
    empty = [Text()] * (height - len(top) - len(middle) - len(bottom))
    return [*top, *middle, *empty, *bottom][:height]


def _panel(graph: BabbleGraph, history: History, rate: float | None, width: int, signs: Signs) -> list[Text]:
    """The charts below the tree, two side by side."""
    left = min((width - GAP) // 2, MOST_MAP)
    right = min(width - left - GAP, MOST_BARS)
    beside = [*_sparks(history, rate, right, signs), *_values(graph, right, signs)]
    return charts.beside([charts.depth_map(graph, left, signs), beside], [left, right], GAP)


def _stacked(
    graph: BabbleGraph, history: History, rate: float | None, height: int, signs: Signs
) -> list[Text]:
    """The charts beside the tree, one above the other; the last ones are left out where there is no room."""
    found: list[Text] = []
    blocks = (
        charts.depth_map(graph, SIDE, signs),
        _sparks(history, rate, SIDE, signs),
        _values(graph, MOST_BARS, signs),
    )
    for block in blocks:
        if len(found) + len(block) + 1 <= height:
            found += [Text(), *block] if found else block
    return found or [Text()]


def _sparks(history: History, rate: float | None, width: int, signs: Signs) -> list[Text]:
    room = width - NAMES - 7
    if not history.best:
        return []
    lines = [_spark("best", history.best, room, figures.share(history.best[-1]), signs, 0.0)]
    if not all(map(math.isnan, history.rate)):
        lines.append(_spark("tokens/s", history.rate, room, figures.count(rate or 0), signs, 0.0))
    return lines


def _spark(name: str, values: Sequence[float], room: int, figure: str, signs: Signs, least: float) -> Text:
    return charts.labelled(name, NAMES, charts.sparkline(values, room, signs, least), figure)


def _values(graph: BabbleGraph, width: int, signs: Signs) -> list[Text]:
    """The histogram of all values but those of the dead, which would hide the others, with a heading of its own."""
    dead = graph.status == Status.LEAF_DEAD
    known = graph.value[~np.isnan(graph.value) & ~dead]
    if not len(known):
        return []
    said = f"values of {'one node' if len(known) == 1 else figures.count(len(known)) + ' nodes'}"
    if dead.any():
        words = (f"{said}, the dead left out", f"{said} not dead")
        said = next((x for x in words if len(x) <= width), "values, not of dead")
    heading = Text(said, QUIET, no_wrap=True)
    return [heading, *charts.histogram(known, width, BARS, signs)]
