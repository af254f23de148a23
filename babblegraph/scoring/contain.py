"""Other people's functions may raise: then one node is marked, the search goes on, and the failure is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from babblegraph.errors import THEIRS
from babblegraph.graph import BabbleGraph
from babblegraph.scoring.time_limit import NoLimit, TimeLimit
from babblegraph.status import Flag

T = TypeVar("T")
UNLIMITED = NoLimit()
KEPT = 100  # failures with their texts; more are only counted


class Kind(NamedTuple, Generic[T]):
    """What a function must return."""

    what: str
    read: Callable[[Any], T]  # raises where it is nothing of that kind


def contained(
    graph: BabbleGraph,
    node: int,
    text: str,
    kind: Kind[T],
    function: Callable[..., Any],
    *arguments: Any,
    call: TimeLimit | NoLimit = UNLIMITED,
) -> T | None:
    """`function(*arguments)`, or None with the node marked when it raises, hangs, or returns something else."""
    try:
        result = call(function, *arguments)
    except THEIRS as problem:
        note_failure(graph, node, raised(function, problem), text)
        return None
    try:
        return kind.read(result)
    except Exception:
        note_failure(graph, node, f"{_name(function)} must return {kind.what}, got {result!r:.80}", text)
        return None


def _finite(result: Any) -> float:
    number = np.asarray(result, np.float64)  # None becomes NaN
    if number.shape or not np.isfinite(number):
        raise ValueError(result)
    return float(number)


NUMBER = Kind("a finite number", _finite)
YES_OR_NO = Kind("true or false", bool)
KEY = Kind("a text or None", lambda result: None if result is None else str(result))


def raised(function: Callable[..., Any], problem: BaseException) -> str:
    """What to say of a function that raised."""
    return f"{_name(function)} raised {type(problem).__name__}: {problem}"


def note_failure(graph: BabbleGraph, node: int, error: str, text: str) -> None:
    """Marks a node whose scorer failed, and remembers why and on which text."""
    graph.flags[node] |= np.uint8(Flag.SCORER_FAILED)
    graph.meta["scorer_failures"] = graph.meta.get("scorer_failures", 0) + 1
    if len(graph.failures) < KEPT:
        graph.failures.append({"node": int(node), "error": error, "text": text})


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)
