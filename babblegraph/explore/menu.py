"""What can be done with one node, as a menu at the mouse."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.geometry import Offset
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from babblegraph.explore.outline import Outline
from babblegraph.status import Gate, Status
from babblegraph.view.signs import GATES, WORDS

WIDTH = 40  # cells


def choices(outline: Outline, node: int, winner: int | None) -> list[tuple[str, str]]:
    """The actions that make sense for a node, and their names.

    Args:
        outline: where it is.
        node: which one.
        winner: the node that stands for it, where it is merged.
    """
    graph = outline.graph
    found = []
    if outline.children[node]:
        found.append(("toggle", "fold" if outline.is_open[node] else "unfold"))
        found.append(("open_below", "unfold all below"))
    found.append(("mark", "take the mark away" if node in outline.marked else "mark"))
    found.append(("copy", "copy the whole text"))
    if winner is not None:
        found.append(("parent", f"go to #{winner}, which stands for it"))
    elif graph.parent[node] >= 0:
        found.append(("parent", "go to the parent"))
    status, gate = Status(int(graph.status[node])), Gate(int(graph.gate[node]))
    name = "passed" if outline.passed[node] else WORDS[status]
    found.append(("same_status", f"show only what is {name}"))
    if gate != Gate.NONE:
        found.append(("same_gate", f"show only what the {GATES[gate]} stopped"))
    found.append(("birth", f"the round of its birth, {graph.born[node]}"))
    return found


class Menu(ModalScreen[str]):
    """Asks what to do; its result is the name of an action.

    Args:
        found: actions and what to call them.
        at: where on the screen.
    """

    CSS = f"""
    Menu {{ background: transparent; }}
    #menu {{ width: {WIDTH}; max-width: 100%; height: auto; border: solid gray; padding: 0; background: ansi_default; }}
    """

    def __init__(self, found: Sequence[tuple[str, str]], at: Offset) -> None:
        super().__init__()
        self.found, self.at = found, at

    def compose(self) -> ComposeResult:
        """One line a choice."""
        yield OptionList(*(Option(said, id=action) for action, said in self.found), id="menu", markup=False)

    def on_resize(self) -> None:
        """How large the menu is, is known when it was laid out: long choices take two lines where it is narrow."""
        self.call_after_refresh(self._place)

    def _place(self) -> None:
        """Beside the mouse, and whole."""
        menu, room = self.query_one(OptionList), self.size
        x = max(min(self.at.x, room.width - menu.outer_size.width), 0)
        y = max(min(self.at.y, room.height - menu.outer_size.height), 0)
        menu.styles.offset = (x, y)

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        """Does what was chosen."""
        self.dismiss(message.option.id)

    def on_key(self, event: events.Key) -> None:
        """Keys other than those that move in the menu close it."""
        if event.key not in ("up", "down", "enter", "home", "end", "pageup", "pagedown"):
            event.stop()
            self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """So does the mouse outside of it."""
        if not self.query_one(OptionList).region.contains(event.screen_x, event.screen_y):
            self.dismiss(None)
