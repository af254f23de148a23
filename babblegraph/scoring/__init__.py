"""What nodes are worth: value functions, connectivity, and the stage of the loop that fills them in."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from babblegraph.scoring.compose import cascade, geometric_mean, product
from babblegraph.scoring.connectivity import entropy_to_go
from babblegraph.scoring.elite import elite_routes, novelty
from babblegraph.scoring.function import function_value
from babblegraph.scoring.likelihood import likelihood
from babblegraph.scoring.lookahead import LookaheadValue
from babblegraph.scoring.node_states import NodeStates
from babblegraph.scoring.pagerank import pagerank
from babblegraph.scoring.score import Score

if TYPE_CHECKING:
    from babblegraph.scoring.judge import JudgeValue
    from babblegraph.scoring.learned import LearnedValue
    from babblegraph.scoring.process_model import ProcessModelValue
    from babblegraph.scoring.reward_model import RewardModelValue

_HOMES = {
    "JudgeValue": "judge",
    "LearnedValue": "learned",
    "ProcessModelValue": "process_model",
    "RewardModelValue": "reward_model",
}

__all__ = [
    "JudgeValue", "LearnedValue", "LookaheadValue", "NodeStates", "ProcessModelValue", "RewardModelValue", "Score",
    "cascade", "elite_routes", "entropy_to_go", "function_value", "geometric_mean", "likelihood", "novelty", "pagerank",
    "product",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Values that run a model load torch, and so are imported when they are first used."""
    if name in _HOMES:
        return getattr(import_module(f"babblegraph.scoring.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'babblegraph.scoring' has no attribute {name!r}")
