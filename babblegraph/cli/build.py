"""From options to a running search. The only file of the command line that knows the engine's calls.

Every import that may load torch is inside a function: the command has said something before it happens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from babblegraph.budget import Budget
from babblegraph.cli.loading import Problem, Prompt, choose, load_function, read_problems
from babblegraph.cli.options import SearchOptions
from babblegraph.cli.problems import asked_of, prompts_of, task_of
from babblegraph.cli.resuming import check_model
from babblegraph.cli.settling import (
    VOTING_STRATEGY,
    ballot_of,
    blinded,
    forget,
    stopped_by_votes,
    usual_tokens,
)
from babblegraph.cli.values import EMBEDDED, EMBEDDED_TASK, known, need_chat, need_room, said, value
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.loop import Round
from babblegraph.protocols import verifies
from babblegraph.strategies import EVERY_TOKEN, STRATEGIES, together
from babblegraph.tasks import TASKS, Answers

DEFAULT_STRATEGY = "babble"
TOGETHER = 32  # prompts that are searched side by side
OFFERED = 8  # next tokens, where a strategy looks at every one and the user does not say
WIDTHS = ("n", "particles", "subtrees", "width")  # what --width is called by one strategy or another


class Plan(NamedTuple):
    """All that is known before a model is loaded.

    Args:
        options: with the defaults and, on resuming, with what the graph remembers.
        prompts: as the user gave them; None on resuming.
        task: an object, or None; blind where its verifier only marks the answers at the end.
        budget: bounds.
        graph: to go on with, or None.
        function: the user's value function, or None.
        ballot: what of a text the vote compares, or None.
        marker: the task that marks the answers at the end, or None.
        problems, held_out: what the files of prompts ask, read once: a pipe has it only once.
    """

    options: SearchOptions
    prompts: list[Prompt] | None
    task: Any
    budget: Budget
    graph: BabbleGraph | None
    function: Any
    ballot: Callable[[str], str | None] | None = None
    marker: Any = None
    problems: Sequence[Problem] = ()
    held_out: Sequence[Problem] | None = None

    @property
    def model(self) -> str:
        """The name of the generator."""
        return self.options.model or EMBEDDED

    @property
    def strategy(self) -> str:
        """The name of the strategy."""
        return self.options.strategy or (DEFAULT_STRATEGY if self.ballot is None else VOTING_STRATEGY)

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        return int(self.graph.meta["seed"]) if self.graph is not None else self.options.seed or 0

    @property
    def threshold(self) -> float | None:
        """What a leaf's score has to reach: with a verifier 1 by default. One that only marks asks for nothing."""
        if self.marker is not None:
            return None
        if self.options.threshold is None and verifies(self.task):
            return 1.0
        return self.options.threshold


def plan(options: SearchOptions, *, needs_prompt: bool = True, more: str | None = None) -> Plan:
    """Everything that can be made and checked in no time.

    Args:
        options: as typed.
        needs_prompt: whether there must be one.
        more: a second file of problems, those that are held out; the task has to know their answers too.

    Raises:
        BadInput: for whatever is wrong with the options.
    """
    options.check()
    graph = None
    if options.resume is not None:
        from babblegraph.graph_file import load

        graph = load(options.resume)
        options = options.resumed(graph.meta.get("options", {}))
    choose(options.strategy or DEFAULT_STRATEGY, STRATEGIES, "--strategy")
    name = options.task or (EMBEDDED_TASK if options.model in (None, EMBEDDED) else None)
    problems = [] if options.prompts is None else read_problems(options.prompts)
    held_out = None if more is None else read_problems(more)
    if options.chat and name in TASKS:
        raise BadInput(f"--chat is for tasks that read chats, got --task {name}: leave --chat out")
    task = task_of(name, [*problems, *(held_out or ())], None if graph is None else graph.meta.get("answers"))
    seen, marker = blinded(task, options)
    written = options.value is not None and not Path(options.value).is_dir()  # a folder has a learned value
    function = load_function(str(options.value)) if written else None
    ballot = None if options.vote is None else ballot_of(options.vote)
    bounds: dict[str, Any] = {"tokens": options.tokens, "nodes": options.nodes, "seconds": options.seconds}
    if not any(bounds.values()):
        bounds = (graph.meta.get("budget") if graph is not None else None) or {
            "tokens": usual_tokens(options)
        }
    prompts = prompts_of(options, task, problems) if graph is None and needs_prompt else None
    found = Plan(
        options, prompts, seen, Budget(**bounds), graph, function, ballot, marker, problems, held_out
    )
    _strategy(found)  # so that what is wrong with its options is said before a model is loaded
    return found


