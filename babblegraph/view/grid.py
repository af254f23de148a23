"""A table of figures for any width: what has no room is left out, since half a figure reads as another one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from babblegraph.view.signs import UNICODE, Signs
from babblegraph.view.text import fit_figures

GAP = 2  # cells between two columns
LEAST = 12  # cells of a label before the last column goes


def grid(
    heading: Text,
    names: Sequence[Text],
    rows: Sequence[tuple[Text, Sequence[str]]],
    *,
    width: int,
    signs: Signs = UNICODE,
    least: int = LEAST,
) -> Table:
    """Labels on the left, figures on the right; the last columns go first, then labels get short.

    Args:
        heading: of the labels.
        names: of the columns of figures.
        rows: a label and its figures.
        width: in cells.
        signs: what to draw with.
        least: cells of the labels, as far as they need them.
    """
    wide = [max(map(cell_len, column)) for column in zip(*(figures for _, figures in rows), strict=True)]
    wide = [max(w, name.cell_len) for w, name in zip(wide, names, strict=True)]
    longest = max(heading.cell_len, *(label.cell_len for label, _ in rows))
    shown = columns_in(wide, width - min(longest, least))
    room = max(width - sum(wide[:shown]) - GAP * shown, 0)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="")
    table.add_column(_cut(heading, room, signs), no_wrap=True)
    for name in names[:shown]:
        table.add_column(name, justify="right", no_wrap=True)
    for label, figures in rows:
        table.add_row(_cut(label, room, signs), *figures[:shown])
    return table


def columns_in(wide: Sequence[int], room: int) -> int:
    """How many columns of these widths, a gap before each, there is room for."""
    shown = 0
    while shown < len(wide) and sum(wide[: shown + 1]) + GAP * (shown + 1) <= room:
        shown += 1
    return shown


def _cut(label: Text, room: int, signs: Signs) -> Text:
    """A label of at most so many cells, in its own style."""
    return label if label.cell_len <= room else Text(fit_figures(label.plain, room, signs), label.style)
