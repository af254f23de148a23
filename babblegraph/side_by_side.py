"""Prompts that are searched side by side, as many as the memory holds the keys and values of."""

from __future__ import annotations

from babblegraph.at_once import AtOnce

PROMPTS = 256  # whose keys and values are kept until all their samples have ended


class SideBySide(AtOnce):
    """Searches some prompts at a time. No sample depends on how many: random numbers belong to prompts.

    Args:
        prompts: of one search at first.
    """

    def __init__(self, prompts: int | None = None) -> None:
        super().__init__(prompts or PROMPTS, "prompts side by side")
