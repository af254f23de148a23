"""A user's Python function as a value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import THEIRS, BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import ValueFunction
from babblegraph.scoring.contain import note_failure, raised
from babblegraph.scoring.time_limit import SECONDS, NoLimit, TimeLimit, TimeUp, limited

ROUNDING = 1e-6  # by which a value may lie outside of [0, 1]


def function_value(function: Callable[..., Any], *, seconds: float | None = SECONDS) -> ValueFunction:
    """Wraps `f(texts)`, or `f(graph, ids, meter)`, so that a failure costs only the nodes concerned.

    A function of texts gets whole texts, prompts included, and returns one number in [0, 1] for each. When it
    raises, returns the wrong number of values, NaN or something outside [0, 1], or hangs, only the nodes concerned
    are marked: the texts are then tried one by one. It runs in a thread of its own; see `TimeLimit` for what becomes
    of a call that hangs. After the first that does, texts are no longer put together.

    A function of three arguments may return NaN where it does not know; a value outside [0, 1] marks its node. When
    it raises, or returns the wrong number of values, it is asked node by node. It has no time limit, since it may
    run a model.

    Args:
        function: of one argument (texts) or of three (graph, ids, meter).
        seconds: that one call of a function of texts may take; None to wait for ever, without a thread.

    Raises:
        BadInput: not callable, another number of arguments, or a time that is not above zero.
    """
    if not callable(function):
        raise BadInput(f"a value must be a function, got {type(function).__name__}: pass f(texts) -> numbers")
    call = limited(seconds)
    arguments = _required(function)
    if arguments == 3:
        return _of_nodes(function)
    if arguments != 1:
        raise BadInput(f"a value function takes (texts) or (graph, ids, meter), got {arguments} arguments")

    hung = False

    def value(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        texts = [graph.prompt(i) + graph.text(i) for i in ids.tolist()]
        nonlocal hung
        if not hung and len(texts) > 1:
            try:
                values = _as_numbers(call(function, list(texts)), len(texts))  # it may change its list
                if values is not None and _fine(values).all():
                    return values
            except TimeUp:
                hung = True
            except THEIRS:  # which text it was, the calls one by one will tell
                pass
        return np.array(
            [_one(graph, i, call, function, [t]) for i, t in zip(ids.tolist(), texts, strict=True)]
        )

    return value


def _of_nodes(function: Callable[..., Any]) -> ValueFunction:
    def value(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        try:
            values = _as_numbers(function(graph, ids, meter), len(ids))
            if values is not None:
                return _inside(graph, ids, values)
        except BadInput:  # what the user has to mend
            raise
        except THEIRS:  # which node it was, the calls one by one will tell
            pass
        alone = [(graph, ids[k : k + 1], meter) for k in range(len(ids))]
        return np.array(
            [_one(graph, int(i), NoLimit(), function, *a) for i, a in zip(ids, alone, strict=True)]
        )

    return value


def _inside(graph: BabbleGraph, ids: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in [0, 1]; NaN, and a failure, for one that lies outside by more than rounding."""
    outside = (values < -ROUNDING) | (values > 1 + ROUNDING)
    for i, value in zip(ids[outside].tolist(), values[outside].tolist(), strict=True):
        note_failure(graph, i, f"a value must be in [0, 1], got {value:g}", graph.prompt(i) + graph.text(i))
    return np.where(outside, np.nan, np.clip(values, 0.0, 1.0))


def _one(
    graph: BabbleGraph, node: int, call: TimeLimit | NoLimit, function: Callable[..., Any], *arguments: Any
) -> float:
    text = graph.prompt(node) + graph.text(node)
    try:
        result = call(function, *arguments)
    except TimeUp as problem:
        name = getattr(function, "__name__", type(function).__name__)
        note_failure(graph, node, f"{name} hung: {problem}", text)
        return np.nan
    except BadInput:
        raise
    except THEIRS as problem:
        note_failure(graph, node, raised(function, problem), text)
        return np.nan
    values = _as_numbers(result, 1)
    if values is None or not _fine(values).all():
        note_failure(graph, node, f"a value must be one number in [0, 1], got {result!r:.80}", text)
        return np.nan
    return float(values[0])


def _as_numbers(result: Any, n: int) -> NDArray[np.float64] | None:
    try:
        if hasattr(result, "detach"):  # a tensor: numpy takes none with gradients, on a GPU or in bfloat16
            result = result.detach().cpu().double()
        values = np.asarray(result, np.float64)
    except Exception:  # it is somebody else's object, and raises whatever it likes
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
