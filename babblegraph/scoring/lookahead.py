"""Lookahead as a value: a few rollouts from a node, and what is made of them on average."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.protocols import Chosen, Draws, verifies
from babblegraph.randomness import Rng
from babblegraph.scoring.contain import note_failure
from babblegraph.scoring.function import function_value
from babblegraph.scoring.score import Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from babblegraph.graph import BabbleGraph
    from babblegraph.protocols import Generator, Task

COUNTED = ("sampled", "forwarded", "prefilled", "scored")


class LookaheadValue:
    """The mean score of a few continuations, drawn from a node and not kept.

    A continuation that is finished counts with its score, one that is cut off with the value where it stands.
    The rollouts' tokens are counted like any others, sampled ones too: a lookahead is no gift. Their random
    numbers are keyed by the seed and the node's text. Where the task or the value fails on a rollout, it is worth 0 and
    its node marked.

    Args:
        generator: what babbles; it must take token ids as prompts, as `Babbler` does.
        task: scores finished texts, marks dead ones.
        value: of texts that are cut off, and of all where no task verifies; a cut-off text is worth 0 without.
        rollouts: how many from each node.
        spans: how many spans each goes on, at most.
        seed: of the rollouts.

    Raises:
        BadInput: neither a task that verifies nor a value, or a number below one.

    Source: design/scoring.md, "Value", 5.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        task: Task | None = None,
        value: Callable[..., Any] | None = None,
        rollouts: int = 4,
        spans: int = 4,
        seed: int = 0,
    ) -> None:
        if not verifies(task) and value is None:
            raise BadInput("a lookahead needs a task or a value, got neither: what is a rollout worth?")
        if rollouts < 1 or spans < 1:
            raise BadInput(f"rollouts and spans must be at least 1, got {rollouts} and {spans}: raise them")
        self.generator, self.task, self.value = generator, task, value
        self.rollouts, self.spans, self.seed = rollouts, spans, seed

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        """Values of nodes, [M] in [0, 1]."""
        if not len(ids):
            return np.zeros(0)
        texts = [graph.path_tokens(i).tolist() for i in ids.tolist()]
        ahead = self.generator.start(texts, self.seed)
        ahead.meta["fingerprint"] = graph.meta.get("fingerprint")
        ahead.prompts = [
            _Began(p, graph.prompt(i), graph.text(i))
            for p, i in zip(ahead.prompts, ids.tolist(), strict=True)
        ]
        own = Meter(Budget(seconds=np.inf), ahead.trees)
        self._roll(ahead, own)
        for failure in ahead.failures:
            note_failure(graph, ids[ahead.root[failure["node"]]], failure["error"], failure["text"])
        for name in COUNTED:
            meter.count(name, graph.root[ids], own.counts[name])
        ends = np.setdiff1d(np.arange(ahead.trees, ahead.size), ahead.parent)  # nothing was drawn below
        worth = np.nan_to_num(np.where(ahead.is_leaf(ends), ahead.score[ends], ahead.value[ends]))
        drawn = np.bincount(ahead.root[ends], ahead.count[ends], minlength=ahead.trees)
        total = np.bincount(ahead.root[ends], ahead.count[ends] * np.clip(worth, 0, 1), minlength=ahead.trees)
        return np.where(drawn > 0, total / np.maximum(drawn, 1), np.nan)

    def _roll(self, ahead: BabbleGraph, own: Meter) -> None:
        """Draws on below every node, one span a round."""
        value = _nothing if self.value is None else function_value(self.value)
        score = Score(self.task and _Continued(self.task), value)
        rng = Rng(self.seed)
        going: NDArray[Any] = np.arange(ahead.trees)
        draws = np.full(ahead.trees, self.rollouts)
        try:
            for _ in range(self.spans):
                if not len(going):
                    return
                ahead.round += 1
                born = ahead.add(
                    self.generator.expand(ahead, Chosen(going, draws), rng, own, Draws.MULTINOMIAL)
                )
                score(ahead, born, own)
                going = born[~ahead.is_leaf(born)]
                draws = ahead.count[going].astype(np.intp)
        finally:
            self.generator.release(ahead, np.arange(ahead.size))


class _Began(str):
    """The whole text of a node, which knows where its prompt ends: "12" may be "1" and "2", or a prompt alone."""

    prompt: str
    text: str

    def __new__(cls, whole: str, prompt: str, text: str) -> _Began:
        began = super().__new__(cls, whole)
        began.prompt, began.text = prompt, text
        return began


class _Continued:
    """A task as it is asked about texts that began as the text of a node."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def verify(self) -> Any:  # of a `_Began` and a text; None where the task has none
        return self._whole("verify") if verifies(self._task) else None

    def __getattr__(self, name: str) -> Any:
        if name == "seconds":
            return getattr(self._task, name, None)
        if name not in ("value", "done", "state"):
            raise AttributeError(name)
        return None if getattr(self._task, name, None) is None else self._whole(name)

    def _whole(self, name: str) -> Callable[[_Began, str], Any]:
        asked = getattr(self._task, name)

        @wraps(asked)  # a failure is told by its name
        def whole(prompt: _Began, text: str) -> Any:
            return asked(prompt.prompt, prompt.text + text)

        return whole


def _nothing(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
    return np.zeros(len(ids))
