"""The parts of an expansion put together as if they had been one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.born import Born
from babblegraph.lm.samples import factor
from babblegraph.protocols import ALL, Chosen, Draws
from babblegraph.status import Flag

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph

Ints = NDArray[np.integer[Any]]
Span = tuple[int, ...]


class Part(NamedTuple):
    """Some draws of an expansion."""

    chosen: Chosen
    place: Ints  # [F'] which of the chosen nodes these are
    made: Ints  # [F'] draws of each that other parts have made before
    draws: int  # of all of them


def joined(
    graph: BabbleGraph, chosen: Chosen, parts: Sequence[tuple[Part, Born]], draws: Draws
) -> tuple[Born, Ints]:
    """What one expansion would have brought, its nodes in the same order.

    Equal spans below a node become one. A contest is told what its new nodes are worth.

    Args:
        graph: before the expansion.
        chosen: all nodes.
        parts: what was expanded, and what it brought.
        draws: how the draws of a node go together.

    Returns:
        It, and which of the parts' nodes, one after the other, its nodes are, [M].
    """
    born = [one for _, one in parts]
    place_of = {int(i): place for place, i in enumerate(chosen.ids)}
    every = {name: np.concatenate([getattr(one, name) for one in born]) for name in _OF_NODES}
    place = np.array([place_of[i] for i in every["parent"].tolist()], np.int64)
    spans = [span for one in born for span in _spans(one)]
    when = [
        _when(p, span, bool(flags & Flag.CUT), chosen.draws[p] == ALL)
        for p, span, flags in zip(place.tolist(), spans, every["flags"].tolist(), strict=True)
    ]
    order, which = _alike(when)
    count = np.bincount(which, every["count"], minlength=len(order)).astype(np.int32)
    whole = {name: column[order] for name, column in every.items()} | {"count": count}
    place = place[order]
    if draws is not Draws.DISTINCT:
        drawn = factor(chosen.draws[place], whole["log_q"], count)
        whole["log_inclusion"] = np.where(chosen.draws[place] == ALL, whole["log_inclusion"], drawn)
    lengths = np.concatenate([one.lengths for one in born])
    token_log_q = np.split(np.concatenate([one.token_log_q for one in born]), np.cumsum(lengths)[:-1])
    if chosen.contest is not None:
        told = [part.chosen.contest for part, _ in parts if part.chosen.contest is not None]
        chosen.contest.born = np.concatenate([contest.born for contest in told])[order]
        chosen.contest.bound = told[-1].bound
    return Born(
        **whole,
        tokens=np.array([t for i in order for t in spans[i]], np.int32),
        lengths=lengths[order],
        token_log_q=np.concatenate([*(token_log_q[i] for i in order), np.zeros(0, np.float32)]),
        repeats=_repeats(graph, chosen, born, place_of),
        **_expanded(chosen, parts),
    ), order


_OF_NODES = (
    "parent",
    "log_p_f",
    "log_p_g",
    "log_q",
    "log_inclusion",
    "count",
    "status",
    "flags",
    "key",
)


def tokens_twice(graph: BabbleGraph, parts: Sequence[tuple[Part, Born]]) -> NDArray[np.int64]:
    """Tokens of each tree that several parts have drawn below the same node, beyond the first, [trees]."""
    twice = np.zeros(graph.trees, np.int64)
    several = {i for part, _ in parts for i in part.chosen.ids[part.made > 0].tolist()}
    for node in several:
        old = {p for child in graph.children(node) for p in _beginnings(tuple(graph.span(child).tolist()))}
        seen: set[Span] = set()
        for _, born in parts:
            mine = np.flatnonzero(born.parent == node).tolist()
            spans = _spans(born) if mine else []
            new = {p for m in mine for p in _beginnings(spans[m])} - old
            twice[graph.root[node]] += len(new & seen)
            seen |= new
    return twice


def _when(place: int, span: Span, cut: bool, full: bool) -> tuple[Any, ...]:
    """When one expansion makes a node: after as many tokens, those that the budget cuts first, then row by row."""
    return len(span) + cut, not cut, full, place, span


def _alike(keys: Sequence[tuple[Any, ...]]) -> tuple[Ints, Ints]:
    """The first of each key in their order, [M], and for every one which of these it is."""
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    ordered = sorted(first)
    number = {key: n for n, key in enumerate(ordered)}
    return np.array([first[key] for key in ordered], np.int64), np.array(
        [number[key] for key in keys], np.int64
    )


def _repeats(
    graph: BabbleGraph, chosen: Chosen, born: Sequence[Born], place_of: dict[int, int]
) -> NDArray[np.int32]:
    """Children that were there already, and how many draws each stands for in all parts."""
    child, count = np.concatenate([one.repeats for one in born]).T
    when = []
    for c in child.tolist():
        place = place_of[int(graph.parent[c])]
        when.append(_when(place, tuple(graph.span(c).tolist()), False, chosen.draws[place] == ALL))
    order, which = _alike(when)
    total = np.bincount(which, count, minlength=len(order)).astype(np.int32)
    return np.stack([child[order], total], 1).astype(np.int32).reshape(-1, 2)


def _expanded(chosen: Chosen, parts: Sequence[tuple[Part, Born]]) -> dict[str, NDArray[Any]]:
    """Which nodes were expanded, their draws, and their flags."""
    used = np.zeros(len(chosen), np.bool_)
    exhausted, cut = np.ones(len(chosen), np.bool_), np.zeros(len(chosen), np.bool_)
    for part, born in parts:
        flags = dict(zip(born.expanded.tolist(), born.parent_flags.tolist(), strict=True))
        for place, node in zip(part.place.tolist(), part.chosen.ids.tolist(), strict=True):
            used[place] |= node in flags
            exhausted[place] &= bool(flags.get(node, 0) & Flag.EXHAUSTED)
            cut[place] |= bool(
                flags.get(node, Flag.CUT) & Flag.CUT
            )  # where nothing was drawn, no token was left
    flag = np.where(exhausted, Flag.EXHAUSTED, 0) | np.where(cut, Flag.CUT, 0)
    draws = np.where(chosen.draws == ALL, 1, chosen.draws)
    return {
        "expanded": np.asarray(chosen.ids)[used].astype(np.int32),
        "draws": draws[used].astype(np.int32),
        "parent_flags": flag[used].astype(np.uint8),
    }


def _spans(born: Born) -> list[Span]:
    return [tuple(span.tolist()) for span in np.split(born.tokens, np.cumsum(born.lengths)[:-1])][
        : len(born.lengths)
    ]


def _beginnings(span: Span) -> list[Span]:
    return [span[:n] for n in range(1, len(span) + 1)]
