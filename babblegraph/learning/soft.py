"""Soft elites: factors that grow with the score, instead of one threshold for all.

Each is a function (score [m], log_weight [m]) -> log of the factor [m] on the finished leaves of one prompt.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.intervals import spread

Floats = NDArray[np.float64]
Soft = Callable[[Floats, Floats], Floats]


def rank(n: int) -> Soft:
    """F̂(S)^{N−1}: the density of the best of N; it needs no scale.

    Ties are counted exactly: of equal scores each gets (F(s)^N − F(s⁻)^N) / (N p(s)), which is F^{N−1} where there
    are none.

    Args:
        n: N, at least 2.

    >>> np.exp(rank(2)(np.array([0.0, 1.0, 1.0]), np.log(np.full(3, 1 / 3)))).round(4).tolist()
    [0.1667, 0.6667, 0.6667]
    """
    if n < 2:
        raise BadInput(f"the best of N needs N of at least 2, got {n}: 1 is the generator itself")

    def factor(score: Floats, log_weight: Floats) -> Floats:
        w = np.exp(log_weight - np.logaddexp.reduce(log_weight))
        _, which = np.unique(score, return_inverse=True)
        p = np.bincount(which, w)
        upper = np.minimum(np.cumsum(p), 1.0)
        lower = np.r_[0.0, upper[:-1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            density = (upper**n - lower**n) / (n * p)
            return np.log(np.where(p > 0, density, 0.0))[which]

    return factor


def exponential(*, beta: float | None = None, effective: float = 0.25) -> Soft:
    """exp(S/β), for a score that is trusted as a number.

    Args:
        beta: β; None chooses it for each prompt.
        effective: then the effective sample size that is wanted, as a share of the one without the factor.

    Raises:
        BadInput: a β that is not above 0, or a share outside (0, 1).
    """
    if beta is not None and not beta > 0:
        raise BadInput(f"beta must be above 0, got {beta:g}: small ones choose the best only")
    if not 0 < effective < 1:
        raise BadInput(
            f"an effective share must be above 0 and below 1, got {effective:g}: 0.25 is a quarter"
        )

    def factor(score: Floats, log_weight: Floats) -> Floats:
        known = np.where(np.isfinite(score), score, -np.inf)
        top = known.max(initial=-np.inf)
        if not np.isfinite(top):
            return np.full(len(score), -np.inf)
        if beta is not None:
            return (known - top) / beta
        wanted = effective * spread(log_weight)[0]
        low, high = 0.0, 1e6  # of 1/β
        for _ in range(60):
            middle = (low + high) / 2
            with np.errstate(invalid="ignore"):
                now = spread(log_weight + middle * (known - top))[0]
            low, high = (middle, high) if now > wanted else (low, middle)
        return (low if low > 0 else 1e-300) * (known - top)

    return factor
