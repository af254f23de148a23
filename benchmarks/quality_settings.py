"""What `quality.py` compares: methods with their settings, and tasks with their generators and held-out prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from peers import quality as peers
from quality_claims import CONSTANT, COUNTED, OURS, PLAIN, VERDICT

import babblegraph as bg
from babblegraph.protocols import Strategy
from babblegraph.strategies import STRATEGIES
from babblegraph.tasks.chain import chains
from babblegraph.tasks.countdown_puzzles import hard_puzzles, puzzles
from babblegraph.tasks.queens import boards
from babblegraph.tasks.training import task_prompts

DEEP = 75  # there are hardly more boards of eight rows with two queens given in a split


class Method(NamedTuple):
    """A strategy with its settings, and what of the common knowledge it uses."""

    strategy: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    value: str = "learned"  # or "verdict", or "none": legality alone

    def make(self, threshold: float | None) -> Strategy:
        return STRATEGIES[self.strategy](**self.options, threshold=threshold)


METHODS = {
    COUNTED: Method("best-of-n", {"width": 1}, value="none"),
    CONSTANT: Method("babble", {"width": 1}, value="none"),
    OURS: Method("babble", {"width": 1}),
    VERDICT: Method("babble", {"width": 1}, value="verdict"),
    "best-first": Method("best-first", {"children": 2}),
    "puct": Method("puct", {"children": 2}),
    "adaptive": Method("adaptive"),
    "halving": Method("halving", {"actions": 4, "rollouts": 8}),
    "step-beam": Method("step-beam", {"width": 2, "children": 2}),
    "dvts": Method("dvts", {"subtrees": 2, "children": 2}),
    "lookahead": Method("lookahead", {"width": 2, "children": 2}),
    "particle-filter": Method("particle-filter", {"particles": 4, "again": True}),
}
LONG = (COUNTED, CONSTANT, OURS)  # run to the last budget on all puzzles
SAMPLED = {PLAIN: COUNTED}  # the same samples, of which each pays for all its tokens
EVERY = (*SAMPLED, *METHODS, *peers.NAMES)


class Setting(NamedTuple):
    """A task with the generator that knows it, and held-out prompts of both splits."""

    task: Any
    model: str
    prompts: Callable[[str, int], list[str]]
    judged: bool


SETTINGS = {
    "countdown": Setting(bg.Countdown(), "countdown", lambda s, n: list(puzzles(s, n, seed=1)), True),
    "countdown-hard": Setting(bg.Countdown(), "countdown", lambda s, n: hard_puzzles(s)[:n], True),
    "game24": Setting(
        bg.Game24(), "countdown", lambda s, n: task_prompts("game24", s, n, seed=1, fewer=True), True
    ),
    "chain": Setting(
        bg.tasks.Chain(), "chain", lambda s, n: list(chains(s, min(n, DEEP), seed=1, steps=8)), False
    ),
    "queens": Setting(
        bg.tasks.Queens(), "queens", lambda s, n: list(boards(s, min(n, DEEP), seed=1, size=8)), False
    ),
}
