"""The one-call façades: `babble` searches and returns a `Result`; `rounds` is the same, one round at a time."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from babblegraph.budget import Budget, Spent
from babblegraph.errors import BadInput
from babblegraph.estimates import Estimate, probability
from babblegraph.given import is_number, is_whole, need_whole
from babblegraph.graph import BabbleGraph
from babblegraph.loop import Round, search
from babblegraph.outcome import failed
from babblegraph.protocols import Generator, Strategy, Task, verifies
from babblegraph.scoring import Score, entropy_to_go, function_value, likelihood
from babblegraph.scoring.score import Connectivity
from babblegraph.status import Gate, Status
from babblegraph.strategies import babble as default_strategy


class Answer(NamedTuple):
    """One finished leaf: its text after the prompt, its score, and its node in the graph."""

    text: str
    score: float
    node: int


@dataclass(frozen=True)
class Result:
    """What a search found.

    Args:
        graph: the whole babble graph.
        spent: totals over all prompts; None when nothing could be spent.
    """

    graph: BabbleGraph
    spent: Spent | None

    @property
    def text(self) -> str | None:
        """The best answer to the first prompt; None when no leaf was finished."""
        best = self.best(1)
        return best[0].text if best else None

    @property
    def threshold(self) -> float | None:
        """What a leaf's score had to reach; None when nothing was asked for."""
        return self.graph.meta.get("threshold")

    @property
    def passed(self) -> list[bool]:
        """For each prompt, whether a leaf reached the threshold; any finished leaf where there is none."""
        graph, floor = self.graph, -np.inf if self.threshold is None else self.threshold
        hits = graph.is_leaf() & (graph.status != Status.LEAF_DEAD) & graph.reaches(floor)
        return (np.bincount(graph.root[hits], minlength=graph.trees) > 0).tolist()

    @property
    def estimate(self) -> Estimate:
        """P_f(S ≥ threshold), where the strategy's weights allow it; else the reason why not."""
        return probability(self.graph, 1.0 if self.threshold is None else self.threshold)

    def best(self, k: int = 1, prompt: int = 0) -> list[Answer]:
        """The k best finished leaves of one prompt, best first; of equal texts one (the elite gate).

        Raises:
            BadInput: a k that is no whole number, or no such prompt.
        """
        need_whole("k", k, 0)
        if not is_whole(prompt) or not 0 <= prompt < self.graph.trees:
            raise BadInput(
                f"prompt must be the place of one, 0 to {self.graph.trees - 1}, got {prompt!r:.80}: give one of these"
            )
        graph, texts = self.graph, set[str]()
        answers: list[Answer] = []
        for node in graph.best(graph.size, tree=prompt):
            text = graph.text(node)
            if text in texts:
                graph.gate[node] = Gate.ELITE
            elif len(answers) < k:
                texts.add(text)
                answers.append(Answer(text, float(graph.score[node]), node))
            else:
                break
        return answers


def babble(
    generator: Generator,
    prompts: Any,
    *,
    task: Task | None = None,
    value: Callable[..., Any] | None = None,
    connectivity: Connectivity | None = entropy_to_go,
    budget: Budget | int = 4000,
    strategy: Strategy | None = None,
    threshold: float | None = None,
    seed: int = 0,
    graph: BabbleGraph | None = None,
    close: bool = False,
) -> Result:
    """Searches for the best continuation of one or more prompts.

    Args:
        generator: what babbles, such as `Babbler.embedded()`.
        prompts: a text, a chat (a list of messages), or a list of texts and chats.
        task: has a verifier, and maybe a partial check, a state and defaults; see `protocols.Task`.
        value: `f(texts) -> numbers in [0, 1]`, or a value of `babblegraph.scoring`; without a task the
            likelihood by default.
        connectivity: how many ways lead on, graph -> [N] in [0, 1]; None for none.
        budget: a `Budget`, or sampled tokens for each prompt.
        strategy: of `babblegraph.strategies`; `babble` by default.
        threshold: what a leaf's score must reach; 1 by default where there is a task, else none. The default
            strategy stops at the first leaf that reaches it.
        seed: the same seed gives the same graph.
        graph: goes on with a saved graph and its seed; then `prompts` must be None.
        close: leave no weight on unfinished nodes, so that the result has an estimate; see `search`.

    Returns:
        The best texts, the graph and what was spent.

    Raises:
        BadInput: see `search` and the generator's `start`.

    Warns:
        RuntimeWarning: the value or the task failed on some texts; `graph.failures` has them.

    >>> import babblegraph as bg
    >>> result = bg.babble(bg.Babbler.embedded(), "3 5 7 11>24", task=bg.Countdown(), budget=4000)
    >>> result.passed, result.text.splitlines()[-1][-3:]
    ([True], ':24')
    """
    options: dict[str, Any] = {
        "task": task,
        "value": value,
        "connectivity": connectivity,
        "budget": budget,
        "strategy": strategy,
        "close": close,
    }
    found = rounds(generator, prompts, threshold=threshold, seed=seed, graph=graph, **options)
    before = getattr(graph, "meta", {}).get("scorer_failures", 0)
    if last := deque(found, maxlen=1):
        if last[0].graph.meta.get("scorer_failures", 0) > before:
            warnings.warn(f"{failed(last[0].graph)}; see graph.failures", RuntimeWarning, stacklevel=2)
        return Result(last[0].graph, last[0].spent)
    if graph is None:
        raise BadInput("the budget must allow at least one token, nothing was drawn: raise it")
    return Result(graph, None)


