"""Draws with replacement: independent ones, and those at equal distances (arithmetic sampling)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.invert import Inverse
from babblegraph.protocols import ALL, Draws
from babblegraph.randomness import chain

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.rows import Rows
    from babblegraph.protocols import Chosen
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]
LATTICE = 1 << 47  # a word of random keys, beyond every token id
NOISE = 1e-6  # probability left of a row that is only rounding


class Drawn(NamedTuple):
    """Which tokens follow which rows, P pairs in the order of rows and tokens, and which rows can go on.

    Args:
        row, token: of each pair, [P].
        draws: how many agree on it, [P].
        alive: which rows can go on at all, [R].
        unknown: which cannot because the model gave no numbers (NaN), [R].
    """

    row: Ints
    token: Ints
    draws: Ints
    alive: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


class Samples:
    """D draws, each in a row. A child drawn c times of m has the factor m q / c.

    Independent draws sample with a uniform each for every position. Systematic ones share one uniform a node: its m
    points stand at equal distances in [0, 1), and a row keeps those that fall into its own interval, whose length
    is its probability q. When m q is at most 1 there is at most one point, anywhere in the interval with equal
    odds, so that it may be drawn anew: from there on the draw is an independent one, and no precision is lost
    however long the span is.

    Source: Vilnis et al., "Arithmetic sampling: parallel diverse decoding for large language models", 2023;
    design/statistics.md, "One bookkeeping for every operation".
    """

    def __init__(self, graph: BabbleGraph, chosen: Chosen, draws: Draws, earlier: Ints | None = None) -> None:
        ids = np.asarray(chosen.ids)
        self.made = np.where(chosen.draws == ALL, 0, chosen.draws)  # [F]
        self.key, self.first = graph.key[ids], graph.draws[ids]  # [F]
        if earlier is not None:  # that other parts of the expansion have made
            self.first = self.first + earlier
        self.row: Ints = np.repeat(np.arange(len(ids)), self.made)  # [D]
        self.number = np.arange(len(self.row)) - np.repeat(np.cumsum(self.made) - self.made, self.made)  # [D]
        self.systematic = draws is Draws.SYSTEMATIC
        self.point = np.full(len(self.row), np.nan)  # [D] in the interval of its row, of systematic draws
        self._pair: Ints = np.zeros(0, np.int64)  # [D] of the pairs last drawn; -1 for none

    def draw(self, rows: Rows, log_q: torch.Tensor, rng: Rng) -> Drawn:
        """Every draw's next token; the draws of a row that agree are counted.

        Args:
            log_q: of the next token, [R, V].
        """
        inverse = Inverse(rows.left(log_q))
        total = inverse.total
        alive = total > NOISE
        draws = np.flatnonzero(alive[self.row])
        token, row = np.zeros(len(draws), np.int64), self.row[draws]
        if len(draws):
            points = self._points(rows, draws, rng)
            if self.systematic:
                token, self.point[draws] = inverse.split(row, points)
            else:
                token = inverse.at(row, points)
        pairs, which, counts = np.unique(
            row * log_q.shape[1] + token, return_inverse=True, return_counts=True
        )
        self._pair = np.full(len(self.row), -1)
        self._pair[draws] = which
        return Drawn(pairs // log_q.shape[1], pairs % log_q.shape[1], counts, alive, np.isnan(total))

    def ahead(self, rows: Rows, steps: int, rng: Rng) -> NDArray[np.float64]:
        """The uniforms of the next steps, of independent draws, [S, D]."""
        origin = rows.origin[self.row]
        at = rows.tokens.shape[1] + np.arange(steps)
        return rng.uniforms(self.key[origin], self.first[origin] + self.number, at[:, None])

    def step(self, place: Ints) -> None:
        """After the pairs: `place[p]` is the row that pair p became, -1 for none (the last entry too)."""
        self._move(place[self._pair])

    def take(self, place: Ints, rows: Ints) -> None:
        """Rows move: `place[r]` is where row r goes, -1 for nowhere; `rows` are the old places of those that stay."""
        self._move(place[self.row])

    def end(self, rows: Rows, row: int, new: bool) -> None:
        """A row becomes a node, or stands for one that was there; its draws are counted there."""

    def inclusion(
        self, origin: Ints, log_q: NDArray[np.float64], counts: Ints
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """log of the inclusion factor of nodes below the chosen ones, and whether they lost; both [M]."""
        return factor(self.made[origin], log_q, counts), np.zeros(len(origin), np.bool_)

    def _points(self, rows: Rows, draws: Ints, rng: Rng) -> NDArray[np.float64]:
        """Where in the interval of its row each draw is, [D']."""
        row, at = self.row[draws], rows.tokens.shape[1]
        origin = rows.origin[row]
        key, ids = self.key[origin], self.first[origin] + self.number[draws]
        if not self.systematic:
            return rng.uniforms(key, ids, at)
        together = np.log(self.made[origin]) + rows.log_q[row] > 0
        if at == 0 and together.any():
            self._lay_out(np.unique(origin[together]), rng)
        u = self.point[draws]
        alone = ~together
        u[alone] = rng.uniforms(key[alone], ids[alone], at)
        return u

    def _lay_out(self, nodes: Ints, rng: Rng) -> None:
        """m points at equal distances for each of some chosen nodes, moved by one uniform."""
        shift = np.full(len(self.made), np.nan)
        shift[nodes] = rng.uniforms(chain(self.key[nodes], LATTICE), self.first[nodes], 0)
        self.point = (self.number + shift[self.row]) / self.made[self.row]

    def _move(self, row: Ints) -> None:
        stays = row >= 0
        self.row, self.number, self.point = row[stays], self.number[stays], self.point[stays]


def factor(draws: Ints, log_q: NDArray[np.float64], counts: Ints) -> NDArray[np.float64]:
    """log of the inclusion factor m q / c of children that c of m draws agree on, all [M]."""
    return np.log(np.maximum(draws, 1)) + log_q - np.log(np.maximum(counts, 1))
