"""The one-call façade of learning: `cem` yields one level at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babblegraph.api import prompts_of, score_of, threshold_of
from babblegraph.errors import BadInput
from babblegraph.learning import Directory, Run, Settings, preset
from babblegraph.protocols import Task

if TYPE_CHECKING:
    from babblegraph.learning import Ranks
    from babblegraph.lm import Babbler

HELD_OUT = 0.1  # the share of the prompts that is held out where none are given
FEWEST = 20  # prompts, of which a tenth may be held out


def cem(
    generator: Babbler,
    prompts: Sequence[Any],
    *,
    task: Task | None = None,
    value: Callable[..., Any] | None = None,
    threshold: float | None = None,
    held_out: Sequence[Any] | None = None,
    settings: Settings | None = None,
    directory: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    ranks: Ranks | None = None,
    say: Callable[[str, int, int], None] = lambda what, done, of: None,
    config: dict[str, Any] | None = None,
) -> Run:
    """Makes the generator better by what searches with it find: the cross-entropy method, level by level.

    Iterate over what it returns; each `Level` is done when it comes, and stopping between two of them loses nothing.
    `run.generators.current` is the generator as it is now. All weights learn in a copy, and the generator given stays
    what it is; with adapters (`mode="lora"`) they are put into its model.

    Args:
        generator: the base f.
        prompts: texts to learn on.
        task, value: as for `babble`.
        threshold: the final γ; 1 by default where there is a task. Without one the settings must say who is elite.
        held_out: prompts for the figures and the guard, never learned on; by default a tenth of the prompts where
            there are 20 or more. Empty: no figures, no guard.
        settings: how each level searches, chooses and learns; see `learning.Settings` and `learning.preset`, whose
            "broad" is the default.
        directory: where to keep the run; see `learning.Directory`.
        resume: go on with the run that is there.
        seed: the same seed gives the same run.
        ranks: processes that share the work; see `learning.launched`.
        say: told what is going on: (what, steps done, steps in all or 0).
        config: what else the directory is to remember: plain JSON.

    Raises:
        BadInput: no prompts, one that is empty or too long, prompts both learned on and held out, nothing that says
            who is elite, λ above 0 with truncation, or a directory with another run.

    >>> import babblegraph as bg
    >>> few = ["2 3 4>24", "3 5 7>38", "2 5 6>60", "4 5 6>26"]
    >>> settings = bg.Settings(levels=1, draws=4, epochs=1, batch=8)
    >>> run = bg.cem(bg.Babbler.embedded(), few, task=bg.Countdown(), held_out=["2 3 5>30"], settings=settings)
    >>> [level.number for level in run], run.levels[1].elite > 0
    ([0, 1], True)
    """
    from babblegraph.lm import Babbler  # which needs torch

    settings = preset("broad") if settings is None else settings
    if not isinstance(settings, Settings):
        raise BadInput(f"settings must be Settings, got {settings!r:.80}: pass Settings(...) or preset(...)")
    if not isinstance(generator, Babbler):
        raise BadInput(f"a generator that learns must be a Babbler, got {generator!r:.80}: make it one")
    if resume and directory is None:
        raise BadInput("only a run in a directory can be resumed, got none: pass directory")
    threshold = threshold_of(task, threshold)
    texts = _texts(prompts, task, generator)
    if held_out is None:
        texts = list(dict.fromkeys(texts))  # before a tenth is taken, so that none is on both sides
        n = round(HELD_OUT * len(texts)) if len(texts) >= FEWEST else 0
        texts, aside = texts[: len(texts) - n], texts[len(texts) - n :]
    else:
        aside = _texts(held_out, task, generator)
    return Run(
        generator,
        texts,
        score=score_of(task, value, threshold),
        threshold=threshold,
        settings=settings,
        held_out=aside,
        directory=None if directory is None else Directory(directory),
        resume=resume,
        seed=seed,
        ranks=ranks,
        say=say,
        config=config,
    )


def _texts(prompts: Sequence[Any], task: Any, generator: Babbler) -> list[str]:
    """Prompts as texts, so that each is learned on once; chats as the generator's template writes them."""
    from babblegraph.lm.prompts import written

    found = prompts_of(prompts, task)
    for one in found:
        chat = isinstance(one, Sequence) and len(one) > 0 and isinstance(one[0], Mapping)
        if not isinstance(one, str) and not chat:
            raise BadInput(
                f"a prompt to learn on must be a text or a chat, got {one!r:.60}: pass what it says"
            )
    return [one if isinstance(one, str) else written(one, generator.tokenizer) for one in found]
