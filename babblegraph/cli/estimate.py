"""`babblegraph estimate`: how likely the generator is to pass, with an interval."""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer

from babblegraph.cli.bounds import MOST_TREES, check_positive
from babblegraph.cli.declared import (
    Bad,
    Chat,
    Device,
    Good,
    Json,
    MaxNewTokens,
    Model,
    Prompts,
    RewardModel,
    Seconds,
    Seed,
    Span,
    System,
    Task,
    Threshold,
    TrustRemoteCode,
    ValueFunction,
)
from babblegraph.cli.estimate_output import NO_THRESHOLD, as_read, print_estimate
from babblegraph.cli.lines import complain
from babblegraph.cli.options import BUDGET, FILES, HOW, WORTH, SearchOptions, as_typed, flag
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.cli.interrupt import Interruptible
    from babblegraph.graph import BabbleGraph

TREES, TOKENS, WIDTH, KEEP, DRAWS = 32, 1000, 4, 16, "multinomial"
OF_READING = ("prompt", "threshold", "strategy")  # what a saved graph may be asked, or is anyway


def estimate(
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt; by default the task's first puzzle.", show_default=False),
    ] = None,
    task: Task = None,
    prompts: Prompts = None,
    chat: Chat = False,
    system: System = None,
    model: Model = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    threshold: Threshold = None,
    value: ValueFunction = None,
    reward_model: RewardModel = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="Let the model judge its own texts.", rich_help_panel=WORTH),
    ] = None,
    good: Good = None,
    bad: Bad = None,
    trees: Annotated[
        int | None,
        typer.Option(
            help=f"Independent repetitions of a prompt; {TREES} by default.", rich_help_panel=BUDGET
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            help=f"Sampled tokens for each tree, about; {TOKENS} by default.", rich_help_panel=BUDGET
        ),
    ] = None,
    seconds: Seconds = None,
    width: Annotated[
        int | None,
        typer.Option(
            "--width", "-n", help=f"Draws for each expansion; {WIDTH} by default.", rich_help_panel=HOW
        ),
    ] = None,
    draws: Annotated[
        str | None,
        typer.Option(
            help=f"How they go together: {DRAWS} (the default), systematic, distinct.", rich_help_panel=HOW
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(help=f"Nodes of a tree that go on; {KEEP} by default.", rich_help_panel=HOW),
    ] = None,
    span: Span = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A string that ends a node; may be repeated.", rich_help_panel=HOW),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of sampling; the estimate is of 1.", rich_help_panel=HOW)
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Biased: refused with the reason.", hidden=True)] = None,
    top_p: Annotated[float | None, typer.Option(help="Biased: refused with the reason.", hidden=True)] = None,
    seed: Seed = None,
    pass_at: Annotated[
        int | None,
        typer.Option(metavar="K", help="Also: that one of K texts passes.", rich_help_panel=HOW),
    ] = None,
    ratio: Annotated[
        bool,
        typer.Option("--ratio", help="Divide by the weights' sum: steadier, biased.", rich_help_panel=HOW),
    ] = False,
    graph: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Estimate from a saved graph instead.", rich_help_panel=FILES),
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the graph.", rich_help_panel=FILES)
    ] = None,
    json: Json = False,
) -> int:
    """Estimate how likely the generator is to pass, with an interval, from trees that keep unbiased weights.

    Of several prompts it is the mean.

    Exit status: 0 done (also where no text passed: then there is a bound), 2 bad input or biased weights, 130
    interrupted, after the round that went on; the graph is saved as it is then.
    """
    from babblegraph.cli.interrupt import Interruptible
    from babblegraph.cli.loading import check_writable
    from babblegraph.cli.output import aside, saved
    from babblegraph.graph_file import load
    from babblegraph.why_not import why_not

    _check(trees, keep, pass_at, top_k, top_p)
    if save is not None:
        check_writable(save, "--save")
    options = as_typed(
        prompt=prompt,
        prompts=prompts,
        task=task,
        chat=chat or None,
        system=system,
        model=model,
        device=device,
        trust_remote_code=trust_remote_code,
        threshold=threshold,
        value=value,
        reward_model=reward_model,
        judge=judge,
        good=good,
        bad=bad,
        tokens=TOKENS if tokens is None and graph is None else tokens,
        seconds=seconds,
        width=width,
        draws=draws,
        span=span,
        stop=stop,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        strategy="frontier",
    )
    if graph is not None:
        _refuse_growing(options, trees, keep)
    options.check()
    with aside(json), Interruptible(complain) as interrupt:
        how_many = TREES if trees is None else trees, KEEP if keep is None else keep
        searched = _grown(options, *how_many, interrupt) if graph is None else load(graph)
    problem = saved(searched, save)
    if interrupt.status is not None and (reason := why_not(searched)):
        where = "" if save is None or problem is not None else f", saved in {save}"
        complain(f"stopped before there is an estimate{where}: {reason}")
        if problem is not None:
            raise problem
        return interrupt.status
    # what was grown has all that was asked for, as the model reads it
    only = None if graph is None or prompt is None else as_read(searched, prompt)
    status = print_estimate(searched, only, threshold, ratio, pass_at, json)
    if problem is not None:
        raise problem
    return status


