"""What intervals are made of: quantiles, bounds, means over strata; exact, without scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput

LEVEL = 0.95
ROUNDING = 1e-12  # of a mean over trees, as a share of what they say

Floats = NDArray[np.float64]


@lru_cache(maxsize=256)
def t_quantile(p: float, degrees: int) -> float:
    """The quantile of Student's t distribution.

    Args:
        p: above 0 and below 1.
        degrees: of freedom, at least 1.

    Source: Abramowitz & Stegun, 26.7.3 and 26.7.4 up to 200 degrees, 26.7.5 above (error below 1e-8).

    >>> round(t_quantile(0.975, 1), 4), round(t_quantile(0.975, 31), 4), round(t_quantile(0.975, 999), 4)
    (12.7062, 2.0395, 1.9623)
    """
    if p < 0.5:
        return -t_quantile(1 - p, degrees)
    if degrees > 200:
        z = NormalDist().inv_cdf(p)
        g1, g2 = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
        g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
        return z + g1 / degrees + g2 / degrees**2 + g3 / degrees**3
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # the angle whose tangent is t / √degrees
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, degrees) < 2 * p - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def none_in(n: int, level: float = LEVEL) -> float:
    """The largest probability of an event that n independent trials may well miss altogether.

    Exact and one-sided (Clopper & Pearson): (1 − p)^n = 1 − level.

    >>> round(none_in(32), 4)
    0.0894
    """
    return 1 - (1 - level) ** (1 / n)


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a share: it covers well for few trials and shares near 0.

    Args:
        hits: of n independent trials, n at least 1.
        z: the normal quantile; 95 % by default.

    >>> [round(x, 3) for x in wilson(0, 20)]
    [0.0, 0.161]
    """
    share, extra = hits / n, z * z / n
    middle = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / n + extra / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def student(value: float, error: float, degrees: int) -> tuple[float, float]:
    """Student's interval."""
    half = t_quantile((1 + LEVEL) / 2, degrees) * error
    return value - half, value + half


def student_mean(each: Floats) -> tuple[float, tuple[float, float] | None]:
    """The mean of independent numbers, [n], with Student's interval; None for a single one.

    >>> value, (low, high) = student_mean(np.array([1.0, 2.0, 3.0]))
    >>> value, round(low, 3), round(high, 3)
    (2.0, -0.484, 4.484)
    """
    value = float(each.mean())
    if len(each) < 2:
        return value, None
    return value, student(value, float(each.std(ddof=1)) / math.sqrt(len(each)), len(each) - 1)


def log_odds(value: float, error: float, degrees: int) -> tuple[float, float]:
    """Student's interval of the log-odds, mapped back: for means of skewed weights that estimate a probability.

    A small mean of skewed trees is correlated with its own error: where it is too small, so is the error, and the
    plain interval misses the truth above it far too often. On the log-odds both sides miss it about alike
    (`benchmarks/estimate.py` counts). A value of 1 or more, which weights allow, gets the plain interval, cut
    at 1.

    >>> [round(x, 4) for x in log_odds(0.05, 0.02, 31)]
    [0.0218, 0.1105]
    """
    if not 0 < value < 1:
        low, high = student(value, error, degrees)
        return min(max(low, 0.0), 1.0), min(high, 1.0)
    middle = math.log(value) - math.log1p(-value)
    low, high = student(middle, error / (value * (1 - value)), degrees)
    return _sigmoid(low), _sigmoid(high)


def agreeing(value: float, least: float, most: float, n: int) -> tuple[float, float]:
    """Where n independent trees all say the same: another kind of tree may have gone unseen, up to `none_in(n)`.

    Args:
        value: what all say.
        least, most: what a tree could have said.
    """
    unseen = none_in(n)
    return value - unseen * (value - least), value + unseen * (most - value)


def some_of(x: Floats, k: int) -> float:
    """The mean of 1 − Π(1 − x_i) over all sets of k of the numbers: unbiased for 1 − (1 − E x)^k.

    Args:
        x: independent, [n].
        k: at most n.

    Complexity: O(n k).

    >>> x = np.array([1.0, 0, 0, 1, 0, 0, 0, 0, 1, 0])
    >>> round(some_of(x, 5), 6) == round(pass_at_k(10, 3, 5), 6)
    True
    """
    mean = np.zeros(k + 1)  # of the products over all sets of j of the numbers so far
    mean[0] = 1.0
    j = np.arange(1, k + 1)
    for n, rest in enumerate(1 - x, 1):
        with_it = np.minimum(j / n, 1.0)
        mean[1:] = (1 - with_it) * mean[1:] + with_it * rest * mean[:-1]
    return float(1 - mean[k])


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of the probability that at least one of k samples passes, 1 − C(n−c, k) / C(n, k).

    Args:
        n: independent samples that were drawn.
        c: how many of them pass.
        k: at most n.

    Raises:
        BadInput: counts that cannot be.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code", 2021.

    >>> round(pass_at_k(10, 3, 1), 6), round(pass_at_k(10, 3, 5), 6)
    (0.3, 0.916667)
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise BadInput(
            f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}: draw k samples or more"
        )
    return float(1 - math.comb(n - c, k) / math.comb(n, k)) if n <= 1000 else 1 - _none_of(n, c, k)


