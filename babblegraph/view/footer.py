"""What a search has spent and where it stands, in two lines under the tree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.text import Text

from babblegraph.budget import Budget, Spent
from babblegraph.graph import BabbleGraph
from babblegraph.status import Status
from babblegraph.subtrees import passing
from babblegraph.view import figures
from babblegraph.view.signs import PASSED, QUIET, STRONG, STYLES, UNICODE, Signs

SHORTEST_BAR, LONGEST_BAR = 8, 40


def footer(
    graph: BabbleGraph,
    spent: Spent,
    budget: Budget,
    *,
    width: int,
    rate: float | None = None,
    signs: Signs = UNICODE,
) -> list[Text]:
    """Two lines: the budget as a bar, tokens, tokens a second, time left; and the nodes of each kind.

    Args:
        graph: any.
        spent: totals over all trees.
        budget: bounds, per prompt but for the seconds.
        width: in cells.
        rate: tokens a second; the average so far by default.
        signs: what to draw with.
    """
    return [
        budget_line(graph, spent, budget, width=width, rate=rate, signs=signs),
        nodes_line(graph, width=width, signs=signs),
    ]


def budget_line(
    graph: BabbleGraph,
    spent: Spent,
    budget: Budget,
    *,
    width: int,
    rate: float | None = None,
    signs: Signs = UNICODE,
) -> Text:
    """A bar of the share that is used, then as much of the figures as there is room for."""
    rate = spent.sampled / spent.seconds if rate is None and spent.seconds > 0 else rate or 0
    bound = f" / {figures.count(budget.tokens * graph.trees)}" if budget.tokens else ""
    parts = [(f"{figures.count(spent.sampled)}{bound} tokens", STRONG)]
    if (left := time_left(spent, budget)) is not None:
        parts.append((f"{figures.clock(left)} left", ""))
    parts.append((f"{figures.count(rate)} tokens/s", ""))
    parts.append((f"{figures.clock(spent.seconds)} passed", QUIET))
    parts.append((f"round {graph.round}", QUIET))
    said = _joined(parts, width - SHORTEST_BAR - 2, signs)
    return bar(spent.share, min(width - said.cell_len - 2, LONGEST_BAR), signs).append("  ").append(said)


def nodes_line(graph: BabbleGraph, *, width: int, signs: Signs = UNICODE) -> Text:
    """How many nodes are live, pruned, dead, merged and finished, each with its sign, and the best value."""
    count = np.bincount(graph.status, minlength=len(Status))
    finished = int(count[[Status.LEAF_END, Status.LEAF_STOP, Status.LEAF_LENGTH]].sum())
    passed = int(passing(graph).sum())
    parts = []
    for n, word, sign, style in (
        (passed, "passed", signs.passed, PASSED),
        (int(count[Status.FRONTIER]), "live", signs.status[Status.FRONTIER], STYLES[Status.FRONTIER]),
        (int(count[Status.PRUNED]), "pruned", signs.status[Status.PRUNED], STYLES[Status.PRUNED]),
        (int(count[Status.LEAF_DEAD]), "dead", signs.status[Status.LEAF_DEAD], STYLES[Status.LEAF_DEAD]),
        (finished - passed, "finished", signs.status[Status.LEAF_END], STYLES[Status.LEAF_END]),
        (int(count[Status.MERGED]), "merged", signs.status[Status.MERGED], STYLES[Status.MERGED]),
    ):
        if n or word in ("live", "pruned"):
            parts.append((f"{sign} {figures.count(n)} {word}", style))
    best = best_value(graph)
    parts.insert(1, (f"best {best:.2f}" if not math.isnan(best) else "", STRONG))
    return _joined(parts, width, signs)


def bar(share: float, width: int, signs: Signs = UNICODE) -> Text:
    """A bar of the given width, filled up to a share in [0, 1]."""
    done, edge, left = signs.bar
    share = min(max(share, 0.0), 1.0)
    full = int(share * width)
    line = Text(no_wrap=True).append(done * full, "cyan")
    if full < width and share > 0:
        line.append(edge, "cyan")
    return line.append(left * (width - line.cell_len), QUIET)


def time_left(spent: Spent, budget: Budget) -> float | None:
    """Seconds until some bound is reached, at the pace so far; None before anything was spent."""
    left = [] if budget.seconds is None else [max(budget.seconds - spent.seconds, 0.0)]
    if spent.share > 0 and spent.sampled:
        left.append(spent.seconds * (1 - spent.share) / spent.share)
    return min(left, default=None)


def best_value(graph: BabbleGraph) -> float:
    """The best score of a finished leaf; before there is one, the best value of a live node."""
    leaf = graph.is_leaf() & (graph.status != Status.LEAF_DEAD)
    known = graph.score[leaf & ~np.isnan(graph.score)]
    if not len(known):
        known = graph.value[(graph.status == Status.FRONTIER) & ~np.isnan(graph.value)]
    return float(known.max()) if len(known) else math.nan


def _joined(parts: Sequence[tuple[str, str]], width: int, signs: Signs) -> Text:
    """The first parts that fit, with dots in between."""
    line = Text(no_wrap=True)
    for said, style in parts:
        if not said:
            continue
        gap = f" {signs.dot} " if line.cell_len else ""
        if line.cell_len + len(gap) + Text(said).cell_len > width:
            break
        line.append(gap, QUIET).append(said, style)
    return line
