"""How much is done at once, as far as the memory holds it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from babblegraph.errors import NoRoom, is_lack_of_memory

Found = TypeVar("Found")


class AtOnce:
    """Does so much at once; half as much from when the memory did not hold it.

    Args:
        most: at first.
        what: so much of, for the warning.
    """

    def __init__(self, most: int, what: str) -> None:
        self.most, self.what = most, what
        self._told = False  # it is said once

    def __call__(self, run: Callable[[int], Found], *, most: int | None = None, least: int = 1) -> Found:
        """What is found by a function that is told how much to do at once, and begins anew whenever it is called.

        Args:
            run: called until the memory holds what it does.
            most: there is no more to do.
            least: the memory has to hold so much.

        Raises:
            NoRoom, RuntimeError: it does not.
        """
        known = self.most
        wanted = now = known if most is None else min(known, most)
        try:
            while True:
                try:
                    return run(now)
                except (NoRoom, RuntimeError) as problem:
                    if now <= least or not is_lack_of_memory(problem):
                        self.most = known  # this says nothing about how much can be done at once
                        raise
                self.most = now = now // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
        finally:
            if now < wanted and not self._told:
                self._told = True
                warnings.warn(
                    f"no memory for {wanted} {self.what}: going on with {now}", RuntimeWarning, stacklevel=2
                )

    def parts(self, run: Callable[[slice], Found], total: int) -> Iterator[tuple[Found, slice]]:
        """What is found by a function that is told which of so many to do, until all are done; at least once."""
        done = 0
        while True:

            def part(at_once: int, done: int = done) -> tuple[Found, slice]:
                some = slice(done, done + at_once)
                return run(some), some

            found, some = self(part, most=total - done)
            yield found, some
            if (done := some.stop) >= total:
                return
