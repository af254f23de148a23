"""What a generator can do on prompts that it never learns from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Budget
from babblegraph.graph import BabbleGraph
from babblegraph.intervals import agreeing, student_mean
from babblegraph.loop import Round, search
from babblegraph.side_by_side import SideBySide
from babblegraph.strategies import best_of_n, together

if TYPE_CHECKING:
    from babblegraph.lm import Babbler
    from babblegraph.protocols import Scorer

UNBOUNDED = 1 << 40  # tokens: samples end by themselves
SAME = 1e-9  # numbers nearer than that, such as differences of scores, are equal


class Measure(NamedTuple):
    """A mean over prompts with its 95 % interval; `low` and `high` are None for a single prompt."""

    value: float
    low: float | None = None
    high: float | None = None


class Held(NamedTuple):
    """The figures of one generator on the held-out prompts.

    What a text is worth is 1 where it passes and 0 where not; where there is no threshold, its score.

    Args:
        pass_at_1, pass_at_k: worth of one sample, and of the best of k, on average; unbiased.
        k: the samples drawn of each.
        greedy: worth of the one likeliest text, token by token.
        score: mean score of a sample; of those that have one.
        entropy: mean −log g of a sample in nats, up to where it ends or is provably dead.
        divergence: KL(g ‖ f) of such a sample in nats, from f's log-probabilities of what was drawn.
        distinct: different texts that pass, of k samples.
        passes: how many of the k samples pass, one number a prompt: what paired comparisons need.
        best: worth of the best of the k samples, one number a prompt.
        greedily: worth of the greedy text, one number a prompt.
        tokens: sampled.
        threshold: what a text has to reach to pass; None where its worth is its score.
    """

    pass_at_1: Measure
    pass_at_k: Measure
    k: int
    greedy: Measure
    score: Measure
    entropy: float
    divergence: float
    distinct: float
    passes: tuple[int, ...]
    best: tuple[float, ...]
    greedily: tuple[float, ...]
    tokens: int
    threshold: float | None = None


def measure(
    babbler: Babbler,
    prompts: Sequence[Any],
    *,
    score: Scorer,
    threshold: float | None,
    draws: int = 64,
    seed: int = 0,
    log_f: Callable[[list[NDArray[Any]], NDArray[Any]], NDArray[np.float64]] | None = None,
    side_by_side: SideBySide | None = None,
) -> Held:
    """Samples from the generator, and lets it write one text greedily.

    Args:
        babbler: the generator; the first samples are drawn at its temperature.
        prompts: held out.
        score: fills in scores.
        threshold: what a score must reach to pass; None: a text is worth its score.
        draws: k.
        seed: the same samples' randomness for every generator, so that comparisons are paired.
        log_f: the base's log-probabilities of (tokens, start), for the divergence; None where it is the base.
        side_by_side: bounds how many prompts are searched at a time.
    """
    how: dict[str, Any] = {"score": score, "seed": seed, "side_by_side": side_by_side or SideBySide()}
    sampled = _searched(babbler, prompts, draws, **how)
    graph = sampled.graph
    leaves = np.flatnonzero(graph.is_leaf())
    root, count = graph.root[leaves], graph.count[leaves]
    n = np.bincount(root, count, graph.trees)
    hit = passing(graph, leaves, threshold)
    right = np.bincount(root, count * hit, graph.trees).astype(int)
    worth, best = worth_of(graph, leaves, threshold), np.zeros(graph.trees)
    np.maximum.at(best, root, worth)
    log_g, base = graph.log_p_g[leaves], graph.log_p_g[leaves]
    if log_f is not None:
        base = log_f([graph.path_tokens(i) for i in leaves.tolist()], graph.length[root])
    known = ~np.isnan(graph.score[leaves])
    scored = np.bincount(root[known], (count * graph.score[leaves])[known], graph.trees)
    texts = {(int(graph.root[i]), graph.text(i)) for i in leaves[hit].tolist()}
    once = babbler.again(temperature=1.0, top_k=1, top_p=None)
    greedy = _searched(once, prompts, 1, **how).graph
    found, once_worth = np.flatnonzero(greedy.is_leaf()), np.zeros(greedy.trees)
    once_worth[greedy.root[found]] = worth_of(greedy, found, threshold)
    return Held(
        pass_at_1=mean_of(np.bincount(root, count * worth, graph.trees) / np.maximum(n, 1)),
        pass_at_k=mean_of(best),
        k=draws,
        greedy=mean_of(once_worth),
        score=mean_of(scored / np.maximum(n, 1)),
        entropy=float(-(count @ log_g) / max(count.sum(), 1)),
        divergence=float(count @ (log_g - base) / max(count.sum(), 1)),
        distinct=len(texts) / graph.trees,
        passes=tuple(right.tolist()),
        best=tuple(best.tolist()),
        greedily=tuple(once_worth.tolist()),
        tokens=sampled.spent.sampled,
        threshold=threshold,
    )


def worth_of(graph: BabbleGraph, leaves: NDArray[np.intp], threshold: float | None) -> NDArray[np.float64]:
    """1 for a leaf that passes and 0 for others; without a threshold its score, 0 where it has none."""
    if threshold is None:
        return np.nan_to_num(graph.score[leaves].astype(np.float64), nan=0.0)
    return passing(graph, leaves, threshold).astype(np.float64)


def passing(graph: BabbleGraph, leaves: NDArray[np.intp], threshold: float | None) -> NDArray[np.bool_]:
    """Which leaves pass: those whose score reaches the threshold; all that are not dead where there is none."""
    if threshold is None:
        return graph.score[leaves] > 0
    return graph.reaches(threshold, leaves)


def mean_of(each: NDArray[np.float64], least: float = 0.0) -> Measure:
    """A mean over prompts, whose numbers lie between `least` and 1, with Student's interval.

    Where all prompts say the same, another kind may have gone unseen: that is no interval of width zero.
    """
    value, interval = student_mean(each)
    if interval is not None and np.ptp(each) <= SAME:
        interval = agreeing(value, min(least, value), max(1.0, value), len(each))
    return Measure(value, *(interval or (None, None)))


def _searched(
    babbler: Babbler, prompts: Sequence[Any], n: int, *, score: Scorer, seed: int, side_by_side: SideBySide
) -> Round:
    """The last round of n samples of each prompt."""

    def run(at_once: int) -> Round:
        way = together(best_of_n(n=n, width=n), at_once)
        *_, last = search(
            babbler, prompts, score=score, seed=seed, strategy=way, budget=Budget(tokens=UNBOUNDED)
        )
        return last

    return side_by_side(run, most=len(prompts))
