"""Votes among finished texts: the answer that most of them give, or that is worth most in all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import BabbleGraph
from babblegraph.status import Status


class Vote(NamedTuple):
    """One answer, its share of all votes, and the best text that gives it."""

    answer: str
    share: float
    node: int


def votes(
    graph: BabbleGraph, answer: Callable[[str], str | None], *, tree: int = 0, weighted: bool = False
) -> list[Vote]:
    """Counts what a prompt's finished texts answer, the winner first. Dead texts have no vote.

    Every draw has a vote: a leaf that stands for three of them votes three times. That is a majority of the
    generator (self-consistency) with `best_of_n`; with a search it is one of what the search preferred.

    Args:
        graph: of any search.
        answer: what of a text is compared, such as its last line; None abstains.
        tree: of which prompt.
        weighted: whether a vote counts as much as its leaf's score, instead of one; nothing where that is below 0.

    Returns:
        The answers by falling share; ties by the best text's log-probability.

    Source: Wang et al., "Self-consistency improves chain of thought reasoning", 2023; weighted as in Li et al.,
    "Making language models better reasoners with step-aware verifier", 2023.

    >>> from babblegraph.born import Born
    >>> graph = BabbleGraph(["?"], [[0]], {0: b"?", 1: b"a", 2: b"b"})
    >>> ids = graph.add(Born.of_spans([0, 0, 0], [[1], [2], [1, 2]], [-1.0, -1.0, -2.0], Status.LEAF_END))
    >>> graph.score[ids] = [0.9, 0.3, 0.3]
    >>> [(v.answer, v.share) for v in votes(graph, lambda text: text[-1])]
    [('b', 0.6666666666666666), ('a', 0.3333333333333333)]
    >>> [v.answer for v in votes(graph, lambda text: text[-1], weighted=True)]
    ['a', 'b']
    """
    total: dict[str, float] = defaultdict(float)
    best: dict[str, int] = {}
    for node in _voters(graph, graph.root == tree).tolist():
        said = answer(graph.text(node))
        if said is None:
            continue
        total[said] += _weight(graph, node, weighted)
        if said not in best or _worth(graph, node) > _worth(graph, best[said]):
            best[said] = node
    everything = sum(total.values()) or 1.0
    found = [Vote(said, total[said] / everything, best[said]) for said in total]
    return sorted(found, key=lambda v: (-v.share, -float(graph.log_p_g[v.node])))


def margins(
    graph: BabbleGraph,
    answer: Callable[[str], str | None],
    *,
    weighted: bool = False,
    said: dict[int, str | None] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The votes of each prompt's leading answer and of the next one, [trees] each.

    Args:
        graph, answer, weighted: as of `votes`.
        said: what leaves answered when they were asked before; those that were not are added.
    """
    said = {} if said is None else said
    total: list[dict[str, float]] = [defaultdict(float) for _ in range(graph.trees)]
    for node in _voters(graph, np.ones(graph.size, np.bool_)).tolist():
        if node not in said:
            said[node] = answer(graph.text(node))
        if (found := said[node]) is not None:
            total[graph.root[node]][found] += _weight(graph, node, weighted)
    ranked = [sorted([*t.values(), 0.0, 0.0], reverse=True) for t in total]
    return np.array([r[0] for r in ranked]), np.array([r[1] for r in ranked])


def _voters(graph: BabbleGraph, among: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.flatnonzero(among & graph.is_leaf() & (graph.status != Status.LEAF_DEAD))


def _weight(graph: BabbleGraph, node: int, weighted: bool) -> float:
    votes = float(graph.count[node])
    return votes * max(float(np.nan_to_num(graph.score[node])), 0.0) if weighted else votes


def _worth(graph: BabbleGraph, node: int) -> tuple[float, float]:
    return float(np.nan_to_num(graph.score[node], nan=-np.inf)), float(graph.log_p_g[node])
