"""Other people's functions may raise: then one node is marked, the search goes on, and the failure is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from babblegraph.graph import BabbleGraph
from babblegraph.status import Flag

T = TypeVar("T")
KEPT = 100  # failures with their texts; more are only counted


def contained(
    graph: BabbleGraph, node: int, text: str, function: Callable[..., T], *arguments: Any
) -> T | None:
    """`function(*arguments)`, or None with the node marked when it raises."""
    try:
        return function(*arguments)
    except Exception as problem:
        note_failure(graph, node, raised(function, problem), text)
        return None


def raised(function: Callable[..., Any], problem: Exception) -> str:
    """What to say of a function that raised."""
    name = getattr(function, "__name__", type(function).__name__)
    return f"{name} raised {type(problem).__name__}: {problem}"


def note_failure(graph: BabbleGraph, node: int, error: str, text: str) -> None:
    """Marks a node whose scorer failed, and remembers why and on which text."""
    graph.flags[node] |= np.uint8(Flag.SCORER_FAILED)
    graph.meta["scorer_failures"] = graph.meta.get("scorer_failures", 0) + 1
    if len(graph.failures) < KEPT:
        graph.failures.append({"node": int(node), "error": error, "text": text})