def rounds(plan: Plan) -> Iterator[Round]:
    """Loads the model and begins the search; each round's graph remembers how it was made."""
    from babblegraph import api

    babbler = generator(plan)
    if plan.graph is not None:
        check_model(plan.graph, babbler)
    need_chat(plan, babbler)
    prompts = None if plan.prompts is None else said(plan.prompts, plan)
    need_room(prompts or (), plan.task, babbler)
    found = api.rounds(
        babbler,
        prompts,
        task=plan.task,
        value=value(plan, babbler),
        strategy=_strategy(plan),
        budget=plan.budget,
        threshold=plan.threshold,
        seed=plan.seed,
        graph=plan.graph,
    )
    return _remembering(found, plan)


def generator(plan: Plan) -> Any:
    """The model that the user asked for, ready to babble."""
    import torch
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    from babblegraph.lm import Babbler

    logging.disable_progress_bar()  # its bars would be drawn across the view
    logging.set_verbosity_error()  # what is wrong with a model is said in one line,
    hub.set_verbosity_error()  # and so is a hub that cannot be reached
    options = plan.options
    how: dict[str, Any] = {
        "temperature": 1.0 if options.temperature is None else options.temperature,
        "top_k": options.top_k or _offered(plan),
        "top_p": options.top_p,
        "span": options.span,
        "max_new_tokens": options.max_new_tokens,
    }
    if stop := options.stop or tuple(getattr(plan.task, "stop", ())):
        how["stop"] = stop
    if options.memory_limit is not None:
        how["memory_limit"] = int(options.memory_limit * 1e9)
    if options.device is not None:
        how["device"] = options.device
    if plan.model == EMBEDDED:
        torch.set_num_threads(1)  # so small a model only loses by threads that wait for each other
        return Babbler.embedded(task=known(plan.task), **how)
    return Babbler.from_pretrained(plan.model, trust_remote_code=options.trust_remote_code, **how)


def _offered(plan: Plan) -> int | None:
    """How many next tokens the generator offers to a strategy that makes each of them a node; None for all."""
    return OFFERED if plan.strategy in EVERY_TOKEN else None


def _strategy(plan: Plan) -> Any:
    how: dict[str, Any] = {}
    make = STRATEGIES[plan.strategy]
    takes = inspect.signature(make).parameters
    if plan.options.width is not None:
        named = [name for name in WIDTHS if name in takes]
        if not named:
            raise BadInput(f"--width is not for {plan.strategy}, got {plan.options.width}: leave it out")
        how[named[0]] = plan.options.width
    if plan.options.span is not None and plan.strategy in EVERY_TOKEN and plan.graph is None:
        raise BadInput(
            f"--span is not for {plan.strategy}, whose nodes are single tokens, got {plan.options.span}: leave it out"
        )
    if plan.options.draws is not None:
        if "draws" not in takes:
            raise BadInput(
                f"--draws needs the strategy frontier, got {plan.strategy!r}: add --strategy frontier"
            )
        how["draws"] = plan.options.draws
    if "threshold" in takes and not plan.options.every:
        how["threshold"] = plan.threshold
    strategy = _restarting(stopped_by_votes(make(**how), plan), plan)
    prompts = len(plan.prompts or ()) if plan.graph is None else plan.graph.trees
    most = plan.options.together or TOGETHER
    return strategy if prompts <= most else together(strategy, most)


def _restarting(strategy: Any, plan: Plan) -> Any:
    """The same strategy, which also goes back by the measure of `--restarts`, where one is named."""
    if plan.options.restarts is None:
        return strategy
    from babblegraph import scoring
    from babblegraph.strategies import with_restarts

    elite = 1.0 if plan.threshold is None else plan.threshold
    measures = {
        "entropy": lambda: scoring.entropy_to_go,
        "routes": lambda: scoring.elite_routes(elite),
        "novelty": scoring.novelty,
        "pagerank": lambda: scoring.pagerank(elite),
    }
    return with_restarts(strategy, measures[plan.options.restarts]())


def remembered(plan: Plan) -> dict[str, Any]:
    """What a graph's meta keeps of the command that grew it."""
    # a model that goes on is the same, wherever it lies now
    before = {} if plan.graph is None else plan.graph.meta
    saved = {
        "model": before.get("model", plan.model),
        "threshold": plan.threshold,
        "options": plan.options.to_meta(),
    }
    if (task := plan.marker or plan.task) is not None:
        saved["task"] = getattr(task, "name", type(task).__name__)
        if isinstance(task, Answers):
            saved["answers"] = task.answers
    return saved


def _remembering(found: Iterator[Round], plan: Plan) -> Iterator[Round]:
    saved = remembered(plan)
    for one in found:
        one.graph.meta |= saved
        if asked := asked_of(plan.prompts or one.graph.prompts, one.graph.prompts, bool(plan.options.chat)):
            one.graph.meta["asked"] = asked
        if plan.prompts is not None and plan.prompts != one.graph.prompts:
            one.graph.meta["given"] = plan.prompts
        forget(one.graph)
        yield one
