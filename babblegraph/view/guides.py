"""The lines that lead from a node to its children; the way to the best leaf is heavy from the top to its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.text import Text

from babblegraph.view.fold import Kind, Line
from babblegraph.view.signs import BEST, QUIET, Signs


class Guides:
    """Draws the guides of one tree's lines, asked for from top to bottom.

    Args:
        lines: all that will be drawn.
        best: the nodes on the way to the best leaf.
        signs: what to draw with.
        cells: of one level; a guide's last ones are left out where it has more.
    """

    def __init__(self, lines: Sequence[Line], best: Collection[int], signs: Signs, cells: int) -> None:
        self.best, self.signs, self.cells = best, signs, cells
        self._coming = [False] * (
            1 + max(len(x.last) for x in lines)
        )  # by level: is the best node there below?
        self._left = sum(map(self._is_best, lines))

    def lead(self, line: Line, room: int) -> Text:
        """The guides before a node's sign; cut on the left where they would take more than half of the room."""
        level, coming, best = len(line.last), self._coming, self._is_best(line)
        row, most = Text(no_wrap=True), max(room // 2 // self.cells, 2)
        first = level - most + 1 if level > most else 0
        if first:
            row.append(f"{self.signs.ellipsis}   "[: self.cells], QUIET)
        for i in range(first, level - 1):
            goes_on = self.signs.branch[3 if line.last[i] else 2]
            row.append(*(self._cut(self.signs.trunk[0], BEST) if coming[i] else self._cut(goes_on, QUIET)))
        if level:
            self._branch(row, best, line.last[-1], coming[level - 1])
            coming[level - 1] &= not best
        self._left -= best
        coming[level] = best and self._left > 0
        return row

    def _branch(self, row: Text, best: bool, last: bool, coming: bool) -> None:
        """The guide that ends at the node itself."""
        if best:
            row.append(*self._cut(self.signs.branch[5 if last else 4], BEST))
        elif coming:
            beside = self.signs.trunk[1]
            row.append(beside[0], BEST).append(*self._cut(beside, QUIET, 1))
        else:
            row.append(*self._cut(self.signs.branch[1 if last else 0], QUIET))

    def _cut(self, guide: str, style: str, start: int = 0) -> tuple[str, str]:
        return guide[start : self.cells], style

    def _is_best(self, line: Line) -> bool:
        return line.kind is not Kind.FOLD and line.node in self.best
