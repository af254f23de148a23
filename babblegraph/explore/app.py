"""The explorer: move through a babble graph with the keyboard or the mouse, and see all of every node."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, Static

from babblegraph.explore.keys import BINDINGS, Help
from babblegraph.explore.lines import Lines
from babblegraph.explore.outline import ORDERS, Filter, Outline, next_of
from babblegraph.explore.tree import TreeView
from babblegraph.graph import BabbleGraph
from babblegraph.status import Gate
from babblegraph.view import figures
from babblegraph.view.heading import legend, title
from babblegraph.view.promise import best_leaf
from babblegraph.view.report import best_tree
from babblegraph.view.signs import GATES, TITLE
from babblegraph.view.text import fit

BOTH_FROM = 90  # cells; a narrower terminal has no room for the tree and the text side by side


class Explorer(App[None]):
    """The explorer of one graph.

    Args:
        graph: what to look at; it must not grow meanwhile.
    """

    CSS = """
    #title, #status { height: 1; padding: 0 1; }
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
        self.graph, self.outline = graph, Outline(graph)
        self.lines = Lines(self.outline)
        self.pane = TreeView(self.outline, self.lines)
        self._legend = Text()

    def compose(self) -> ComposeResult:
        """The title, the tree beside the details, the search and a line of status."""
        yield Static(id="title", markup=False)
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
        self.query_one("#title", Static).update(title(self.graph, width - 2))
        self._legend = legend(self.graph, width // 2, guides=False)
        self.call_after_refresh(self.pane.lay_out)

    def on_tree_view_chosen(self, message: TreeView.Chosen) -> None:
        """Shows everything about the chosen node."""
        details = self.query_one("#details", VerticalScroll)
        self.query_one("#node", Static).update(self.lines.details(message.node, details.size.width))
        details.scroll_home(animate=False)
        self.query_one("#status", Static).update(self._status())

    def go(self, node: int | None, otherwise: str = "") -> None:
        """Chooses a node wherever it is; says something where there is none."""
        if node is None:
            self.notify(otherwise, timeout=3, markup=False)
            return
        self.outline.reveal(node)
        self.pane.lay_out(node)

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
        if self.outline.is_open[node]:
            self.pane.move_to(self.pane.cursor + bool(self.outline.children[node]))
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

    def action_best(self) -> None:
        """The best leaf of the tree that the chosen node is in."""
        self.go(
            best_leaf(self.graph, int(self.graph.root[self.pane.node])), "no leaf is finished in this tree"
        )

    def action_elite(self, by: int) -> None:
        """The next leaf that passes, or the one before."""
        self.go(next_of(self.outline.elites()[:: 1 if by > 0 else -1], self.pane.node), "no leaf passes")

    def action_worst_kill(self) -> None:
        """What should least have been pruned."""
        self.go(self.outline.worst_kill(), "nothing was pruned")

    def action_unexplored(self) -> None:
        """The best live node."""
        self.go(self.outline.best_unexplored(), "no node is live and unexplored")

    def action_parent(self) -> None:
        """The winner of a merged node, else the parent."""
        node = self.pane.node
        up = self.lines.winners.get(node, int(self.graph.parent[node]))
        self.go(up if up >= 0 else None, "a prompt has no parent")

    def action_mark(self) -> None:
        """Marks the node, or takes its mark away."""
        node, marked = self.pane.node, self.outline.marked
        if node in marked:
            marked.remove(node)
        else:
            marked.append(node)
        self.pane.lay_out(node)

    def action_next_mark(self) -> None:
        """The next marked node, in the order in which they were marked."""
        self.go(next_of(self.outline.marked, self.pane.node), "nothing is marked: space marks")

    def action_search(self) -> None:
        """Asks what to search for."""
        box = self.query_one("#search", Input)
        box.add_class("shown")
        box.value = self.outline.filter.text
        box.focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Searches, and goes to the first line found."""
        self._end_search()
        self._filter(self.outline.filter._replace(text=message.value))

    def action_found(self, by: int) -> None:
        """The next line that the filter found, or the one before."""
        lines = [i for i in self.outline.rows[:: 1 if by > 0 else -1].tolist() if self.outline.found[i]]
        here, line = self.pane.node, self.pane.cursor
        if here in lines or not lines:
            self.go(next_of(lines, here), "nothing was found: / searches")
            return
        places = [self.outline.line(i) or 0 for i in lines]
        after = [i for i, place in zip(lines, places, strict=True) if (place - line) * by > 0]
        self.go((after or lines)[0])

    def action_status_filter(self) -> None:
        """The next status alone; after the last one all."""
        names = ["", *self.outline.statuses]
        now = self.outline.filter.status
        self._filter(self.outline.filter._replace(status=names[(names.index(now) + 1) % len(names)]))

    def action_gate_filter(self) -> None:
        """The next gate alone; after the last one all."""
        gates = [Gate.NONE, *(g for g in Gate if g and (self.graph.gate == g).any())]
        now = self.outline.filter.gate
        self._filter(self.outline.filter._replace(gate=gates[(gates.index(now) + 1) % len(gates)]))

    def action_least(self, by: float) -> None:
        """Only values above a bound."""
        least = round(min(max(self.outline.filter.least + by, 0.0), 1.0), 1)
        self._filter(self.outline.filter._replace(least=least))

    def action_sort(self) -> None:
        """The next order of siblings."""
        node, at = self.pane.node, ORDERS.index(self.outline.order)
        self.outline.sort(ORDERS[(at + 1) % len(ORDERS)])
        self.pane.lay_out(node)

    def action_show_all(self) -> None:
        """No filter, no search."""
        self._end_search()
        self._filter(Filter())

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

    def _show(self, *, tree: bool = True, text: bool = True) -> None:
        self.pane.display, self.query_one("#details").display = tree, text

    def _filter(self, wish: Filter) -> None:
        node = self.pane.node
        self.outline.set_filter(wish)
        self.pane.lay_out(node)
        if wish != Filter() and not self.outline.found[self.pane.node]:
            self.action_found(1)

    def _end_search(self) -> None:
        self.query_one("#search", Input).remove_class("shown")
        self.pane.focus()

    def _status(self) -> Text:
        """What is filtered and sorted, and what the signs mean."""
        wish, outline = self.outline.filter, self.outline
        parts = [f"line {self.pane.cursor + 1} of {figures.count(len(outline.rows))}"]
        if wish != Filter():
            parts.append(f"{figures.count(int(outline.found.sum()))} found")
        for name, said in (
            ("text", wish.text),
            ("status", wish.status.replace("_", " ")),
            ("gate", GATES.get(wish.gate, "")),
            ("value ≥", f"{wish.least:g}" if wish.least else ""),
            ("sorted by", outline.order if outline.order != ORDERS[0] else ""),
            ("marks", str(len(outline.marked) or "")),
        ):
            if said:
                parts.append(f"{name} {said}")
        line = Text(fit(" · ".join(parts), max(self.size.width - 12, 8)), no_wrap=True)
        line.append("   ? help", TITLE)
        room = self.size.width - line.cell_len - 5
        if room < self._legend.cell_len:
            return line
        return line.append("   ").append_text(self._legend)
