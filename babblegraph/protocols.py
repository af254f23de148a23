"""The few types that the rooms agree on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.born import Born
from babblegraph.budget import Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.randomness import Rng

ALL = 0  # as a number of draws: expand into every possible next token


class Draws(Enum):
    """How the draws of one expansion go together."""

    MULTINOMIAL = "multinomial"  # each for itself, with replacement
    SYSTEMATIC = "systematic"  # m points at equal distances: a span is drawn m q times, rounded up or down
    DISTINCT = "distinct"  # without replacement: m different spans
    FRESH = "fresh"  # with replacement, but never a span that is there already (biased: only to solve)

    @classmethod
    def named(cls, way: Draws | str) -> Draws:
        """The way of this name, or itself.

        Raises:
            BadInput: there is none.
        """
        try:
            return cls(way)
        except ValueError:
            names = ", ".join(each.value for each in cls)
            raise BadInput(f"draws must be one of {names}, got {way!r}: see protocols.Draws") from None


@dataclass
class Contest:
    """Draws without replacement that go on over several expansions: the nodes of a tree compete with each other.

    What a node is worth is its perturbed log-probability: log q plus a Gumbel number that is the largest of those
    of all texts below it.
    """

    perturbed: NDArray[np.float64]  # [F] of the chosen nodes; NaN where it is still to be drawn
    joined: NDArray[
        np.bool_
    ]  # [F] whether a node takes part; the children of another one compete among themselves
    bound: NDArray[np.float64]  # [trees] the best that each tree has lost so far; `expand` raises it
    born: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    # [M] what the new nodes are worth, from `expand`; NaN below nodes that did not take part

    def keep(self, chosen: NDArray[np.integer[Any]] | NDArray[np.bool_], more: int = 0) -> None:
        """Of the chosen nodes only some are expanded, and as many more that take no part."""
        self.perturbed = np.r_[self.perturbed[chosen], np.full(more, np.nan)]
        self.joined = np.r_[self.joined[chosen], np.zeros(more, np.bool_)]


class Chosen(NamedTuple):
    """What to expand in one round: distinct node ids, and how many draws each gets (or `ALL`)."""

    ids: NDArray[np.intp]  # [F]
    draws: NDArray[np.intp]  # [F] of all that take part in a contest of one tree, the same
    contest: Contest | None = None  # for `Draws.DISTINCT`
    waiting: NDArray[np.bool_] | None = None  # [trees] whose turn is still to come; None for no tree

    def __len__(self) -> int:  # the number of nodes, so that an empty choice ends the search
        return len(self.ids)

    def only(self, kept: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Chosen:
        """Some of these nodes, by their places or a mask; a contest goes on among them."""
        if self.contest is not None:
            self.contest.keep(kept)
        return Chosen(self.ids[kept], self.draws[kept], self.contest, self.waiting)


@runtime_checkable
class Generator(Protocol):
    """What babbles. `lm.Babbler` is one for any causal language model."""

    def start(self, prompts: Sequence[Any], seed: int) -> BabbleGraph:
        """A graph with one root a prompt."""
        ...

    def expand(self, graph: BabbleGraph, chosen: Chosen, rng: Rng, meter: Meter, draws: Draws) -> Born:
        """Draws spans below the chosen nodes. The next `graph.add` must be of what this returns."""
        ...

    def release(self, graph: BabbleGraph, ids: ArrayLike) -> None:
        """Gives up the keys and values of nodes; they can be had again at the price of a prefill."""
        ...


class Scorer(Protocol):
    """Fills value and connectivity of new nodes, the score of leaves, and marks dead and finished ones."""

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.int32], meter: Meter) -> None: ...


class Select(Protocol):
    """Which nodes to expand next; an empty choice ends the search.

    It may be asked again before anything is expanded, as where prompts take turns: then it is the last answer that
    counts, and nothing may be held back twice.
    """

    def __call__(self, graph: BabbleGraph, meter: Meter) -> Chosen: ...


class Prune(Protocol):
    """Stops nodes: sets their status, gate and log_inclusion, and returns the ids of all that it stopped."""

    def __call__(self, graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]: ...


class Task(Protocol):
    """A kind of problem with a verifier. Only `verify` is required.

    A task may also have, each optional:
        name: str
        prompts: Sequence[str], what to solve when the user gives none
        stop: tuple[str, ...], the strings that end one step of a solution
        prepare(prompt) -> str, the model's prompt for what a user typed; raises BadInput
        value(prompt, text) -> float in [0, 1], where 0 means provably dead
        state(prompt, text) -> str | None, a key that is equal for partial texts with the same future
        done(prompt, text) -> bool, whether nothing more needs to be generated
        seconds: float | None, that one call of `verify` may take, in a thread of its own; None, the default, for no
            limit and no thread, since verifiers may set signals to limit themselves, which threads may not
    """

    def verify(self, prompt: str, text: str) -> float:
        """The score of a finished text, in [0, 1]. None in place of the method: a value scores finished texts.

        Any finite number is kept as the score, ranked and compared with the threshold; outside of [0, 1] the search
        takes it for 0 or 1.
        """
        ...


def verifies(task: Task | None) -> bool:
    """Whether there is a task that scores finished texts."""
    return getattr(task, "verify", None) is not None


class Strategy(NamedTuple):
    """A way to search: who is expanded next, who is stopped, and what the weights are worth."""

    name: str
    select: Select
    prune: Prune
    aim: str = "solve"  # or "estimate": unbiased weights, pruning is final
    draws: Draws = Draws.MULTINOMIAL
    contest: bool = False  # the nodes of a tree compete on: nothing else may stop one or change its weight


class ValueFunction(Protocol):
    """A value of nodes: (graph, ids [M], meter) -> [M] in [0, 1], NaN where it failed."""

    def __call__(
        self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter
    ) -> NDArray[np.floating] | Iterable[float]: ...
