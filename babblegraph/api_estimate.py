"""The one-call façades for probabilities: how likely the generator is to reach a score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from babblegraph.api import babble, prompts_of, score_of, threshold_of
from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.estimates import Estimate, check_under, probability
from babblegraph.given import is_whole
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Generator, Strategy, Task
from babblegraph.splitting import Levels
from babblegraph.splitting import multilevel as over_levels
from babblegraph.strategies import frontier

TREES, KEEP, TOKENS = 32, 16, 1000  # by default
NO_THRESHOLD = "an estimate needs a threshold, got none: pass threshold, or a task, whose is 1"


def estimate(
    generator: Generator | None,
    prompt: Any,
    *,
    task: Task | None = None,
    value: Callable[..., Any] | None = None,
    threshold: float | None = None,
    trees: int = TREES,
    budget: Budget | int = TOKENS,
    strategy: Strategy | None = None,
    under: str = "f",
    ratio: bool = False,
    seed: int = 0,
    graph: BabbleGraph | None = None,
) -> Estimate:
    """Estimates how likely the generator's text is to reach a score, with an interval.

    Args:
        generator: what babbles; not needed with a graph.
        prompt: one prompt, as for `babble`; with a graph, which of its prompts, or None for all.
        task, value, threshold: as for `babble`. A value says where to look closer: it moves the variance, never
            the mean.
        trees: independent repetitions, the unit of the interval.
        budget: a `Budget`, or about how many sampled tokens each tree may cost.
        strategy: one with the aim `estimate`; `frontier` by default.
        under, ratio: as for `estimates.probability`.
        seed: the same seed gives the same estimate.
        graph: estimate from this graph instead of searching; takes nothing that says how to search.

    Returns:
        The estimate, or a reason why there is none, with a bound where no text passed.

    Raises:
        BadInput: fewer than two trees, no threshold, a strategy that solves, a graph and how to search, and what
            `babble` raises.

    >>> import babblegraph as bg
    >>> found = bg.estimate(bg.Babbler.embedded(), "2 3 4>24", task=bg.Countdown(), trees=32, budget=300)
    >>> 0 < found.low < found.value < found.high < 1, found.trees
    (True, 32)
    """
    check_under(under)
    if graph is not None:
        search = {
            "task": task is None,
            "value": value is None,
            "strategy": strategy is None,
            "seed": seed == 0,
        }
        search |= {"trees": trees == TREES, "budget": isinstance(budget, int) and budget == TOKENS}
        if given := [name for name, usual in search.items() if not usual]:
            raise BadInput(f"a graph is estimated from as it was grown, got {given[0]} too: leave it out")
    else:
        if generator is None:
            raise BadInput("an estimate needs a generator or a graph, got neither: give one")
        if not is_whole(trees) or trees < 2:
            raise BadInput(f"an interval needs two trees or more, got {trees!r:.80}: take {TREES}")
        if threshold_of(task, threshold) is None:  # before anything is spent
            raise BadInput(NO_THRESHOLD)
        graph = babble(
            generator,
            [prompt] * trees,
            task=task,
            value=value,
            budget=budget,
            strategy=strategy or frontier(keep=KEEP),
            threshold=threshold,
            seed=seed,
            close=True,
        ).graph
        prompt = None
    if threshold is None:
        threshold = graph.meta.get("threshold")
    if threshold is None:
        raise BadInput(NO_THRESHOLD)
    return probability(graph, threshold, under=under, prompt=prompt, ratio=ratio)


def multilevel(
    generator: Generator,
    prompt: Any,
    *,
    threshold: float,
    task: Task | None = None,
    value: Callable[..., Any] | None = None,
    **options: Any,
) -> Levels:
    """Estimates how likely the generator's text is to reach a rare score, over levels of lower scores.

    It needs a score with more than two values: of a verdict of right or wrong, `estimate` knows as much.

    Args:
        generator, prompt, task, value: as for `babble`.
        threshold, options: of `splitting.multilevel`, such as `trees`, `particles` and `seed`.

    Returns:
        The estimate, the thresholds and what passed them.

    Raises:
        BadInput: see `splitting.multilevel`.
    """
    threshold_of(task, None)  # for what is wrong with the task
    (one,) = prompts_of([prompt], task)
    score = score_of(task, value, threshold)
    return over_levels(generator, one, score=score, threshold=threshold, **options)
