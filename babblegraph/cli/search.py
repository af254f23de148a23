"""`babblegraph search`: grow a babble graph for a prompt, watch it, and print the best answer."""

from __future__ import annotations

from typing import Annotated

import typer

from babblegraph.cli.declared import (
    Aggregate,
    Bad,
    Blind,
    Chat,
    Device,
    Good,
    Json,
    MaxNewTokens,
    MemoryLimit,
    Model,
    ProcessModel,
    Prompts,
    RewardModel,
    Seconds,
    Seed,
    Separator,
    Span,
    System,
    Task,
    Threshold,
    Together,
    TrustRemoteCode,
    Vote,
)
from babblegraph.cli.lines import complain
from babblegraph.cli.options import BUDGET, FILES, HOW, WORTH, SearchOptions, as_typed
from babblegraph.errors import BadInput


def search(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; by default a puzzle of the task.", show_default=False)
    ] = None,
    task: Task = None,
    prompts: Prompts = None,
    chat: Chat = False,
    system: System = None,
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
    process_model: ProcessModel = None,
    separator: Separator = None,
    aggregate: Aggregate = None,
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
        bool | None,
        typer.Option(
            "--all/--no-all",
            help="Go on after an answer passes or a vote is decided.",
            rich_help_panel=WORTH,
            show_default=False,
        ),
    ] = None,
    vote: Vote = None,
    blind: Blind = False,
    tokens: Annotated[
        int | None, typer.Option(help="Sampled tokens for each prompt.", rich_help_panel=BUDGET)
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes for each prompt.", rich_help_panel=BUDGET)] = None,
    seconds: Seconds = None,
    memory_limit: MemoryLimit = None,
    strategy: Annotated[
        str | None, typer.Option(help="How to search; babble by default.", rich_help_panel=HOW)
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            "--width", "-n", help="Draws for each expansion; texts of best-of-n.", rich_help_panel=HOW
        ),
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
    together: Together = None,
    span: Span = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="A string that ends a node, such as '\\n'; may be repeated.", rich_help_panel=HOW),
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
        typer.Option(
            metavar="FILE",
            help="Write the graph, also on Ctrl-C; by default where --resume read it.",
            rich_help_panel=FILES,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Go on with a saved graph, and save it there unless --save names another file.",
            rich_help_panel=FILES,
        ),
    ] = None,
    json: Json = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print the answers only, of several prompts one a line.",
            rich_help_panel=FILES,
        ),
    ] = False,
) -> int:
    """Grow a babble graph for a prompt, watch it, and print the best answer.

    Without any argument: the model that ships with the package and its default puzzle.
    Exit status: 0 every prompt has an answer (that passes the threshold), 1 one has none, 2 bad input.
    """
    options = as_typed(
        prompt=prompt,
        prompts=prompts,
        task=task,
        chat=chat or None,
        system=system,
        model=model,
        strategy=strategy,
        value=value,
        reward_model=reward_model,
        process_model=process_model,
        separator=separator,
        aggregate=aggregate,
        judge=judge,
        good=good,
        bad=bad,
        threshold=threshold,
        every=every,
        vote=vote,
        blind=blind or None,
        tokens=tokens,
        nodes=nodes,
        seconds=seconds,
        width=width,
        draws=draws,
        restarts=restarts,
        together=together,
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
        memory_limit=memory_limit,
        trust_remote_code=trust_remote_code,
    )
    if json and quiet:
        raise BadInput("--json prints one object and --quiet the answers, got both: drop one")
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
    from babblegraph.cli.output import aside, saved, show, status
    from babblegraph.cli.resuming import why_idle
    from babblegraph.cli.settling import settle
    from babblegraph.view.console import PlainConsole
    from babblegraph.view.live import View

    file, back = options.save, options.resume if options.save is None else None
    if file is not None:
        check_writable(file, "--save")
    with aside(json or quiet):
        plan = build.plan(options)
        if back is not None:
            check_writable(back, "--resume without --save")
        view = View(PlainConsole(), plan.budget, quiet=quiet, moving=not json)
        graph, grew = plan.graph, False
        try:
            with view, Interruptible(view.say) as interrupt:
                view.say(f"loading the model {plan.model}")
                found = build.rounds(plan)
                view.say("babbling")
                for one in view.follow(interrupt.until_stopped(found)):
                    graph, grew = one.graph, True
                    file = file or back  # which is left as it was until something is added
            if graph is not None:
                settle(graph, plan)
        finally:
            problem = saved(graph, file)
    show(graph, plan, json, quiet, view)
    if problem is not None:
        raise problem
    if plan.graph is not None and not grew:
        complain(why_idle(plan.graph, plan.budget, str(options.resume)))
    elif file is not None and file == back and not (json or quiet):
        complain(f"saved in {file}")
    return interrupt.status or status(graph, plan)
