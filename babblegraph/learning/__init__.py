"""The cross-entropy method on language models: the generator learns from its own elite."""

from babblegraph.learning.directory import Directory
from babblegraph.learning.level import Level
from babblegraph.learning.ranks import Ranks, launched
from babblegraph.learning.run import Run
from babblegraph.learning.settings import PRESETS, Settings, preset

__all__ = ["PRESETS", "Directory", "Level", "Ranks", "Run", "Settings", "launched", "preset"]
