"""How the keys of a batch of rows are read: what many rows share once for all of them, the rest row by row.

Rows are paths in one trie, so those that agree so far name the same slots. The trie of the batch is cut into
segments where rows part; a segment that is long enough, or has enough rows below it, is attended to once with the
queries of all its rows (a cascade); everything else is a row's own tail.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
LEAST = {
    "cpu": 1024,
    "cuda": 4096,
}  # rows × tokens from which on a segment is shared; see benchmarks/sharing.py


class Segment(NamedTuple):
    """Tokens that some neighbouring rows share."""

    start: int  # the position of the first token, counted from the start of the text
    slots: Ints  # [n]
    first: int  # rows first … last − 1 of the layout have it
    last: int
    level: int  # how many segments those rows share before it


class Layout:
    """The reading plan of B rows; only tails grow from token to token, so a layout outlives a forward pass.

    Args:
        paths: slots of each row's tokens, padded on the right, [B, S].
        lengths: tokens of each path, [B].
        new: how many of the last tokens are not in the trie yet, [B]; at least one each.
        least: rows × tokens from which on a segment is shared; what all rows have counts for each new token, since
            without it tails may be nothing but those.

    Attributes:
        order: row i of the layout is row `order[i]` of the batch, [B]; rows of one segment are neighbours.
        segments: what is shared.
        slots, positions: of each row's tail, padded with 0 on the right, [B, T].
        sizes: tokens of each tail, [B].
    """

    def __init__(self, paths: Ints, lengths: Ints, new: Ints, least: int) -> None:
        self.order, self.segments, own = _shared(paths, lengths - new, least, int(new.max()))
        self.lengths = lengths[self.order]
        own |= _from(paths.shape[1], lengths - new) & ~_from(paths.shape[1], lengths)
        own = own[self.order]
        self.sizes = own.sum(1)
        row, position = np.nonzero(own)
        column = np.arange(len(row)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        self._slots = np.zeros((len(own), int(self.sizes.max()) + 16), np.int64)
        self._positions = np.zeros_like(self._slots)
        self._slots[row, column] = paths[self.order][row, position]
        self._positions[row, column] = position

    @property
    def slots(self) -> Ints:
        return self._slots[:, : int(self.sizes.max())]

    @property
    def positions(self) -> Ints:
        return self._positions[:, : int(self.sizes.max())]

    def ahead(self, slots: Ints) -> Layout:
        """What `append` would make of it, which stays as it is."""
        later = copy.copy(self)
        later._slots, later._positions = self._slots.copy(), self._positions.copy()
        later.append(slots)
        return later

    def append(self, slots: Ints) -> None:
        """Every row of the batch goes on by one token, [B] in the batch's order."""
        if self.sizes.max() == self._slots.shape[1]:
            room = ((0, 0), (0, self._slots.shape[1]))
            self._slots, self._positions = np.pad(self._slots, room), np.pad(self._positions, room)
        row = np.arange(len(self.sizes))
        self._slots[row, self.sizes] = slots[self.order]
        self._positions[row, self.sizes] = self.lengths
        self.sizes, self.lengths = self.sizes + 1, self.lengths + 1


def _shared(paths: Ints, known: Ints, least: int, new: int) -> tuple[Ints, list[Segment], NDArray[np.bool_]]:
    """The order of rows, the shared segments among the first `known` tokens, and which of them no segment has.

    Complexity: O(B · S) for each level of the trie, with a step of Python for each place where rows part.
    """
    order: list[int] = []
    segments: list[Segment] = []
    own = ~_from(paths.shape[1], known)
    below = [
        (np.arange(len(paths)), 0, 0)
    ]  # rows, the position up to which they agree, the level: depth first

    def asking(rows: Ints) -> int:
        """How many queries a segment of these rows saves their tails from: where all have it, those of all tokens."""
        queries = len(rows) * new if len(rows) == len(paths) else len(rows)
        return queries if queries > 1 else 0

    while below:
        rows, at, level = below.pop()
        if (int(known[rows].max()) - at) * asking(rows) < least:
            order += rows.tolist()
            continue
        going = known[rows] > at
        order += rows[~going].tolist()
        rows = rows[going]
        groups = _by(paths[rows, at])
        if len(groups) > 1:
            below += [(rows[group], at, level) for group in reversed(groups)]
            continue
        stop = int(known[rows].min())
        agree = (paths[rows, at:stop] == paths[rows[0], at:stop]).all(0)
        n = stop - at if agree.all() else int(agree.argmin())
        if n * asking(rows) >= least:
            slots, first = paths[rows[0], at : at + n], len(order)
            segments.append(Segment(at, slots, first, first + len(rows), level))
            own[rows, at : at + n] = False
            level += 1
        below.append((rows, at + n, level))
    return np.array(order, np.int64), segments, own


def _by(keys: Ints) -> list[Ints]:
    """Places of equal keys together."""
    order = np.argsort(keys, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)


def _from(width: int, first: Ints) -> NDArray[np.bool_]:
    """Which columns are at or after each row's first, [B, width]."""
    return np.arange(width) >= first[:, None]
