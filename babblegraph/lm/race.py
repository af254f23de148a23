"""Draws without replacement: spans in the order of their perturbed log-probabilities, found from the top down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.samples import Drawn
from babblegraph.protocols import ALL
from babblegraph.randomness import chain
from babblegraph.resample import reached

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.rows import Rows
    from babblegraph.protocols import Chosen
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
GUMBEL = 1 << 48  # a word of random keys, beyond every token id
CHUNK = 1 << 20  # perturbed log-probabilities that are in memory at once


class Ended(NamedTuple):
    """What has ended, in that order."""

    group: list[int]
    perturbed: list[float]  # NaN where every token was taken: no contest
    new: list[bool]  # not a node that was there already
    lost: list[bool]


class Race:
    """The m best spans of each group by perturbed log-probability G(x) = log q(x) + Gumbel.

    A group is a chosen node, or all nodes of a tree that take part in a contest. What a row is worth is the largest
    G of all spans that go on from it, so that the m best rows contain the m best spans: the children's numbers are
    Gumbels that are conditioned on their largest one being the row's. A span that ends keeps its number and
    competes on. κ is the best that was lost; a span that stays was reached with probability
    1 − exp(−exp(log q − κ)), which is the factor of its weight. Where nothing was lost, every span is there, and
    the factor is 1. One draw is one sample, with the factor q: the other has an infinite variance.

    It takes a uniform for every possible token of every row.

    Source: Kool, van Hoof & Welling, "Stochastic beams and where to find them", 2019; design/statistics.md, "One
    bookkeeping for every operation".
    """

    def __init__(self, graph: BabbleGraph, chosen: Chosen) -> None:
        ids, draws = np.asarray(chosen.ids), np.asarray(chosen.draws)
        n, contest = len(ids), chosen.contest
        self.tree = graph.root[ids]  # [F]
        self.joined = np.zeros(n, np.bool_) if contest is None else contest.joined & (draws != ALL)  # [F]
        self.key, self.first = chain(graph.key[ids], GUMBEL), graph.draws[ids]  # [F]
        self.before = np.where(self.joined, graph.log_q[ids], 0.0)  # [F] log q above the span, if it counts
        trees = np.where(self.joined, self.tree, graph.trees + np.arange(n))
        self.group = np.unique(trees, return_inverse=True)[1]  # [F]
        groups = int(self.group.max(initial=-1)) + 1
        self.most, self.bound = np.zeros(groups, np.intp), np.full(groups, -np.inf)  # [G] m, and κ so far
        np.maximum.at(self.most, self.group, draws)
        self.perturbed = np.full(n, np.nan)  # [R]
        if contest is not None:
            self.perturbed[self.joined] = contest.perturbed[self.joined]
            self.bound[self.group[self.joined]] = contest.bound[self.tree[self.joined]]
        self._pairs = np.zeros(0)  # [P] perturbed log-probabilities of the pairs last drawn
        self._ended = Ended([], [], [], [])

    def draw(self, rows: Rows, log_q: torch.Tensor, rng: Rng) -> Drawn:
        """The pairs of a row and a token that are among the m best of their group, and those that ended taken along.

        Args:
            log_q: of the next token, [R, V].
        """
        if rows.tokens.shape[1] == 0:
            self._begin(rng)
        best = log_q.max(-1).values.cpu().numpy()  # NaN where any is
        alive = best > -np.inf
        racing = np.flatnonzero(alive & ~rows.full)
        row, token, value = self._candidates(rows, racing, log_q, rng)
        ended = self._ended
        waiting = [i for i, lost in enumerate(ended.lost) if not lost and not np.isnan(ended.perturbed[i])]
        group = np.r_[self.group[rows.origin[row]], [ended.group[i] for i in waiting]].astype(np.intp)
        kept = self._best(group, np.r_[value, [ended.perturbed[i] for i in waiting]])
        for i, stays in zip(waiting, kept[len(row) :].tolist(), strict=True):
            ended.lost[i] = not stays
        order = np.lexsort((token, row))
        order = order[kept[order]]
        self._pairs = value[order]
        return Drawn(row[order], token[order], np.ones(len(order), np.int64), alive, np.isnan(best))

    def step(self, place: Ints) -> None:
        """After the pairs: `place[p]` is the row that pair p became, -1 for none (the last entry too)."""
        went_on = place[: len(self._pairs)] >= 0
        self.perturbed = np.full(int((place >= 0).sum()), np.nan)  # rows that take every token have no number
        self.perturbed[place[: len(self._pairs)][went_on]] = self._pairs[went_on]

    def take(self, place: Ints, rows: Ints) -> None:
        """Rows move: `rows` are the old places of those that stay."""
        self.perturbed = self.perturbed[rows]

    def end(self, rows: Rows, row: int, new: bool) -> None:
        """A row becomes a node, or is one that was there, and competes on as it is."""
        ended = self._ended
        ended.group.append(int(self.group[rows.origin[row]]))
        ended.perturbed.append(float(self.perturbed[row]))
        ended.new.append(new)
        ended.lost.append(False)

    def inclusion(self, origin: Ints, log_q: Floats, counts: Ints) -> tuple[Floats, NDArray[np.bool_]]:
        """log of the inclusion factor of nodes below the chosen ones, and whether they lost; both [M]."""
        group = self.group[origin]
        single = (self.most[group] == 1) & ~self.joined[origin]
        pi = reached(self.before[origin] + log_q, self.bound[group])
        return np.where(single, log_q, pi), self._of_new(self._ended.lost).astype(np.bool_)

    def tell(self, chosen: Chosen) -> None:
        """Tells the contest what its new nodes are worth, and what it has lost."""
        if chosen.contest is not None:
            joined = np.zeros(len(self.most), np.bool_)
            joined[self.group[self.joined]] = True
            born, group = self._of_new(self._ended.perturbed), self._of_new(self._ended.group)
            chosen.contest.born = np.where(joined[group.astype(np.intp)], born, np.nan)
            chosen.contest.bound = chosen.contest.bound.copy()
            chosen.contest.bound[self.tree[self.joined]] = self.bound[self.group[self.joined]]

    def _of_new(self, column: list[Any]) -> NDArray[Any]:
        return np.array(column)[np.array(self._ended.new, np.bool_)]

    def _begin(self, rng: Rng) -> None:
        """The numbers of the chosen nodes that have none: the largest Gumbel of all spans below."""
        new = np.isnan(self.perturbed) & (self.most[self.group] > 0)
        u = rng.uniforms(self.key[new], self.first[new], 0)
        self.perturbed[new] = self.before[new] - np.log(_exponential(u))

    def _candidates(
        self, rows: Rows, racing: Ints, log_q: torch.Tensor, rng: Rng
    ) -> tuple[Ints, Ints, Floats]:
        """Rows, tokens and perturbed log-probabilities: of each row as many as its group could take, and one more."""
        found: list[tuple[Ints, Ints, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
        v = log_q.shape[1]
        step = max(1, CHUNK // v)
        for at in range(0, len(racing), step):
            some = racing[at : at + step]
            origin = rows.origin[some]
            log_rate = log_q[torch.as_tensor(some, device=log_q.device)].double().cpu().numpy()
            log_rate += (self.before[origin] + rows.log_q[some])[:, None]
            keys = chain(chain(rows.key[some], GUMBEL), self.first[origin])
            u = rng.uniforms(np.repeat(keys, v), np.tile(np.arange(v), len(some)), rows.tokens.shape[1])
            values = below(self.perturbed[some], log_rate, u.reshape(-1, v))
            most = self.most[self.group[origin]] + 1
            widest = min(int(most.max()), v)
            best = np.argpartition(-values, widest - 1, axis=1)[:, :widest]
            taken = np.take_along_axis(values, best, 1)
            place, which = np.nonzero(taken > -np.inf)
            found.append((some[place], best[place, which], taken[place, which]))
        row, token, value = (np.concatenate(x) for x in zip(*found, strict=True))
        return row, token, value

    def _best(self, group: Ints, values: Floats) -> NDArray[np.bool_]:
        """Who is among the m best of each group; the best of the others is what the group has lost."""
        order = np.lexsort((-values, group))
        rank = np.arange(len(order)) - np.searchsorted(group[order], group[order])
        kept = np.zeros(len(order), np.bool_)
        kept[order] = (rank < self.most[group[order]]) & (values[order] > self.bound[group[order]])
        np.maximum.at(self.bound, group[~kept], values[~kept])
        return kept


def below(largest: Floats, log_rate: Floats, u: Floats) -> Floats:
    """Gumbels of the children of rows, given that the largest of each row is known.

    Args:
        largest: of each row, [R].
        log_rate: log q of each child, −inf for those that there are not, [R, V].
        u: uniforms in [0, 1), [R, V].

    Returns:
        [R, V], −inf where there is no child.
    """
    free = log_rate - np.log(_exponential(u))
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # the top one itself, and children that there are not
        later = np.log1p(-np.exp(free - free.max(1, keepdims=True))) - free
    later = np.where(np.isneginf(free), np.inf, later)  # log of how much later than the first a child arrives
    return -np.logaddexp(-largest[:, None], later)


def _exponential(u: Floats) -> Floats:
    """Exponential numbers of uniforms in [0, 1), never 0."""
    return -np.log1p(-(u + 2.0**-54))
