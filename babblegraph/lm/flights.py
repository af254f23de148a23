"""The rows of an expansion in batches of equal length, each with one cache that forks where rows split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm import caches
from babblegraph.lm.steps import After
from babblegraph.lm.texts import Text

Ints = NDArray[np.integer[Any]]


class Batch(NamedTuple):
    """Texts of equal length that grow together."""

    cache: Any
    size: int
    length: int


class Flights:
    """R rows in flight. Rows of the same text are one text of a batch; nothing is padded."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._batch: Ints = np.zeros(0, np.int64)  # [R] each row's batch
        self._place: Ints = np.zeros(0, np.int64)  # [R] and its place there
        self._texts: dict[
            tuple[int, int], Text
        ] = {}  # (batch, place) -> its text as it is now, if it is known

    @property
    def slots(self) -> int:
        """Tokens whose keys and values are in flight, copies counted."""
        return sum(caches.slots(batch.cache) * batch.size for batch in self.batches)

    @property
    def nbytes(self) -> int:
        """Memory of the caches in flight."""
        return sum(caches.nbytes(batch.cache) for batch in self.batches)

    def board(self, texts: Sequence[Text]) -> None:
        """Puts one row in flight at the end of each text, instead of those that were."""
        self.land()
        unique = sorted({id(text): text for text in texts}.values(), key=lambda text: text.length)
        places: dict[int, tuple[int, int]] = {}
        for n, (length, group) in enumerate(groupby(unique, lambda text: text.length)):
            alike = list(group)
            self.batches.append(Batch(caches.join([t.cache for t in alike]), len(alike), length))
            places |= {id(text): (n, place) for place, text in enumerate(alike)}
        self._texts = {places[id(text)]: text for text in unique}
        at = np.array([places[id(text)] for text in texts], np.int64).reshape(-1, 2)
        self._batch, self._place = at[:, 0].copy(), at[:, 1].copy()

    def advance(self, rows: Ints, tokens: Ints, run: Callable[[Any, Ints, int, Ints], After]) -> torch.Tensor:
        """Replaces the rows: new row i is old row `rows[i]` with `tokens[i]` appended.

        Args:
            rows, tokens: [R].
            run: puts tokens [B, 1] behind the texts of a cache, which it uses up; it is also told how long these
                are, and for each the number of a new row with its text, [B].

        Returns:
            The logits of what follows each new row, [R, V].
        """
        batch, place = self._batch[rows], self._place[rows]
        grown: list[Batch] = []
        found, order = [], []
        for n, old in enumerate(self.batches):
            mine = np.flatnonzero(batch == n)
            if not len(mine):
                continue
            edges = np.stack([place[mine], tokens[mine]], 1)
            _, first, which = np.unique(edges, axis=0, return_index=True, return_inverse=True)
            new, which = mine[first], which.reshape(-1)
            made = run(_forked(old, place[new]), tokens[new][:, None], old.length, new)
            batch[mine], place[mine] = len(grown), which
            grown.append(Batch(made.cache, len(new), old.length + 1))
            found.append(made.logits[torch.as_tensor(which, device=made.logits.device)])
            order.append(mine)
        self.batches, self._batch, self._place, self._texts = grown, batch, place, {}
        logits = torch.cat(found)
        return logits[torch.as_tensor(np.argsort(np.concatenate(order)), device=logits.device)]

    def text(self, row: int) -> Text:
        """The text of a row as it is now; it is not changed when the row goes on."""
        at = int(self._batch[row]), int(self._place[row])
        if at not in self._texts:
            cache, size, length = self.batches[at[0]]
            self._texts[at] = Text(caches.take(cache, [at[1]], size), length, None)
        return self._texts[at]

    def land(self) -> None:
        """No row is in flight any more."""
        self.batches, self._texts = [], {}


def _forked(batch: Batch, places: Ints) -> Any:
    """The cache of a batch's texts at some places; the batch's own is used up."""
    if np.array_equal(places, np.arange(batch.size)):
        return batch.cache
    return caches.take(batch.cache, places.tolist(), batch.size)
