"""The explorer: move through a babble graph with the keyboard or the mouse, and see all of every node."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.geometry import Offset
from textual.widgets import Input, Static

from babblegraph.explore.jumps import Jumps
from babblegraph.explore.keys import BINDINGS, Help
from babblegraph.explore.lines import Lines
from babblegraph.explore.menu import Menu, choices
from babblegraph.explore.outline import ORDERS, Filter, Outline
from babblegraph.explore.rounds import Rounds
from babblegraph.explore.tree import TreeView
from babblegraph.graph import BabbleGraph
from babblegraph.history import at_round
from babblegraph.view import figures
from babblegraph.view.heading import legend, title
from babblegraph.view.promise import best_leaf, promise
from babblegraph.view.report import best_tree
from babblegraph.view.signs import GATES, TITLE
from babblegraph.view.text import fit_figures

BOTH_FROM = 90  # cells; a narrower terminal has no room for the tree and the text side by side
ROUNDS_FROM = 70  # for the bar of rounds beside the title


class Explorer(Jumps):
    """The explorer of one graph.

    Args:
        graph: what to look at; it must not grow meanwhile.
    """

    CSS = """
    #title, #status { height: 1; padding: 0 1; }
    #top { height: 1; }
    #title { width: 1fr; }
    #tree { width: 3fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    * { scrollbar-color: ansi_bright_black; scrollbar-color-hover: ansi_white; scrollbar-color-active: ansi_white;
        scrollbar-background: ansi_default; scrollbar-background-hover: ansi_default;
        scrollbar-background-active: ansi_default; }
    #details { width: 2fr; border-left: solid gray; padding: 0 1; }
    #search { display: none; height: 1; border: none; padding: 0 1; }
    #search.shown { display: block; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(self, graph: BabbleGraph) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"  # a slow terminal should not have to follow
        self.whole = self.graph = graph
        self._open = np.zeros(graph.size, np.bool_)  # of all rounds: what was unfolded stays so
        self.outline = Outline(graph, self._open)
        self.lines = Lines(self.outline)
        self.pane, self.rounds = TreeView(self.outline, self.lines), Rounds(graph.round)
        self._legend = Text()

    def compose(self) -> ComposeResult:
        """The title, the tree beside the details, the search and a line of status."""
        with Horizontal(id="top"):
            yield Static(id="title", markup=False)
            yield self.rounds
        with Horizontal():
            yield self.pane
            with VerticalScroll(id="details"):
                yield Static(id="node", markup=False)
        yield Input(placeholder="search the texts", id="search", compact=True)
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """Begins at the best leaf."""
        self.pane.focus()
        tree = best_tree(self.graph)
        best = best_leaf(self.graph, tree)
        self.outline.toggle(tree)
        self.go(tree if best is None else best)

    def on_resize(self, event: events.Resize) -> None:
        """A narrow terminal shows the tree or the text alone."""
        width = event.size.width
        self._show(text=width >= BOTH_FROM)
        self.rounds.display = width >= ROUNDS_FROM
        self.call_after_refresh(self._settle)

    def on_tree_view_chosen(self, message: TreeView.Chosen) -> None:
        """Shows everything about the chosen node, which may be another one by the time that the message is read."""
        if not self.query("#details"):  # the end came first
            return
        details = self.query_one("#details", VerticalScroll)
        self.query_one("#node", Static).update(self.lines.details(self.pane.node, details.size.width))
        details.scroll_home(animate=False)
        self.query_one("#status", Static).update(self._status())

    def on_rounds_chosen(self, message: Rounds.Chosen) -> None:
        """Shows the graph as it was after a round, at what was looked for, else at the best of what was born in it."""
        node, number = self.pane.node, message.number
        if number == self.graph.round:  # as at the first round and the last one: the chosen node stays
            return
        self.graph = self.whole if number == self.whole.round else at_round(self.whole, number)
        before, self.outline = self.outline, Outline(self.graph, self._open[: self.graph.size])
        self.outline.marked, self.outline.order = before.marked, before.order
        self.lines = Lines(self.outline, number)
        self.pane.outline, self.pane.lines_of = self.outline, self.lines
        self.outline.sort(before.order)
        self.outline.set_filter(before.filter)
        self._entitle(self.size.width)
        born = np.flatnonzero(self.graph.born == number)
        if message.node is not None:
            node = message.node
        elif len(born) and number:
            node = int(born[np.argmax(promise(self.graph, born))])
        while node >= self.graph.size:
            node = int(self.whole.parent[node])
        self.outline.reveal(node, drop_filter=False)
        self.pane.lay_out(node)

    def on_tree_view_asked(self, message: TreeView.Asked) -> None:
        """The menu of a node, at the mouse."""
        if message.node < self.graph.size:
            self.pane.lay_out(message.node)
            self._ask(message.at)

    def action_move(self, by: int) -> None:
        """Moves so many lines."""
        self.pane.move_to(self.pane.cursor + by)

    def action_page(self, by: int) -> None:
        """Moves so many screens."""
        self.pane.move_to(self.pane.cursor + by * max(self.pane.size.height - 1, 1))

    def action_edge(self, last: bool) -> None:
        """The first or the last line."""
        self.pane.move_to(len(self.outline.rows) - 1 if last else 0)

    def action_unfold(self) -> None:
        """Unfolds the node, or goes to its first child."""
        node = self.pane.node
        if self.outline.is_open[node]:  # below it is another node where a filter hides its children
            below = self.outline.rows[self.pane.cursor + 1 :][:1]
            self.pane.move_to(self.pane.cursor + bool((self.graph.parent[below] == node).any()))
        elif self.outline.children[node]:
            self.action_toggle()

    def action_fold(self) -> None:
        """Folds the node, or goes to its parent."""
        node = self.pane.node
        if self.outline.is_open[node] and self.outline.children[node]:
            self.action_toggle()
        elif self.graph.parent[node] >= 0:
            self.pane.lay_out(int(self.graph.parent[node]))

    def action_toggle(self) -> None:
        """Folds or unfolds the node."""
        node = self.pane.node
        self.outline.toggle(node)
        self.pane.lay_out(node)

    def action_open_below(self) -> None:
        """Unfolds all below the node."""
        node = self.pane.node
        self.outline.open_below(node)
        self.pane.lay_out(node)

    def action_close_all(self) -> None:
        """Folds everything."""
        node = self.pane.node
        self.outline.close_all()
        self.pane.lay_out(node)

    def action_menu(self) -> None:
        """The menu of the chosen node, below its line."""
        line = self.pane.cursor - self.pane.scroll_offset.y
        self._ask(Offset(self.pane.region.x + 4, self.pane.region.y + line + 1))

    def action_copy(self) -> None:
        """The whole text goes to the clipboard, as terminals allow it."""
        node = self.pane.node
        text = self.graph.prompts[self.graph.root[node]] + self.graph.text(node)
        self.copy_to_clipboard(text.encode("utf-8", "replace").decode())  # half a surrogate has no bytes
        self.notify("copied, if this terminal lets programs copy", timeout=3, markup=False)

    def action_sort(self) -> None:
        """The next order of siblings."""
        node, at = self.pane.node, ORDERS.index(self.outline.order)
        self.outline.sort(ORDERS[(at + 1) % len(ORDERS)])
        self.pane.lay_out(node)

    def action_other_side(self) -> None:
        """Between the tree and the text, which a narrow terminal shows one at a time."""
        to_text = self.focused is self.pane
        self._show(
            tree=not to_text or self.size.width >= BOTH_FROM, text=to_text or self.size.width >= BOTH_FROM
        )
        details = self.query_one("#details", VerticalScroll)
        (details if to_text else self.pane).focus()

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Help())

    def _settle(self) -> None:
        """All that depends on widths, which are known only when the screen was laid out."""
        self._entitle(self.size.width)
        self.pane.lay_out()

    def _entitle(self, width: int) -> None:
        top = self.query_one("#title", Static)
        top.update(title(self.whole, top.size.width))
        self._legend = legend(self.graph, width // 2, guides=False)[0]

    def _ask(self, at: Offset) -> None:
        node = self.pane.node
        self.rounds.pause()
        self.rounds.show(self.rounds.number)
        wanted = choices(self.outline, node, self.lines.winners.get(node))
        self.push_screen(Menu(wanted, at), partial(self._do, node))

    async def _do(self, node: int, action: str | None) -> None:
        # a round that was on its way may have come meanwhile
        if action is not None and node < self.graph.size:
            self.pane.lay_out(node)
            await self.run_action(action)

    def _show(self, *, tree: bool = True, text: bool = True) -> None:
        self.pane.display, self.query_one("#details").display = tree, text

    def _status(self) -> Text:
        """What is filtered and sorted, and what the signs mean."""
        wish, outline = self.outline.filter, self.outline
        lines = len(outline.rows)
        parts = [f"line {self.pane.cursor + 1} of {figures.count(lines)}" if lines else "no line"]
        if wish != Filter():
            parts.append(f"{figures.count(int(outline.found.sum()))} found")
        is_told = self.rounds.display or self.graph is self.whole  # by the bar, where there is room for it
        for name, said in (
            ("round", "" if is_told else f"{self.graph.round} of {self.whole.round}"),
            ("text", wish.text),
            ("status", wish.status.replace("_", " ")),
            ("gate", GATES.get(wish.gate, "")),
            ("value ≥", f"{wish.least:g}" if wish.least else ""),
            ("sorted by", outline.order if outline.order != ORDERS[0] else ""),
            ("marks", str(len(outline.marked) or "")),
        ):
            if said:
                parts.append(f"{name} {said}")
        line = Text(fit_figures(" · ".join(parts), max(self.size.width - 12, 8)), no_wrap=True)
        line.append("   ? help", TITLE)
        room = self.size.width - line.cell_len - 5
        if room < self._legend.cell_len:
            return line
        return line.append("   ").append_text(self._legend)
