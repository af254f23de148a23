"""The options of a search: what they are, which go together, and which values they may have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from babblegraph.cli.bounds import (
    LARGEST_MEMORY,
    LONGEST,
    check_named,
    check_positive,
    check_seed,
    check_text,
    check_threshold,
)
from babblegraph.cli.loading import choose, from_anywhere, unescaped, words
from babblegraph.errors import BadInput

JUDGES = ("value", "reward_model", "process_model", "judge")
AGGREGATES = ("min", "product", "mean", "last")
WHAT, WORTH, BUDGET, HOW, FILES = (
    "What to babble",
    "What it is worth",
    "Budget",
    "How to babble",
    "Files and output",
)
NAMES = (
    *("prompts", "task", "model", "strategy", "value", "reward_model", "process_model", "vote"),
    *("save", "resume", "device"),
)
TEXTS = ("system", "judge", "good", "bad", "separator", "stop")  # what a model reads or writes
OF_STRATEGY = ("width", "draws")  # they mean something else to another one, or nothing
OF_JUDGES = ("good", "bad", "separator", "aggregate")
RESTARTS = ("entropy", "routes", "novelty", "pagerank")
DRAWN = ("temperature", "top_k", "top_p", "width", "draws", "restarts", "span", "max_new_tokens")


@dataclass(frozen=True)
class SearchOptions:
    """What the user asked for; None where nothing was said. All fields are plain JSON.

    Args:
        prompt, prompts: a prompt, or a file of them.
        task, model, strategy: names.
        chat, system: whether a text is what a user says in a chat, and what the system says before.
        value, reward_model, process_model, judge, good, bad: who says what a node is worth.
        separator, aggregate: of the process model.
        vote: what of finished texts is compared, where they vote.
        blind: whether the verifier only marks the answers at the end.
        threshold: what a leaf's score has to reach.
        every: whether to go on after the first leaf that passes, or a vote that is decided.
        tokens, nodes, seconds: the budget.
        width: draws for each expansion.
        draws: how they go together.
        together: prompts that are searched side by side.
        restarts: the measure of connectivity by which old nodes are expanded again.
        span: tokens of a node at most.
        stop: strings that end a node.
        temperature, top_k, top_p, max_new_tokens: of sampling.
        seed: of everything random.
        save, resume: graph files.
        device, memory_limit, trust_remote_code: of the model; gigabytes of keys and values.
    """

    prompt: str | None = None
    prompts: str | None = None
    task: str | None = None
    model: str | None = None
    strategy: str | None = None
    chat: bool | None = None
    system: str | None = None
    value: str | None = None
    reward_model: str | None = None
    process_model: str | None = None
    separator: str | None = None
    aggregate: str | None = None
    judge: str | None = None
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    threshold: float | None = None
    every: bool | None = None
    vote: str | None = None
    blind: bool | None = None
    tokens: int | None = None
    nodes: int | None = None
    seconds: float | None = None
    width: int | None = None
    draws: str | None = None
    restarts: str | None = None
    together: int | None = None
    span: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    save: str | None = None
    resume: str | None = None
    device: str | None = None
    memory_limit: float | None = None
    trust_remote_code: bool = False

    def check(self) -> None:
        """Looks at all that can be seen without a model.

        Raises:
            BadInput: options that exclude each other, or a value out of bounds.
        """
        for name in NAMES:
            check_named(flag(name), getattr(self, name))
        for name in TEXTS:
            given = getattr(self, name) or ()
            for text in (given,) if isinstance(given, str) else given:
                check_text(flag(name), text)
        self._check_conflicts()
        for name in ("tokens", "nodes", "width", "together", "span", "max_new_tokens", "top_k"):
            check_positive(flag(name), getattr(self, name))
        check_positive("--seconds", self.seconds, LONGEST)
        check_positive("--memory-limit", self.memory_limit, LARGEST_MEMORY)
        check_seed(self.seed)
        check_threshold(self.threshold)
        if self.draws is not None:
            from babblegraph.protocols import Draws

            choose(self.draws, [way.value for way in Draws], "--draws")
        if self.restarts is not None:
            choose(self.restarts, RESTARTS, "--restarts")
        if self.aggregate is not None:
            choose(self.aggregate, AGGREGATES, "--aggregate")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise BadInput(
                f"--temperature must be above zero, got {self.temperature:g}: 1 leaves the model alone"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise BadInput(f"--top-p must be above 0 and at most 1, got {self.top_p:g}: 1 keeps every token")

    def to_meta(self) -> dict[str, Any]:
        """What a graph remembers of its run, so that it can be resumed from any directory: plain JSON."""
        saved = {name: getattr(self, name) for name in _REMEMBERED if getattr(self, name) not in (None, ())}
        saved |= {name: from_anywhere(x) for name, x in saved.items() if _is_place(name, x)}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in saved.items()}

    def resumed(self, saved: Mapping[str, Any]) -> SearchOptions:
        """These options, and what a graph remembers where they say nothing."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        other: tuple[str, ...] = ()  # what goes with something that now is another
        if any(said[name] is not None for name in JUDGES):
            other += (*JUDGES, *OF_JUDGES)
        if self.strategy not in (None, saved.get("strategy")):
            other += OF_STRATEGY
        for name in _REMEMBERED:
            if said[name] in (None, ()) and name in saved and name not in other:
                said[name] = tuple(saved[name]) if isinstance(saved[name], list) else saved[name]
        return SearchOptions(**said)

    def _check_conflicts(self) -> None:
        _one_of(self, "prompt", "prompts")
        _one_of(self, *JUDGES)
        for name in ("prompt", "prompts", "seed", "chat", "system"):
            if self.resume is not None and getattr(self, name) is not None:
                raise BadInput(
                    f"--resume goes on with the file's prompts and seed, got {flag(name)} too: drop one"
                )
        if self.system is not None and not self.chat:
            raise BadInput("--system is the first message of a chat, got it without one: add --chat")
        if self.chat and self.model in (None, "embedded"):
            raise BadInput("--chat needs a model with a chat template, got the embedded one: add --model DIR")
        for name in ("separator", "aggregate"):
            if getattr(self, name) is not None and self.process_model is None:
                raise BadInput(
                    f"{flag(name)} is of a process model, got it without one: add --process-model DIR"
                )
        if self.judge is not None and not (self.good and self.bad):
            raise BadInput(
                "--judge needs words for both verdicts, got too few: add --good WORDS and --bad WORDS"
            )
        if self.judge is None and (self.good or self.bad):
            raise BadInput(
                "--good and --bad are verdicts of a judge, got them without one: add --judge TEMPLATE"
            )


