"""Watching a search: live in a terminal, as plain lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, RenderableType
from rich.text import Text

from babblegraph.budget import Budget
from babblegraph.graph import BabbleGraph
from babblegraph.loop import Round
from babblegraph.subtrees import passing
from babblegraph.view.console import PlainConsole
from babblegraph.view.footer import budget_line, nodes_line
from babblegraph.view.frame import History, frame
from babblegraph.view.report import report
from babblegraph.view.screen import Screen
from babblegraph.view.signs import QUIET, signs_of
from babblegraph.view.text import fit_figures

REDRAWS = 10  # a second, at most
SHARE = 0.015  # of the processor's time that frames may take
FIXED = 4096  # nodes up to which a frame costs about the same
LONGEST_WAIT = 10.0  # seconds between two frames of a search that hardly uses the processor
PLAIN_SECONDS = 2.0  # between two lines of progress
REPORT_LINES = 40  # of the tree in the final report


def watch(
    rounds: Iterable[Round],
    console: Console,
    budget: Budget,
    *,
    errors: Console | None = None,
    status: str = "searching",
) -> Round | None:
    """Consumes a search, shows it while it grows, and ends with the report.

    Args:
        rounds: the search.
        console: where the tree and the report go.
        budget: what may be spent.
        errors: where progress goes when `console` is no terminal; standard error by default.
        status: what to say before the first round.
    Returns:
        The last round; None if there was none.
    """
    with View(console, budget, errors=errors) as view:
        view.say(status)
        last = None
        for found in view.follow(rounds):
            last = found
    if last is not None:
        view.report(last.graph)
    return last


class View:
    """A display of one search: a status line at once, then the growing tree. A context manager.

    Every frame is drawn in the thread that runs the search, so that the graph is never read while it grows;
    the screen's own thread only turns the status line's spinner. After the first one, a frame is drawn only while all
    frames together, this one by its guess included, stay below `SHARE` of the processor's time since then.

    Args:
        console: where the tree and the report go.
        budget: what may be spent; None until it is known.
        errors: where progress goes when `console` is no terminal; standard error by default.
        quiet: whether to show nothing at all.
        moving: whether the cursor may be moved where the console can do it; plain lines otherwise.
    """

    def __init__(
        self,
        console: Console,
        budget: Budget | None = None,
        *,
        errors: Console | None = None,
        quiet: bool = False,
        moving: bool = True,
    ) -> None:
        self.console, self.budget, self.quiet = console, budget, quiet
        self.errors = errors or PlainConsole(stderr=True)
        self.signs = signs_of(console.encoding)
        self.rounds = 0
        self.cost = 0.0  # seconds of the processor that frames took
        self._screen = Screen(console, self._clock) if moving and not quiet and can_move(console) else None
        self._status = ""
        self._turn = 0
        self._next = 0.0  # moment of the next frame
        self._began = 0.0  # the processor's time at the first frame
        self._size = 0, 0  # of the last frame, which is drawn anew at once when the terminal has another
        self._last = 0.0, 1  # seconds that the last frame took, and the nodes in it
        self._speed, self._history = _Speed(), History()

    def __enter__(self) -> View:
        if self._screen is not None:
            self._screen.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None:
            self._screen.__exit__(kind, error, trace)
            self._screen = None

    def say(self, text: str) -> None:
        """Shows one line of status, such as what is being loaded."""
        self._status = text
        if self._screen is not None:
            self._screen.draw()
        elif not self.quiet:
            self.errors.print(Text(f"babblegraph: {text}"), soft_wrap=True)

    def follow(self, rounds: Iterable[Round]) -> Iterator[Round]:
        """Passes a search on, and shows it while it grows."""
        for found in rounds:
            self.show(found)
            yield found

    def show(self, found: Round) -> None:
        """Shows a round, unless the last frame is too young."""
        self.rounds += 1
        now = time.monotonic()
        self._speed.see(now, found.spent.sampled)
        resized = self._screen is not None and self._screen.size != self._size
        if self.quiet or (now < self._next and not resized and self.rounds > 1):
            return
        if self._screen is not None:
            if self.rounds > 1 and not resized and not self._is_paid(now, found.graph.size):
                return
            self._size = self._screen.size
            self._began = self._began or time.process_time()
            start = time.thread_time()
            self._screen.draw(self._frame(found))
            self._last = time.thread_time() - start, found.graph.size
            self.cost += self._last[0]
            self._next = now + 1 / REDRAWS
        elif now >= self._next:
            self._next = now + PLAIN_SECONDS
            if self.rounds > 1:
                self.errors.print(Text(f"babblegraph: {self._words(found)}"), soft_wrap=True)

    def _is_paid(self, now: float, size: int) -> bool:
        """Whether the search has used the processor long enough for one more frame."""
        seconds, nodes = self._last
        guess = self.cost + seconds * max(size / max(nodes, FIXED), 1)
        return guess < SHARE * (time.process_time() - self._began) or now > self._next + LONGEST_WAIT

    def report(self, graph: BabbleGraph) -> None:
        """Prints the final report; call it when the display is closed."""
        if not self.quiet:
            print_report(self.console, graph, budget=self.budget)

    def _frame(self, found: Round) -> list[Text]:
        width, height = self._room()
        self._history.see(found.graph, self._speed.rate)
        return frame(
            found.graph,
            width=width,
            height=max(height - 1, 3),  # the last line is the status
            tree=moving_tree(found.graph, found.born),
            focus=found.born.tolist(),
            spent=found.spent,
            budget=self.budget,
            history=self._history,
            rate=self._speed.rate,
            signs=self.signs,
        )

    def _words(self, found: Round) -> str:
        parts = [nodes_line(found.graph, width=100, signs=self.signs).plain]
        if self.budget is not None:
            rate = self._speed.rate
            line = budget_line(found.graph, found.spent, self.budget, width=100, rate=rate, signs=self.signs)
            parts.insert(0, line.plain.lstrip("".join(self.signs.bar) + " "))
        return f" {self.signs.dot} ".join(parts)

    def _clock(self) -> Text:
        """The status line, its spinner a little further each time."""
        self._turn += 1
        turns = self.signs.spinner
        line = Text(no_wrap=True).append(turns[self._turn % len(turns)], "cyan")
        said = f"{self._status}  (Ctrl-C stops)"
        return line.append(" " + fit_figures(said, self._room()[0] - 2, self.signs), QUIET)

    def _room(self) -> tuple[int, int]:
        """Columns and lines of the terminal now."""
        screen = self._screen  # the clock's thread may ask while another one closes the screen
        return (self.console.width, self.console.height) if screen is None else screen.size


def print_report(
    console: Console,
    graph: BabbleGraph,
    *,
    width: int | None = None,
    height: int | None = REPORT_LINES,
    tree: int | None = None,
    budget: Budget | None = None,
) -> None:
    """Prints the final report of a graph, as the console can show it."""
    print_lines(console, partial(report, graph, height=height, tree=tree, budget=budget), width)


def print_lines(console: Console, draw: Callable[..., RenderableType], width: int | None = None) -> None:
    """Prints what `draw(width=…, signs=…)` makes, as the console can show it."""
    width = width or console.width
    if console.is_terminal:
        width = min(width, console.width)
    shown = draw(width=width, signs=signs_of(console.encoding))
    if console.is_terminal:
        console.print(shown, width=width, crop=False)
        return
    with console.capture() as text:
        console.print(shown, width=width, crop=False)
    console.file.write("".join(f"{line.rstrip()}\n" for line in text.get().splitlines()))


def moving_tree(graph: BabbleGraph, born: NDArray[Any]) -> int:
    """The tree to watch: of those that grew, one that still has no answer, and always the first of these.

    A tree whose first child was just born would draw the eye at every round; the first one holds still.
    """
    grew = np.unique(graph.root[born]) if len(born) else np.arange(1)
    open_trees = np.setdiff1d(grew, graph.root[passing(graph)])
    return int(open_trees[0] if len(open_trees) else grew[0])


def can_move(console: Console) -> bool:
    """Whether the cursor may be moved: a terminal that knows how. NO_COLOR takes away the colours only."""
    return console.is_terminal and not console.is_dumb_terminal and not console.legacy_windows


class _Speed:
    """Tokens a second over the last few seconds."""

    def __init__(self, seconds: float = 3.0) -> None:
        self.seconds = seconds
        self.seen: list[tuple[float, int]] = []

    def see(self, now: float, tokens: int) -> None:
        if self.seen and now - self.seen[-1][0] < 0.05:
            return
        self.seen.append((now, tokens))
        while len(self.seen) > 2 and now - self.seen[0][0] > self.seconds:
            self.seen.pop(0)

    @property
    def rate(self) -> float | None:
        """None until two moments are known."""
        if len(self.seen) < 2:
            return None
        (t0, n0), (t1, n1) = self.seen[0], self.seen[-1]
        return (n1 - n0) / (t1 - t0)
