"""The tree of the explorer: a widget that draws only the lines on the screen."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Offset, Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from babblegraph.explore.lines import Lines
from babblegraph.explore.outline import Outline


class TreeView(ScrollView):
    """The lines of an outline, one of them chosen.

    Args:
        outline: what to show.
        lines: draws it.
    """

    # Without these the arrows would scroll instead of choosing another line.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.move(1)"),
        Binding("up", "app.move(-1)"),
        Binding("pagedown", "app.page(1)"),
        Binding("pageup", "app.page(-1)"),
        Binding("home", "app.edge(False)"),
        Binding("end", "app.edge(True)"),
        Binding("right", "app.unfold"),
        Binding("left", "app.fold"),
    ]

    class Chosen(Message):
        """Another node is chosen."""

        def __init__(self, node: int) -> None:
            super().__init__()
            self.node = node

    class Asked(Message):
        """The menu of a node is wished for."""

        def __init__(self, node: int, at: Offset) -> None:
            super().__init__()
            self.node, self.at = node, at

    def __init__(self, outline: Outline, lines: Lines) -> None:
        super().__init__(id="tree")
        self.outline, self.lines_of = outline, lines
        self.cursor = 0  # line of the chosen node
        self._last = 0  # the node that was chosen last: it stays so while a filter leaves no line

    @property
    def node(self) -> int:
        """The chosen node."""
        rows = self.outline.rows
        return int(rows[min(self.cursor, len(rows) - 1)]) if len(rows) else self._last

    def lay_out(self, node: int | None = None) -> None:
        """Call it when the outline changed; the chosen node stays chosen where it is still there.

        Args:
            node: choose this one instead.
        """
        rows = self.outline.rows
        self.virtual_size = Size(max(self.size.width, 1), len(rows))
        if node is not None:
            self._last = node
            line = self.outline.line(node)
            while line is None and self.outline.graph.parent[node] >= 0:
                node = int(self.outline.graph.parent[node])
                line = self.outline.line(node)
            self.cursor = line or 0
        self.move_to(self.cursor)

    def move_to(self, line: int) -> None:
        """Chooses a line, and scrolls to it where it is out of sight: far jumps show what is above it too."""
        self.cursor = max(min(line, len(self.outline.rows) - 1), 0)
        self._last = self.node
        self.follow()
        self.refresh()
        self.post_message(self.Chosen(self.node))

    def follow(self) -> None:
        """Scrolls to the chosen line where it is out of sight."""
        height, above = self.size.height, self.cursor - self.scroll_offset.y
        if height and -1 <= above <= height:
            self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)
        elif height:
            self.scroll_to(y=max(self.cursor - height // 3, 0), animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        line, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        if line >= len(self.outline.rows):
            return Strip.blank(self.size.width)
        text: Text = self.lines_of.line(int(self.outline.rows[line]), width, chosen=line == self.cursor)
        return Strip(text.render(self.app.console), text.cell_len).adjust_cell_length(self.size.width)

    def on_resize(self) -> None:
        """Lines are as wide as the widget."""
        self.virtual_size = Size(max(self.size.width, 1), len(self.outline.rows))

    def on_show(self) -> None:
        """While it was hidden it could not scroll."""
        self.follow()

    def on_click(self, event: events.Click) -> None:
        """Chooses what was clicked, folds it where its fold sign or twice, asks what to do on the right button."""
        line = event.y + self.scroll_offset.y
        if line >= len(self.outline.rows):
            return
        node = int(self.outline.rows[line])
        if event.button != 1:
            self.post_message(self.Asked(node, Offset(event.screen_x, event.screen_y)))
            return
        indent = self.lines_of.indent(node, self.scrollable_content_region.width)
        if event.chain == 2 or indent <= event.x < indent + 2:
            self.outline.toggle(node)
        self.lay_out(node)
