"""Counted rows: the spans that one expansion has in flight, and how draws split them.

Which tokens a row goes on with, and what that does to weights, is said by its way to draw: `samples.Samples` or
`race.Race`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.emitted import note_unknown, note_unknown_base
from babblegraph.lm.race import Race
from babblegraph.lm.samples import Samples
from babblegraph.protocols import ALL, Draws
from babblegraph.randomness import chain
from babblegraph.status import Status

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.expand import Next, Rules
    from babblegraph.protocols import Chosen
    from babblegraph.randomness import Rng


Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
NOBODY = np.zeros(0, np.int64)  # no child
NOISE = 1e-6  # probability left of a token that is only rounding


@dataclass
class Rows:
    """R rows in flight, each standing for its draws. Log-probabilities are of the span so far."""

    graph: BabbleGraph
    origin: Ints  # [R] which of the chosen nodes the row is below
    node: Ints  # [R] its id
    tree: Ints  # [R]
    full: NDArray[np.bool_]  # [R] takes every next token instead of drawing
    tokens: NDArray[np.int32]  # [R, t]
    token_log_q: NDArray[np.float32]  # [R, t]
    log_f: NDArray[np.float64]  # [R]
    log_g: NDArray[np.float64]  # [R]
    log_q: NDArray[np.float64]  # [R]
    key: NDArray[np.uint64]  # [R] hash of the path
    tails: list[bytes]  # [R] the bytes that matter to stop strings
    twins: list[Ints]  # [R] children of the node, drawn earlier, that go on like this row
    fresh: bool  # whether these are never drawn again
    way: Samples | Race  # what is drawn
    expanded: NDArray[np.bool_]  # [F] something was drawn
    exhausted: NDArray[np.bool_]  # [F] nothing was left to draw
    born: NDArray[np.bool_]  # [F] some row has ended
    lost: NDArray[np.bool_]  # [F] the budget allowed less than was chosen
    ends: list[Status | None] = field(default_factory=list)  # [R] after `step`
    newest: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [R] after `step`
    novel: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))  # [R] after `step`
    count: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [R] after `step`
    pair_row: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [P] after `draw`
    pair_token: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [P]
    pair_count: Ints = field(default_factory=lambda: np.zeros(0, np.int64))  # [P] draws
    pair_twins: list[Ints] = field(default_factory=list)  # [P] children that the pair repeats so far

    @classmethod
    def begin(
        cls,
        graph: BabbleGraph,
        chosen: Chosen,
        draws: Draws,
        rules: Rules,
        earlier: Ints | None = None,
    ) -> Rows:
        """One empty row below each chosen node, with all its draws: those after `earlier` ones, [F]."""
        n, ids = len(chosen), np.asarray(chosen.ids)
        return cls(
            graph=graph,
            origin=np.arange(n),
            node=ids,
            tree=graph.root[ids].astype(np.int64),
            full=np.asarray(chosen.draws) == ALL,
            tokens=np.zeros((n, 0), np.int32),
            token_log_q=np.zeros((n, 0), np.float32),
            log_f=np.zeros(n),
            log_g=np.zeros(n),
            log_q=np.zeros(n),
            key=graph.key[ids].copy(),
            tails=[rules.span.tail_of(graph, i) for i in ids.tolist()],
            twins=[np.array(graph.children(int(i)), np.int64) for i in ids],
            fresh=draws is Draws.FRESH,
            way=Race(graph, chosen) if draws is Draws.DISTINCT else Samples(graph, chosen, draws, earlier),
            expanded=np.zeros(n, np.bool_),
            exhausted=np.zeros(n, np.bool_),
            born=np.zeros(n, np.bool_),
            lost=np.zeros(n, np.bool_),
        )

    def draw(self, log_q: torch.Tensor, rng: Rng) -> None:
        """Finds the tokens that the rows go on with: pairs of a row and a token, with the draws that agree on it.

        Args:
            log_q: log-probabilities of the next token, [R, V].
            rng: uniforms.
        """
        row, token, count, alive, unknown = self.way.draw(self, log_q, rng)
        self._note_exhausted(~alive)
        note_unknown(self.graph, int(unknown.sum()))
        if self.full.any():
            every = torch.nonzero(self.left(log_q)[torch.as_tensor(self.full)] > 0).cpu().numpy()  # [P', 2]
            row = np.concatenate([row, np.flatnonzero(self.full)[every[:, 0]]])
            token = np.concatenate([token, every[:, 1]])
            count = np.concatenate([count, np.ones(len(every), np.int64)])
        self.pair_row, self.pair_token, self.pair_count = row, token, count
        self.pair_twins = self._matching(self.pair_row, self.pair_token)

    def affordable(self, left: Ints) -> NDArray[np.bool_]:
        """Which pairs the budget allows, [P]: of each tree's new tokens the first `left[tree]`."""
        known = np.array([len(twins) > 0 for twins in self.pair_twins], np.bool_)
        tree, novel = self.tree[self.pair_row], ~known
        allowed = np.ones(len(tree), np.bool_)
        if (left[tree] < len(tree)).any():
            allowed[novel] = first_of_each_tree(tree[novel], left)
        self.expanded[self.origin[self.pair_row[allowed]]] = True
        self.lost[self.origin[self.pair_row[~allowed]]] = True
        return allowed

    def cut_short(self, allowed: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        """Rows that end here because the budget does not allow their next tokens, with the draws that stop.

        A row without tokens, or one that only repeats an earlier child, is not worth a node.
        """
        if allowed.all():
            return
        draws = np.bincount(
            self.pair_row[~allowed], self.pair_count[~allowed], minlength=len(self.node)
        ).astype(int)
        for row in np.flatnonzero(draws):
            if self.tokens.shape[1] and not len(self.twins[row]):
                yield int(row), int(draws[row])

    def step(self, allowed: NDArray[np.bool_], log_p: Next, rules: Rules) -> Ints:
        """Appends the drawn tokens: every allowed pair becomes a row. Returns the old row of each, [R]."""
        rows, tokens = self.pair_row[allowed], self.pair_token[allowed]
        at = torch.as_tensor(rows * log_p.q.shape[1] + tokens, device=log_p.q.device)
        found = {id(x): x for x in log_p}  # where nothing moves or warps f, all three are one
        picked = torch.stack([x.reshape(-1)[at].double() for x in found.values()]).cpu().numpy()
        step_f, step_g, step_q = (picked[list(found).index(id(x))] for x in log_p)
        twins = [self.pair_twins[p] for p in np.flatnonzero(allowed)]
        place = np.full(len(allowed) + 1, -1)  # the last entry is for what has no pair
        place[:-1][allowed] = np.arange(len(rows))
        self.way.step(place)
        self._select(rows)
        self.twins, self.newest = twins, tokens
        self.novel = np.array([not len(t) for t in twins], np.bool_)
        self.count = self.pair_count[allowed]
        note_unknown_base(
            self.graph, int(np.isnan(step_f).sum())
        )  # never where it is g itself: nothing is drawn
        self._append(tokens, step_f, step_g, step_q, rules)
        length = self.tokens.shape[1]
        room = rules.max_length[self.tree] - self.graph.length[self.node] - length
        self.ends = rules.span.ends(tokens.tolist(), self.tails, length, room.tolist())
        if rules.constraint is not None:
            for row in np.flatnonzero(rules.constraint.done(self, log_p.q.device)):
                if self.ends[row] in (None, Status.FRONTIER):
                    self.ends[row] = Status.LEAF_STOP
        for row in np.flatnonzero(self.full):  # a node for every next token: spans of one token
            if self.ends[row] is None:
                self.ends[row] = Status.FRONTIER
        self.born[self.origin[[e is not None for e in self.ends]]] = True
        return rows

    def take(self, rows: Ints) -> None:
        """Keeps some rows; draws of rows that are not kept are forgotten."""
        place = np.full(len(self.node), -1)
        place[rows] = np.arange(len(rows))
        self.way.take(place, rows)
        self.ends = []
        self._select(rows)

    def _select(self, rows: Ints) -> None:
        if np.array_equal(rows, np.arange(len(self.node))):  # as at most steps
            return
        for name in (
            "origin",
            "node",
            "tree",
            "full",
            "tokens",
            "token_log_q",
            "log_f",
            "log_g",
            "log_q",
            "key",
        ):
            setattr(self, name, getattr(self, name)[rows])
        self.tails = [self.tails[r] for r in rows]
        self.twins = [self.twins[r] for r in rows]

    def _note_exhausted(self, dead: NDArray[np.bool_]) -> None:
        """Nothing is left to draw below a node when all its rows are dead ends.

        A row that has tokens is one by rounding alone: its prefix had something left, its next tokens have not.
        """
        living = np.bincount(self.origin, ~dead, minlength=len(self.exhausted)) > 0
        self.exhausted[self.origin[dead]] |= ~(living | self.born | self.lost)[self.origin[dead]]

    def left(self, log_q: torch.Tensor) -> torch.Tensor:
        """q of the next tokens less what earlier children took of it, [R, V]."""
        q = log_q.exp()
        row = np.repeat(np.arange(len(self.twins)), [len(t) for t in self.twins])
        if not self.fresh or not len(row):
            return q
        child = np.concatenate(self.twins)
        at = self.graph.start[child] + self.tokens.shape[1]
        mass = np.exp(self.graph.log_q[child] - self.graph.log_q[self.node[row]] - self.log_q[row])
        # a child that ends here took all of it: exact, though logits computed again differ in rounding
        mass[at + 1 == self.graph.stop[child]] = np.inf
        edges, which = np.unique(row * q.shape[1] + self.graph.tokens[at], return_inverse=True)
        place = torch.as_tensor(edges, device=q.device)
        before = q.view(-1)[place].double()
        rest = before - torch.as_tensor(np.bincount(which, mass), device=q.device)
        q.view(-1)[place] = torch.where(rest > NOISE * before, rest, 0.0).to(q.dtype)
        return q

    def go_on(self, tokens: Ints, log_g: Floats, log_q: Floats, rules: Rules) -> None:
        """Appends what the rows have drawn by themselves, [S, R] each: no row has split or ended."""
        for token, step_g, step_q in zip(tokens, log_g, log_q, strict=True):
            self._append(token, step_g, step_g, step_q, rules)

    def _append(self, tokens: Ints, log_f: Floats, log_g: Floats, log_q: Floats, rules: Rules) -> None:
        """Every row goes on by a token, [R] each."""
        self.tokens = np.concatenate([self.tokens, tokens.astype(np.int32)[:, None]], 1)
        self.token_log_q = np.concatenate([self.token_log_q, log_q.astype(np.float32)[:, None]], 1)
        self.log_f, self.log_g, self.log_q = self.log_f + log_f, self.log_g + log_g, self.log_q + log_q
        self.key = chain(self.key, tokens)
        if rules.span.strings:
            given = zip(self.tails, tokens.tolist(), strict=True)
            self.tails = [rules.span.tail(b, t, rules.vocabulary) for b, t in given]

    def repeated(self, row: int) -> int | None:
        """The child that is just this row, drawn earlier."""
        twins = self.twins[row]
        same = twins[self.graph.stop[twins] - self.graph.start[twins] == self.tokens.shape[1]]
        return int(same[0]) if len(same) else None

    def _matching(self, rows: Ints, tokens: Ints) -> list[Ints]:
        """For each pair, earlier children that go on with its token after its row's tokens."""
        if not any(map(len, self.twins)):
            return [NOBODY] * len(rows)
        found = []
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            twins = self.twins[row]
            at = self.graph.start[twins] + self.tokens.shape[1]
            longer = at < self.graph.stop[twins]
            found.append(twins[longer][self.graph.tokens[at[longer]] == token])
        return found


def first_of_each_tree(tree: Ints, left: Ints) -> NDArray[np.bool_]:
    """Of things that belong to trees, [P], the first `left[tree]` of each."""
    order = np.argsort(tree, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(tree[order], tree[order])
    return rank < left[tree]
