"""An expansion in parts, where the memory does not hold all its draws at once.

Random numbers belong to a node, the number of a draw and a position, so that no draw depends on which others are in
flight: what the parts bring together is what one expansion would have brought.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from babblegraph.at_once import AtOnce, Found
from babblegraph.errors import NoRoom, is_lack_of_memory
from babblegraph.lm.joined import Part, joined, tokens_twice
from babblegraph.protocols import ALL, Chosen, Contest, Draws

if TYPE_CHECKING:
    from babblegraph.born import Born
    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph

Ints = NDArray[np.integer[Any]]


class Earlier(NamedTuple):
    """What other parts of an expansion did before this one."""

    nodes: int  # that the graph is promised
    draws: Ints  # [F] of each chosen node
    left: Ints  # [trees] tokens that each tree may still draw


class Room(Protocol):
    """What an engine is asked about its memory; see `engine.Engine`."""

    def begin(self, graph: BabbleGraph) -> None: ...
    def renumber(self, first: int, order: Ints) -> None: ...
    def crowded(self, ids: Ints) -> bool: ...
    def restore(self, size: int) -> None: ...


class Parts(AtOnce):
    """Expands with as many draws at once as the memory holds: half as many from when it did not, twice as many again
    from when they took less than a third of it, so that it does not fall back and forth."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize, "draws at once")

    def expand(
        self,
        expanded: Callable[[Chosen, Earlier], Born],
        engine: Room,
        graph: BabbleGraph,
        chosen: Chosen,
        meter: Meter,
        draws: Draws,
    ) -> Born:
        """What an expansion brings, in parts where it must be.

        A budget of tokens that ends within it goes to the nodes that come first. Draws that depend on each other are
        in one part: systematic and different ones of a node, and those of a contest.

        Args:
            expanded: expands some of the nodes; called anew where the memory did not hold it.
            engine: of the graph.
            graph, chosen, meter, draws: as for `expand.expand`.

        Raises:
            NoRoom: the memory does not even hold a single draw, or those that depend on each other.
        """
        engine.begin(graph)
        queue = _Queue(graph, chosen, draws)
        left, before = meter.tokens_left(), meter.counts["sampled"].copy()
        parts: list[tuple[Part, Born]] = []
        promised, bound = 0, None if chosen.contest is None else chosen.contest.bound
        while queue.left or not parts:

            def some(
                at_once: int, promised: int = promised, bound: NDArray[np.float64] | None = bound
            ) -> tuple[Part, Born]:
                part = queue.first(at_once, bound)
                gate = dict(graph.meta.get("token_gate", ()))
                earlier = Earlier(promised, part.made, left - (meter.counts["sampled"] - before))
                try:
                    return part, expanded(part.chosen, earlier)
                except (NoRoom, RuntimeError) as problem:
                    if is_lack_of_memory(problem):
                        engine.restore(graph.size + promised)
                        _put_back(graph, gate)
                    raise

            least = queue.least
            try:
                part, born = self(some, most=queue.left, least=least)
            except NoRoom as problem:
                if least == 1:
                    raise
                fix = "draw fewer times below a node" if chosen.contest is None else "make the beam narrower"
                raise NoRoom(f"{problem}, or {fix}") from problem
            queue.done(part)
            parts.append((part, born))
            first = graph.size + promised
            promised += len(born.parent)
            new = np.arange(first, first + len(born.parent))
            if part.draws >= self.most and not engine.crowded(np.r_[part.chosen.ids, new]):
                self.most *= 2
            if part.chosen.contest is not None:
                bound = part.chosen.contest.bound
        if len(parts) == 1:
            return parts[0][1]
        meter.count("sampled", np.arange(graph.trees), -tokens_twice(graph, parts))
        whole, order = joined(graph, chosen, parts, draws)
        engine.renumber(graph.size, order)
        return whole


class Nodes(AtOnce):
    """Asks about as many nodes at once as the memory holds."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize, "nodes at once")

    def asked(
        self, engine: Room, graph: BabbleGraph, nodes: Ints, ask: Callable[[Ints], Found]
    ) -> list[Found]:
        """What is found about the nodes, part by part.

        Raises:
            NoRoom: the memory does not even hold the text of one.
        """

        def some_asked(some: slice) -> Found:
            try:
                return ask(nodes[some])
            except (NoRoom, RuntimeError) as problem:
                if is_lack_of_memory(problem):
                    engine.restore(graph.size)
                raise

        found = []
        for one, some in self.parts(some_asked, len(nodes)):
            found.append(one)
            if some.stop - some.start >= self.most and not engine.crowded(nodes[some]):
                self.most *= 2
        return found


class _Queue:
    """The draws of an expansion that are still to be made."""

    def __init__(self, graph: BabbleGraph, chosen: Chosen, draws: Draws) -> None:
        self.chosen, self.whole = chosen, np.where(chosen.draws == ALL, 1, chosen.draws)  # [F]
        self.made = np.zeros(len(chosen), np.int64)  # [F]
        alone = draws in (Draws.MULTINOMIAL, Draws.FRESH)
        self.splits = (chosen.draws != ALL) & alone  # [F] whether a node's draws may be in several parts
        self._group: Ints = graph.trees + np.arange(len(chosen))  # [F] nodes of a group are in one part
        if chosen.contest is not None:
            joined = chosen.contest.joined & (chosen.draws != ALL)
            self._group = np.where(joined, graph.root[chosen.ids], self._group)

    @property
    def left(self) -> int:
        """How many draws there are."""
        return int((self.whole - self.made).sum())

    @property
    def least(self) -> int:
        """How many are in a part at least."""
        if self.splits.all():
            return 1
        rest = self.whole - self.made
        group = next((group for group in self._groups if rest[group].any()), None)
        return 1 if group is None or self.splits[group[0]] else int(rest[group].sum())

    def first(self, at_once: int, bound: NDArray[np.float64] | None) -> Part:
        """The next part: so many draws, more where they depend on each other.

        Args:
            at_once: how many.
            bound: what each tree of a contest has lost so far, [trees].
        """
        chosen = self.chosen
        if at_once >= self.left and not self.made.any():
            return Part(chosen, np.arange(len(chosen)), self.made, int(self.whole.sum()))
        now, room, rest = np.zeros_like(self.made), at_once, self.whole - self.made
        for group in self._groups:
            count = int(rest[group].sum())
            if count > room and self.splits[group[0]]:
                now[group] = room
                break
            if count > room and now.any():
                break
            now[group] = rest[group]
            room -= count
        place = np.flatnonzero(now)
        contest = chosen.contest
        if contest is not None and bound is not None:
            contest = Contest(contest.perturbed[place], contest.joined[place], bound)
        draws = np.where(chosen.draws[place] == ALL, ALL, now[place])
        some = Chosen(chosen.ids[place], draws, contest, chosen.waiting)
        return Part(some, place, self.made[place], int(now.sum()))

    def done(self, part: Part) -> None:
        """These draws are made."""
        self.made[part.place] += np.where(part.chosen.draws == ALL, 1, part.chosen.draws)

    @cached_property
    def _groups(self) -> list[Ints]:
        """Places of the nodes of each group."""
        order = np.argsort(self._group, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self._group[order])) + 1)


def _put_back(graph: BabbleGraph, gate: dict[str, int]) -> None:
    """The count of the token gate as it was."""
    if gate:
        graph.meta["token_gate"] = gate
    else:
        graph.meta.pop("token_gate", None)