# What decides how a graph grows. Device, memory and trust in code are of the machine that goes on, not of the graph.
_REMEMBERED = (
    *("task", "model", "strategy", "threshold", "every", "stop", "vote", "blind", "together"),
    *(*JUDGES, *OF_JUDGES, *DRAWN),
)


def as_typed(
    *,
    judge: str | None = None,
    good: list[str] | None = None,
    bad: list[str] | None = None,
    stop: list[str] | None = None,
    separator: str | None = None,
    **others: Any,
) -> SearchOptions:
    r"""Options as a shell gives them: escapes that it leaves alone, and words with commas in between.

    >>> as_typed(stop=[r"\n"], good=["yes,right"]).stop, as_typed(good=["yes,right"]).good
    (('\n',), ('yes', 'right'))
    """
    return SearchOptions(
        judge=None if judge is None else unescaped(judge),
        good=words(good, "--good"),
        bad=words(bad, "--bad"),
        stop=tuple(unescaped(s) for s in stop or ()),
        separator=None if separator is None else unescaped(separator),
        **others,
    )


def flag(name: str) -> str:
    """How an option is written.

    >>> flag("top_k"), flag("prompt")
    ('--top-k', 'PROMPT')
    """
    return "PROMPT" if name == "prompt" else f"--{name.replace('_', '-')}"


def _is_place(name: str, given: Any) -> bool:
    """Whether an option names a file or a folder, and nothing that we know by its name."""
    if name in ("task", "vote"):
        return ".py:" in given
    return name in ("value", "reward_model", "process_model") or (name == "model" and given != "embedded")


def _one_of(options: SearchOptions, *names: str) -> None:
    given = [flag(name) for name in names if getattr(options, name) is not None]
    if len(given) > 1:
        raise BadInput(
            f"only one of {', '.join(map(flag, names))} can be used, got {' and '.join(given)}: drop one"
        )
