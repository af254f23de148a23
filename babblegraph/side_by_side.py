"""Prompts that are searched side by side, as many as the memory holds the keys and values of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from babblegraph.at_once import AtOnce, Found

PROMPTS = 256  # whose keys and values are kept until all their samples have ended


class SideBySide(AtOnce):
    """Searches some prompts at a time. No sample depends on how many: random numbers belong to prompts.

    Args:
        prompts: of one search at first.
    """

    def __init__(self, prompts: int | None = None) -> None:
        super().__init__(prompts or PROMPTS, "prompts side by side")

    def parts(self, search: Callable[[slice], Found], prompts: int) -> Iterator[tuple[Found, slice]]:
        """What a search finds that is told which prompts to search, until all have been; at least once."""
        begun = 0
        while True:

            def part(at_once: int, begun: int = begun) -> tuple[Found, slice]:
                some = slice(begun, begun + at_once)
                return search(some), some

            found, some = self(part, most=prompts - begun)
            yield found, some
            if (begun := some.stop) >= prompts:
                return
