"""`babblegraph estimate`: how likely the generator is to pass, with an interval."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Annotated, Any

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
from babblegraph.cli.lines import complain, one_line
from babblegraph.cli.options import BUDGET, FILES, HOW, WORTH, SearchOptions, as_typed, flag
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.estimates import Estimate
    from babblegraph.graph import BabbleGraph

TREES, TOKENS, WIDTH, KEEP, DRAWS = 32, 1000, 4, 16, "multinomial"
NO_THRESHOLD = "an estimate needs a threshold, got none: add --threshold"
OF_GROWING = (
    *("task", "model", "value", "reward_model", "judge", "good", "bad", "seconds"),
    *("span", "stop", "max_new_tokens", "temperature", "seed"),
)


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
        int, typer.Option(help="Independent repetitions of a prompt.", rich_help_panel=BUDGET)
    ] = TREES,
    tokens: Annotated[
        int, typer.Option(help="Sampled tokens for each tree, about.", rich_help_panel=BUDGET)
    ] = TOKENS,
    seconds: Seconds = None,
    width: Annotated[
        int, typer.Option("--width", "-n", help="Draws for each expansion.", rich_help_panel=HOW)
    ] = WIDTH,
    draws: Annotated[
        str,
        typer.Option(help="How they go together: multinomial, systematic, distinct.", rich_help_panel=HOW),
    ] = DRAWS,
    keep: Annotated[int, typer.Option(help="Nodes of a tree that go on.", rich_help_panel=HOW)] = KEEP,
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

    Exit status: 0 done (also where no text passed: then there is a bound), 2 bad input or biased weights.
    """
    from babblegraph.cli.loading import check_writable
    from babblegraph.cli.output import aside

    _check(trees, keep, pass_at, top_k, top_p)
    for name, given in (("--prompts", prompts), ("--chat", chat or None), ("--system", system)):
        if graph is not None and given is not None:
            raise BadInput(f"--graph has prompts of its own, got {name} too: drop one")
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
        tokens=tokens,
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
    options.check()
    for name in OF_GROWING if graph is not None else ():
        if getattr(options, name) not in (None, ()):
            raise BadInput(f"--graph is estimated from as it was grown, got {flag(name)} too: drop one")
    with aside(json):
        searched = _grown(options, trees, keep) if graph is None else _loaded(graph, prompt)
    if save is not None:
        searched.save(save)
    only = (
        None if graph is None else prompt
    )  # what was grown has all that was asked for, as the model reads it
    return _print(searched, only, threshold, ratio, pass_at, json)


def _check(trees: int, keep: int, k: int | None, top_k: int | None, top_p: float | None) -> None:
    check_positive("--trees", trees, MOST_TREES)
    check_positive("--keep", keep)
    check_positive("--pass-at", k)
    if trees < 2:
        raise BadInput(f"an interval needs two trees or more, got --trees {trees}: take {TREES}")
    for name, cut in (("--top-k", top_k), ("--top-p", top_p)):
        if cut is not None:
            raise BadInput(f"an estimate needs every text to be possible, got {name} {cut:g}: drop it")


def _loaded(file: str, prompt: str | None) -> BabbleGraph:
    from babblegraph.graph_file import load

    graph = load(file)
    if prompt is not None and prompt not in graph.prompts:
        raise BadInput(f"PROMPT must be one of the graph's, got {prompt!r}: leave it out for all of them")
    return graph


def _grown(options: SearchOptions, trees: int, keep: int) -> BabbleGraph:
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
    last = deque(rounds, maxlen=1)
    if not last:
        raise BadInput("the budget must allow at least one token, nothing was drawn: raise it")
    graph = last[0].graph
    graph.meta |= build.remembered(plan)
    if of_chats := asked_of(prompts, graph.prompts, bool(options.chat)):
        graph.meta["asked"] = of_chats
    return graph


def _print(
    graph: BabbleGraph, prompt: str | None, threshold: float | None, ratio: bool, k: int | None, json: bool
) -> int:
    from babblegraph.estimates import probability
    from babblegraph.outcome import failed
    from babblegraph.passes import pass_at
    from babblegraph.why_not import why_not

    if reason := why_not(graph):
        raise BadInput(f"an estimate needs unbiased weights of finished texts, got none: {reason}")
    if threshold is None:
        threshold = graph.meta.get("threshold")
    if threshold is None:
        raise BadInput(NO_THRESHOLD)
    found = probability(graph, threshold, prompt=prompt, ratio=ratio)
    failure = failed(graph)
    if found.value is None and found.high is None:
        raise BadInput(f"an estimate needs finished texts with a score, got none: {failure}")
    if failure is not None:
        complain(str(failure))
    one_of = None if k is None else (k, pass_at(graph, threshold, k, prompt=prompt))
    said = _said(graph, prompt)
    if json:
        print(one_line(_as_json(graph, said, threshold, found, one_of)))
        return 0
    from babblegraph.view.console import PlainConsole
    from babblegraph.view.estimates import estimate_report
    from babblegraph.view.signs import signs_of

    console = PlainConsole()
    signs = signs_of(console.encoding)
    console.print(estimate_report(said, threshold, found, width=console.width, signs=signs, one_of=one_of))
    return 0


def _said(graph: BabbleGraph, prompt: str | None) -> str:
    """Whose estimate it is: the prompt's, or that of so many together."""
    prompts = list(dict.fromkeys(graph.prompts)) if prompt is None else [prompt]
    first: str = graph.meta.get("asked", {}).get(prompts[0], prompts[0])
    return first.strip() if len(prompts) == 1 else f"{len(prompts)} prompts, their mean"


def _as_json(
    graph: BabbleGraph, prompt: str, threshold: float, found: Estimate, one_of: tuple[int, Estimate] | None
) -> dict[str, Any]:
    import math

    names = (
        *("value", "error", "effective", "reason", "low", "high", "trees", "hits", "heaviest"),
        *("tokens", "independent_tokens", "warnings", "log_evidence", "divergence"),
    )
    fields = {name: getattr(found, name) for name in names}
    if one_of is not None:
        k, passes = one_of
        fields["pass_at"] = {"k": k} | {name: getattr(passes, name) for name in ("value", "low", "high")}
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
    run = {name: graph.meta.get(name) for name in ("model", "task", "seed")}
    return {"prompt": prompt, "threshold": threshold, **plain, **run}
