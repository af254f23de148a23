"""How particles are dealt out again: each k · share copies on average, whatever the scheme."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class Resampler(Protocol):
    """(shares [n] that sum to 1, uniforms [k]) -> copies [n] that sum to k, each k · share on average."""

    def __call__(self, share: Floats, uniforms: Floats) -> Counts: ...


def multinomial(share: Floats, uniforms: Floats) -> Counts:
    """k independent choices: the plainest, and the noisiest.

    >>> multinomial(np.array([0.5, 0.25, 0.25]), np.array([0.1, 0.4, 0.9, 0.6])).tolist()
    [2, 1, 1]
    """
    edges = np.cumsum(share)
    return np.bincount(
        np.minimum(np.searchsorted(edges / edges[-1], uniforms, side="right"), len(share) - 1),
        minlength=len(share),
    )


def systematic(share: Floats, uniforms: Floats) -> Counts:
    """A comb of k teeth at a random place: each gets k · share copies rounded up or down. Uses one number.

    Source: Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models", 1996.

    >>> systematic(np.array([0.5, 0.25, 0.25]), np.array([0.5, 0.0, 0.0, 0.0])).tolist()
    [2, 1, 1]
    """
    k = len(uniforms)
    return multinomial(share, (np.arange(k) + uniforms[0]) / k)


def residual(share: Floats, uniforms: Floats) -> Counts:
    """The whole part of k · share for sure, and independent choices among what is left over.

    Source: Liu & Chen, "Sequential Monte Carlo methods for dynamic systems", 1998.

    >>> residual(np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.1, 0.0, 0.0])).tolist()
    [2, 1, 1]
    """
    expected = share * len(uniforms)
    sure = np.floor(expected + 1e-12).astype(np.int64)
    left = len(uniforms) - int(sure.sum())
    if left <= 0:
        return sure
    return sure + multinomial(np.maximum(expected - sure, 0.0) / left, uniforms[:left])
