"""When to stop a prompt's search before its budget is spent, with any strategy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Strategy
from babblegraph.strategies.common import Some, hits, need_positive, need_whole
from babblegraph.votes import margins


class Stop(Protocol):
    """A rule: (graph, meter) -> which trees are done, [trees]."""

    def __call__(self, graph: BabbleGraph, meter: Meter) -> NDArray[np.bool_]: ...


def stopping(strategy: Strategy, *rules: Stop) -> Strategy:
    """The strategy, which leaves a prompt alone as soon as one of the rules says that it is done.

    The rest of the prompt's budget stays unspent. Stopping by what was found leaves weight on unfinished nodes, so
    there are no estimates.

    >>> from babblegraph.strategies import best_of_n
    >>> stopping(best_of_n(), reached(1.0, answers=3)).name
    'best-of-n'
    """

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        done = np.zeros(graph.trees, np.bool_)
        for rule in rules:
            done |= rule(graph, meter)
        chosen = strategy.select(graph, Some(meter, ~done))  # so that others may take the turns of those
        return chosen.only(~done[graph.root[chosen.ids]])

    return strategy._replace(select=select, aim="solve")


def reached(threshold: float, *, answers: int = 1) -> Stop:
    """Done at the first leaf that reaches a threshold γ, or when so many different nodes do.

    Args:
        threshold: γ.
        answers: how many leaves have to reach it; 1 is the first success.

    Raises:
        BadInput: a number of answers that is not above zero.
    """
    need_whole("answers", answers)

    def rule(graph: BabbleGraph, meter: Meter) -> NDArray[np.bool_]:
        return hits(graph, threshold) >= answers

    return rule


def converged(
    answer: Callable[[str], str | None], *, confidence: float = 0.95, least: int = 4, weighted: bool = False
) -> Stop:
    """Done when the leading answer would win the vote with this confidence, however long one went on.

    Of two answers with a and b votes the first is the likelier one with the probability that a Beta(a + 1, b + 1)
    variable is above one half.

    Args:
        answer: what of a finished text is compared; None where it has none.
        confidence: above 0.5 and below 1.
        least: votes before a prompt may be done.
        weighted: whether a vote counts as much as its leaf's score.

    Raises:
        BadInput: another confidence, or a number of votes that is not above zero.

    Source: Aggarwal et al., "Let's sample step by step: adaptive-consistency for efficient reasoning", 2023.
    """
    if not 0.5 < confidence < 1:
        raise BadInput(
            f"a confidence must be above 0.5 and below 1, got {confidence:g}: 0.95 errs once in twenty"
        )
    need_positive("least", least)
    known: WeakKeyDictionary[BabbleGraph, dict[int, str | None]] = (
        WeakKeyDictionary()
    )  # a finished text stays as it is

    def rule(graph: BabbleGraph, meter: Meter) -> NDArray[np.bool_]:
        first, second = margins(graph, answer, weighted=weighted, said=known.setdefault(graph, {}))
        enough = first + second >= least
        return enough & np.array([leads(a, b) >= confidence for a, b in zip(first, second, strict=True)])

    return rule


@lru_cache(maxsize=4096)
def leads(first: float, second: float) -> float:
    """P(X > 1/2) for X ~ Beta(first + 1, second + 1).

    >>> round(leads(0, 0), 6), round(leads(4, 0), 6)
    (0.5, 0.96875)
    """
    x = (np.arange(2048) + 0.5) / 4096  # the lower half; the upper one is 1 - x
    log_low = first * np.log(x) + second * np.log1p(-x)
    log_high = first * np.log1p(-x) + second * np.log(x)
    top = max(log_low.max(), log_high.max())
    low, high = np.exp(log_low - top).sum(), np.exp(log_high - top).sum()
    return float(high / (low + high))
