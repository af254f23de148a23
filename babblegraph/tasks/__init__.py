"""Tasks by name: what the command's `--task` can be given."""

from collections.abc import Callable
from typing import Any

from babblegraph.tasks.chain import Chain
from babblegraph.tasks.countdown import Countdown, Game24
from babblegraph.tasks.queens import Queens

TASKS: dict[str, Callable[[], Any]] = {
    "countdown": Countdown,
    "game24": Game24,
    "chain": Chain,
    "queens": Queens,
}

__all__ = ["TASKS", "Chain", "Countdown", "Game24", "Queens"]
