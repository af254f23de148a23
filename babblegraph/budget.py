"""What a search may spend and what it has spent, counted tree by tree."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.errors import BadInput

COUNTS = ("sampled", "forwarded", "prefilled", "scored", "nodes")


@dataclass(frozen=True)
class Budget:
    """Bounds; None means no bound. A search needs at least one of them, and stops at the first that is reached.

    Sampled tokens are never exceeded: a span is cut short where they end. Nodes and seconds are looked at before a
    round, which is then finished: a prompt gets new nodes as long as it has fewer than `nodes`, so that it may end
    with more, by at most what one round brings. Where a node is expanded into every next token (`ALL`, as in
    `token_beam` and `a_star`), that is one node for each token that the generator offers, of each node that is
    expanded: the whole vocabulary without `top_k`. There every new node also costs one sampled token, so `tokens`
    bounds both to the number.

    Args:
        tokens: sampled tokens for each prompt (unique tokens of its trie, pruned ones included).
        nodes: nodes for each prompt: all that were drawn, pruned and dead ones and splits included; its root, stems,
            and spans that were drawn again do not count.
        seconds: wall time for the whole search.

    Raises:
        BadInput: a bound that is no number, or not positive, or no bound at all.

    >>> Budget(tokens=400)
    Budget(tokens=400, nodes=None, seconds=None)
    """

    tokens: int | None = None
    nodes: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.tokens is None and self.nodes is None and self.seconds is None:
            raise BadInput("a budget needs a bound, got none: give tokens, nodes or seconds")
        for name in ("tokens", "nodes", "seconds"):
            bound = getattr(self, name)
            if bound is None:
                continue
            number = isinstance(bound, Real)
            if not number:
                raise BadInput(f"a budget must be a number, got {name}={bound!r:.80}: give {name}=400, say")
            if not bound > 0:
                raise BadInput(f"a budget must be above zero, got {name}={bound}: give a positive number")
            if name != "seconds" and bound != bound // 1:
                raise BadInput(f"a budget of {name} must be a whole number, got {bound}: round it")


@dataclass
class Meter:
    """Counts for each tree. The engine counts tokens where it calls the model, `search` counts nodes.

    sampled    new tokens of the trie, drawn from the generator; the unit that strategies are compared on
    forwarded  tokens pushed through the generator while decoding
    prefilled  prompt tokens, and tokens whose keys and values had been given up and were needed again
    scored     tokens pushed through judges and reward models
    """

    budget: Budget
    trees: int
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # each [trees]
    peak_slots: int = 0
    earlier_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in COUNTS:
            self.counts.setdefault(name, np.zeros(self.trees, np.int64))
        self._started = time.monotonic()

    def count(self, name: str, tree: NDArray[np.integer[Any]] | int, amount: ArrayLike = 1) -> None:
        """Adds `amount` to the counts of trees; a tree may be named more than once."""
        np.add.at(self.counts[name], tree, amount)

    @property
    def seconds(self) -> float:
        """Wall time since the search began, earlier sittings of a resumed one included."""
        return self.earlier_seconds + time.monotonic() - self._started

    def tokens_left(self) -> NDArray[np.int64]:
        """Sampled tokens that each tree may still draw, [trees]; 0 once any bound is reached."""
        left = np.full(self.trees, np.iinfo(np.int64).max)
        if self.budget.tokens is not None:
            left = np.maximum(self.budget.tokens - self.counts["sampled"], 0)
        if self.budget.nodes is not None:
            left[self.counts["nodes"] >= self.budget.nodes] = 0
        if self.budget.seconds is not None and self.seconds >= self.budget.seconds:
            left[:] = 0
        return left

    def nodes_left(self) -> NDArray[np.int64]:
        """Nodes that each tree may still get, [trees]."""
        if self.budget.nodes is None:
            return np.full(self.trees, np.iinfo(np.int64).max)
        return np.maximum(self.budget.nodes - self.counts["nodes"], 0)

    def share(self) -> float:
        """The share of the budget that is used, in [0, 1]: the largest over its bounds, averaged over trees."""
        used = [0.0]
        for name, bound in (("sampled", self.budget.tokens), ("nodes", self.budget.nodes)):
            if bound is not None:
                used.append(float(np.minimum(self.counts[name] / bound, 1).mean()))
        if self.budget.seconds is not None:
            used.append(min(1.0, self.seconds / self.budget.seconds))
        return max(used)

    def read(self) -> Spent:
        """The totals so far."""
        totals = {name: int(self.counts[name].sum()) for name in COUNTS}
        return Spent(**totals, seconds=self.seconds, peak_slots=self.peak_slots, share=self.share())

    def to_json(self) -> dict[str, Any]:
        """Everything that a resumed search needs, as plain JSON."""
        counts = {name: self.counts[name].tolist() for name in COUNTS}
        return {"counts": counts, "seconds": self.seconds, "peak_slots": self.peak_slots}

    @classmethod
    def resumed(cls, budget: Budget, trees: int, saved: Mapping[str, Any]) -> Meter:
        """A meter that goes on from what `to_json` saved."""
        counts = {name: np.asarray(saved["counts"][name], np.int64) for name in COUNTS}
        return cls(budget, trees, counts, int(saved["peak_slots"]), float(saved["seconds"]))


@dataclass(frozen=True)
class Spent:
    """What was spent, over all trees: tokens of four kinds, nodes, seconds, and the most K/V slots held at once."""

    sampled: int
    forwarded: int
    prefilled: int
    scored: int
    nodes: int
    seconds: float
    peak_slots: int
    share: float
