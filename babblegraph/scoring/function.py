"""A user's Python function as a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import ValueFunction
from babblegraph.scoring.contain import note_failure, raised


def function_value(function: Callable[..., Any]) -> ValueFunction:
    """Wraps `f(texts)`; a function of `(graph, ids, meter)` is taken as it is.

    `f` gets whole texts, prompts included, and returns one number in [0, 1] for each. When it raises, returns
    the wrong number of values, NaN or something outside [0, 1], only the nodes concerned are marked: the texts
    are then tried one by one.

    Args:
        function: of one argument (texts) or of three (graph, ids, meter).

    Raises:
        BadInput: not callable, or another number of arguments.
    """
    if not callable(function):
        raise BadInput(f"a value must be a function, got {type(function).__name__}: pass f(texts) -> numbers")
    arguments = _required(function)
    if arguments == 3:
        return function
    if arguments != 1:
        raise BadInput(f"a value function takes (texts) or (graph, ids, meter), got {arguments} arguments")

    def value(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        texts = [graph.prompt(i) + graph.text(i) for i in ids.tolist()]
        values = _as_numbers(_quiet(function, texts), len(texts))
        if values is not None and _fine(values).all():
            return values
        return np.array([_one(graph, i, function, t) for i, t in zip(ids.tolist(), texts, strict=True)])

    return value


def _one(graph: BabbleGraph, node: int, function: Callable[..., Any], text: str) -> float:
    try:
        result = function([text])
    except Exception as problem:
        note_failure(graph, node, raised(function, problem), text)
        return np.nan
    values = _as_numbers(result, 1)
    if values is None or not _fine(values).all():
        note_failure(graph, node, f"a value must be one number in [0, 1], got {result!r:.80}", text)
        return np.nan
    return float(values[0])


def _quiet(function: Callable[..., Any], texts: list[str]) -> Any:
    try:
        return function(texts)
    except Exception:  # which text it was, the calls one by one will tell
        return None


def _as_numbers(result: Any, n: int) -> NDArray[np.float64] | None:
    try:
        values = np.asarray(result, np.float64)
    except (TypeError, ValueError):
        return None
    return values if values.shape == (n,) else None


def _fine(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (values >= 0) & (values <= 1)  # false for NaN


def _required(function: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return 1
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)
