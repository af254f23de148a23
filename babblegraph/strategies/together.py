"""Many prompts with little memory: only so many are searched side by side, with any strategy."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.randomness import Rng
from babblegraph.strategies.common import Some, need_whole, nothing

OPEN, LEAVING, OVER = 0, 1, 2  # of a prompt; one that is leaving still holds keys and values


def together(strategy: Strategy, most: int) -> Strategy:
    """The strategy on the first `most` prompts that are not over; the next one begins when one of them is.

    A prompt is over when the strategy wants or may no more of it. What its nodes hold of keys and values is given up
    then: they are among the ids that `prune` returns. A strategy that shares its batch among prompts shares it among
    those that are searched.

    Args:
        strategy: of which nothing else changes.
        most: prompts at a time.

    Raises:
        BadInput: a number that is not above zero.

    >>> from babblegraph.strategies import best_of_n
    >>> together(best_of_n(), 32).name
    'best-of-n'
    """
    need_whole("together", most)
    turns: WeakKeyDictionary[BabbleGraph, NDArray[np.uint8]] = WeakKeyDictionary()  # [trees] of each graph

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        state = turns.setdefault(graph, np.full(graph.trees, OPEN, np.uint8))
        while len(turn := np.flatnonzero(state == OPEN)[:most]):
            chosen = strategy.select(graph, Some(meter, np.isin(np.arange(graph.trees), turn)))
            idle = np.setdiff1d(turn, graph.root[chosen.ids])
            if not len(idle):
                waiting = state == OPEN
                waiting[turn] = False
                return Chosen(chosen.ids, chosen.draws, chosen.contest, waiting)
            state[idle] = LEAVING
        return nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        stopped, state = strategy.prune(graph, rng), turns.get(graph)
        if state is None or not (leaving := state == LEAVING).any():  # none: it goes on with a round cut off
            return stopped
        state[leaving] = OVER
        return np.concatenate([stopped, np.flatnonzero(leaving[graph.root])])

    return strategy._replace(select=select, prune=prune)
