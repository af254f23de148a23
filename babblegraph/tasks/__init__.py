"""Tasks by name: what the command's `--task` can be given; `Answers` needs a file of problems with their answers."""

from collections.abc import Callable
from typing import Any

from babblegraph.tasks.answers import Answers
from babblegraph.tasks.blind import Blind
from babblegraph.tasks.chain import Chain
from babblegraph.tasks.countdown import Countdown, Game24
from babblegraph.tasks.queens import Queens

TASKS: dict[str, Callable[[], Any]] = {
    "countdown": Countdown,
    "game24": Game24,
    "chain": Chain,
    "queens": Queens,
}

__all__ = ["TASKS", "Answers", "Blind", "Chain", "Countdown", "Game24", "Queens"]
