"""Which of the processes of a run this one is, as `accelerate launch` and torchrun say it to each of them."""

from __future__ import annotations

import os
from typing import NamedTuple

from babblegraph.errors import BadInput


class Place(NamedTuple):
    """A process among those that were launched together."""

    rank: int
    world: int  # how many there are

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0


def place() -> Place:
    """This process's place: the first of one where nothing was launched, whatever rank a shell has left behind.

    Raises:
        BadInput: RANK or WORLD_SIZE is no such number.
    """
    world = _number("WORLD_SIZE", 1)
    return Place(0, 1) if world < 2 else Place(_number("RANK", 0), world)


def _number(name: str, otherwise: int) -> int:
    said = os.environ.get(name, "").strip()
    if said and not said.isdecimal():
        raise BadInput(f"{name} must be a whole number, as accelerate launch sets it, got {said!r}: unset it")
    return int(said) if said else otherwise
