"""Tasks by name: what the command's `--task` can be given."""

from collections.abc import Callable
from typing import Any

from babblegraph.tasks.countdown import Countdown, Game24

TASKS: dict[str, Callable[[], Any]] = {"countdown": Countdown, "game24": Game24}

__all__ = ["TASKS", "Countdown", "Game24"]
