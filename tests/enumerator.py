"""Exact expectations of programs on the real graph: every outcome of every random number, once.

An operation's result is constant in each uniform between two edges. So a uniform is one choice among the pieces
that the edges cut [0, 1) into, a run is a list of choices, and an odometer goes through all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from table_lm import TableLM


class TooMany(Exception):
    """A program has more outcomes than there is time for."""


class Enumerator:
    """A source of uniforms that takes every possible outcome in turn.

    Args:
        lm: whose next tokens are drawn where a key is a node's; spans of one token.
        most: how many runs there may be.
    """

    def __init__(self, lm: TableLM, most: int) -> None:
        self.lm, self.most, self.path = lm, most, []
        self.nodes: dict[int, tuple[int, ...]] = {}  # the text of each node's key; to be kept by the program

    def expectation(self, program: Callable[[Enumerator], np.ndarray]) -> tuple[np.ndarray, int]:
        """The exact mean of what a program returns, and the number of its outcomes."""
        self.path, total, mass, runs = [], 0.0, 0.0, 0
        while True:
            self.depth, self.odds, self.used, self.edges = 0, 1.0, set(), []
            total = total + self._run(program)
            mass, runs = mass + self.odds, runs + 1
            while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
                self.path.pop()
            if not self.path:
                assert abs(mass - 1) < 1e-12
                return total, runs
            if runs >= self.most:
                raise TooMany
            self.path[-1][0] += 1

    def expect(self, edges) -> None:
        """Tells where the result may change in the uniforms that come next: one array of edges each."""
        self.edges += list(edges)

    def uniforms(self, keys, draws, positions):
        keys, draws, positions = np.broadcast_arrays(keys, draws, positions)
        found = []
        for asked in zip(keys.tolist(), draws.tolist(), positions.tolist(), strict=True):
            assert asked not in self.used, "a random number must not decide twice"
            self.used.add(asked)
            found.append(self._uniform(asked[0]))
        return np.array(found)

    def _run(self, program):
        result = program(self)
        assert not self.edges, "fewer random numbers were used than foreseen"
        return self.odds * result

    def _uniform(self, key: int) -> float:
        node = self.nodes.get(key)
        edges = self.edges.pop(0) if node is None else np.cumsum(np.exp(self.lm.table[node]))
        cuts = np.unique(np.r_[0.0, 1.0, np.clip(edges, 0, 1)])
        real = np.flatnonzero(np.diff(cuts) > 1e-14)
        if self.depth == len(self.path):
            self.path.append([0, len(real)])
        piece = real[self.path[self.depth][0]]
        self.depth, self.odds = self.depth + 1, self.odds * (cuts[piece + 1] - cuts[piece])
        return float((cuts[piece] + cuts[piece + 1]) / 2)
