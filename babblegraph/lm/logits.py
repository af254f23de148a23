"""The next-token logits after the most recent tokens; what it has lost is computed again."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Slots = NDArray[np.int64]
UNKNOWN = -1


class LogitCache:
    """The logits after the most recent tokens, a ring of rows; memory is bounded."""

    def __init__(self, limit: int, device: torch.device) -> None:
        self.limit, self.device, self.next = limit, device, 0
        self.ring: torch.Tensor | None = None  # [rows, V]
        self.slot_of = np.zeros(0, np.int64)  # [rows]
        self.row_of = np.zeros(0, np.int64)  # [slots]

    @property
    def nbytes(self) -> int:
        """Bytes of the ring."""
        return 0 if self.ring is None else self.ring.numel() * self.ring.element_size()

    def reserve(self, slots: int) -> None:
        grown = np.full(slots, UNKNOWN)
        grown[: len(self.row_of)] = self.row_of
        self.row_of = grown

    def forget(self, slots: Slots) -> None:
        rows = self.row_of[slots]
        self.slot_of[rows[rows >= 0]] = UNKNOWN
        self.row_of[slots] = UNKNOWN

    def put(self, slots: Slots, logits: torch.Tensor) -> None:
        self._make_room(len(slots), logits)
        assert self.ring is not None
        slots, logits = slots[-len(self.ring) :], logits[-len(self.ring) :]
        self.forget(slots)
        rows = (self.next + np.arange(len(slots))) % len(self.ring)
        evicted = self.slot_of[rows]
        self.row_of[evicted[evicted >= 0]] = UNKNOWN
        self.slot_of[rows] = UNKNOWN
        first = min(len(slots), len(self.ring) - self.next)  # of them before the ring's end
        self.ring[self.next : self.next + first] = logits[:first]
        self.ring[: len(slots) - first] = logits[first:]
        self.next = (self.next + len(slots)) if first == len(slots) else len(slots) - first
        self.slot_of[rows] = slots
        self.row_of[slots] = rows  # last: what an interrupt leaves unwritten is not known

    def has(self, slots: Slots) -> NDArray[np.bool_]:
        return self.row_of[slots] >= 0

    def get(self, slots: Slots) -> torch.Tensor:
        assert self.ring is not None
        return self.ring.index_select(0, torch.as_tensor(self.row_of[slots], device=self.device))

    def _make_room(self, rows: int, logits: torch.Tensor) -> None:
        """A ring that is full grows rather than lose what it has, as long as slots and memory are more."""
        old = 0 if self.ring is None else len(self.ring)
        most = max(64, self.limit // (logits.shape[1] * logits.element_size()))
        if self.next + rows <= old or old >= min(most, len(self.row_of)):
            return
        size = min(most, max(len(self.row_of), 2 * old))
        grown = logits.new_empty(size, logits.shape[1])  # on a CPU, what is never written takes no memory
        if self.ring is not None:
            grown[:old] = self.ring
        self.slot_of = np.concatenate([self.slot_of[:old], np.full(size - old, UNKNOWN)])
        self.ring = grown  # last: an interrupt before it leaves names of rows that are not there, and no more