def rounds(
    generator: Generator,
    prompts: Any,
    *,
    task: Task | None = None,
    value: Callable[..., Any] | None = None,
    connectivity: Connectivity | None = entropy_to_go,
    budget: Budget | int = 4000,
    strategy: Strategy | None = None,
    threshold: float | None = None,
    seed: int = 0,
    graph: BabbleGraph | None = None,
    close: bool = False,
) -> Iterator[Round]:
    """What `babble` does, one `Round` at a time; stop whenever you like, the graph is valid.

    Takes and raises what `babble` does.
    """
    threshold = threshold_of(task, threshold)
    if prompts is not None:
        prompts = prompts_of(prompts, task)
    found = search(
        generator,
        prompts,
        score=score_of(task, value, threshold, connectivity),
        strategy=default_strategy(threshold=threshold) if strategy is None else strategy,
        budget=budget_of(budget),
        seed=seed,
        graph=graph,
        close=close,
    )
    for each in found:
        each.graph.meta["threshold"] = threshold
        yield each
    if graph is not None:  # also one that was spent, and now is measured by another threshold
        graph.meta["threshold"] = threshold


def score_of(
    task: Task | None,
    value: Callable[..., Any] | None,
    threshold: float | None,
    connectivity: Connectivity | None = entropy_to_go,
) -> Score:
    """How a search scores: by the task and the value, by likelihood where there is neither verifier nor value.

    Raises:
        BadInput: a task without `verify`, which would search for nothing, or a value or a connectivity
            that is none.
    """
    if task is not None and not (hasattr(task, "verify") and (task.verify is None or callable(task.verify))):
        got = repr(task) if isinstance(task, str) else type(task).__name__
        raise BadInput(f"a task must have verify(prompt, text), or verify = None, got {got:.80}: add it")
    if connectivity is not None and not callable(connectivity):
        raise BadInput(
            f"a connectivity must be a function of a graph, or None, got {connectivity!r:.80}: pass entropy_to_go, say"
        )
    if value is None and not verifies(task):
        value = likelihood
    return Score(task, None if value is None else function_value(value), connectivity, threshold)


def threshold_of(task: Task | None, threshold: float | None) -> float | None:
    """What a score has to reach: what was asked for, 1 where there is a verifier.

    Raises:
        BadInput: a task that is a class, or a threshold that is not a finite number.
    """
    if isinstance(task, type):
        raise BadInput(f"a task must be an object, got the class {task.__name__}: pass {task.__name__}()")
    if threshold is not None and not (is_number(threshold) and math.isfinite(threshold)):  # as files keep it
        raise BadInput(f"a threshold must be a finite number, got {threshold!r:.80}: scores lie in 0 to 1")
    if threshold is None:
        return 1.0 if verifies(task) else None
    return float(threshold)  # a plain number: the graph's meta keeps it


def budget_of(budget: Budget | int) -> Budget:
    """What may be spent; a whole number of any type is sampled tokens for each prompt.

    Raises:
        BadInput: it is neither.
    """
    if isinstance(budget, Budget):
        return budget
    try:
        tokens = int(budget)
    except (TypeError, ValueError, OverflowError):
        tokens = None
    if tokens is None or tokens != budget:
        raise BadInput(f"a budget must be a Budget or a whole number of tokens, got {budget!r:.80}: give one")
    return Budget(tokens=tokens)


def prompts_of(prompts: Any, task: Task | None) -> Sequence[Any]:
    """A list of prompts, each as the task wants it; chats and token ids are as they are."""
    from babblegraph.lm.prompts import one_or_more  # which needs torch

    many = list(one_or_more(prompts))
    prepare = getattr(task, "prepare", None)
    return many if prepare is None else [prepare(p) if isinstance(p, str) else p for p in many]
