"""Several values as one: product, weighted geometric mean, cascade from cheap to expensive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import ValueFunction
from babblegraph.scoring.function import function_value


def product(*values: Callable[..., Any]) -> ValueFunction:
    """The product of values: a node must please all of them.

    Args:
        values: functions of texts, or values of `babblegraph.scoring`.

    Raises:
        BadInput: no value, or something that is none.
    """
    return geometric_mean(values, weights=[1.0] * len(values), normalised=False)


def geometric_mean(
    values: Sequence[Callable[..., Any]], *, weights: Sequence[float] | None = None, normalised: bool = True
) -> ValueFunction:
    """Π V_i^(a_i), a_i = weight_i / Σ weights; NaN where any of them is.

    Args:
        values: functions of texts, or values of `babblegraph.scoring`.
        weights: how much each counts, above zero; all alike by default.
        normalised: whether the weights are divided by their sum; a product where not.

    Raises:
        BadInput: no value, another number of weights, or one that is not above zero.
    """
    parts = _parts(values)
    a = np.ones(len(parts)) if weights is None else np.asarray(weights, np.float64)
    if a.shape != (len(parts),) or not ((a > 0) & np.isfinite(a)).all():
        raise BadInput(
            f"each value needs a weight above zero, got {weights} for {len(parts)} values: give as many"
        )
    a = a / a.sum() if normalised else a

    def value(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        found = [np.asarray(part(graph, ids, meter), np.float64) for part in parts]
        return np.prod([v**power for v, power in zip(found, a, strict=True)], 0)

    return value


def cascade(*values: Callable[..., Any], least: float = 0.05) -> ValueFunction:
    """The product of values, from cheap to expensive, that stops where it is low already.

    A later value is asked only about nodes whose product so far is at least `least`. A product never grows, so
    what is cut short ranks below all that might still have passed; and what a node is worth depends on that node
    alone, not on who else is asked about.

    Args:
        values: the cheap ones first.
        least: of the product so far, in [0, 1].

    Raises:
        BadInput: no value, or a bound outside [0, 1].
    """
    parts = _parts(values)
    if not 0 <= least <= 1:
        raise BadInput(f"a cascade's bound must be in [0, 1], got {least:g}: 0.05 is a start")

    def value(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        found = np.ones(len(ids))
        going = np.arange(len(ids))
        for part in parts:
            if not len(going):
                break
            found[going] *= np.asarray(part(graph, ids[going], meter), np.float64)
            going = going[found[going] >= least]  # false for NaN: a failed node goes no further
        return found

    return value


def _parts(values: Sequence[Callable[..., Any]]) -> list[ValueFunction]:
    if not len(values):
        raise BadInput("a composed value needs at least one value, got none: give some")
    return [function_value(value) for value in values]
