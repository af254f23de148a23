"""`babblegraph train-value`: fit a value head on a generator's own rollouts, and say how good it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from babblegraph.cli.bounds import check_positive
from babblegraph.cli.declared import Chat, Device, Json, Model, Prompts, System, Task, TrustRemoteCode
from babblegraph.cli.lines import one_line
from babblegraph.cli.options import FILES, HOW
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.scoring.fit import Fitted

PROMPTS = 50_000  # of the embedded generator; some 41,000 of them differ
COPIES = 4
TOGETHER, THREADS = 256, 4  # of the embedded generator: only many rows of it are worth threads


def train_value(
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the value goes.", rich_help_panel=FILES)],
    model: Model = None,
    task: Task = None,
    prompts: Prompts = None,
    chat: Chat = False,
    system: System = None,
    count: Annotated[
        int | None, typer.Option(help="How many of the training prompts to use.", rich_help_panel=HOW)
    ] = None,
    copies: Annotated[int, typer.Option(help="Rollouts of each prompt.", rich_help_panel=HOW)] = COPIES,
    threshold: Annotated[float, typer.Option(help="What a score has to reach.", rich_help_panel=HOW)] = 1.0,
    members: Annotated[int, typer.Option(help="Networks in the head.", rich_help_panel=HOW)] = 1,
    epochs: Annotated[int, typer.Option(help="Of the last fit.", rich_help_panel=HOW)] = 12,
    seed: Annotated[int, typer.Option(help="Of rollouts, split and weights.", rich_help_panel=HOW)] = 0,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
) -> int:
    """Fit a value head on a generator's own rollouts, and say how good it is on prompts it has not seen.

    A folder that is also the model's is found by `babblegraph search` by itself.
    """
    import torch

    from babblegraph.cli import build
    from babblegraph.cli.loading import check_folder
    from babblegraph.cli.options import SearchOptions
    from babblegraph.cli.output import aside
    from babblegraph.cli.values import need_chat, need_room
    from babblegraph.scoring import Score
    from babblegraph.scoring.collect import collect
    from babblegraph.scoring.fit import fit
    from babblegraph.scoring.learned import save, usual_layers
    from babblegraph.view.console import PlainConsole

    for name, number in (
        ("--count", count),
        ("--copies", copies),
        ("--members", members),
        ("--epochs", epochs),
    ):
        check_positive(name, number)
    given = SearchOptions(
        task=task,
        prompts=prompts,
        chat=chat or None,
        system=system,
        model=model,
        device=device,
        trust_remote_code=trust_remote_code,
        seed=seed,
        threshold=threshold,
    )
    console = PlainConsole()
    say = (lambda text: None) if json else console.print
    with aside(json):
        plan = build.plan(given, needs_prompt=False)
        if plan.task is None:
            raise BadInput("a value is learned from a verifier's verdicts, got no task: name one with --task")
        texts = _prompts(plan, count, seed)
        check_folder(out, "--out")
        say(f"loading the model {plan.model}")
        threads = torch.get_num_threads()
        babbler = build.generator(plan)
        need_chat(plan, babbler)
        need_room(texts, None, babbler)
        layers, started = usual_layers(babbler), time.perf_counter()
        report = _reporter(say, len(texts))
        how: dict[str, Any] = {"layers": layers, "copies": copies, "threshold": threshold, "seed": seed}
        if plan.model == build.EMBEDDED:
            how["together"] = TOGETHER
            torch.set_num_threads(min(threads, THREADS))
        data = collect(babbler, texts, Score(plan.task), progress=report, **how)
        collected = time.perf_counter() - started
        say(f"{data.rollouts:,} rollouts, {len(data.label):,} nodes, in {collected:.0f} s")
        fitted = fit(data, members=members, epochs=epochs, seed=seed, say=say)
        seconds = {
            "collecting": round(collected),
            "fitting": round(time.perf_counter() - started - collected),
        }
        notes: dict[str, Any] = {
            "rollouts": data.rollouts,
            "threshold": threshold,
            "seed": seed,
            "seconds": seconds,
        }
        save(out, babbler.fingerprint, fitted, layers, **notes)
    _print(fitted, out, notes, json, console)
    return 0


def _prompts(plan: Any, count: int | None, seed: int) -> list[Any]:
    """Training prompts, each once, as the model reads them: one that comes twice could be held out and learned from."""
    from babblegraph.cli.values import EMBEDDED, EMBEDDED_TASK, known

    if plan.problems:
        from babblegraph.api import prompts_of
        from babblegraph.cli.values import said

        found = prompts_of(said([problem.prompt for problem in plan.problems], plan), plan.task)
    elif plan.model == EMBEDDED and known(plan.task) == EMBEDDED_TASK:
        import random

        from babblegraph.embedded.data import training_puzzles

        found = training_puzzles(random.Random(seed), count or PROMPTS)
    else:
        raise BadInput("a value is learned on training prompts, got none: give a file with --prompts")
    return list({repr(prompt): prompt for prompt in found}.values())[:count]


def _reporter(say: Any, total: int) -> Any:
    """Says how far it is, every tenth."""
    steps = iter(range(1, 11))
    state = {"next": next(steps) * total / 10}

    def report(done: int) -> None:
        if done >= state["next"]:
            say(f"{done:,} of {total:,} prompts")
            while done >= state["next"]:
                state["next"] = next(steps, 11) * total / 10

    return report


def _print(fitted: Fitted, out: str, notes: dict[str, Any], json: bool, console: Any) -> None:
    if json:
        held = {str(depth): found.to_json() for depth, found in fitted.held_out.items()}
        print(one_line({"folder": out, "held_out": held, **notes}))
        return
    from rich.table import Table

    from babblegraph.view import figures

    table = Table(title=f"Held-out prompts: {fitted.prompts[1]:,}", title_justify="left")
    for name in ("depth", "nodes", "AUC within prompt", "Brier skill", "over base rate", "calibration error"):
        table.add_column(name, justify="right")
    for depth, found in fitted.held_out.items():
        table.add_row(
            str(depth),
            figures.count(found.nodes),
            f"{found.auc:.3f}",
            f"{found.skill:+.3f}",
            f"{found.skill_base:+.3f}",
            f"{found.calibration_error:.3f}",
        )
    console.print(table)
    console.print(f"saved in {out}")
