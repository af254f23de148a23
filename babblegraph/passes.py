"""pass@k from weighted trees: whether one of k independent texts would pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from babblegraph.errors import BadInput
from babblegraph.estimates import Estimate, probability
from babblegraph.graph import BabbleGraph
from babblegraph.intervals import log_odds, some_of, stratified, welch


def pass_at(
    graph: BabbleGraph, threshold: float, k: int, *, under: str = "f", prompt: str | None = None
) -> Estimate:
    """Estimates pass@k: the probability that at least one of k independent texts has S ≥ threshold.

    The value is unbiased with k trees a prompt or more: the mean of 1 − Π(1 − x) over all sets of k trees, which
    for trees of one text each is the usual 1 − C(n−c, k) / C(n, k). With fewer it is 1 − (1 − P)^k, with a
    warning. The interval is that of P, mapped; of several prompts it is that of the log-odds, and where the trees of
    each prompt agree, between the means of what may have gone unseen in each: never of width zero.

    Args:
        graph, threshold, under, prompt: as in `probability`.
        k: at least 1.

    Raises:
        BadInput: k below 1, and what `probability` raises.
    """
    if k < 1:
        raise BadInput(f"pass@k needs k of at least 1, got {k}: pass@1 is the probability itself")
    found = probability(graph, threshold, under=under, prompt=prompt)
    if found.value is None or k == 1:
        return found if found.high is None else replace(found, high=_at_least_one(found.high, k))
    prompts = list(dict.fromkeys(graph.prompts[t] for t in found.tree_ids))
    of_prompt = [found.per_tree[[graph.prompts[t] == one for t in found.tree_ids]] for one in prompts]
    few = min(map(len, of_prompt)) < k
    each = [_at_least_one(x.mean(), k) if few else some_of(x, k) for x in of_prompt]
    value = float(np.mean(each))
    said = f"{k} samples need {k} trees a prompt, there are fewer: pass@{k} is biased" if few else ""
    slopes = np.array([k * (1 - min(x.mean(), 1.0)) ** (k - 1) for x in of_prompt])
    means = [stratified(x * s, np.zeros(len(x), np.intp)) for x, s in zip(of_prompt, slopes, strict=True)]
    error = math.sqrt(sum(e**2 for _, e, _ in means if e)) / len(means) if found.error is not None else None
    if len(of_prompt) == 1 or error is None:
        low, high = (None if x is None else _at_least_one(x, k) for x in (found.low, found.high))
    elif error <= 1e-12:
        alone = [probability(graph, threshold, under=under, prompt=one) for one in prompts]
        low = float(np.mean([_at_least_one(p.low or 0.0, k) for p in alone]))
        high = float(np.mean([_at_least_one(1.0 if p.high is None else p.high, k) for p in alone]))
    else:
        variances, degrees = (
            np.array([(e or 0.0) ** 2 for _, e, _ in means]),
            np.array([d for *_, d in means]),
        )
        low, high = log_odds(value, error, welch(variances, degrees))
    if low is not None and high is not None:  # the sets of k trees may say a little more than the mean does
        low, high = min(low, value), max(high, value)
    return replace(
        found,
        value=value,
        error=error,
        low=low,
        high=high,
        log_value=math.log(value) if value > 0 else -math.inf,
        independent_tokens=None,
        warnings=(*found.warnings, *([said] if said else [])),
    )


def _at_least_one(p: float, k: int) -> float:
    return float(-math.expm1(k * math.log1p(-p))) if p < 1 else 1.0
