"""From options to a running search. The only file of the command line that knows the engine's calls.

Every import that may load torch is inside a function: the command has said something before it happens.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from babblegraph.budget import Budget
from babblegraph.cli.loading import Prompt, check_prompt, choose, load_function, read_prompts
from babblegraph.cli.options import SearchOptions
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.loop import Round

EMBEDDED, EMBEDDED_TASK, DEFAULT_STRATEGY = "embedded", "countdown", "babble"
DEFAULT_TOKENS = 4000  # for each prompt
OFFERED = 8  # next tokens, where a strategy looks at every one and the user does not say
WIDTHS = ("n", "particles", "subtrees", "width")  # what --width is called by one strategy or another


class Plan(NamedTuple):
    """All that is known before a model is loaded.

    Args:
        options: with the defaults and, on resuming, with what the graph remembers.
        prompts: as the user gave them; None on resuming.
        task: an object, or None.
        budget: bounds.
        graph: to go on with, or None.
        function: the user's value function, or None.
    """

    options: SearchOptions
    prompts: list[Prompt] | None
    task: Any
    budget: Budget
    graph: BabbleGraph | None
    function: Any

    @property
    def model(self) -> str:
        """The name of the generator."""
        return self.options.model or EMBEDDED

    @property
    def strategy(self) -> str:
        """The name of the strategy."""
        return self.options.strategy or DEFAULT_STRATEGY

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        return int(self.graph.meta["seed"]) if self.graph is not None else self.options.seed or 0

    @property
    def threshold(self) -> float | None:
        """What a leaf's score has to reach: with a verifier 1 by default."""
        if self.options.threshold is None and self.task is not None:
            return 1.0
        return self.options.threshold


def plan(options: SearchOptions, *, needs_prompt: bool = True) -> Plan:
    """Everything that can be made and checked in no time.

    Raises:
        BadInput: for whatever is wrong with the options.
    """
    from babblegraph.tasks import TASKS

    options.check()
    graph = None
    if options.resume is not None:
        from babblegraph.graph_file import load

        graph = load(options.resume)
        options = options.resumed(graph.meta.get("options", {}))
    choose(options.strategy or DEFAULT_STRATEGY, strategy_names(), "--strategy")
    name = options.task or (EMBEDDED_TASK if options.model in (None, EMBEDDED) else None)
    task = TASKS[choose(name, TASKS, "--task")]() if name is not None else None
    written = options.value is not None and not Path(options.value).is_dir()  # a folder has a learned value
    function = load_function(str(options.value)) if written else None
    bounds: dict[str, Any] = {"tokens": options.tokens, "nodes": options.nodes, "seconds": options.seconds}
    if not any(bounds.values()):
        bounds = (graph.meta.get("budget") if graph is not None else None) or {"tokens": DEFAULT_TOKENS}
    prompts = _prompts(options, task) if graph is None and needs_prompt else None
    found = Plan(options, prompts, task, Budget(**bounds), graph, function)
    _strategy(found)  # so that what is wrong with its options is said before a model is loaded
    return found


def strategy_names() -> list[str]:
    """The strategies that `--strategy` can name."""
    from babblegraph.strategies import STRATEGIES

    return list(STRATEGIES)


