"""Columns that grow at their end: what a graph is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

LEAST = 64  # rows that every column has room for
SLACK = 4  # a full column grows by a quarter: rows without content are at most a fifth of it


class Column:
    """A typed column of a graph: reading it gives a view of the rows in use, `[N]`.

    Args:
        dtype: of its numbers.
        fill: what a new row holds where nothing is given.
    """

    def __init__(self, dtype: type, fill: float = 0) -> None:
        self.dtype, self.fill = dtype, fill

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, graph: None, owner: type) -> Column: ...
    @overload
    def __get__(self, graph: Any, owner: type) -> NDArray[Any]: ...
    def __get__(self, graph: Any, owner: type) -> Column | NDArray[Any]:
        return self if graph is None else graph._columns[self.name][: graph.size]


class Pairs(Sequence[tuple[int, int]]):
    """Pairs of node ids in the order in which they came, 8 bytes each; they read as tuples.

    >>> merges = Pairs([(4, 1)])
    >>> merges += [(5, 1), (7, 2)]
    >>> merges.append((8, 2))
    >>> len(merges), merges[-1], dict(merges)[5], merges.array.shape
    (4, (8, 2), 1, (4, 2))
    """

    def __init__(self, pairs: Iterable[tuple[int, int]] | NDArray[Any] = ()) -> None:
        self._rows, self._size = np.empty((LEAST, 2), np.int32), 0
        self.extend(pairs)

    @property
    def array(self) -> NDArray[np.int32]:
        """All pairs, [E, 2]."""
        return self._rows[: self._size]

    def append(self, pair: tuple[int, int]) -> None:
        """One more."""
        self.extend([pair])

    def extend(self, pairs: Iterable[tuple[int, int]] | NDArray[Any]) -> None:
        """Many more: tuples, or an array [E, 2]."""
        more = np.asarray(pairs if isinstance(pairs, np.ndarray) else list(pairs), np.int32).reshape(-1, 2)
        self._rows = with_room(self._rows, self._size, len(more))
        self._rows[self._size : self._size + len(more)] = more
        self._size += len(more)

    def __iadd__(self, pairs: Iterable[tuple[int, int]] | NDArray[Any]) -> Pairs:
        self.extend(pairs)
        return self

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((first, second) for first, second in self.array.tolist())

    @overload
    def __getitem__(self, i: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, i: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, i: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(i, slice):
            return [(a, b) for a, b in self.array[i].tolist()]
        first, second = self.array[i].tolist()
        return first, second

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Iterable) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Pairs({list(self)})"


def with_room(rows: NDArray[Any], used: int, more: int) -> NDArray[Any]:
    """The array itself where `more` rows fit behind those in use, else a larger one with their content.

    What is not in use is never written, so that the system gives it no memory.
    """
    if used + more <= len(rows):
        return rows
    grown = np.empty((max(used + more, len(rows) + len(rows) // SLACK), *rows.shape[1:]), rows.dtype)
    grown[:used] = rows[:used]
    return grown
