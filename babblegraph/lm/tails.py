"""Rows' own tails as copies that grow by a token a step, so that they are not collected anew for every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from babblegraph.lm.layout import Ints, Layout
    from babblegraph.lm.store import Store


class Copy(NamedTuple):
    """One layer's keys and values of B tails; those of a row and a head lie side by side."""

    keys: torch.Tensor  # [at least B, H_kv, at least T, d]
    values: torch.Tensor  # [at least B, H_kv, at least T, d_v]
    steps: int  # how many tokens the layout had been appended when all of its tails were there


class Growth(NamedTuple):
    """One step of rows that have one new token each; the copies last as long as their layout."""

    layout: Layout
    store: Store
    width: int  # tokens of the longest tail, the new one included
    newest: tuple[torch.Tensor, torch.Tensor] | None  # row and place of the new tokens; None: all at the end

    @classmethod
    def of(cls, layout: Layout, store: Store) -> Growth | None:
        """None for the first step, since rows often part at once, and where a memory limit has no room for copies."""
        if not layout.steps or store.bounded:
            return None
        width, last = layout.slots.shape[1], layout.sizes - 1
        if (last == width - 1).all():
            return cls(layout, store, width, None)
        places = np.arange(len(last)), last
        row, place = (torch.as_tensor(numbers, device=store.device) for numbers in places)
        return cls(layout, store, width, (row, place))

    def __call__(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the tails, [B, H_kv, T, d] and [B, H_kv, T, d_v].

        Args:
            layer: whose they are.
            key, value: of the new tokens, [B, H_kv, 1, d] and [B, H_kv, 1, d_v]; they are in the store already.
        """
        layout, rows = self.layout, len(key)
        copy = layout.copies.get(layer)
        if copy is None or copy.steps != layout.steps - 1 or not _holds(copy, rows, self.width):
            slots = torch.as_tensor(_roomy(layout.roomy), device=self.store.device)
            keys, values = (part.contiguous() for part in self.store.read(layer, slots))
            self.store.note_copies(len(layout.copies) + 1, keys, values)
        else:
            keys, values, _ = copy
            for part, new in ((keys, key), (values, value)):
                if self.newest is None:
                    part.narrow(0, 0, rows).select(2, self.width - 1).copy_(new.select(2, 0))
                else:
                    row, place = self.newest
                    part[row, :, place] = new[:, :, 0]
        layout.copies[layer] = Copy(keys, values, layout.steps)
        keys, values = (part.narrow(0, 0, rows).narrow(2, 0, self.width) for part in (keys, values))
        return keys, values


def moved(copies: dict[int, Copy], source: Ints, target: Ints, rows: int) -> dict[int, Copy]:
    """Copies whose rows `target` are now what rows `source` were; none where there is no room for so many rows.

    No target is a source.
    """
    if not all(_holds(copy, rows, 0) for copy in copies.values()):
        return {}
    for copy in copies.values() if len(source) else ():
        for part in copy[:2]:
            part[torch.as_tensor(target)] = part[torch.as_tensor(source)]
    return copies


def _holds(copy: Copy, rows: int, width: int) -> bool:
    return copy.keys.shape[0] >= rows and copy.keys.shape[2] >= width


def _roomy(slots: Ints) -> Ints:
    """With rows for those to come."""
    return np.pad(slots, ((0, len(slots) // 8), (0, 0)))