def rounds(plan: Plan) -> Iterator[Round]:
    """Loads the model and begins the search; each round's graph remembers how it was made."""
    from babblegraph import api

    babbler = generator(plan)
    found = api.rounds(
        babbler,
        plan.prompts,
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
    from transformers.utils import logging

    from babblegraph.lm import Babbler

    logging.disable_progress_bar()  # its bars would be drawn across the view
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
    if options.device is not None:
        how["device"] = options.device
    if plan.model == EMBEDDED:
        torch.set_num_threads(1)  # so small a model only loses by threads that wait for each other
        return Babbler.embedded(task=_known(plan.task), **how)
    return Babbler.from_pretrained(plan.model, trust_remote_code=options.trust_remote_code, **how)


def value(plan: Plan, generator: Any) -> Any:
    """The value that the user asked for; else the embedded generator's own verdict, or what the task says."""
    options = plan.options
    if plan.function is not None:
        from babblegraph.scoring import function_value

        return function_value(plan.function)
    if options.value is not None:
        return _learned(plan, generator)
    if options.reward_model is not None:
        from babblegraph.scoring import RewardModelValue

        return RewardModelValue.from_pretrained(options.reward_model)
    if options.judge is not None:
        from babblegraph.scoring import JudgeValue

        return JudgeValue(generator, options.judge, list(options.good), list(options.bad))
    if (learned := _learned(plan, generator)) is not None:
        return learned
    if plan.model == EMBEDDED and _known(plan.task) == EMBEDDED_TASK:  # the others give no verdict
        from babblegraph.scoring import JudgeValue

        return JudgeValue(generator)
    return None


def _known(task: Any) -> str:
    """The task whose embedded generator goes with a task."""
    from babblegraph.lm.babbler import SHIPPED

    name = getattr(task, "name", "")
    return name if name in SHIPPED else EMBEDDED_TASK


def _offered(plan: Plan) -> int | None:
    """How many next tokens the generator offers to a strategy that makes each of them a node; None for all."""
    from babblegraph.strategies import EVERY_TOKEN

    return OFFERED if plan.strategy in EVERY_TOKEN else None


def _learned(plan: Plan, generator: Any) -> Any:
    """The value head in the folder that the user named, else the one beside the model's weights, if there is one."""
    from babblegraph.lm.babbler import EMBEDDED as HOME
    from babblegraph.scoring.learned import LearnedValue, is_there

    if plan.options.value is not None:
        return LearnedValue.from_folder(generator, plan.options.value)
    if plan.model == EMBEDDED and _known(plan.task) != EMBEDDED_TASK:
        return None
    folder = HOME if plan.model == EMBEDDED else plan.model
    return LearnedValue.from_folder(generator, folder) if is_there(folder) else None


def _strategy(plan: Plan) -> Any:
    from babblegraph.strategies import STRATEGIES

    how: dict[str, Any] = {}
    make = STRATEGIES[plan.strategy]
    takes = inspect.signature(make).parameters
    if plan.options.width is not None:
        named = [name for name in WIDTHS if name in takes]
        if not named:
            raise BadInput(f"--width is not for {plan.strategy}, got {plan.options.width}: leave it out")
        how[named[0]] = plan.options.width
    if plan.options.draws is not None:
        if "draws" not in takes:
            raise BadInput(
                f"--draws needs the strategy frontier, got {plan.strategy!r}: add --strategy frontier"
            )
        how["draws"] = plan.options.draws
    if "threshold" in takes and not plan.options.every:
        how["threshold"] = plan.threshold
    return _restarting(make(**how), plan)


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


def _prompts(options: SearchOptions, task: Any) -> list[Prompt]:
    if options.prompts is not None:
        found = read_prompts(options.prompts)
    elif options.prompt is not None:
        found = [options.prompt]
    elif task is not None:
        found = list(getattr(task, "prompts", ()))
    else:
        found = []
    if not found:
        raise BadInput(
            "a search needs a prompt, got none: write it after `search`, or use --prompts or --task"
        )
    for prompt in found:
        check_prompt(prompt)
        if isinstance(prompt, str) and hasattr(task, "prepare"):
            task.prepare(prompt)
    return found


def remembered(plan: Plan) -> dict[str, Any]:
    """What a graph's meta keeps of the command that grew it."""
    saved = {"model": plan.model, "threshold": plan.threshold, "options": plan.options.to_meta()}
    if plan.task is not None:
        saved["task"] = getattr(plan.task, "name", type(plan.task).__name__)
    return saved


def _remembering(found: Iterator[Round], plan: Plan) -> Iterator[Round]:
    saved = remembered(plan)
    for one in found:
        one.graph.meta |= saved
        yield one
