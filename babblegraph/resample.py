"""Unbiased choices among many: whom to keep, and by what to divide the weights of those that are kept.

All functions work on groups (the trees of a forest) that stand one after the other in one array, with one uniform
a group and no loop over members or groups. For every member, E[kept / factor] = 1: whatever the sizes are, sums
of weights keep their mean. Sizes below `LEAST` of their group's largest count as that, so none is impossible.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST = np.log(1e-12)  # of the largest size in a group; -inf and NaN count as this too

Floats = NDArray[np.float64]
Kept = tuple[NDArray[np.bool_], Floats]


def fearnhead_clifford(log_size: ArrayLike, k: int, uniform: ArrayLike, members: ArrayLike = ()) -> Kept:
    """Optimal resampling: keeps k of each group, large ones for sure, the others by chance.

    Finds c with Σ min(1, c s_i) = k, keeps i with probability π_i = min(1, c s_i) by systematic sampling, in the
    order given: neighbours rarely both stay, so an order by likeness stratifies.

    Args:
        log_size: log s, group after group, [n].
        k: how many to keep of each group; a group with no more than k is kept as it is.
        uniform: in [0, 1), one for each group, [G].
        members: how many each group has, [G]; one group of all by default.

    Returns:
        Who is kept, [n], and log π, [n].

    Complexity: O(n log n).
    Source: Fearnhead & Clifford, "On-line inference for hidden Markov models via particle filters", 2003.

    >>> keep, log_pi = fearnhead_clifford(np.log([0.5, 0.3, 0.1, 0.1]), 3, 0.2)
    >>> keep.tolist(), np.exp(log_pi).round(6).tolist()
    ([True, True, True, False], [1.0, 1.0, 0.5, 0.5])
    """
    log_s, members, uniform = _arrays(log_size, members, uniform)
    keep, log_pi = np.ones(len(log_s), np.bool_), np.zeros(len(log_s))
    for groups, at, there in _padded(members, above=k):
        size = _relative(log_s[at], there)
        pi = inclusion(size, k)
        sure = pi == 0.0
        rest = np.where(sure, 0.0, np.exp(pi))
        counts = _systematic(rest, k - sure.sum(1), uniform[groups])
        keep[at[there]] = (sure | (counts > 0))[there]
        log_pi[at[there]] = pi[there]
    return keep, log_pi


def systematic(log_size: ArrayLike, k: int, uniform: ArrayLike, members: ArrayLike = ()) -> Kept:
    """k draws from each group with one uniform: i is drawn k s_i / Σs times, rounded up or down.

    With k = 1 this is one draw in proportion to size, and the factor of the one that is drawn is s_i / Σs.

    Args:
        log_size, uniform, members: as in `fearnhead_clifford`.
        k: how many draws from each group; the only member of a group is kept as it is.

    Returns:
        Who was drawn at all, [n], and for those the log of E[draws] / draws, [n]; 0 for the others.

    Complexity: O(n).
    Source: Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models", 1996.

    >>> keep, log_factor = systematic(np.log([0.5, 0.3, 0.2]), 2, 0.1)
    >>> keep.tolist(), np.exp(log_factor).round(6).tolist()
    ([True, True, False], [1.0, 0.6, 1.0])
    """
    log_s, members, uniform = _arrays(log_size, members, uniform)
    keep, log_factor = np.ones(len(log_s), np.bool_), np.zeros(len(log_s))
    for groups, at, there in _padded(members, above=1):
        s = np.exp(_relative(log_s[at], there))
        s *= k / s.sum(1, keepdims=True)
        counts = _systematic(s, np.full(len(at), k), uniform[groups])
        drawn = counts > 0
        keep[at[there]] = drawn[there]
        log_factor[at[drawn]] = np.log(s[drawn]) - np.log(counts[drawn])
    return keep, log_factor


def inclusion(log_size: Floats, k: int) -> Floats:
    """log min(1, c s_i) with Σ min(1, c s_i) = k for each row of sizes; each has more than k, [G, n].

    Args:
        log_size: 0 for the largest of a row, -inf where there is nobody.
        k: see above.
    """
    s = np.exp(log_size)
    falling = np.sort(s, axis=1)[:, ::-1]
    tail = np.cumsum(falling[:, ::-1], axis=1)[:, ::-1]  # the small ones first, so that they count
    chance = (k - np.arange(k)) * falling[:, :k] < tail[
        :, :k
    ]  # not the threshold's own member, but those below
    certain = np.where(chance.any(1), chance.argmax(1), k)  # how many are kept for sure
    row = np.arange(len(s))
    least_sure = np.where(certain > 0, falling[row, certain - 1], np.inf)
    with np.errstate(divide="ignore"):  # nobody left to chance
        log_c = np.log(k - certain) - np.log(tail[row, np.minimum(certain, s.shape[1] - 1)])
    return np.where(s >= least_sure[:, None], 0.0, np.minimum(log_size + log_c[:, None], 0.0))


def reached(log_q: ArrayLike, kappa: ArrayLike) -> Floats:
    """log of the probability that a perturbed log-probability exceeds κ: log(1 − exp(−exp(log q − κ))).

    Args:
        log_q, kappa: shapes broadcast; −inf as κ is exceeded for sure.

    Source: Kool, van Hoof & Welling, "Stochastic beams and where to find them", 2019.

    >>> np.exp(reached(np.log([0.5, 0.25]), [-np.inf, np.log(0.25)])).round(6).tolist()
    [1.0, 0.632121]
    """
    log_rate = np.asarray(log_q, np.float64) - np.asarray(kappa, np.float64)
    rate = np.exp(np.minimum(log_rate, 700.0))
    small = log_rate < np.log(1e-8)  # where 1 − exp(−x) is x − x² / 2
    return np.where(small, log_rate - rate / 2, np.log(-np.expm1(-np.where(small, 1.0, rate))))


def _systematic(expected: Floats, k: NDArray[Any], uniform: Floats) -> NDArray[np.int64]:
    """How often each is hit by k points at distance one; `expected` sums to k in each row, [G, n]."""
    edges = np.cumsum(expected, axis=1)
    last = edges[:, -1:]
    scaled = edges * (k[:, None] / np.where(last > 0, last, 1.0))
    scaled = np.where(edges >= last, k[:, None], scaled)  # rounding must lose no point at the end
    hits = np.ceil(scaled - uniform[:, None]).astype(np.int64)
    return np.diff(hits, axis=1, prepend=0)


def _relative(log_size: Floats, there: NDArray[np.bool_]) -> Floats:
    """Sizes over the largest of their row, none below the least; -inf where there is nobody, [G, n]."""
    size = np.where(there & ~np.isnan(log_size), log_size, -np.inf)
    largest = size.max(1, keepdims=True)
    size = np.where(np.isfinite(largest), size - np.where(np.isfinite(largest), largest, 0.0), LEAST)
    size = np.maximum(size, LEAST)
    return np.where(there, size - size.max(1, keepdims=True), -np.inf)


def _padded(
    members: NDArray[np.intp], above: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]]:
    """Groups with more than `above` members as rows of places [G, n] and who is there, by powers of two.

    So that one giant among small groups costs no more than twice its size, and sums never leak between groups.
    """
    start, width = np.cumsum(members) - members, np.ceil(np.log2(np.maximum(members, 1))).astype(np.int64)
    for power in np.unique(width[members > above]).tolist():
        groups = np.flatnonzero((width == power) & (members > above))
        step = np.arange(1 << power)
        there = step < members[groups][:, None]
        yield groups, np.where(there, start[groups][:, None] + step, 0), there


def _arrays(
    log_size: ArrayLike, members: ArrayLike, uniform: ArrayLike
) -> tuple[Floats, NDArray[np.intp], Floats]:
    log_s = np.asarray(log_size, np.float64)
    sizes = np.asarray(members, np.intp)
    return log_s, sizes if len(sizes) else np.array([len(log_s)]), np.atleast_1d(np.asarray(uniform))
