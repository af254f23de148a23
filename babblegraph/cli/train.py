"""`babblegraph train`: the generator learns from its own best texts, level by level."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babblegraph.cli.bounds import check_named
from babblegraph.cli.declared import (
    Bad,
    Chat,
    Device,
    Good,
    Model,
    Prompts,
    RewardModel,
    Span,
    System,
    Task,
    TrustRemoteCode,
    ValueFunction,
)
from babblegraph.cli.options import FILES, HOW, WHAT, WORTH, SearchOptions, as_typed
from babblegraph.cli.train_options import prompts_of, remembered, settings_of, told, value_of
from babblegraph.errors import BadInput
from babblegraph.processes import place

if TYPE_CHECKING:
    from babblegraph.cli.train_output import Output
    from babblegraph.learning import Run, Settings

DONE = 0
ELITE, LEARN, GUARD = "Who is elite", "How to learn", "How to be sure"


def train(
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="A new directory for the run.", rich_help_panel=FILES)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="DIR", help="Go on with a run.", rich_help_panel=FILES)
    ] = None,
    task: Task = None,
    prompts: Prompts = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Prompts never learned on; a tenth by default.", rich_help_panel=WHAT
        ),
    ] = None,
    chat: Chat = False,
    system: System = None,
    model: Model = None,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    value: ValueFunction = None,
    reward_model: RewardModel = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE", help="Let the base judge: words behind a text.", rich_help_panel=WORTH
        ),
    ] = None,
    good: Good = None,
    bad: Bad = None,
    threshold: Annotated[
        float | None, typer.Option(help="The final γ; 1 with a task.", rich_help_panel=WORTH)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="broad (the default; thousands of prompts), narrow (prompts of one kind), expert (expert iteration), "
            "cem (weighted) or raft (best-of-n).",
            rich_help_panel=LEARN,
        ),
    ] = None,
    levels: Annotated[int | None, typer.Option(help="Searches and updates.", rich_help_panel=LEARN)] = None,
    batch_prompts: Annotated[
        int | None, typer.Option(help="Prompts of a level.", rich_help_panel=HOW)
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="independent, frontier or babble.", rich_help_panel=HOW)
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option("--draws", "-n", help="Samples of a prompt, or below a node.", rich_help_panel=HOW),
    ] = None,
    more: Annotated[
        int | None, typer.Option(help="Samples more where none has passed.", rich_help_panel=HOW)
    ] = None,
    trees: Annotated[int | None, typer.Option(help="Repetitions of a prompt.", rich_help_panel=HOW)] = None,
    keep: Annotated[int | None, typer.Option(help="Nodes of a tree that go on.", rich_help_panel=HOW)] = None,
    tokens: Annotated[
        int | None,
        typer.Option(help="Sampled for a tree, at most.", rich_help_panel=HOW),
    ] = None,
    span: Span = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="A string that ends a node.", rich_help_panel=HOW)
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Tokens of a text, at most.", rich_help_panel=HOW)
    ] = None,
    power: Annotated[
        float | None,
        typer.Option("--lambda", help="λ: 1 weighs toward the base, 0 not at all.", rich_help_panel=ELITE),
    ] = None,
    base_share: Annotated[
        float | None, typer.Option("--epsilon", help="Share of trees from the base.", rich_help_panel=ELITE)
    ] = None,
    rho: Annotated[
        float | None, typer.Option(help="Share of the weight that is elite.", rich_help_panel=ELITE)
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="The k best texts of a prompt.", rich_help_panel=ELITE)
    ] = None,
    pooled: Annotated[
        bool | None, typer.Option("--pooled", help="One γ for all prompts.", rich_help_panel=ELITE)
    ] = None,
    cap: Annotated[
        int | None, typer.Option(help="Texts of a prompt, at most.", rich_help_panel=ELITE)
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="N of the soft elite F(S)^(N-1).", rich_help_panel=ELITE)
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="β of the soft elite exp(S/β).", rich_help_panel=ELITE)
    ] = None,
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", help="Train adapters of this rank.", rich_help_panel=LEARN)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="At its peak.", rich_help_panel=LEARN)
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the elite.", rich_help_panel=LEARN)] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of the optimiser, in place of epochs.", rich_help_panel=LEARN)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Texts of a step.", rich_help_panel=LEARN)] = None,
    kl_previous: Annotated[
        float | None, typer.Option(help="α, to the level before.", rich_help_panel=LEARN)
    ] = None,
    kl_base: Annotated[float | None, typer.Option(help="β, to the base.", rich_help_panel=LEARN)] = None,
    restart: Annotated[
        bool | None,
        typer.Option("--restart/--no-restart", help="From the base at each level.", rich_help_panel=LEARN),
    ] = None,
    replay: Annotated[
        int | None, typer.Option(help="Earlier levels to learn again.", rich_help_panel=LEARN)
    ] = None,
    average: Annotated[
        float | None, typer.Option(help="Share of the weights before in the new ones.", rich_help_panel=LEARN)
    ] = None,
    value_head: Annotated[
        bool | None,
        typer.Option(
            "--value-head/--no-value-head", help="Fit a value anew at each level.", rich_help_panel=LEARN
        ),
    ] = None,
    held_draws: Annotated[int | None, typer.Option(help="k of pass@k.", rich_help_panel=GUARD)] = None,
    entropy_drop: Annotated[
        float | None, typer.Option(help="Share of the entropy whose loss alarms.", rich_help_panel=GUARD)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same run.", rich_help_panel=HOW)
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write its events too.", rich_help_panel=FILES)
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a level only.", rich_help_panel=FILES)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing.", rich_help_panel=FILES)
    ] = False,
) -> int:
    """Let the generator learn from its own best texts, level by level (the cross-entropy method).

    Each level searches many prompts, keeps the elite, moves the generator toward it, and measures it on held-out
    prompts. A run that was stopped in any way goes on with --resume DIR.
    """
    given = {
        "levels": levels, "prompts": batch_prompts, "sampler": sampler, "draws": draws, "more": more, "trees": trees,
        "keep": keep, "tokens": tokens, "power": power, "base_share": base_share, "rho": rho, "top": top,
        "pooled": pooled, "cap": cap, "rank": rank, "beta": beta, "learning_rate": learning_rate, "epochs": epochs,
        "steps": steps, "batch": batch, "kl_previous": kl_previous, "kl_base": kl_base, "restart": restart,
        "replay": replay, "average": average,
        "value_head": value_head, "held_draws": held_draws, "entropy_drop": entropy_drop, "lora_rank": lora,
        "mode": None if lora is None else "lora",
    }  # fmt: skip
    changed = {name: one for name, one in given.items() if one is not None}
    options = as_typed(
        prompts=prompts, task=task, model=model, value=value, reward_model=reward_model, judge=judge,
        good=good, bad=bad, threshold=threshold, span=span, stop=stop, chat=chat or None, system=system,
        max_new_tokens=max_new_tokens, seed=seed, device=device, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    if (out is None) == (resume is None):
        raise BadInput(
            "a run needs --out DIR to begin or --resume DIR to go on, got both or neither: give one"
        )
    for name, one in {"--out": out, "--resume": resume, "--preset": preset, "--held-out": held_out}.items():
        check_named(name, one)
    from babblegraph.learning import Directory

    if resume is not None:
        settings, options, held_out = remembered(resume, changed, preset, options, held_out)
    else:
        settings = settings_of("broad" if preset is None else preset, changed)
        if place().first:  # which may have begun before another process comes here
            Directory(str(out)).need_new()
    if json and quiet:
        raise BadInput("--json prints one object a level and --quiet nothing, got both: drop one")
    how = {"json": json, "quiet": quiet, "tensorboard": tensorboard}
    return _run(options, settings, held_out, Path(out or resume or ""), resume is not None, how)


def _run(
    options: SearchOptions,
    settings: Settings,
    held_out: str | None,
    directory: Path,
    resume: bool,
    how: dict[str, bool],
) -> int:
    from babblegraph.cli import build
    from babblegraph.cli.interrupt import status_of
    from babblegraph.cli.output import aside
    from babblegraph.cli.train_output import Output

    output = Output(**how)  # first: it keeps the standard output that the user's functions are kept from
    with aside(output.quiet):
        plan = build.plan(options, needs_prompt=False, more=held_out)
        texts, held = prompts_of(plan, settings)
        config = told(options, held_out, directory if resume else None)
        with output:
            try:
                output.say(f"loading the model {plan.model}", 0, 0)
                run = _begun(plan, texts, held, settings, directory, resume, output, config)
                if not run.prompts.held_out:
                    output.tell(
                        "no prompts are held out, so there are no figures of them and no guard: add --held-out"
                    )
                output.levels = list(run.levels)
                for level in run:
                    output.done(level, directory)
            except KeyboardInterrupt as stopped:
                go_on = (
                    f"all finished levels are kept: babblegraph train --resume {shlex.quote(str(directory))}"
                )
                begun = (directory / "config.json").is_file()
                output.tell(f"stopped; {go_on if begun else 'the run had not begun'}")
                return status_of(stopped)
    return DONE


def _begun(
    plan: Any,
    texts: list[Any],
    held: list[Any] | None,
    settings: Settings,
    directory: Path,
    resume: bool,
    output: Output,
    config: dict[str, Any],
) -> Run:
    from babblegraph.api_cem import cem
    from babblegraph.cli import build
    from babblegraph.cli.values import need_chat, need_room, said
    from babblegraph.learning import launched

    ranks = launched()  # first, since it chooses the device of this process
    babbler = build.generator(plan)
    need_chat(plan, babbler)
    need_room(said([*texts, *(held or [])], plan), plan.task, babbler)
    value = value_of(plan._replace(prompts=[*texts, *(held or [])]), babbler)
    return cem(
        babbler,
        said(texts, plan),
        task=plan.task,
        value=value,
        threshold=plan.threshold,
        held_out=None if held is None else said(held, plan),
        settings=settings,
        directory=directory,
        resume=resume,
        seed=plan.seed,
        ranks=ranks,
        say=output.say,
        config=config,
    )
