"""PUCT tree search: AlphaZero's walk from the root, with a value in place of rollouts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.prune import merge_into_first
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.strategies.common import idle_places, need_positive, need_whole, nothing, room_left, totals


def puct(
    *, children: int = 4, exploration: float = 1.0, width: int = 1, threshold: float | None = None
) -> Strategy:
    """Walks from the root to the child with the largest Q + c · P · sqrt(N above) / (1 + N), and expands where it ends.

    Q is the mean of all that was seen below a child and of its own value, N how many that are, P the generator's
    probability of the child's span among its siblings'. Every new child is evaluated when it is born, and no
    finished text is visited twice: subtrees without an open node are left out. When none is left, the root gets
    new children; when it has all, the best node nearest to it.

    Aim `solve`; weights are biased. Complexity: O(N) a round, and depth · children for each walk.
    Good for: values that are right on average but noisy; it falls behind when only the end of a text tells.
    Source: Silver et al., "Mastering the game of Go without human knowledge", 2017; for language models Feng et al.,
    "AlphaZero-like tree search can guide large language model decoding and training", 2023.

    Args:
        children: draws below a node that is expanded.
        exploration: c.
        width: walks of a prompt in a round; each counts as a failed visit for the next ones (virtual loss).
        threshold: stop a prompt's search at the first leaf that reaches it; None to spend the whole budget.

    Raises:
        BadInput: a number that is not above zero.
    """
    need_whole("children", children)
    need_whole("width", width)
    need_positive("exploration", exploration)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        room, seen = room_left(graph, meter, threshold), _seen(graph)
        chosen = idle_places(graph, room).tolist()
        for tree in np.flatnonzero((room > 0) & (seen.open[: graph.trees] > 0)).tolist():
            chosen += _walks(graph, seen, tree, width, exploration)
        return Chosen(np.array(chosen), np.full(len(chosen), children)) if chosen else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        return merge_into_first(graph)

    return Strategy("puct", select, prune, "solve", draws=Draws.FRESH)


class _Seen(NamedTuple):
    """What is known of each node's subtree; walks of one round write their virtual losses into it."""

    open: NDArray[np.float64]  # [N] nodes of the frontier in it
    visits: NDArray[np.float64]  # [N] nodes that were evaluated
    value: NDArray[np.float64]  # [N] the sum of their values


def _seen(graph: BabbleGraph) -> _Seen:
    counted = (graph.status != Status.MERGED).astype(np.float64)
    counted[: graph.trees] = 0.0
    value = np.where(counted > 0, np.nan_to_num(graph.value.astype(np.float64)), 0.0)
    return _Seen(
        totals(graph, (graph.status == Status.FRONTIER).astype(np.float64)),
        totals(graph, counted),
        totals(graph, value),
    )


def _walks(graph: BabbleGraph, seen: _Seen, tree: int, width: int, exploration: float) -> list[int]:
    """Where up to `width` walks end, each at another node."""
    ends: list[int] = []
    while len(ends) < width and seen.open[tree]:
        path = [tree]
        while graph.status[path[-1]] != Status.FRONTIER:
            path.append(_best_child(graph, seen, path[-1], exploration))
        seen.open[path] -= 1  # nobody else ends here
        seen.visits[path] += 1
        ends.append(path[-1])
    return ends


def _best_child(graph: BabbleGraph, seen: _Seen, node: int, exploration: float) -> int:
    children = graph.children(node)
    log_q = graph.log_q[children]
    prior = np.exp(log_q - log_q.max())
    prior /= prior.sum()
    best, score = -1, -math.inf
    for child, p in zip(children, prior.tolist(), strict=True):
        if not seen.open[child]:
            continue
        visits = seen.visits[child]
        now = seen.value[child] / visits + exploration * p * math.sqrt(seen.visits[node]) / (1 + visits)
        if now > score:
            best, score = child, now
    return best
