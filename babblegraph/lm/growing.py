"""The spans of draws in flight, which all grow by a token a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
ROOM = 16  # tokens at first; what is full gets twice as much


class Spans:
    """The spans of D draws, a column a token; what has been written stays where it is until there is no room."""

    def __init__(self, draws: int) -> None:
        self.length = 0
        self._tokens: NDArray[np.int32] = np.zeros((draws, ROOM), np.int32)
        self._log_q: NDArray[np.float32] = np.zeros((draws, ROOM), np.float32)
        self._slots: NDArray[np.int64] = np.zeros((draws, ROOM), np.int64)

    def append(self, tokens: Ints, log_q: Floats, slots: Ints | None) -> None:
        """A token more in every span, and the slots of the tokens before, where there are any; [D] each."""
        if self.length == self._tokens.shape[1]:
            room = ((0, 0), (0, self.length))
            self._tokens, self._log_q = np.pad(self._tokens, room), np.pad(self._log_q, room)
            self._slots = np.pad(self._slots, room)
        self._tokens[:, self.length], self._log_q[:, self.length] = tokens, log_q
        if slots is not None:
            self._slots[:, self.length - 1] = slots
        self.length += 1

    def of(self, draws: Ints) -> tuple[NDArray[np.int32], NDArray[np.float32], Ints]:
        """The tokens of M draws and their log q, [M, S] each, and the slots of all but the newest, [M, S - 1]."""
        n = self.length
        return self._tokens[draws, :n], self._log_q[draws, :n], self._slots[draws, : n - 1]
