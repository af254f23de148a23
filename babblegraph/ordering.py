"""Orders in which pruning goes through a frontier: systematic sampling rarely keeps two neighbours.

Whatever the order is, pruning stays unbiased; where neighbours are alike, those that stay represent all the others
(they stratify), and the variance falls. Each order is a function of the graph and of the nodes concerned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph

Ids = NDArray[np.intp]
Order = Callable[[BabbleGraph, Ids], NDArray[Any]]


def by_state(graph: BabbleGraph, ids: Ids) -> NDArray[Any]:
    """Equal states stand together, [M]; nodes without a state come first."""
    return graph.state_key[ids]


def by_value(graph: BabbleGraph, ids: Ids) -> NDArray[Any]:
    """From the lowest value to the highest, [M]; unknown ones first."""
    return np.nan_to_num(graph.value[ids].astype(np.float64), nan=-1.0)


def by_parent(graph: BabbleGraph, ids: Ids) -> NDArray[Any]:
    """Siblings stand together, and the families of siblings too, [M]."""
    return _ranks([tuple(graph.path(int(i))) for i in ids])


def by_text(graph: BabbleGraph, ids: Ids) -> NDArray[Any]:
    """By the text of the last span: what begins alike stands together, [M]."""
    return _ranks([graph.span_text(int(i)) for i in ids])


def by_embedding(embed: Callable[[BabbleGraph, Ids], NDArray[Any]]) -> Order:
    """An order along which embeddings change little: halves split at the median of their longest direction.

    Args:
        embed: (graph, ids [M]) -> vectors [M, D], all finite.

    Raises:
        BadInput: when called, for vectors of another shape, or not finite.

    Complexity: O(M D² log M) a call.
    Source: after Gerber, Chopin & Whiteley, "Negative association, ordering and convergence of resampling
    methods", 2019, who order by a space-filling curve.
    """

    def order(graph: BabbleGraph, ids: Ids) -> NDArray[Any]:
        x = np.asarray(embed(graph, ids), np.float64)
        if x.ndim != 2 or len(x) != len(ids) or not np.isfinite(x).all():
            raise BadInput(
                f"embeddings must be finite numbers [{len(ids)}, D], got shape {x.shape}: one row a node"
            )
        rank = np.zeros(len(ids), np.intp)
        rank[_halved(x, np.arange(len(ids)))] = np.arange(len(ids))
        return rank

    return order


def _halved(x: NDArray[np.float64], members: Ids) -> Ids:
    """Members in an order in which both halves, and both halves of each, lie apart in space."""
    if len(members) <= 2:
        return members
    centred = x[members] - x[members].mean(0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    order = members[np.argsort(along, kind="stable")]
    middle = len(order) // 2
    left, right = _halved(x, order[:middle]), _halved(x, order[middle:])
    joined = [(left, right), (left, right[::-1]), (left[::-1], right), (left[::-1], right[::-1])]
    gaps = [float(((x[a[-1]] - x[b[0]]) ** 2).sum()) for a, b in joined]
    return np.concatenate(joined[int(np.argmin(gaps))])  # where the halves meet they should be near


def _ranks(keys: list[Any]) -> NDArray[np.intp]:
    """The place of each key among all, equal keys sharing one."""
    place = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([place[key] for key in keys], np.intp)
