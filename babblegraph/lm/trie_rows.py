"""The rows of an expansion along a trie: where each one's tokens are, and how the next ones are computed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import is_lack_of_memory
from babblegraph.lm.coast import Coasted
from babblegraph.lm.decode import Decoder, Drawn, Sampler
from babblegraph.lm.forward import Flying, Forward, Row, Turn, padded
from babblegraph.lm.layout import Ints, Layout
from babblegraph.lm.pace import Pace
from babblegraph.lm.store import UNKNOWN, Slots, Store, edges_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from babblegraph.budget import Meter
    from babblegraph.lm.paths import Paths

ROOM = 8  # what part of the slots in use may be taken ahead
MANY = 64  # slots that may in any case


class TrieRows:
    """R rows in flight. Those that agree so far name the same slots.

    Args:
        store: the slots.
        forward: computes them.
        paths: what slots are taken by.
    """

    def __init__(self, store: Store, forward: Forward, paths: Paths) -> None:
        self.store, self._forward, self._paths = store, forward, paths
        self._slots = np.zeros((0, 0), np.int64)  # [R, S]
        self._lengths = np.zeros(0, np.int64)  # [R]
        self._trees = np.zeros(0, np.int64)  # [R]
        self._layout: Layout | None = None  # how they are read, as long as they are the same
        self._new = False  # whether their newest tokens were in no text before
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self._slots)

    def open(self, paths: Sequence[Slots], trees: Ints) -> None:
        """One row at the end of each path; trees are [R]."""
        self._lengths, self._trees = np.array([len(p) for p in paths]), trees.astype(np.int64)
        self._slots, self._layout = padded(paths), None

    def close(self) -> None:
        """No row any more."""
        self._slots, self._layout = np.zeros((0, 0), np.int64), None

    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> torch.Tensor:
        """Replaces the rows in flight: new row i is old row `rows[i]` with `tokens[i]` appended.

        A token that is already in the trie is not computed again.

        Returns:
            The logits of what follows each new row, [R, V].
        """
        if not np.array_equal(rows, np.arange(len(self._slots))):
            self._slots, self._layout = self._slots[rows], None
            self._lengths, self._trees = self._lengths[rows], self._trees[rows]
        row, at = np.arange(len(rows)), self._lengths
        self._widen(1)
        before = self._slots[row, at - 1]
        slots = self.store.find_all(before, tokens)
        self._new = bool((slots == UNKNOWN).all())
        if (there := slots != UNKNOWN).any():
            found = np.unique(slots[there])
            self.store.pin(found)
            self._paths.fly(found)
        self._fill(slots, before, tokens)
        self._slots[row, at] = slots
        self._lengths = at + 1
        return self._newest_logits(slots, tokens, meter)

    def may_coast(self, steps: int) -> int:
        """How many of the next steps the rows in flight may try to go by themselves; 0 where the host sees to each."""
        rows = len(self._slots)
        if self._layout is None or not self._new or rows > self._forward.tokens:
            return 0
        if (reach := self._forward.coasts - int(self._lengths.max())) <= 0:
            return 0
        steps = self._pace.steps(min(steps, reach, max(MANY, self.store.in_use // ROOM) // rows), rows)
        self.store.reserve(steps * rows)
        return min(steps, self.store.blank // rows)

    def coast(
        self,
        logits: torch.Tensor,
        u: NDArray[np.float64],
        row: Ints,
        pausing: torch.Tensor,
        temperature: float,
        meter: Meter,
    ) -> Coasted | None:
        """The rows in flight go on by themselves, step after step, until the host has to look; see `coast`.

        Args:
            logits: after their newest tokens, [R, V].
            u: what is drawn by, [S, D], in as many steps as they `may_coast`.
            row: of each draw, [D]; every row has one.
            pausing: tokens after which somebody has to look, [V].
            temperature: of what is drawn from.

        Returns:
            What happened in up to S steps; None where there was no memory for it.
        """
        steps, rows = len(u), len(self._slots)
        assert self._layout is not None
        peak, start = self.store.peak, time.perf_counter()
        slots = self.store.take(steps * rows).reshape(steps, rows)
        lead = np.unique(row, return_index=True)[1]
        turn = Turn(row, lead, slots, pausing, temperature)
        try:
            found = self._forward.coast(self._layout, logits, u, turn)
        except RuntimeError as problem:
            if not is_lack_of_memory(problem):
                raise
            self.store.sweep(slots.reshape(-1))
            return None  # a step at a time takes less
        made = len(found.tokens)
        self.store.sweep(slots[made:].reshape(-1))
        self.store.peak = max(peak, self.store.in_use)
        self._pace.note(made, rows, time.perf_counter() - start)
        if made:
            self._gone(slots[:made], found, meter)
        return found

    def glide(
        self,
        decoder: Decoder,
        rows: Ints,
        tokens: Ints,
        u: NDArray[np.float64],
        sampler: Sampler,
        meter: Meter,
    ) -> tuple[Drawn, Slots]:
        """Replaces the rows in flight as `advance` does, and goes on drawing for as many steps as there is room for.

        Every row has slots of its own, also where rows agree; nothing of it can be found later.

        Args:
            decoder: runs the steps.
            u: what the next draws are taken by, [S, R].

        Returns:
            What was drawn in up to S steps, and the slots of the tokens that were computed, [S', R].
        """
        flight, lengths = self._slots[rows], self._lengths[rows]
        self.store.reserve(u.size)
        steps = max(min(len(u), self.store.free // len(rows)), 1)
        slots = self._paths.take(steps * len(rows)).reshape(steps, len(rows))
        self._paths.fly(slots.reshape(-1))
        at = np.arange(len(rows))
        flight = np.pad(flight, ((0, 0), (0, max(int(lengths.max()) + steps - flight.shape[1], 0))))
        for step in range(steps):
            flight[at, lengths + step] = slots[step]
        layout = Layout(flight, lengths + 1, np.ones_like(lengths), self._forward.least)
        order = layout.order
        drawn = decoder.draw(layout, tokens[order], slots[:, order], u[:steps, order], sampler)
        back = np.argsort(order)
        self._slots, self._lengths, self._trees = flight, lengths + steps, self._trees[rows]
        self._layout = None
        meter.count("forwarded", self._trees, steps)
        meter.peak_slots = max(meter.peak_slots, self.store.peak)
        return Drawn(*(table[:, back] for table in drawn)), slots

    def path(self, row: int) -> Slots:
        """The slots of a row in flight, [S]."""
        return self._slots[row, : self._lengths[row]].copy()

    def _widen(self, tokens: int) -> None:
        """Room for so many more tokens of every row in flight."""
        longest = int(self._lengths.max())
        if longest + tokens > self._slots.shape[1]:
            self._slots = np.pad(self._slots, ((0, 0), (0, longest // 4 + 16 + tokens)))

    def _gone(self, slots: Slots, found: Coasted, meter: Meter) -> None:
        """Takes note of the steps that the rows in flight have gone by themselves; slots are [S, R]."""
        assert self._layout is not None
        steps, rows = slots.shape
        self._paths.fly(slots.reshape(-1))
        row, at = np.arange(rows), self._lengths
        self._widen(steps)
        for step, tokens in enumerate(found.tokens):
            self.store.connect(slots[step], self._slots[row, at + step - 1], tokens.numpy())
            self._slots[row, at + step] = slots[step]
            self._layout.append(slots[step])
            self.store.put_logits(slots[step], found.logits[step])
        self._lengths = at + steps
        meter.count("forwarded", self._trees, steps)
        meter.peak_slots = max(meter.peak_slots, self.store.peak)

    def _newest_logits(self, slots: Slots, tokens: Ints, meter: Meter) -> torch.Tensor:
        """The logits after the newest token of each row in flight, [R, V]; rows may share it."""
        if not _distinct(slots) or self.store.has_logits(slots).any():
            return self._some_logits(slots, tokens, meter)
        if self._layout is None:
            lengths = self._lengths
            self._layout = Layout(self._slots, lengths, np.ones_like(lengths), self._forward.least)
        else:
            self._layout.append(slots)
        flying = Flying(self._layout, tokens, slots, self._trees)
        return self._forward.step(flying, lambda: self._rows(np.arange(len(slots)), tokens), meter)

    def _some_logits(self, slots: Slots, tokens: Ints, meter: Meter) -> torch.Tensor:
        """The same where rows share tokens, or the logits of some are remembered."""
        unique, first, which = np.unique(slots, return_index=True, return_inverse=True)
        known = self.store.has_logits(unique)
        missing = np.sort(first[~known])
        self._layout = None
        place = np.searchsorted(missing, first)  # of a slot's row among the missing
        rows = self._rows(missing, tokens)
        return self._forward.known_or_computed(unique[known], known, rows, meter, place[~known])[which]

    def _rows(self, which: Ints, tokens: Ints) -> list[Row]:
        """Some rows in flight with their newest tokens."""
        return [
            Row(self._slots[r, : self._lengths[r]], tokens[r : r + 1], int(self._trees[r]), "forwarded")
            for r in which.tolist()
        ]

    def _fill(self, slots: Slots, before: Slots, tokens: Ints) -> None:
        """Fills in slots for the tokens that are not in the trie, the same one for the same token."""
        new = np.flatnonzero(slots == UNKNOWN)
        edges = edges_of(before[new], tokens[new])
        if _distinct(edges):
            first = which = np.arange(len(new))
        else:
            _, first, which = np.unique(edges, return_index=True, return_inverse=True)
        taken = self._paths.take(len(first))
        self.store.connect(taken, before[new[first]], tokens[new[first]])
        slots[new] = taken[which]
        self._paths.fly(taken)


def _distinct(numbers: Ints) -> bool:
    """Whether no two are the same; for the few rows of a step several times as fast as `np.unique`."""
    return len(set(numbers.tolist())) == len(numbers)
