"""A layout as tables of fixed size in device memory: what one new token a row attends to, step after step.

The tables are allocated once for a number of rows, so that a captured CUDA graph finds them where they were. Between
steps a row's newest token becomes the last of its tail on the device itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from babblegraph.lm.layout import Ints, Layout

CHUNK = 128  # keys of an item, at least; a row's own tail is cut into such where rows are few
MOST_PARTS = 64  # items that one row has, about: longer paths have larger items


class Room(NamedTuple):
    """What the tables have room for."""

    rows: int
    keys: int  # of all segments together
    items: int
    parts: int  # items of one row
    tail: int  # tokens of a row's own tail

    def holds(self, other: Room) -> bool:
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))

    def grown(self) -> Room:
        """Powers of two, so that there are few kinds of tables."""
        return Room(*(1 << max(n - 1, 0).bit_length() for n in self))


class Filling(NamedTuple):
    """A layout as the tables have it."""

    items: Ints  # [I, 4] first key, keys, first row, rows
    keys: Ints  # [K] slots
    places: Ints  # [K] their positions in the texts
    of_row: Ints  # [R, P] items of each row, and which of their rows it is: item · tile + row
    parts: Ints  # [R] how many
    cut: Ints  # [R] tokens at the beginning of a tail that are in items

    @classmethod
    def of(cls, layout: Layout, tile: int, enough: int) -> Filling:
        """Segments cut into items of at most `tile` rows and so many keys that there are about `enough` items.

        Where rows alone are fewer than that, the beginnings of long tails become items too.
        """
        rows = len(layout.order)
        own = layout.sizes - 1
        cut = own // CHUNK * CHUNK * ((own >= 4 * CHUNK) & (rows < enough))
        shared: list[tuple[Ints, Ints, int, int]] = [
            (s.slots, s.start + np.arange(len(s.slots)), s.first, s.last) for s in layout.segments
        ]
        shared += [
            (layout.slots[row, : cut[row]], layout.positions[row, : cut[row]], row, row + 1)
            for row in np.flatnonzero(cut).tolist()
        ]
        keys = [np.zeros(0, np.int64)] + [slots for slots, *_ in shared]
        places = [np.zeros(0, np.int64)] + [positions for _, positions, *_ in shared]
        chunk = _chunk(shared, rows, tile, enough)
        items: list[tuple[int, int, int, int]] = []
        has: list[list[int]] = [[] for _ in range(rows)]
        at = 0
        for slots, _, first, last in shared:
            for begin in range(first, last, tile):
                some = min(tile, last - begin)
                for j in range(0, len(slots), chunk):
                    for row in range(begin, begin + some):
                        has[row].append(len(items) * tile + row - begin)
                    items.append((at + j, min(chunk, len(slots) - j), begin, some))
            at += len(slots)
        parts = np.array([len(h) for h in has])
        of_row = np.zeros((rows, int(parts.max())), np.int64)
        for row, h in enumerate(has):
            of_row[row, : len(h)] = h
        table = np.array(items, np.int64).reshape(-1, 4)
        return cls(table, np.concatenate(keys), np.concatenate(places), of_row, parts, cut)

    def room(self, layout: Layout, steps: int) -> Room:
        """What this takes, with so many more tokens in each tail."""
        tail = int((layout.sizes - self.cut).max()) - 1 + steps
        return Room(len(self.of_row), len(self.keys), len(self.items), self.of_row.shape[1], tail)


def _chunk(shared: list[tuple[Ints, Ints, int, int]], rows: int, tile: int, enough: int) -> int:
    """Keys of an item: few items are long ones, whose partial results cost less, as long as they keep a GPU busy."""
    depth = np.zeros(rows, np.int64)  # keys of each row that are in items
    read = 0
    for slots, _, first, last in shared:
        depth[first:last] += len(slots)
        read += -(-(last - first) // tile) * len(slots)
    least = max(int(depth.max(initial=0)) // (MOST_PARTS // 2), read // enough)
    return max(-(-least // CHUNK), 1) * CHUNK


class Tables:
    """The rows of a decoding step, in the order of their layout; rows beyond the last are padding.

    Attributes:
        ids, positions, slots: of the new token of each row, [R].
        tails, tail_places: slots and positions of a row's own tokens before the new one, [R, T].
        lengths: how many there are, [R].
        items: [I, 4]; count: how many are used, [1].
        keys, places: slots and positions of the shared tokens, [K].
        of_row, parts: which items a row has and which of their rows it is, item · tile + row, [R, P], and how many
            items, [R].
        tile: rows of an item, at most.
    """

    def __init__(self, room: Room, device: torch.device, tile: int) -> None:
        def table(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int32, device=device)

        self.room, self.tile = room, tile
        self.ids, self.positions, self.slots, self.lengths = (table(room.rows) for _ in range(4))
        self.tails, self.tail_places = table(room.rows, room.tail), table(room.rows, room.tail)
        self.items, self.count = table(max(room.items, 1), 4), table(1)
        self.keys, self.places = table(max(room.keys, 1)), table(max(room.keys, 1))
        self.of_row, self.parts = table(room.rows, max(room.parts, 1)), table(room.rows)

    def fill(self, layout: Layout, filling: Filling) -> None:
        """Takes over a layout; the newest token of each row is not in its tail yet."""
        own = layout.sizes - 1 - filling.cut
        _put(self.items, filling.items)
        _put(self.count, np.array([len(filling.items)]))
        _put(self.keys, filling.keys)
        _put(self.places, filling.places)
        _put(self.of_row, filling.of_row)
        _put(self.parts, _padded(filling.parts, self.room.rows))
        _put(self.lengths, _padded(own, self.room.rows))
        _put(self.positions, _padded(layout.lengths - 1, self.room.rows))
        column = filling.cut[:, None] + np.arange(int(own.max()))
        column = np.minimum(column, layout.slots.shape[1] - 1)  # beyond a row's own, nothing is read
        _put(self.tails, np.take_along_axis(layout.slots, column, 1))
        _put(self.tail_places, np.take_along_axis(layout.positions, column, 1))

    def step(self, ids: Ints, slots: Ints) -> None:
        """The tokens of the next step and where their keys and values go, [R] in the order of the layout."""
        _put(self.ids, _padded(ids, self.room.rows, fill=True))
        _put(self.slots, _padded(slots, self.room.rows))

    def advance(self) -> None:
        """The tokens of this step are in the tails now. It runs on the device, and can be captured."""
        last = (self.lengths.long() % self.room.tail)[:, None]
        self.tails.scatter_(1, last, self.slots[:, None])
        self.tail_places.scatter_(1, last, self.positions[:, None])
        self.lengths += 1
        self.positions += 1


def _put(table: torch.Tensor, numbers: Ints) -> None:
    """Numbers into the upper left corner of a table."""
    if not numbers.size:
        return
    found = torch.from_numpy(np.ascontiguousarray(numbers, np.int32))
    if table.is_cuda:
        found = found.pin_memory()
    corner = table[tuple(slice(n) for n in numbers.shape)]
    corner.copy_(found, non_blocking=True)


def _padded(numbers: Ints, rows: int, fill: bool = False) -> Ints:
    return np.r_[numbers, np.full(rows - len(numbers), numbers[0] if fill else 0)]
