"""Many prompts with little memory: only so many are searched side by side, with any strategy."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.randomness import Rng
from babblegraph.strategies.common import need_positive, nothing


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
    need_positive("together", most)
    over: WeakKeyDictionary[BabbleGraph, NDArray[np.bool_]] = WeakKeyDictionary()
    leaving: list[int] = []  # trees that have ended since the last pruning

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        ended = over.setdefault(graph, np.zeros(graph.trees, np.bool_))
        while len(turn := np.flatnonzero(~ended)[:most]):
            chosen = strategy.select(graph, _Some(meter, turn))
            idle = np.setdiff1d(turn, graph.root[chosen.ids])
            if not len(idle):
                return chosen
            ended[idle] = True
            leaving.extend(idle.tolist())
        return nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        stopped = strategy.prune(graph, rng)
        gone = np.flatnonzero(np.isin(graph.root, leaving)) if leaving else stopped[:0]
        leaving.clear()
        return np.concatenate([stopped, gone])

    return strategy._replace(select=select, prune=prune)


class _Some(Meter):
    """A meter by which only some trees have anything left."""

    def __init__(self, meter: Meter, trees: NDArray[np.intp]) -> None:
        super().__init__(meter.budget, meter.trees, meter.counts, meter.peak_slots, meter.seconds)
        self.turn = np.zeros(meter.trees, np.bool_)
        self.turn[trees] = True

    def tokens_left(self) -> NDArray[np.int64]:
        return np.where(self.turn, super().tokens_left(), 0)
