"""A finished search, played again from what its graph remembers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.text import Text

from babblegraph.graph import BabbleGraph
from babblegraph.history import at_round
from babblegraph.view import figures
from babblegraph.view.footer import bar, nodes_line
from babblegraph.view.frame import History, frame
from babblegraph.view.live import REDRAWS, can_move, moving_tree
from babblegraph.view.screen import Screen
from babblegraph.view.signs import STRONG, UNICODE, Signs, signs_of
from babblegraph.view.text import fit_figures

SECONDS = 12.0  # of a replay at speed 1, however many rounds there are
LONGEST_STEP = 0.5  # seconds between two rounds of a short search


def replay(console: Console, graph: BabbleGraph, *, speed: float = 1.0, tree: int | None = None) -> None:
    """Plays a search in the terminal; where the cursor cannot be moved, one line for some of its rounds.

    Args:
        console: where it is shown.
        graph: what `at_round` can go back in.
        speed: 2 is twice as fast.
        tree: the tree to watch; by default the first that grew and had no answer.
    """
    signs, rounds = signs_of(console.encoding), graph.round
    if not can_move(console):
        for number in np.unique(np.linspace(0, rounds, 12).astype(int)).tolist():
            line = nodes_line(then := at_round(graph, number), width=100, signs=signs).plain
            console.print(Text(f"{_words(then, rounds, signs)} {signs.dot} {line}"), soft_wrap=True)
        return
    step = min(SECONDS / max(rounds, 1), LONGEST_STEP) / speed
    with Screen(console) as screen:
        history, start = History(), time.monotonic()
        for number in _due(rounds, step, start):
            screen.draw(picture(graph, number, screen.size, history, tree, signs))
        time.sleep(LONGEST_STEP / speed)


def picture(
    graph: BabbleGraph,
    number: int,
    size: tuple[int, int],
    history: History,
    tree: int | None = None,
    signs: Signs = UNICODE,
) -> list[Text]:
    """One frame of a replay: the graph after a round, and how far along that is."""
    width, height = size
    then = at_round(graph, number)
    history.see(then, None)
    new = np.flatnonzero(then.born == number) if number else np.zeros(0, np.intp)
    drawn = frame(
        then,
        width=width,
        height=max(height - 2, 3),
        tree=moving_tree(then, new) if tree is None else tree,
        focus=new.tolist(),
        history=history,
        signs=signs,
    )
    said = Text(fit_figures(_words(then, graph.round, signs), width, signs), STRONG, no_wrap=True)
    room = min(width - said.cell_len - 2, 40)
    along = bar(number / max(graph.round, 1), room, signs).append("  ") if room > 0 else Text(no_wrap=True)
    return [*drawn, along.append_text(said), nodes_line(then, width=width, signs=signs)]


def _words(then: BabbleGraph, rounds: int, signs: Signs) -> str:
    tokens = figures.count(then.meta["span_tokens"])
    return f"round {then.round} of {rounds} {signs.dot} {tokens} tokens in spans"


def _due(rounds: int, step: float, start: float) -> Iterator[int]:
    """The rounds to show, each when it is due; those that are due together become one."""
    shown = -1
    while shown < rounds:
        number = min(int((time.monotonic() - start) / step), rounds)
        if number > shown:
            yield number
            shown = number
        if shown < rounds:
            time.sleep(max(step, 1 / REDRAWS))
