"""How many prompts are searched side by side, as far as the memory holds their keys and values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from babblegraph.errors import NoRoom, is_lack_of_memory

AT_ONCE = 256  # prompts whose keys and values are kept until all their samples have ended
Found = TypeVar("Found")


class SideBySide:
    """Searches some prompts at a time; half as many from when the memory did not hold them.

    No sample depends on it: random numbers belong to prompts.

    Args:
        prompts: of one search at first.
    """

    def __init__(self, prompts: int | None = None) -> None:
        self.prompts = prompts or AT_ONCE

    def __call__(self, search: Callable[[int], Found], prompts: int) -> Found:
        """What a search finds that is told how many prompts, of so many at most, to have side by side.

        Raises:
            NoRoom, RuntimeError: the memory does not even hold one.
        """
        while True:
            at_once = min(self.prompts, prompts)
            try:
                return search(at_once)
            except (NoRoom, RuntimeError) as problem:
                if at_once <= 1 or not (isinstance(problem, NoRoom) or is_lack_of_memory(problem)):
                    raise
            self.prompts = at_once // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(
                f"no memory for {at_once} prompts side by side: going on with {self.prompts}",
                RuntimeWarning,
                stacklevel=2,
            )

    def parts(self, search: Callable[[slice], Found], prompts: int) -> Iterator[tuple[Found, slice]]:
        """What a search finds that is told which prompts to search, until all have been; at least once."""
        begun = 0
        while True:

            def part(at_once: int, begun: int = begun) -> tuple[Found, slice]:
                some = slice(begun, begun + at_once)
                return search(some), some

            found, some = self(part, prompts - begun)
            yield found, some
            if (begun := some.stop) >= prompts:
                return
