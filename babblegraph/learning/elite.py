"""The elite of a level: which finished leaves the generator learns from, and how much from each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.intervals import spread
from babblegraph.learning.leaves import Leaves, log_weights
from babblegraph.learning.soft import Soft
from babblegraph.randomness import Rng
from babblegraph.resample import fearnhead_clifford
from babblegraph.thresholds import quantile_threshold

UNFINISHED, SAME, LOWEST, NONE = (
    "no leaf has a score",
    "every score is the same",
    "the quantile is the lowest score",
    "no leaf passes",
)

Floats = NDArray[np.float64]
Ids = NDArray[np.intp]


class Elite(NamedTuple):
    """E leaves to learn from. Every prompt that has any counts as much as every other.

    Args:
        leaf: their places among the level's leaves, [E].
        weight: sums to 1 for each prompt that has an elite, [E].
        gamma: each prompt's threshold, [P]; NaN where it has none.
        skipped: why a prompt has no elite, empty where it has one, P.
        effective: the effective sample size (Σw)² / Σw².
    """

    leaf: Ids
    weight: Floats
    gamma: Floats
    skipped: tuple[str, ...]
    effective: float


def elite(
    leaves: Leaves,
    *,
    power: float = 0.0,
    threshold: float | None = None,
    rho: float | None = None,
    top: int | None = None,
    pooled: bool = False,
    soft: Soft | None = None,
    flat: bool | None = None,
    cap: int | None = None,
    lowest_too: bool = False,
    rng: Rng | None = None,
) -> Elite:
    """Chooses the elite and weighs it.

    A prompt's γ is min(threshold, the (1−ρ)-quantile of its scores under the current generator); equal texts are
    one, with the sum of their weights; weights are normalised within each prompt, so that easy prompts do not
    dominate.

    Args:
        leaves: with both log-probabilities where `power` is above 0.
        power: λ of the target f^λ g^(1−λ) 1[S ≥ γ]; 1 is the cross-entropy method, 0 expert iteration.
        threshold: the final γ, which is never exceeded.
        rho: the share of each prompt's weight that is to be elite, in (0, 1).
        top: instead, the k best texts of each prompt; of ties at the k-th some by chance.
        pooled: whether ρ or k are of the whole batch, with one γ for all prompts, each of which counts the same.
        soft: a factor that grows with the score, beside or instead of the threshold; see `learning.soft`.
        flat: give every distinct text of a prompt the same weight; by default where weights mean nothing.
        cap: texts of one prompt, at most; more are thinned out without bias.
        lowest_too: let a prompt's lowest score be elite: where all its leaves pass, learn from all.
        rng: of the thinning.

    Returns:
        The elite, which may be empty: then every prompt has a reason.

    Raises:
        BadInput: ρ outside (0, 1), k or a cap below 1, both ρ and k, λ outside [0, 1], or λ above 0 with biased
            weights.

    Source: design/statistics.md, "The objective".
    """
    check(power, rho, top, cap, threshold)
    flat = (power == 0 and not leaves.unbiased) if flat is None else flat
    now = log_weights(leaves, 0.0)  # under the current generator
    log_w = np.zeros(len(leaves)) if flat else log_weights(leaves, power)
    members = leaves.of_prompts()
    gamma = _thresholds(leaves, members, now, threshold, rho, top, pooled)
    each_best = top is not None and not pooled
    chosen, weights, skipped = [], [], []
    for p, ids in enumerate(members):
        reason, passes = _passing(leaves.score[ids], gamma[p], threshold, lowest_too, each_best)
        logs = log_w[ids]
        if soft is not None and passes.any():
            logs = logs + soft(np.nan_to_num(leaves.score[ids], nan=-np.inf), now[ids])
        some, logs = _distinct(leaves, ids[passes & (logs > -np.inf)], logs[passes & (logs > -np.inf)], flat)
        uniform = (rng or Rng(0)).generator(p).random(2)
        if each_best and top is not None and len(some) > top:
            keep, log_pi = _best(leaves.score[some], logs, top, uniform[0])
            some, logs = some[keep], logs[keep] - (0.0 if flat else log_pi[keep])
        if cap is not None and len(some) > cap:
            keep, log_pi = fearnhead_clifford(logs, cap, uniform[0 if top is None else 1])
            some, logs = some[keep], logs[keep] - log_pi[keep]
        skipped.append("" if len(some) else reason or NONE)
        chosen.append(some)
        weights.append(np.exp(logs - np.logaddexp.reduce(logs)) if len(some) else logs)
    weight = np.concatenate([*weights, np.zeros(0)])
    leaf = np.concatenate([*chosen, np.zeros(0, np.intp)]).astype(np.intp)
    with np.errstate(divide="ignore"):
        effective = spread(np.log(weight))[0] if len(weight) else 0.0
    return Elite(leaf, weight, gamma, tuple(skipped), effective)


def check(power: float, rho: float | None, top: int | None, cap: int | None, threshold: float | None) -> None:
    """Refuses a choice that cannot be made.

    Raises:
        BadInput: see `elite`.
    """
    if not 0 <= power <= 1:
        raise BadInput(
            f"λ must be in [0, 1], got {power:g}: 1 is the cross-entropy method, 0 expert iteration"
        )
    if rho is not None and not 0 < rho < 1:
        raise BadInput(f"rho must be above 0 and below 1, got {rho:g}: 0.1 takes the best tenth")
    if rho is not None and top is not None:
        raise BadInput(f"an elite is chosen by rho or by top, got rho {rho:g} and top {top}: drop one")
    for name, number in (("top", top), ("a cap", cap)):
        if number is not None and number < 1:
            raise BadInput(f"{name} must be at least 1, got {number}: 1 takes the best text")
    if threshold is not None and not np.isfinite(threshold):
        raise BadInput(f"a threshold must be a number, got {threshold}: scores lie in 0 to 1")


def _thresholds(
    leaves: Leaves,
    members: list[Ids],
    now: Floats,
    threshold: float | None,
    rho: float | None,
    top: int | None,
    pooled: bool,
) -> Floats:
    """γ of each prompt, [P]."""
    known = np.array([not np.isnan(leaves.score[ids]).all() for ids in members], np.bool_)
    most = np.inf if threshold is None else threshold
    if rho is None and top is None:
        return np.where(known, -np.inf if threshold is None else most, np.nan)
    if not pooled:
        each = [_reached(leaves, ids, now[ids], rho, top) for ids in members]
        return np.where(known, np.minimum(each, most), np.nan)
    all_ids = np.concatenate([ids for ids in members if len(ids)])
    share = np.concatenate([now[ids] - np.logaddexp.reduce(now[ids]) for ids in members if len(ids)])
    one = _reached(leaves, all_ids, share, rho, None if top is None else top * len(members))
    return np.where(known, min(one, most), np.nan)


def _reached(leaves: Leaves, ids: Ids, log_w: Floats, rho: float | None, top: int | None) -> float:
    """The score that a share ρ of the weight reaches, or k distinct texts; NaN where there is no score."""
    scored = ids[~np.isnan(leaves.score[ids])]
    if not len(scored):
        return np.nan
    if rho is not None:
        score = np.nan_to_num(leaves.score[ids], nan=-np.inf)
        found = quantile_threshold(score, rho, np.exp(log_w - log_w.max()))
        return found if np.isfinite(found) else float(np.nanmin(leaves.score[ids]))
    best: dict[tuple[int, str], float] = {}
    for i in scored.tolist():
        key = (int(leaves.prompt[i]), leaves.text[i])
        best[key] = max(best.get(key, -np.inf), float(leaves.score[i]))
    return sorted(best.values(), reverse=True)[: top or 1][-1]


def _passing(
    score: Floats, gamma: float, threshold: float | None, lowest_too: bool, each_best: bool
) -> tuple[str, NDArray[np.bool_]]:
    """Which of a prompt's leaves reach γ and are above its lowest score; why none, in a few words.

    Fewer than k texts above the lowest are the best ones all the same.
    """
    nobody = np.zeros(len(score), np.bool_)
    if np.isnan(gamma):
        return UNFINISHED, nobody
    passing = np.nan_to_num(score, nan=-np.inf) >= gamma
    if lowest_too:
        return "", passing
    low, high = float(np.nanmin(score)), float(np.nanmax(score))
    if low == high:
        return SAME if threshold is None or low >= threshold else NONE, nobody
    if np.isfinite(gamma) and gamma <= low and not each_best:
        return LOWEST, nobody
    return "", passing & (score > low)


def _best(score: Floats, log_w: Floats, k: int, uniform: float) -> tuple[NDArray[np.bool_], Floats]:
    """Which texts are the k best, and log π of each, since of ties at the k-th chance takes some."""
    last = np.sort(score)[-k]
    keep, tied, log_pi = score > last, np.flatnonzero(score == last), np.zeros(len(score))
    some, log_pi[tied] = fearnhead_clifford(log_w[tied], k - int(keep.sum()), uniform)
    keep[tied] = some
    return keep, log_pi


def _distinct(leaves: Leaves, ids: Ids, log_w: Floats, flat: bool) -> tuple[Ids, Floats]:
    """One leaf for equal texts with all their weight, the heaviest of them; where flat, each text weighs the same.

    Unbiased weights are of token ids, so there two spellings of one text are two.
    """
    groups: dict[object, list[int]] = {}
    for place, i in enumerate(ids.tolist()):
        groups.setdefault(leaves.text[i] if flat else leaves.tokens[i].tobytes(), []).append(place)
    best = [max(places, key=lambda j: log_w[j]) for places in groups.values()]
    sums = (
        log_w[j] if flat else np.logaddexp.reduce(log_w[places])
        for j, places in zip(best, groups.values(), strict=True)
    )
    return ids[best].astype(np.intp), np.fromiter(sums, np.float64, len(best))
