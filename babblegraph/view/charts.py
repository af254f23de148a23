"""Small charts of characters: a line of sparks, a histogram, and a map of where in the forest things happened."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.text import Text

from babblegraph.graph import BabbleGraph
from babblegraph.status import Status
from babblegraph.subtrees import passing
from babblegraph.view import figures
from babblegraph.view.signs import PASSED, QUIET, STYLES, UNICODE, WORDS, Signs
from babblegraph.view.text import pad

ROWS = (  # of the map, from what is wished for to what is not
    (Status.LEAF_END, (Status.LEAF_END, Status.LEAF_STOP, Status.LEAF_LENGTH)),
    (Status.FRONTIER, (Status.FRONTIER,)),
    (Status.EXPANDED, (Status.EXPANDED,)),
    (Status.LEAF_DEAD, (Status.LEAF_DEAD,)),
    (Status.PRUNED, (Status.PRUNED,)),
    (Status.MERGED, (Status.MERGED,)),
)
LABEL, COUNT, WIDEST = 11, 6, 4  # cells left and right of the map, and of one depth


def sparkline(values: ArrayLike, width: int, signs: Signs = UNICODE, least: float | None = None) -> str:
    """The last values as a line of characters of rising height, the newest on the right.

    Args:
        values: [T]; NaN leaves a gap.
        width: in cells; older values share one where there are more.
        least: what the lowest character stands for; the least of the values by default.

    >>> sparkline([0, 1, 2, 3], 4), sparkline([5, 5], 4), sparkline([], 4)
    ('▁▃▆█', '▁▁', '')
    """
    x = np.asarray(values, np.float64)
    if len(x) > width > 0:
        x = np.array([_mean(part) for part in np.array_split(x, width)])
    known = x[~np.isnan(x)]
    if not len(known) or width <= 0:
        return ""
    low = float(known.min()) if least is None else least
    high, bars = float(known.max()), signs.bars
    rise = np.nan_to_num((x - low) / (high - low if high > low else 1.0))
    level = 1 + np.clip(np.rint(rise * (len(bars) - 2)), 0, len(bars) - 2).astype(int)
    return "".join(" " if np.isnan(v) else bars[i] for v, i in zip(x, level, strict=True))


def histogram(values: ArrayLike, width: int, height: int, signs: Signs = UNICODE) -> list[Text]:
    """How often values in [0, 1] occur: bars of `height` lines, and the axis below them.

    Args:
        values: [M]; NaN is left out.
        width, height: in cells, without the axis.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    counts = np.histogram(np.clip(x, 0, 1), bins=width, range=(0, 1))[0]
    full = len(signs.bars) - 1
    tall = np.ceil(counts / max(counts.max(initial=0), 1) * height * full).astype(int)
    colours = [value_colour((i + 0.5) / width) for i in range(width)]
    lines = []
    for row in range(height - 1, -1, -1):
        line = Text(no_wrap=True)
        drawn = "".join(signs.bars[cell] for cell in np.clip(tall - row * full, 0, full).tolist())
        for colour, cells in groupby(range(width), colours.__getitem__):
            line.append("".join(drawn[i] for i in cells), colour)
        lines.append(line)
    return [*lines, Text("0" + "1".rjust(width - 1), QUIET, no_wrap=True)]


def depth_map(graph: BabbleGraph, width: int, signs: Signs = UNICODE) -> list[Text]:
    """Where in the forest nodes are, by depth from left to right, and what became of them, a line each.

    The darker a cell, the more nodes, on a scale of logarithms.

    Args:
        graph: any.
        width: in cells.
    """
    deepest, room = int(graph.depth.max()), max(width - LABEL - COUNT, 1)
    levels = min(room, deepest + 1)  # a column each; deep forests share columns, shallow ones have wide ones
    wide = min(room // levels, WIDEST)
    column = graph.depth.astype(np.int64) * levels // (deepest + 1)
    table = np.bincount(graph.status.astype(np.int64) * levels + column, minlength=len(Status) * levels)
    table = table.reshape(len(Status), levels)
    passed = np.bincount(column[passing(graph)], minlength=levels)
    rows = [(signs.passed, "passed", PASSED, passed)]
    for status, kinds in ROWS:
        counts = table[list(kinds)].sum(0) - (passed if status is Status.LEAF_END else 0)
        rows.append((signs.status[status], WORDS[status], STYLES[status], counts))
    most = max(int(counts.max()) for *_, counts in rows)
    end = str(deepest) if deepest and levels * wide > len(str(deepest)) else ""
    heading = "depth".ljust(LABEL) + "0" + end.rjust(levels * wide - 1)
    lines = [Text(heading, QUIET, no_wrap=True)]
    for sign, word, style, counts in rows:
        if counts.any():
            line = Text(no_wrap=True).append(f"{sign} {word}".ljust(LABEL), style)
            line.append("".join(c * wide for c in _shaded(counts, most, signs)), style)
            lines.append(line.append(figures.count(int(counts.sum())).rjust(COUNT), QUIET))
    return lines


def beside(blocks: Sequence[Sequence[Text]], widths: Sequence[int], gap: int = 3) -> list[Text]:
    """Blocks of lines next to each other, all but the last padded to their widths."""
    lines = []
    for i in range(max(map(len, blocks))):
        line = Text(no_wrap=True)
        for block, width in zip(blocks, widths, strict=True):
            part = block[i] if i < len(block) else Text()
            line.append_text(part).append(" " * (width - part.cell_len + gap))
        line.rstrip()
        lines.append(line)
    return lines


def labelled(name: str, room: int, drawn: str, figure: str) -> Text:
    """A line of sparks with its name before it and the newest figure after it."""
    return Text(no_wrap=True).append(pad(name, room), QUIET).append(drawn, "cyan").append(f" {figure}")


def value_colour(value: float) -> str:
    """Green for the upper third of [0, 1], none for the lower one: red is for what is dead."""
    return "green" if value >= 2 / 3 else "yellow" if value >= 1 / 3 else "default"


def _shaded(counts: NDArray[np.int64], most: int, signs: Signs) -> str:
    shades = signs.shades
    level = np.ceil(np.log1p(counts) / np.log1p(max(most, 1)) * (len(shades) - 1)).astype(int)
    return "".join(shades[i] for i in level)


def _mean(part: NDArray[np.float64]) -> float:
    known = part[~np.isnan(part)]
    return float(known.mean()) if len(known) else float("nan")
