"""Keys, values and next-token logits of a token trie: every token once, in one slot.

A slot is a row of the pools, [slots, H_kv, d] for each layer. A held path keeps a reference to each of its slots;
a slot without references is free, but what it has can be found until it is taken again. Slot 0 is where padding
is written; it is never read.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Slots = NDArray[np.int64]
UNKNOWN = -1
BLOCK = 1 << 22  # bytes of keys and values that a CPU collects at a time: they stay in its cache


class NoRoom(BadInput):
    """The memory limit does not hold the paths that are expanded together."""


class Store:
    """The K/V pools of one forest.

    Args:
        device: where keys and values live.
        logit_bytes: how much memory the cache of logits may take; what it has lost is computed again.
        cache_bytes: as long as the pools are smaller, they grow rather than lose what can still be found.
        growth: by how much the pools grow when they are full.
        most_slots: the pools never have more; None for no bound.
    """

    def __init__(
        self,
        device: torch.device,
        logit_bytes: int = 1 << 26,
        cache_bytes: int = 1 << 26,
        growth: float = 1.25,
        most_slots: int | None = None,
    ) -> None:
        self.device, self.cache_bytes, self.growth = device, cache_bytes, growth
        self.most_slots = most_slots or sys.maxsize
        self.keys: dict[int, torch.Tensor] = {}  # layer -> [slots, H_kv, d]
        self.values: dict[int, torch.Tensor] = {}
        self.references = np.zeros(0, np.int32)  # [slots]
        self.peak = 0
        self.moved = 0  # how often a pool has been replaced by a larger one
        self._is_free = np.zeros(0, np.bool_)  # [slots]
        self._freed_at = np.zeros(0, np.int64)  # [slots] the number of the latest time
        self._blank: list[int] = []  # free slots in which nothing can be found
        self._queue: deque[tuple[int, int]] = deque()  # the others, longest free first; some are outdated
        self._free_size = self._clock = 0
        self._edge_of = np.zeros(0, np.int64)  # [slots] the key of the slot's edge in `_edges`
        self._edges: dict[int, int] = {}  # (slot of the token before, token) -> slot
        self._logits = _LogitCache(logit_bytes, device)
        self._rooms = _Room(), _Room()  # where keys and values are collected
        self._grow(min(256, self.most_slots))

    @property
    def in_use(self) -> int:
        """Slots that hold a token now."""
        return len(self.references) - 1 - self._free_size

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all pools, in use or not."""
        return sum(t.numel() * t.element_size() for t in (*self.keys.values(), *self.values.values()))

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers; 0 before the first."""
        rows = next((len(pool) for pool in self.keys.values()), 0)
        return self.allocated_bytes // rows if rows else 0

    @property
    def free(self) -> int:
        """Slots that can be taken without growing."""
        return self._free_size

    def find(self, before: int, token: int) -> int:
        """The slot of a token after another one, `UNKNOWN` when it is not stored."""
        return self._edges.get(before << 32 | token, UNKNOWN)

    def find_all(self, before: Slots, tokens: NDArray[np.integer[Any]]) -> Slots:
        """The same for many, [M]."""
        find = self._edges.get
        return np.array([find(edge, UNKNOWN) for edge in edges_of(before, tokens).tolist()], np.int64)

    def reserve(self, m: int) -> bool:
        """Whether m slots can be taken; the pools grow for them as far as they may."""
        size = len(self.references)
        while self._free_size < m or (
            len(self._blank) < m and len(self.references) * self.token_bytes < self.cache_bytes
        ):
            size = min(max(int(size * self.growth), size + m), self.most_slots)
            if size == len(self.references):
                break
            self._grow(size)
        return self._free_size >= m

    def take(self, m: int) -> Slots:
        """m free slots, [m], without references yet: `hold` them or `sweep` them.

        What was in them can be found no more. The longest free go first, and a token is never free for longer
        than the tokens after it: what can be found is always whole.

        Raises:
            NoRoom: there is no room for them.
        """
        if not self.reserve(m):
            raise NoRoom(
                "the memory limit must hold the paths that are expanded together, got room for "
                f"{len(self.references)} tokens: raise it, or expand fewer nodes a round"
            )
        slots = np.fromiter(self._longest_free(m), np.int64, m)
        self.pin(slots)
        for edge in self._edge_of[slots].tolist():
            self._edges.pop(edge, None)
        self._edge_of[slots] = UNKNOWN
        self._logits.forget(slots)
        return slots

    def pin(self, slots: Slots) -> None:
        """Takes slots that were found out of the free ones, as `take` does, with what is in them."""
        free = slots[self._is_free[slots]]
        self._is_free[free] = False
        self._free_size -= len(free)
        self.peak = max(self.peak, self.in_use)

    def connect(self, slots: Slots, before: Slots, tokens: NDArray[np.integer[Any]]) -> None:
        """Makes slots findable: each holds a token that follows the one in `before`, all [M].

        The first token of tree i follows slot `-1 - i`.
        """
        edges = edges_of(before, tokens)
        self._edge_of[slots] = edges
        self._edges.update(zip(edges.tolist(), slots.tolist(), strict=True))

    def hold(self, path: Slots) -> None:
        """Takes a reference to each slot of a path."""
        self.references[path] += 1

    def drop(self, path: Slots) -> None:
        """Gives one back; slots without any are free."""
        self.references[path] -= 1
        self.sweep(path)

    def sweep(self, slots: Slots) -> None:
        """Frees those of some distinct slots that have no reference, the last ones first.

        Until they are taken again they can be found, with their keys, values and logits.
        """
        gone = slots[(self.references[slots] == 0) & ~self._is_free[slots]][::-1]
        self._is_free[gone] = True
        self._freed_at[gone] = stamps = np.arange(self._clock, self._clock + len(gone))
        found = self._edge_of[gone] != UNKNOWN
        self._blank += gone[~found].tolist()
        self._queue.extend(zip(gone[found].tolist(), stamps[found].tolist(), strict=True))
        self._free_size += len(gone)
        self._clock += len(gone)

    def rebuild(self, paths: Iterable[Slots]) -> None:
        """Holds exactly these paths and nothing else, whatever an interruption left behind."""
        self.references[:] = 0
        for path in paths:
            self.references[path] += 1
        unused = np.flatnonzero(self.references == 0)[1:]  # slot 0 is never free
        self._edge_of[unused] = UNKNOWN
        self._logits.forget(unused)
        named = np.flatnonzero(self._edge_of != UNKNOWN)
        self._edges = dict(zip(self._edge_of[named].tolist(), named.tolist(), strict=True))
        self._is_free[:] = False
        self._blank.clear()
        self._queue.clear()
        self._free_size = 0
        self.sweep(unused)

    @property
    def dtype(self) -> torch.dtype:
        """Of the keys; known once something was written."""
        return next(iter(self.keys.values())).dtype

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """Stores the keys and values of new tokens, [B, H_kv, L, d] each, in their slots, [B · L]."""
        for pools, new in ((self.keys, key), (self.values, value)):
            rows = new.transpose(1, 2).flatten(0, 1)  # [B · L, H_kv, d]
            self._pool(pools, layer, rows).index_copy_(0, slots, rows)

    def read(self, layer: int, slots: torch.Tensor, brief: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of rows of slots, [B, T], collected.

        Returns:
            [B, H_kv, T, d] each; where they are brief, good until the next call.
        """
        found = []
        for pools, room in ((self.keys, self._rooms[0]), (self.values, self._rooms[1])):
            pool, at = pools[layer], slots.reshape(-1)
            out = room.take(len(at), pool) if brief else None
            rows = torch.index_select(pool, 0, at, out=out)
            found.append(rows.view(*slots.shape, *pool.shape[1:]).transpose(1, 2))
        return found[0], found[1]

    def block(self, layer: int, tokens: int) -> int:
        """How many rows of so many tokens are best read together."""
        if self.device.type != "cpu":
            return sys.maxsize
        token = sum(pools[layer].stride(0) * pools[layer].itemsize for pools in (self.keys, self.values))
        return max(1, BLOCK // (tokens * token))

    def read_segment(self, layer: int, where: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a run of slots, where they lie, or of some slots, collected: [1, H_kv, n, d] each."""
        found = (
            pools[layer][where] if isinstance(where, slice) else pools[layer].index_select(0, where)
            for pools in (self.keys, self.values)
        )
        key, value = (rows.transpose(0, 1)[None] for rows in found)
        return key, value

    def put_logits(self, slots: Slots, logits: torch.Tensor) -> None:
        """Remembers the logits that follow tokens, [M, V]."""
        self._logits.put(slots, logits)

    def has_logits(self, slots: Slots) -> NDArray[np.bool_]:
        """Whether the logits that follow tokens are remembered, [M]."""
        return self._logits.has(slots)

    def logits(self, slots: Slots) -> torch.Tensor:
        """Remembered logits, [M, V]."""
        return self._logits.get(slots)

    def _pool(self, pools: dict[int, torch.Tensor], layer: int, like: torch.Tensor) -> torch.Tensor:
        """A layer's pool, with room for every slot."""
        pool = pools.get(layer)
        if pool is None or pool.shape[0] < len(self.references):
            grown = like.new_empty(len(self.references), *like.shape[1:])
            if pool is None:
                grown[0] = 0  # hidden by a bias of -inf, which would not hide a NaN
            else:
                grown[: pool.shape[0]] = pool
            pool = pools[layer] = grown
            self.moved += 1
        return pool

    def settle(self) -> None:
        """Every pool gets room for every slot now, instead of when it is written to."""
        for pools in (self.keys, self.values):
            for layer, pool in pools.items():
                self._pool(pools, layer, pool)

    def _grow(self, slots: int) -> None:
        """Makes room for bookkeeping; the pools follow in the next forward pass."""
        old = len(self.references)
        more = slots - old
        self.references = np.concatenate([self.references, np.zeros(more, np.int32)])
        self._edge_of = np.concatenate([self._edge_of, np.full(more, UNKNOWN)])
        self._is_free = np.concatenate([self._is_free, np.zeros(more, np.bool_)])
        self._freed_at = np.concatenate([self._freed_at, np.zeros(more, np.int64)])
        self._logits.reserve(slots)
        self.sweep(np.arange(max(old, 1), slots))  # slot 0 is never free

    def _longest_free(self, m: int) -> Iterator[int]:
        while m and self._blank:
            m -= 1
            yield self._blank.pop()
        while m:
            slot, stamp = self._queue.popleft()
            if self._is_free[slot] and self._freed_at[slot] == stamp:
                m -= 1
                yield slot


def edges_of(before: Slots, tokens: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """A number for each pair of the slot of a token and the token that follows it, [M]."""
    return before << 32 | tokens.astype(np.int64)


class _Room:
    """Memory that is used again and again: pages that a process has touched before cost nothing."""

    def __init__(self) -> None:
        self._flat: torch.Tensor | None = None

    def take(self, rows: int, like: torch.Tensor) -> torch.Tensor:
        """Room for so many rows of a pool."""
        size = rows * like.stride(0)
        if self._flat is None or self._flat.dtype != like.dtype or len(self._flat) < size:
            self._flat = like.new_empty(size)
        return self._flat[:size].view(rows, *like.shape[1:])


class _LogitCache:
    """The logits after the most recent tokens, a ring of rows; memory is bounded."""

    def __init__(self, limit: int, device: torch.device) -> None:
        self.limit, self.device, self.next = limit, device, 0
        self.ring: torch.Tensor | None = None  # [rows, V]
        self.slot_of = np.zeros(0, np.int64)  # [rows]
        self.row_of = np.zeros(0, np.int64)  # [slots]

    def reserve(self, slots: int) -> None:
        grown = np.full(slots, UNKNOWN)
        grown[: len(self.row_of)] = self.row_of
        self.row_of = grown

    def forget(self, slots: Slots) -> None:
        rows = self.row_of[slots]
        self.slot_of[rows[rows >= 0]] = UNKNOWN
        self.row_of[slots] = UNKNOWN

    def put(self, slots: Slots, logits: torch.Tensor) -> None:
        if self.ring is None or (len(self.ring) < len(self.row_of) and len(self.ring) < self._most(logits)):
            self._enlarge(logits)
        assert self.ring is not None
        slots, logits = slots[-len(self.ring) :], logits[-len(self.ring) :]
        self.forget(slots)
        rows = (self.next + np.arange(len(slots))) % len(self.ring)
        self.next = int(self.next + len(slots)) % len(self.ring)
        evicted = self.slot_of[rows]
        self.row_of[evicted[evicted >= 0]] = UNKNOWN
        self.row_of[slots], self.slot_of[rows] = rows, slots
        self.ring[torch.as_tensor(rows, device=self.device)] = logits

    def has(self, slots: Slots) -> NDArray[np.bool_]:
        return self.row_of[slots] >= 0

    def get(self, slots: Slots) -> torch.Tensor:
        assert self.ring is not None
        return self.ring[torch.as_tensor(self.row_of[slots], device=self.device)]

    def _most(self, logits: torch.Tensor) -> int:
        return max(64, self.limit // (logits.shape[1] * logits.element_size()))

    def _enlarge(self, logits: torch.Tensor) -> None:
        old = 0 if self.ring is None else len(self.ring)
        rows = min(self._most(logits), max(len(self.row_of), 2 * old))
        grown = logits.new_zeros(rows, logits.shape[1])
        if self.ring is not None:
            grown[:old] = self.ring
        self.ring, self.next = grown, old % rows
        self.slot_of = np.concatenate([self.slot_of, np.full(rows - old, UNKNOWN)])
