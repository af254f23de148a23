"""Keys, values and next-token logits of a token trie: every token once, in one slot.

A slot is a row of the pools. A held path keeps a reference to each of its slots; a slot without references is free, but
what it has can be found until it is taken again.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import NoRoom
from babblegraph.lm.logits import UNKNOWN, LogitCache, Slots
from babblegraph.lm.pools import Pools, free_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

ONE = np.int32(1)  # of the references' kind: to add another takes fifty times as long


class Store(Pools):
    """The K/V pools of one forest.

    Args:
        device: where keys and values live.
        logit_bytes: how much memory the cache of logits may take; what it has lost is computed again.
        cache_bytes: as long as the pools are smaller, they grow rather than lose what can still be found.
        growth: by how much the pools grow when they are full.
        most_slots: the pools never have more; None for no bound but a GPU's memory.

    Attributes:
        hoards: whether it makes use of `cache_bytes`; not where nothing that was given up will be asked for again.
        peak: the most slots that were in use at once.
    """

    def __init__(
        self,
        device: torch.device,
        logit_bytes: int = 1 << 26,
        cache_bytes: int = 1 << 26,
        growth: float = 1.25,
        most_slots: int | None = None,
    ) -> None:
        super().__init__(device)
        self.cache_bytes, self.growth = cache_bytes, growth
        self.most_slots = most_slots or sys.maxsize
        self.hoards = True
        self.references = np.zeros(0, np.int32)  # [slots]
        self.peak = 0
        self._is_free = np.zeros(0, np.bool_)  # [slots]
        self._freed_at = np.zeros(0, np.int64)  # [slots] the number of the latest time
        self._blank: list[int] = []  # free slots in which nothing can be found
        self._queue: deque[tuple[int, int]] = deque()  # the others, longest free first; some are outdated
        self._free_size = self._clock = 0
        self._edge_of = np.zeros(0, np.int64)  # [slots] the key of the slot's edge in `_edges`
        self._edges: dict[int, int] = {}  # (slot of the token before, token) -> slot
        self._logits = LogitCache(logit_bytes, device)
        self._grow(min(256, self.most_slots))

    @property
    def in_use(self) -> int:
        """Slots that hold a token now."""
        return len(self.references) - 1 - self._free_size

    @property
    def nbytes(self) -> int:
        """Bytes of the pools and of remembered logits, in use or not."""
        return self.allocated_bytes + self._logits.nbytes

    @property
    def free(self) -> int:
        """Slots that can be taken without growing."""
        return self._free_size

    @property
    def blank(self) -> int:
        """Those of them in which nothing can be found that is worth its memory."""
        return len(self._blank) if self._cache else self._free_size

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
        while self._free_size < m or (self.blank < m and size * self.token_bytes < self._cache):
            size = min(max(int(size * self.growth), size + m), self.most)
            if size <= len(self.references):
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
            given = len(self.references) >= self.most_slots
            raise NoRoom(
                f"the {'memory limit' if given else 'device'} must hold a text and what is drawn below it, got room "
                f"for {len(self.references)} tokens: {'raise it, or ' if given else ''}keep texts shorter"
            )
        slots = self._longest_free(m)
        self.pin(slots)
        edges = self._edge_of[slots]
        for edge in edges[edges != UNKNOWN].tolist():
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

        The first token of a text follows a number below 0; see `paths.Paths`.
        """
        edges = edges_of(before, tokens)
        self._edge_of[slots] = edges
        self._edges.update(zip(edges.tolist(), slots.tolist(), strict=True))

    def hold(self, *paths: Slots) -> None:
        """Takes a reference to each slot of each path."""
        if len(paths) == 1:
            self.references[paths[0]] += 1
        elif paths:
            np.add.at(self.references, np.concatenate(paths), ONE)  # paths share slots

    def drop(self, *paths: Slots) -> None:
        """Gives one back for each; slots without any are free, in the order in which one path after the other ends."""
        if len(paths) == 1:
            self.references[paths[0]] -= 1
            self.sweep(paths[0])
        elif paths:
            every = np.concatenate(paths[::-1])
            np.subtract.at(self.references, every, ONE)
            at, first = np.arange(len(every)), np.empty(len(self.references), np.int64)
            first[every[::-1]] = at[::-1]  # where each slot comes first: what is written last stays
            self.sweep(every[first[every] == at])

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
        if len(self._queue) > 2 * self._free_size + 256:  # paths that come and go leave outdated entries
            self._queue = deque(entry for entry in self._queue if self._is_current(*entry))

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

    def clear(self) -> None:
        """Nothing is stored any more; the memory stays."""
        self.rebuild(())
        self.peak = 0

    def put_logits(self, slots: Slots, logits: torch.Tensor) -> None:
        """Remembers the logits that follow tokens, [M, V]."""
        self._logits.put(slots, logits)

    def has_logits(self, slots: Slots) -> NDArray[np.bool_]:
        """Whether the logits that follow tokens are remembered, [M]."""
        return self._logits.has(slots)

    def logits(self, slots: Slots) -> torch.Tensor:
        """Remembered logits, [M, V]."""
        return self._logits.get(slots)

    @property
    def most(self) -> int:
        """How many slots there may be: what is given, and on a GPU what it has memory for now."""
        if not (token := self.token_bytes):
            return self.most_slots
        return min(self.most_slots, (self.allocated_bytes + free_bytes(self.device)) // token)

    @property
    def _cache(self) -> int:
        return self.cache_bytes if self.hoards else 0

    def _grow(self, slots: int) -> None:
        """Makes room for bookkeeping; the pools follow in the next forward pass."""
        old = len(self.references)
        more, self.slots = slots - old, slots
        self.references = np.concatenate([self.references, np.zeros(more, np.int32)])
        self._edge_of = np.concatenate([self._edge_of, np.full(more, UNKNOWN)])
        self._is_free = np.concatenate([self._is_free, np.zeros(more, np.bool_)])
        self._freed_at = np.concatenate([self._freed_at, np.zeros(more, np.int64)])
        self._logits.reserve(slots)
        self.sweep(np.arange(max(old, 1), slots))  # slot 0 is never free

    def _longest_free(self, m: int) -> Slots:
        """m slots, which are free no more for those who ask for the next ones."""
        some = self._blank[: -m - 1 : -1]
        del self._blank[len(self._blank) - len(some) :]
        while len(some) < m:
            slot, stamp = self._queue.popleft()
            if self._is_current(slot, stamp):
                some.append(slot)
        return np.array(some, np.int64)

    def _is_current(self, slot: int, stamp: int) -> bool:
        """Whether a slot is free since then."""
        return bool(self._is_free[slot]) and self._freed_at[slot] == stamp


def edges_of(before: Slots, tokens: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """A number for each pair of the slot of a token and the token that follows it, [M]."""
    return before << 32 | tokens.astype(np.int64)
