"""Searching and filtering in the explorer."""

from __future__ import annotations

from typing import TypeVar

from textual.app import App
from textual.widgets import Input

from babblegraph.explore.outline import Filter, Outline
from babblegraph.explore.tree import TreeView
from babblegraph.graph import BabbleGraph
from babblegraph.status import Gate, Status

T = TypeVar("T")


class Filters(App[None]):
    """The part of the explorer that narrows what is shown."""

    graph: BabbleGraph
    outline: Outline
    pane: TreeView

    def go(self, node: int | None, otherwise: str = "") -> None:
        """Chooses a node wherever it is; says something where there is none."""
        if node is None:
            self.notify(otherwise, timeout=3, markup=False)
            return
        self.outline.reveal(node)
        self.pane.lay_out(node)

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
        """The next node that the filter found, or the one before."""
        self.go(self.outline.next_found(self.pane.node, by), "nothing was found: / searches")

    def action_status_filter(self) -> None:
        """The next status alone; after the last one all."""
        names = ["", *self.outline.statuses]
        self._filter(self.outline.filter._replace(status=_after(names, self.outline.filter.status)))

    def action_gate_filter(self) -> None:
        """The next gate alone; after the last one all."""
        gates = [Gate.NONE, *(g for g in Gate if g and (self.graph.gate == g).any())]
        self._filter(self.outline.filter._replace(gate=_after(gates, self.outline.filter.gate)))

    def action_least(self, by: float) -> None:
        """Only values above a bound."""
        least = round(min(max(self.outline.filter.least + by, 0.0), 1.0), 1)
        self._filter(self.outline.filter._replace(least=least))

    def action_same_status(self) -> None:
        """Only what became the same as the node."""
        node = self.pane.node
        status = Status(int(self.graph.status[node])).name.lower()
        self._filter(Filter(status="passed" if self.outline.passed[node] else status))

    def action_same_gate(self) -> None:
        """Only what the gate stopped that stopped the node."""
        self._filter(Filter(gate=Gate(int(self.graph.gate[self.pane.node]))))

    def action_show_all(self) -> None:
        """No filter, no search."""
        self._end_search()
        self._filter(Filter())

    def _filter(self, wish: Filter) -> None:
        node = self.pane.node
        self.outline.set_filter(wish)
        self.pane.lay_out(node)
        if wish != Filter() and not self.outline.found[self.pane.node]:
            self.action_found(1)

    def _end_search(self) -> None:
        self.query_one("#search", Input).remove_class("shown")
        self.pane.focus()


def _after(ring: list[T], now: T) -> T:
    """The next of some choices; the first where the round that is shown has none of what was chosen in another."""
    return ring[(ring.index(now) + 1) % len(ring)] if now in ring else ring[0]
