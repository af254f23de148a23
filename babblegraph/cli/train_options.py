"""What the options of `babblegraph train` mean: a run's settings, its prompts, and its value."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babblegraph.cli.bounds import MOST, check_positive
from babblegraph.cli.loading import choose, from_anywhere
from babblegraph.cli.options import SearchOptions, flag
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.learning import Settings

WRITTEN = {  # settings whose option has another name
    "prompts": "--batch-prompts", "power": "--lambda", "base_share": "--epsilon", "learning_rate": "--lr",
    "mode": "--lora", "lora_rank": "--lora",
}  # fmt: skip
FEW = 512  # prompts of a task, where a level takes all of them
FRESH, HELD_OUT = 8, 200  # levels of a task's own prompts until one is used again; prompts that are held out


def settings_of(preset: str, changed: dict[str, Any]) -> Settings:
    """A preset with what was typed; what is wrong with a setting is said of its option."""
    from babblegraph.learning.settings import COUNTS, PRESETS
    from babblegraph.learning.settings import preset as preset_of

    choose(preset, PRESETS, "--preset")
    for name in {*COUNTS, "replay"} & set(changed):
        if changed[name] > MOST:  # whatever else is wrong with it is said below
            check_positive(WRITTEN.get(name, flag(name)), changed[name])
    try:
        settings = preset_of(preset, **changed)
    except BadInput as wrong:
        name, _, rest = str(wrong).partition(" must be ")
        name = {"λ": "power", "a cap": "cap"}.get(name, name)
        if name not in changed:
            raise
        raise BadInput(f"{WRITTEN.get(name, flag(name))} must be {rest}") from wrong
    _refuse_idle(settings, changed)
    return settings


def _refuse_idle(settings: Settings, changed: dict[str, Any]) -> None:
    """What was typed and, beside the others and the preset, would change nothing."""
    alike = settings.rho is None and settings.top is None
    idle = {
        "keep": (settings.sampler != "frontier", "is of --sampler frontier"),
        "draws": (settings.sampler == "babble", "is of the samplers independent and frontier"),
        "epochs": (settings.steps is not None, "counts where --steps does not"),
        "replay": (
            settings.restart and settings.replay > 0,
            "is of --no-restart: else all levels are learned again",
        ),
        "pooled": (settings.pooled and alike, "is of a γ by --rho or --top"),
    }
    for name, (is_idle, why) in idle.items():
        if is_idle and name in changed:
            raise BadInput(f"{flag(name)} {why}, got it without: leave it out")


def remembered(
    directory: str, changed: dict[str, Any], preset: str | None, options: SearchOptions, held_out: str | None
) -> tuple[Settings, SearchOptions, str | None]:
    """What a run was begun with; more levels may be asked for, nothing else."""
    from babblegraph.learning import Settings

    saved = _config(directory)
    given = [flag(f.name) for f in fields(options) if getattr(options, f.name) != f.default]
    given += [WRITTEN.get(name, flag(name)) for name in changed if name != "levels"]
    given += ["--preset"] * (preset is not None) + ["--held-out"] * (held_out is not None)
    if given:
        raise BadInput(f"a resumed run goes on as it began, got {given[0]} too: only --levels may change")
    settings = Settings.from_json(saved["settings"])
    if "levels" in changed:
        check_positive("--levels", changed["levels"])
        settings = replace(settings, levels=changed["levels"])
    known: dict[str, Any] = {
        name: tuple(x) if isinstance(x, list) else x for name, x in saved["options"].items()
    }
    return settings, SearchOptions(**known), saved.get("held_out")


def _config(directory: str) -> dict[str, Any]:
    """What a run keeps of its beginning.

    Raises:
        BadInput: the folder is none of a run, such as that of one level, which has a model's own configuration.
    """
    from babblegraph.learning import Directory

    saved = Directory(directory).config()
    if not all(isinstance(saved.get(part), dict) for part in ("settings", "options")):
        level = Path(directory).absolute()
        run = level.parent.parent if level.parent.name == "levels" else None
        raise BadInput(
            "--resume must be the folder of a run, as --out made it, "
            f"got {directory!r}, whose config.json is no run's: take {str(run) if run else 'that one'}"
        )
    return saved


def prompts_of(plan: Any, settings: Settings) -> tuple[list[Any], list[Any] | None]:
    """What to learn on, and what is held out; None for a tenth of the former.

    Raises:
        BadInput: neither a file nor the task has prompts.
    """
    aside = None if plan.held_out is None else [problem.prompt for problem in plan.held_out]
    if plan.problems:
        return [problem.prompt for problem in plan.problems], aside
    from babblegraph.tasks.training import PROMPTS, task_prompts

    name = getattr(plan.task, "name", None)
    if name not in PROMPTS:
        got = "none" if plan.options.task is None else f"--task {plan.options.task}, which makes none"
        raise BadInput(
            f"a run needs prompts to learn on, got {got}: give --prompts FILE, or --task {' or '.join(PROMPTS)}"
        )
    enough = FRESH * (settings.prompts or FEW)
    found: list[Any] = task_prompts(name, "train", enough, plan.seed, fewer=True)
    if aside is None:
        aside = [*task_prompts(name, "validation", HELD_OUT, plan.seed, fewer=True)]
    return found, aside


def value_of(plan: Any, babbler: Any) -> Any:
    """The value that the user named; the judge is the base, whatever the generator becomes."""
    from babblegraph.cli import build

    options = plan.options
    if options.judge is not None:
        from babblegraph.scoring import JudgeValue

        return JudgeValue(babbler, options.judge, list(options.good), list(options.bad), frozen=True)
    return build.value(plan, babbler) if options.value or options.reward_model else None


def told(options: SearchOptions, held_out: str | None, begun: Path | None) -> dict[str, Any]:
    """What a run remembers of its options, as JSON takes it; files are found from any directory.

    Args:
        options, held_out: as typed.
        begun: the directory of a run that goes on; what it remembers stays as it is.
    """
    if begun is not None:
        saved = _config(str(begun))
        return {"options": saved["options"], "held_out": saved.get("held_out")}
    beside = ("chat", "system", "seed", "device", "trust_remote_code")
    kept = {**options.to_meta(), **{name: getattr(options, name) for name in beside}}
    kept["prompts"] = None if options.prompts is None else from_anywhere(options.prompts)
    plain = {name: x for name, x in kept.items() if x not in (None, (), False)}
    return {"options": plain, "held_out": None if held_out is None else from_anywhere(held_out)}
