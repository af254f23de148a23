"""babblegraph: tree-search decoding and self-improvement of language models."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from babblegraph import scoring, strategies, tasks
    from babblegraph.api import Answer, Result, babble, rounds
    from babblegraph.api_cem import cem
    from babblegraph.api_estimate import estimate, multilevel
    from babblegraph.budget import Budget
    from babblegraph.drop_in import generate
    from babblegraph.errors import BadInput
    from babblegraph.estimates import Estimate
    from babblegraph.graph import BabbleGraph
    from babblegraph.learning import Level, Settings, preset
    from babblegraph.lm import Babbler
    from babblegraph.loop import Round, search
    from babblegraph.protocols import Draws
    from babblegraph.tasks import Countdown, Game24

try:
    __version__ = version("babblegraph")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "Answer": "api",
    "Babbler": "lm",
    "BabbleGraph": "graph",
    "BadInput": "errors",
    "Budget": "budget",
    "Countdown": "tasks",
    "Draws": "protocols",
    "Estimate": "estimates",
    "Game24": "tasks",
    "Level": "learning",
    "Result": "api",
    "Round": "loop",
    "Settings": "learning",
    "babble": "api",
    "cem": "api_cem",
    "estimate": "api_estimate",
    "generate": "drop_in",
    "multilevel": "api_estimate",
    "preset": "learning",
    "rounds": "api",
    "search": "loop",
}

__all__ = [
    "Answer", "BabbleGraph", "Babbler", "BadInput", "Budget", "Countdown", "Draws", "Estimate", "Game24", "Level",
    "Result", "Round", "Settings", "babble", "cem", "estimate", "generate", "multilevel", "preset", "rounds",
    "scoring", "search", "strategies", "tasks",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that the command shows something before torch is loaded."""
    if name in _HOMES:
        return getattr(import_module(f"babblegraph.{_HOMES[name]}"), name)
    if name in ("scoring", "strategies", "tasks"):
        return import_module(f"babblegraph.{name}")
    raise AttributeError(f"module 'babblegraph' has no attribute {name!r}")
