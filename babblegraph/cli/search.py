"""`babblegraph search`: grow a babble graph for a prompt, watch it, and print the best answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from babblegraph.cli.declared import (
    Bad,
    Device,
    Good,
    Json,
    MaxNewTokens,
    Model,
    RewardModel,
    Seconds,
    Seed,
    Span,
    Task,
    Threshold,
    TrustRemoteCode,
)
from babblegraph.cli.options import BUDGET, FILES, HOW, WHAT, WORTH, SearchOptions, as_typed
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.cli.build import Plan
    from babblegraph.graph import BabbleGraph
    from babblegraph.view.live import View

DONE, NONE_PASSES = 0, 1


def search(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; by default a puzzle of the task.", show_default=False)
    ] = None,
    task: Task = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Many prompts: one a line, or JSON Lines with "prompt".',
            rich_help_panel=WHAT,
        ),
    ] = None,
    model: Model = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    value: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="A Python function of texts, or a folder of train-value.",
            rich_help_panel=WORTH,
        ),
    ] = None,
    reward_model: RewardModel = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="Let the model judge: a text to put behind its own.",
            rich_help_panel=WORTH,
        ),
    ] = None,
    good: Good = None,
    bad: Bad = None,
    threshold: Threshold = None,
    every: Annotated[
        bool, typer.Option("--all", help="Go on after the first answer that passes.", rich_help_panel=WORTH)
    ] = False,
    tokens: Annotated[
        int | None, typer.Option(help="Sampled tokens for each prompt.", rich_help_panel=BUDGET)
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes for each prompt.", rich_help_panel=BUDGET)] = None,
    seconds: Seconds = None,
    strategy: Annotated[
        str | None, typer.Option(help="How to search; babble by default.", rich_help_panel=HOW)
    ] = None,
    width: Annotated[
        int | None, typer.Option("--width", "-n", help="Draws for each expansion.", rich_help_panel=HOW)
    ] = None,
    draws: Annotated[
        str | None,
        typer.Option(help="How they go together: multinomial, systematic, distinct.", rich_help_panel=HOW),
    ] = None,
    restarts: Annotated[
        str | None,
        typer.Option(
            help="Go back to old nodes by connectivity: entropy, routes, novelty, pagerank.",
            rich_help_panel=HOW,
        ),
    ] = None,
    span: Span = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="A string that ends a node, such as '\\\\n'; may be repeated.", rich_help_panel=HOW
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Annotated[float | None, typer.Option(help="Of sampling.", rich_help_panel=HOW)] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Keep the k likeliest tokens.", rich_help_panel=HOW)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the likeliest tokens up to this share.", rich_help_panel=HOW)
    ] = None,
    seed: Seed = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the graph, also on Ctrl-C.", rich_help_panel=FILES),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="FILE", help="Go on with a saved graph.", rich_help_panel=FILES)
    ] = None,
    json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the answers only.", rich_help_panel=FILES)
    ] = False,
) -> int:
    """Grow a babble graph for a prompt, watch it, and print the best answer.

    Without any argument: the model that ships with the package and its default puzzle.
    Exit status: 0 done, 1 no answer passes the threshold, 2 bad input.
    """
    options = as_typed(
        prompt=prompt,
        prompts=prompts,
        task=task,
        model=model,
        strategy=strategy,
        value=value,
        reward_model=reward_model,
        judge=judge,
        good=good,
        bad=bad,
        threshold=threshold,
        every=every,
        tokens=tokens,
        nodes=nodes,
        seconds=seconds,
        width=width,
        draws=draws,
        restarts=restarts,
        span=span,
        stop=stop,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        seed=seed,
        save=save,
        resume=resume,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    return run(options, json=json, quiet=quiet)


def run(options: SearchOptions, *, json: bool = False, quiet: bool = False) -> int:
    """Searches, shows, saves, and prints.

    Args:
        options: what the user asked for.
        json: print one JSON object, nothing else.
        quiet: print the answers, nothing else.
    Returns:
        The exit status.
    Raises:
        BadInput: for whatever is wrong with the options.
    """
    from babblegraph.cli import build
    from babblegraph.cli.interrupt import Interruptible
    from babblegraph.cli.loading import check_writable
    from babblegraph.view.console import PlainConsole
    from babblegraph.view.live import View

    if options.save is not None:
        check_writable(options.save, "--save")
    plan = build.plan(options)
    view = View(PlainConsole(), plan.budget, quiet=quiet, moving=not json)
    graph = plan.graph
    try:
        with view, Interruptible(view.say) as interrupt:
            view.say(f"loading the model {plan.model}")
            found = build.rounds(plan)
            view.say("babbling")
            for one in view.follow(interrupt.until_stopped(found)):
                graph = one.graph
    finally:
        problem = _save(graph, options.save)
    _print(graph, plan, json, quiet, view)
    if problem is not None:
        raise problem
    return interrupt.status or _status(graph, plan)


def _save(graph: BabbleGraph | None, file: str | None) -> BadInput | None:
    """Saves the graph, and gives back what went wrong: the answer is printed all the same."""
    from babblegraph.graph_file import save

    if graph is not None and file is not None:
        try:
            save(graph, file)
        except BadInput as problem:
            return problem
    return None


def _print(graph: BabbleGraph | None, plan: Plan, json: bool, quiet: bool, view: View) -> None:
    from babblegraph import __version__
    from babblegraph.cli.output import as_json

    if graph is None:
        return
    if json:
        seconds = graph.meta.get("spent", {}).get("seconds", 0.0)
        run = {"seconds": seconds, "seed": plan.seed, "model": plan.model, "strategy": plan.strategy}
        run["engine"] = graph.meta.get("engine")
        print(as_json(graph, plan.prompts, **run, version=__version__))
    elif quiet:
        for tree in range(graph.trees):
            for node in graph.best(1, tree=tree):
                print(_safe(graph.text(node)))
    else:
        view.report(graph)


def _status(graph: BabbleGraph | None, plan: Plan) -> int:
    from babblegraph.cli.output import all_passed

    if graph is None:
        return DONE if plan.threshold is None else NONE_PASSES
    return DONE if all_passed(graph, plan.threshold) else NONE_PASSES


def _safe(text: str) -> str:
    """The text as it is for a pipe; on a terminal without anything that the terminal would obey."""
    from babblegraph.view.signs import signs_of
    from babblegraph.view.text import visible

    if not sys.stdout.isatty():
        return text.rstrip("\n")
    signs = signs_of(sys.stdout.encoding)
    return "\n".join(visible(line, signs) for line in text.rstrip("\n").split("\n"))
