"""Weighted estimates over closed forests: what the base generator would do, from what the search saw.

Trees of one prompt are independent repetitions and so the units of every interval; leaves of one tree are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.doubts import doubts
from babblegraph.errors import BadInput
from babblegraph.given import is_number
from babblegraph.graph import BabbleGraph
from babblegraph.intervals import (
    agreeing,
    all_agree,
    log_odds,
    log_sum,
    none_in,
    ratios,
    spread,
    stratified,
    student,
)  # fmt: skip
from babblegraph.status import Flag
from babblegraph.why_not import why_not

UNDER = {"f": "log_p_f", "g": "log_p_g", "q": "log_q"}

Floats = NDArray[np.float64]
Ids = NDArray[np.intp]
Values = Callable[[BabbleGraph, Ids], ArrayLike]


@dataclass(frozen=True)
class Estimate:
    """An expectation with its 95 % interval over independent trees, or the reason why there is none.

    Args:
        value: the mean over trees; None where there is no estimate.
        error: its standard error; None with fewer than two trees of a prompt, or where every leaf says 0.
        effective: the effective sample size of the leaves, (Σw)² / Σw².
        reason: why there is no estimate; empty where there is one.
        low, high: Student's interval (of the log-odds, for a probability); where no tree has a hit, `high` alone is
            a one-sided bound.
        trees, hits: how many trees there are, and how many have a leaf that counts.
        heaviest: the share of the total weight that the heaviest leaf holds.
        log_value: log of the value, exact where the value itself would vanish; −inf for 0.
        tokens: sampled tokens that these trees have cost.
        independent_tokens: what independent samples with the same standard error would have cost, one text
            after the other; None where there is no error.
        warnings: why not to trust it too much.
        tree_ids, per_tree: which trees these are, and Σ w h of each, [trees].
    """

    value: float | None
    error: float | None
    effective: float
    reason: str = ""
    low: float | None = None
    high: float | None = None
    trees: int = 0
    hits: int = 0
    heaviest: float = math.nan
    log_value: float = math.nan
    tokens: int | None = None
    independent_tokens: float | None = None
    warnings: tuple[str, ...] = field(default=())
    tree_ids: Ids = field(default_factory=lambda: np.zeros(0, np.intp), repr=False, compare=False)  # [trees]
    per_tree: Floats = field(default_factory=lambda: np.zeros(0), repr=False, compare=False)  # [trees] Σ w h

    @property
    def log_evidence(self) -> float:
        """log L, the evidence of S ≥ γ."""
        return self.log_value

    @property
    def divergence(self) -> float:
        """KL(f_opt ‖ f) = −log L in nats: how far the generator is from its own best texts."""
        return -self.log_value

    def __str__(self) -> str:
        if self.value is None:
            bound = "" if self.high is None else f", at most {self.high:.2g}"
            return f"not available: {self.reason}{bound}"
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def probability(
    graph: BabbleGraph, threshold: float, *, under: str = "f", prompt: str | None = None, ratio: bool = False
) -> Estimate:
    """Estimates P(S ≥ threshold), trees of one prompt being independent repetitions.

    With several prompts the value is the mean over them, each prompt's trees being a stratum. The threshold must
    not come from the same trees (see `thresholds.cross_fit`). Where no tree has a hit there is no value but a
    one-sided bound: exact where each tree's weights sum to 1 (pruning by weight alone), else scaled by the
    largest sum, with a warning. It goes by the prompt with the fewest trees. Where no leaf could be scored there is
    neither.

    Args:
        graph: a closed forest of a search with the aim `estimate`.
        threshold: γ.
        under: "f", the base generator; "g", the current one; "q", whatever was sampled from (with its temperature
            and truncation, which so are declared to be meant).
        prompt: only this prompt's trees.
        ratio: divide by the weights' own sum, pooled over a prompt's trees. Steadier where weights vary much,
            but biased by O(1/trees); a warning says by about how much.

    Raises:
        BadInput: another `under`, no such prompt, or a threshold that is no number.
    """
    if not is_number(threshold):
        raise BadInput(f"a threshold must be a number, got {threshold!r:.80}: scores lie in 0 to 1")

    def hit(graph: BabbleGraph, leaves: Ids) -> NDArray[np.bool_]:
        return graph.reaches(threshold, leaves)

    return expectation(graph, hit, under=under, prompt=prompt, ratio=ratio, chance=True)


def expectation(
    graph: BabbleGraph,
    h: Values,
    *,
    under: str = "f",
    prompt: str | None = None,
    ratio: bool = False,
    chance: bool = False,
) -> Estimate:
    """Estimates E[h(X)], as `probability` does for h = 1[S ≥ γ].

    Args:
        graph: a closed forest of a search with the aim `estimate`.
        h: (graph, leaves [M]) -> [M]; a dead leaf stands for all its continuations, so h must agree on them.
        under, prompt, ratio: as in `probability`.
        chance: h is 0 or 1, so that the interval may be that of a probability.

    Raises:
        BadInput: another `under`, no such prompt, or values that are not finite, or not one for each leaf.
    """
    check_under(under)
    trees = _trees(graph, prompt)
    leaves = np.flatnonzero(graph.is_leaf() & np.isin(graph.root, trees))
    log_w = getattr(graph, UNDER[under])[leaves] - graph.log_inclusion[leaves]
    effective, heaviest = spread(log_w)
    base = Estimate(None, None, effective, why_not(graph, under), trees=len(trees), heaviest=heaviest)
    if base.reason:
        return base
    if ratio and base.effective == 0:
        return replace(base, reason=f"no leaf has any weight under {under}")
    values = np.asarray(h(graph, leaves), np.float64)
    if values.shape != leaves.shape:
        rule = f"h must give a number for each of {len(leaves)} leaves"
        raise BadInput(f"{rule}, got the shape {values.shape}: return [M] for leaves [M]")
    if not np.isfinite(values).all():
        raise BadInput(f"h must be finite on every leaf, got {values[~np.isfinite(values)][0]}: map it to 0")
    root = np.searchsorted(trees, graph.root[leaves])
    scale = log_w.max() if ratio and len(log_w) else 0.0  # which a ratio does not have: nothing is lost
    w = np.exp(log_w - scale)
    per_tree, total, sizes = (_sums(root, x, len(trees)) for x in (w * values, w, w * np.abs(values)))
    strata = np.unique([graph.prompts[i] for i in trees], return_inverse=True)[1]
    hits = int((np.bincount(root, values != 0, minlength=len(trees)) > 0).sum())
    base = replace(base, hits=hits, per_tree=per_tree, tree_ids=trees)
    per_prompt = np.bincount(strata)
    failed = np.isnan(graph.score[leaves]) & ((graph.flags[leaves] & Flag.SCORER_FAILED) != 0)
    lost = float(w[failed].sum()) / (float(w.sum()) or 1.0)
    said = doubts(base.effective, base.heaviest, hits, per_tree, total, per_prompt, ratio, lost)
    most = 1.0 if ratio else max(1.0, float(total.max(initial=1.0)))  # that a tree could say
    even = len(per_prompt) * int(per_prompt.min())  # what a prompt with few trees hides, others do not tell
    if chance and hits == 0:
        high = none_in(even) * most
        cost, _ = _tokens(graph, trees, leaves, log_w, values, None)
        if failed.all():  # nothing was seen, so nothing bounds it either
            return replace(base, reason="no finished text could be scored", tokens=cost, warnings=said)
        reason = f"no hit in {len(trees)} trees"
        return replace(
            base, reason=reason, high=min(high, 1.0), log_value=-math.inf, tokens=cost, warnings=said
        )
    size = float(sizes.sum() / (total.sum() or 1.0) if ratio else sizes.mean())
    if ratio:
        per_tree, biases = ratios(per_tree, total, strata)
        said = (*said, f"a ratio of means is biased, here by about {biases:.1g}")
    value, error, degrees = stratified(per_tree, strata)
    share = 1.0 / (per_prompt[strata] * len(per_prompt))  # of each tree in the mean
    log_value = log_sum(log_w + np.log(share)[root], values) if (values >= 0).all() else math.nan
    same = error is not None and all_agree(error, size)
    exact = not graph.log_inclusion[leaves].any()
    if (
        same and hits == 0 and not exact
    ):  # of what was not seen nothing is known, not even how large it may be
        error, said = None, (*said, "h is 0 on every leaf that was found: there is no interval")
    low, end = _interval(value, error, degrees, even, same, values, most, chance, exact)
    tokens, independent = _tokens(graph, trees, leaves, log_w, values, None if same else error)
    return replace(
        base,
        value=value,
        error=error,
        low=low,
        high=end,
        log_value=log_value if not ratio else (math.log(value) if value > 0 else -math.inf),
        tokens=tokens,
        independent_tokens=independent,
        warnings=said,
    )


def check_under(under: str) -> None:
    """Raises BadInput unless there is such a generator."""
    if under not in UNDER:
        raise BadInput(f"an estimate must be under one of {', '.join(UNDER)}, got {under!r}: f is the base")


def _trees(graph: BabbleGraph, prompt: str | None) -> NDArray[np.intp]:
    trees = np.array([i for i, p in enumerate(graph.prompts) if prompt in (None, p)], np.intp)
    if not len(trees):
        raise BadInput(f"an estimate needs a prompt of the graph, got {prompt!r}: see graph.prompts")
    return trees


def _sums(root: Ids, x: Floats, trees: int) -> Floats:
    """Over the leaves of each tree, [trees]."""
    return np.bincount(root, x, minlength=trees).astype(np.float64)


def _interval(
    value: float,
    error: float | None,
    degrees: int,
    n: int,
    same: bool,
    values: Floats,
    most: float,
    chance: bool,
    exact: bool,
) -> tuple[float | None, float | None]:
    """Student's interval; where all trees agree, what n trees may well have missed: never of width zero.

    Only a forest in which nothing was left to chance has no width.
    """
    if error is None:
        return None, None
    if same:
        if exact:
            return value, value
        least, most = most * float(values.min(initial=0.0)), most * float(values.max(initial=0.0))
        low, high = agreeing(value, min(least, value), max(most, value), n)
        return (min(low, 1.0), min(high, 1.0)) if chance else (low, high)
    return log_odds(value, error, degrees) if chance else student(value, error, degrees)


def _tokens(
    graph: BabbleGraph,
    trees: NDArray[np.intp],
    leaves: NDArray[np.intp],
    log_w: Floats,
    values: Floats,
    error: float | None,
) -> tuple[int | None, float | None]:
    """What the trees cost, and independent samples with the same error: Var_f(h) / error² texts of mean length."""
    counts = graph.meta.get("spent", {}).get("counts", {}).get("sampled")
    cost = None if counts is None else int(np.asarray(counts)[trees].sum())
    if not error or not len(leaves):
        return cost, None
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    variance = float(w @ (values - w @ values) ** 2)
    length = float(w @ (graph.length[leaves] - graph.length[graph.root[leaves]]))
    return cost, variance / error**2 * length