def stratified(per_tree: NDArray[Any], strata: NDArray[np.intp]) -> tuple[float, float | None, int]:
    """The mean over strata of their means, its standard error, and the degrees of freedom (see `welch`)."""
    n = np.bincount(strata)
    means = np.bincount(strata, per_tree) / n
    value = float(means.mean())
    if n.min() < 2:
        return value, None, 0
    variance = np.bincount(strata, (per_tree - means[strata]) ** 2) / (n - 1)
    return value, float(np.sqrt((variance / n).sum()) / len(n)), welch(variance / n, n - 1)


def welch(variances: NDArray[Any], degrees: NDArray[Any]) -> int:
    """Degrees of freedom of a sum of means: as many as those have that vary, be the others known ever so well.

    Args:
        variances: of each mean, estimated.
        degrees: of freedom of each, at least 1.

    Source: Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", 1947; rounded down.

    >>> welch(np.array([1.0, 1.0]), np.array([31, 31])), welch(np.array([1e-6, 1.0]), np.array([59, 1]))
    (62, 1)
    """
    share = variances / (
        variances.sum() or 1.0
    )  # of all, so that small ones do not vanish when they are squared
    return int(1 / max(float((share**2 / degrees).sum()), 1 / degrees.sum()) + 1e-9)


def all_agree(error: float, size: float) -> bool:
    """Whether trees differ by no more than the rounding of numbers of this size: then there is no deviation to go by.

    >>> all_agree(stratified(np.full(3, 0.1), np.zeros(3, int))[1], 0.1), all_agree(1e-16, 1e-14)
    (True, False)
    """
    return error <= ROUNDING * size


def ratios(per_tree: Floats, total: Floats, strata: NDArray[np.intp]) -> tuple[Floats, float]:
    """Each stratum's Σ per_tree / Σ total with the influence of each tree on it, [trees]; and the bias, about.

    The mean of the first over a stratum is its ratio, the deviation that of the ratio to first order. The bias is
    the second-order term, averaged over strata: it falls as 1/n.
    """
    n = np.bincount(strata)
    up, down = (np.bincount(strata, x) / n for x in (per_tree, total))
    down = np.where(down > 0, down, 1.0)
    ratio = up / down
    residual = (per_tree - ratio[strata] * total) / down[strata]
    bias = -np.bincount(strata, residual * (total / down[strata] - 1)) / n**2
    return ratio[strata] + residual, float(bias.mean())


def spread(log_w: Floats) -> tuple[float, float]:
    """Effective sample size, and the heaviest leaf's share; without overflow whatever the scale."""
    if not len(log_w) or not (log_w > -np.inf).any():
        return 0.0, math.nan
    w = np.exp(log_w - log_w.max())
    return float(w.sum() ** 2 / (w**2).sum()), float(1 / w.sum())


def log_sum(log_w: Floats, values: Floats) -> float:
    """log Σ w h for h ≥ 0."""
    some = values > 0
    if not some.any():
        return -math.inf
    return float(np.logaddexp.reduce(log_w[some] + np.log(values[some])))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _none_of(n: int, c: int, k: int) -> float:
    """C(n−c, k) / C(n, k) as a product, for counts whose factorials are large."""
    if n - c < k:
        return 0.0
    few, many = min(c, k), max(c, k)  # it is symmetric in c and k
    return math.exp(math.fsum(math.log1p(-many / (n - i)) for i in range(few)))


def _t_within(angle: float, degrees: int) -> float:
    """P(|T| ≤ t) with t = √degrees · tan(angle)."""
    cos, sin = math.cos(angle), math.sin(angle)
    odd = degrees % 2 == 1
    term = total = (cos if odd else 1.0) if degrees > 1 else 0.0
    for i in range(2 if odd else 1, degrees - 1, 2):
        term *= cos * cos * i / (i + 1)
        total += term
    return 2 / math.pi * (angle + sin * total) if odd else sin * total
