"""Where the keys of one forward pass are, and which of them each new token sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from babblegraph.lm.cascade import How, Pass, Piece, Seen, along

if TYPE_CHECKING:
    from babblegraph.lm.layout import Ints, Layout, Segment
    from babblegraph.lm.store import Store


class Plan:
    """One forward pass: B rows, L new tokens each, padded on the left.

    Args:
        store: the keys and values.
        layout: how they are read; its order is that of the rows here.
        slots: where the new tokens go, 0 for padding, [B, L].
        positions: of the new tokens, counted from the start of the text, 0 for padding, [B, L].
    """

    def __init__(self, store: Store, layout: Layout, slots: Ints, positions: Ints) -> None:
        self.store, self._layout = store, layout
        self._positions, self._padding = positions, slots == 0
        self.slots = torch.as_tensor(slots.reshape(-1), device=store.device)
        tails = torch.as_tensor(layout.slots, device=store.device)
        self.windows: set[int | None] = set()  # that the layers have asked for
        new = (~self._padding).sum(1)
        # whether tails have nothing but the new tokens, which are padded on the left as the pass has them
        self.own = slots.shape[1] > 1 and bool((layout.sizes == new).all())
        self.here = Pass(self.slots, tails, self.own, store.block)
        self._places = positions if self.own else layout.positions
        self._biases: dict[int | None, torch.Tensor | None] = {}
        self._seen: dict[tuple[int | None, int], Seen] = {}

    def attention(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: How,
        window: int | None,
    ) -> torch.Tensor:
        """What `attention.trie_attention` gives, [B, L, H, d_v]."""
        self.windows.add(window)
        pool = self.store.pool(layer, key, value, self.tails)
        groups = query.shape[1] // key.shape[1] if query.shape[2] == 1 else 1
        return along(query, key, value, pool, self.here, self.sight(window, groups), how)

    @property
    def tails(self) -> tuple[int, int]:
        """Rows, and the tokens of the longest tail, that are collected for attention; none where tails are new."""
        rows, tokens = self.here.tails.shape
        return (0, 1) if self.own else (rows, tokens)

    def sight(self, window: int | None, groups: int) -> Seen:
        """What layers of a window see; `groups` as for `levels`."""
        if (window, groups) not in self._seen:
            causal = self.causal(window)
            bias = None if causal else self.bias(window)
            self._seen[window, groups] = Seen(causal, bias, self.levels(window, groups))
        return self._seen[window, groups]

    def causal(self, window: int | None) -> bool:
        """Whether each new token sees of its tail just the new tokens up to itself."""
        return self.own and not self._padding.any() and (window is None or self._positions.shape[1] <= window)

    def bias(self, window: int | None) -> torch.Tensor | None:
        """What is added to the scores of the tails, 0 or -inf, [B, 1, L or 1, T]; None where all is seen."""
        if window not in self._biases:
            seen, there = self.seen(self._places, window), self._there()
            seen &= there
            for row in np.flatnonzero(self._padding.any(1)):  # so that no row of numbers is undefined
                seen[row, self._padding[row]] = there[row]
            self._biases[window] = None if seen.all() else self._as_bias(seen[:, None])
        return self._biases[window]

    def seen(self, places: Ints, window: int | None) -> np.ndarray:
        """Which keys at some places each new token sees, [B, L, T]: those before it that the window reaches."""
        return _seen(self._positions, places, window)

    def levels(self, window: int | None, groups: int) -> list[list[Piece]]:
        """The shared segments as far as they are seen; those of one level have no row in common.

        Args:
            window: a sliding window in tokens, or None.
            groups: heads that ask as queries of one head, for each new token.
        """
        found: dict[int, list[Piece]] = {}
        for segment in self._layout.segments:
            if (piece := self._piece(segment, window, groups)) is not None:
                found.setdefault(segment.level, []).append(piece)
        return list(found.values())

    def _there(self) -> np.ndarray:
        """Which tail entries are tokens, [B, 1, T]."""
        if self.own:
            return ~self._padding[:, None, :]
        return (np.arange(self.here.tails.shape[1]) < self._layout.sizes[:, None])[:, None, :]

    def _piece(self, segment: Segment, window: int | None, groups: int) -> Piece | None:
        rows = slice(segment.first, segment.last)
        slots, start = segment.slots, segment.start
        if window is None:
            return Piece(*self._where(slots), segment.first, segment.last, None, None)
        positions, padding = self._positions[rows], self._padding[rows]
        oldest = int(positions[~padding].min()) - window + 1  # that any row sees
        if (skip := max(0, oldest - start)) >= len(slots):
            return None
        where = self._where(slots[skip:])
        places = np.arange(start + skip, start + len(slots))[None]
        seen = _seen(positions, places, window)
        seen |= padding[:, :, None]
        if seen.all():
            return Piece(*where, segment.first, segment.last, None, None)
        blind = np.asarray(~seen.any(2))
        bias = self._as_bias((seen | blind[:, :, None]).repeat(groups, 1).reshape(1, 1, -1, len(places[0])))
        unseen = torch.as_tensor(blind.repeat(groups, 1), device=self.store.device) if blind.any() else None
        return Piece(*where, segment.first, segment.last, bias, unseen)

    def _where(self, slots: Ints) -> tuple[int, int, torch.Tensor | None]:
        """A run of slots is read where it lies; others are collected."""
        if (np.diff(slots) == 1).all():
            return int(slots[0]), int(slots[-1]) + 1, None
        return 0, 0, torch.as_tensor(slots, device=self.store.device)

    def _as_bias(self, seen: np.ndarray) -> torch.Tensor:
        unseen = np.logical_not(seen, out=seen)  # in place: it may be the largest array there is
        bias = torch.zeros(seen.shape, dtype=self.store.dtype, device=self.store.device)
        return bias.masked_fill_(torch.as_tensor(unseen, device=self.store.device), float("-inf"))


def _seen(positions: Ints, places: Ints, window: int | None) -> np.ndarray:
    """Which places are not after positions, and within a window before them, [B, L, T] of [B, L] and [B or 1, T]."""
    new, old = positions[:, :, None].astype(np.int32), places[:, None, :].astype(np.int32)
    seen = old <= new
    if window is not None:
        seen &= old > new - window
    return seen
