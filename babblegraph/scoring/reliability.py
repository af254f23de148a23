"""How good a value is, within prompts and by depth: ranking, Brier skill, calibration."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BINS = 10


class Bin(NamedTuple):
    """Nodes with about the same value."""

    value: float  # their mean value
    share: float  # of their rollouts, those that passed
    weight: float  # rollouts


class Reliability(NamedTuple):
    """Figures of a value over nodes of one depth, weighted by rollouts."""

    auc: float  # mean over prompts with both outcomes; NaN where there is none
    prompts: int  # how many those are
    brier: float
    skill: float  # 1 − Brier / that of each prompt's own pass rate; NaN where no prompt has two rollouts
    skill_base: float  # the same beside a predictor that knows only the pass rate of all prompts together
    calibration_error: float  # expected, over bins of equal weight
    bins: tuple[Bin, ...]
    nodes: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, which has no NaN: None instead."""
        figures = {name: None if isinstance(x, float) and x != x else x for name, x in self._asdict().items()}
        return figures | {"bins": [list(b) for b in self.bins]}


def reliability(
    value: ArrayLike, label: ArrayLike, weight: ArrayLike, prompt: ArrayLike, *, bins: int = BINS
) -> Reliability:
    """What a value is worth as a forecast of which texts pass.

    Pruning never compares two prompts, and knowing how hard a prompt is gives a high pooled AUC already: so
    ranking is measured within prompts, and the Brier score against each prompt's own pass rate. What the true rate
    would score is estimated without bias from prompts with two rollouts or more: the variance of their outcomes.

    Args:
        value: of nodes, in [0, 1], [M].
        label: the share of rollouts through each node that passed, [M].
        weight: how many rollouts that were, [M].
        prompt: which prompt each node belongs to, integers, [M].
        bins: for calibration, each with the same number of rollouts.

    Source: Brier, 1950; Naeini et al., 2015 (expected calibration error); design/scoring.md, "Value", 4.

    >>> found = reliability([0.2, 0.4, 0.9], [0.0, 0.5, 1.0], [2, 2, 2], [0, 0, 0], bins=3)
    >>> round(found.auc, 3), round(found.brier, 3), round(found.calibration_error, 3)
    (0.944, 0.103, 0.133)
    """
    v, y, w = (np.asarray(x, np.float64) for x in (value, label, weight))
    which = np.unique(np.asarray(prompt), return_inverse=True)[1]
    n = int(which.max(initial=-1)) + 1
    areas = auc_by_prompt(v, y, w, which)
    total = np.bincount(which, w, minlength=n)
    rate = np.bincount(which, w * y, minlength=n) / np.maximum(total, 1e-12)
    brier = _brier(v, y, w)
    again = total > 1  # prompts whose outcomes have a variance
    spread = np.where(again, rate * (1 - rate) * total**2 / np.maximum(total - 1, 1e-12), 0.0)
    known = spread.sum() / max(total[again].sum(), 1e-12)
    there = again[which]
    base = _brier(np.full(len(y), w @ y / max(w.sum(), 1e-12)), y, w)
    found = _bins(v, y, w, bins)
    error = sum(b.weight * abs(b.value - b.share) for b in found) / max(sum(b.weight for b in found), 1e-12)
    both = ~np.isnan(areas)
    return Reliability(
        auc=float(areas[both].mean()) if both.any() else float("nan"),
        prompts=int(both.sum()),
        brier=brier,
        skill=float(1 - _brier(v[there], y[there], w[there]) / known) if known > 0 else float("nan"),
        skill_base=1 - brier / base if base > 0 else float("nan"),
        calibration_error=float(error),
        bins=found,
        nodes=len(v),
    )


def by_depth(
    value: ArrayLike, label: ArrayLike, weight: ArrayLike, prompt: ArrayLike, depth: ArrayLike
) -> dict[int, Reliability]:
    """`reliability` of the nodes of each depth; arrays are [M]."""
    arrays = [np.asarray(x) for x in (value, label, weight, prompt)]
    deep = np.asarray(depth)
    return {int(d): reliability(*(x[deep == d] for x in arrays)) for d in np.unique(deep)}


def auc_by_prompt(value: Floats, label: Floats, weight: Floats, prompt: NDArray[np.integer[Any]]) -> Floats:
    """P(a rollout that passed has the higher value than one that did not), ties half, [prompts].

    Each prompt for itself, over pairs of its rollouts; NaN where all passed or none did.

    Args:
        prompt: numbers from 0 on, [M].

    Complexity: O(M log M).
    """
    n = int(prompt.max(initial=-1)) + 1
    order = np.lexsort((value, prompt))
    p, v = prompt[order], value[order]
    up, down = (weight * label)[order], (weight * (1 - label))[order]
    new = np.r_[True, (np.diff(p) != 0) | (np.diff(v) != 0)][: len(p)]
    tie = np.cumsum(new) - 1  # nodes of one prompt with the same value
    ups, downs = np.bincount(tie, up), np.bincount(tie, down)
    first = p[new]
    all_down = np.bincount(first, downs, minlength=n)
    before = np.cumsum(downs) - downs - (np.cumsum(all_down) - all_down)[first]  # of the same prompt, below
    won = np.bincount(first, ups * (before + downs / 2), minlength=n)
    pairs = np.bincount(first, ups, minlength=n) * all_down
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)


def _brier(value: Floats, label: Floats, weight: Floats) -> float:
    """The mean over rollouts of (value − outcome)², outcomes being 0 or 1."""
    squares = label * (1 - value) ** 2 + (1 - label) * value**2
    return float(weight @ squares / max(weight.sum(), 1e-12))


def _bins(value: Floats, label: Floats, weight: Floats, bins: int) -> tuple[Bin, ...]:
    order = np.argsort(value, kind="stable")
    v, y, w = value[order], label[order], weight[order]
    place = np.minimum((bins * (np.cumsum(w) - w / 2) / max(w.sum(), 1e-12)).astype(int), bins - 1)
    sums = [np.bincount(place, x, minlength=bins) for x in (w, w * v, w * y)]
    return tuple(
        Bin(float(vs / ws), float(ys / ws), float(ws)) for ws, vs, ys in zip(*sums, strict=True) if ws > 0
    )