def _check(
    trees: int | None, keep: int | None, k: int | None, top_k: int | None, top_p: float | None
) -> None:
    check_positive("--trees", trees, MOST_TREES)
    check_positive("--keep", keep)
    check_positive("--pass-at", k)
    if trees is not None and trees < 2:
        raise BadInput(f"an interval needs two trees or more, got --trees {trees}: take {TREES}")
    for name, cut in (("--top-k", top_k), ("--top-p", top_p)):
        if cut is not None:
            raise BadInput(f"an estimate needs every text to be possible, got {name} {cut:g}: drop it")


def _refuse_growing(options: SearchOptions, trees: int | None, keep: int | None) -> None:
    given = [flag(f.name) for f in fields(options) if getattr(options, f.name) != f.default]
    given = [name for name in given if name not in map(flag, OF_READING)]
    given += [name for name, number in (("--trees", trees), ("--keep", keep)) if number is not None]
    if given:
        raise BadInput(f"--graph is estimated from as it was grown, got {given[0]} too: drop one")


def _grown(options: SearchOptions, trees: int, keep: int, interrupt: Interruptible) -> BabbleGraph:
    """A closed forest of one prompt, or of a file of them: the trees are its independent repetitions."""
    from babblegraph.api import prompts_of
    from babblegraph.cli import build
    from babblegraph.cli.problems import asked_of
    from babblegraph.cli.values import need_chat, need_room, said
    from babblegraph.loop import search
    from babblegraph.scoring import Score, entropy_to_go, likelihood
    from babblegraph.strategies import frontier, together

    plan = build.plan(options)
    if plan.threshold is None:  # before anything is spent
        raise BadInput(NO_THRESHOLD)
    asked = (plan.prompts or [])[: None if options.prompts is not None else 1]
    prompts = [each for each in asked for _ in range(trees)]
    plan = plan._replace(prompts=prompts)
    babbler = build.generator(plan)
    need_chat(plan, babbler)
    need_room(said(asked, plan), plan.task, babbler)
    value = build.value(plan, babbler) or (likelihood if plan.task is None else None)
    strategy = frontier(width=options.width or WIDTH, keep=keep, draws=options.draws or DRAWS)
    rounds = search(
        babbler,
        prompts_of(said(prompts, plan), plan.task),
        score=Score(plan.task, value, entropy_to_go, plan.threshold),
        strategy=strategy if len(asked) == 1 else together(strategy, max(trees, build.TOGETHER)),
        budget=plan.budget,
        seed=plan.seed,
        close=True,
    )
    last = deque(interrupt.until_stopped(rounds), maxlen=1)
    if not last:
        raise BadInput("the budget must allow at least one token, nothing was drawn: raise it")
    graph = last[0].graph
    graph.meta |= build.remembered(plan)
    if of_chats := asked_of(prompts, graph.prompts, bool(options.chat)):
        graph.meta["asked"] = of_chats
    return graph
