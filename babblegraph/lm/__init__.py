"""All that touches a language model."""

from babblegraph.lm.babbler import Babbler

__all__ = ["Babbler"]
