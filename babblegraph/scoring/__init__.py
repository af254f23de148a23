"""What nodes are worth: value functions, connectivity, and the stage of the loop that fills them in."""

from babblegraph.scoring.connectivity import entropy_to_go
from babblegraph.scoring.function import function_value
from babblegraph.scoring.judge import JudgeValue
from babblegraph.scoring.likelihood import likelihood
from babblegraph.scoring.reward_model import RewardModelValue
from babblegraph.scoring.score import Score

__all__ = ["JudgeValue", "RewardModelValue", "Score", "entropy_to_go", "function_value", "likelihood"]
