"""Draws in flight, each a row of its own: which of them agree so far, where their spans end, what becomes a node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.lm.decode import AHEAD, Drawn
from babblegraph.lm.emitted import Emitted, note_unknown
from babblegraph.lm.rows import Rows, first_of_each_tree
from babblegraph.lm.samples import Samples
from babblegraph.randomness import chain
from babblegraph.status import Flag, Status

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.expand import Rules
    from babblegraph.lm.trie import Trie
    from babblegraph.protocols import Chosen, Draws
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
LOOK = 16  # steps between looks at the texts, where strings end spans


class Flock:
    """D draws in flight, in groups that agree so far.

    Args:
        left: tokens that each tree may still draw, [trees].
        paths: slots of the chosen nodes' own paths, [F].
        vocabulary: how many next tokens there are.

    Attributes:
        origin: which chosen node each draw is below, [D].
        group: which draws agree, [D]; -1 for those whose span has ended.
        length: tokens of the spans so far.
        tokens: of each step so far, [D] each.
    """

    def __init__(
        self,
        graph: BabbleGraph,
        chosen: Chosen,
        rng: Rng,
        rules: Rules,
        draws: Draws,
        left: Ints,
        paths: Sequence[Ints],
        vocabulary: int,
    ) -> None:
        self.graph, self.rng, self.rules, self.out = graph, rng, rules, Emitted()
        self.left, self.prefix, self.vocabulary = left.copy(), paths, vocabulary
        self.offered = self.passed = 0  # next tokens at the token gate
        self.rows = Rows.begin(graph, chosen, draws, rules)  # what the chosen nodes are told afterwards
        draw = Samples(graph, chosen, draws)
        self.origin, self.number = draw.row, draw.number
        self.node = np.asarray(chosen.ids)[self.origin]
        self.tree = graph.root[self.node].astype(np.int64)
        self.room = rules.max_length[self.tree] - graph.length[self.node]
        self.key = graph.key[self.node].copy()
        self.tails = list(self.rows.tails)  # of each group, the bytes that matter to stop strings
        self.group, self.length = self.origin.copy(), 0
        self.tokens: list[Ints] = []
        self.log_g, self.log_q = np.zeros(len(self.origin)), np.zeros(len(self.origin))
        self._token_log_q: list[Floats] = []
        self._slots: list[Ints] = []  # of the tokens that were computed, [D] each
        self._leader: list[Ints] = []  # which draw's slot stands for those that agree, [D] each

    def uniforms(self, steps: int) -> Floats:
        """What the next tokens of the spans are drawn by, [S, D]."""
        key, number = self.graph.key[self.node], self.graph.draws[self.node] + self.number
        return np.stack([self.rng.uniforms(key, number, self.length + step) for step in range(steps)])

    def steps(self) -> int:
        """How many tokens can be drawn before somebody has to look at the texts."""
        open_ = self.group >= 0
        most = int(self.room[open_].max()) - self.length
        if self.rules.span.tokens is not None:
            most = min(most, self.rules.span.tokens - self.length)
        return max(1, min(most, LOOK if self.rules.span.strings else AHEAD))

    def own(self, slots: Ints, flying: Ints) -> None:
        """Takes note of the slots of tokens that were computed, [S, R]."""
        for step in slots:
            self._slots.append(self._spread(step, flying))

    def look(self, drawn: Drawn, trie: Trie, flying: Ints) -> None:
        """Takes over what was drawn, [S, R], token by token: where do groups part, and whose spans end?"""
        for step in range(len(drawn.tokens)):
            if not (self.group >= 0).any():
                return
            self._step(Drawn(*(self._spread(table[step], flying) for table in drawn)), trie)

    def _step(self, drawn: Drawn, trie: Trie) -> None:
        token, log_g, log_q, passed = drawn
        live: Ints = np.flatnonzero(self.group >= 0)
        if np.isnan(log_q[live]).any() and not len(live := self._without_unknown(live, log_q)):
            return
        self._count_token_gate(passed, live)
        pairs, first, which, count = np.unique(
            self.group[live] << 32 | token[live], return_index=True, return_inverse=True, return_counts=True
        )
        lead = live[first]  # the draw that stands for each pair, [P]
        allowed = self._affordable(lead)
        self._cut_short(pairs >> 32, lead, count, allowed, trie)
        self._append(token, log_g, log_q, live, lead[which])
        group = np.full(len(pairs), -1)
        group[allowed] = np.arange(int(allowed.sum()))
        self.group[live] = group[which]
        parent, lead, count = (pairs >> 32)[allowed], lead[allowed], count[allowed]
        tails = [self.tails[g] for g in parent]
        if self.rules.span.strings:
            tails = [self._tail(tail, t) for tail, t in zip(tails, token[lead].tolist(), strict=True)]
        room = self.room[lead] - self.length
        ends = self.rules.span.ends(token[lead].tolist(), tails, self.length, room.tolist())
        for d, draws, end in zip(lead.tolist(), count.tolist(), ends, strict=True):
            if end is not None:
                self._emit(d, draws, end, trie)
        goes_on = np.array([end is None for end in ends], np.bool_)
        self.tails = [tail for tail, on in zip(tails, goes_on, strict=True) if on]
        place = np.r_[
            np.where(goes_on, np.cumsum(goes_on) - 1, -1), -1
        ]  # the last is for draws that were cut
        self.group[live] = place[self.group[live]]

    def _without_unknown(self, live: Ints, log_q: Floats) -> Ints:
        """The draws that the model gave numbers for; the others end as nothing, as in `Rows.draw`."""
        unknown = np.isnan(log_q[live])
        note_unknown(self.graph, len(np.unique(self.group[live[unknown]])))
        self.group[live[unknown]] = -1
        living = np.bincount(self.origin[live[~unknown]], minlength=len(self.rows.born)) > 0
        ended = self.origin[live[unknown]]
        self.rows.exhausted[ended] |= ~(living | self.rows.born | self.rows.lost)[ended]
        return live[~unknown]

    def _tail(self, before: bytes, token: int) -> bytes:
        return self.rules.span.tail(before, token, self.rules.vocabulary)

    def _affordable(self, lead: Ints) -> NDArray[np.bool_]:
        """Which pairs the budget allows, [P]: of each tree's new tokens the first so many."""
        tree = self.tree[lead]
        allowed = first_of_each_tree(tree, self.left)
        self.left = self.left - np.bincount(tree[allowed], minlength=len(self.left))
        self.rows.expanded[self.origin[lead[allowed]]] = True
        self.rows.lost[self.origin[lead[~allowed]]] = True
        return allowed

    def _cut_short(
        self, group: Ints, lead: Ints, count: Ints, allowed: NDArray[np.bool_], trie: Trie
    ) -> None:
        """Groups whose next tokens the budget does not allow end here, with the draws that stop."""
        if allowed.all() or not self.length:
            return
        stopped, first, which = np.unique(group[~allowed], return_index=True, return_inverse=True)
        draws = np.bincount(which, count[~allowed]).astype(int)
        for at in range(len(stopped)):
            self._emit(int(lead[~allowed][first[at]]), int(draws[at]), Status.FRONTIER, trie, Flag.CUT)

    def _append(self, token: Ints, log_g: Floats, log_q: Floats, live: Ints, lead: Ints) -> None:
        """Every draw that is left goes on by a token, and shares its place with the first that agrees."""
        self.tokens.append(token)
        self._token_log_q.append(log_q)
        leader = np.zeros(len(self.origin), np.int64)
        leader[live] = lead
        self._leader.append(leader)
        self.log_g[live] += log_g[live]
        self.log_q[live] += log_q[live]
        self.key[live] = chain(self.key[live], token[live])
        self.length += 1

    def _emit(self, d: int, draws: int, status: Status, trie: Trie, flags: int = 0) -> None:
        """The span of a draw becomes a node, which holds its path."""
        tokens = np.array([step[d] for step in self.tokens], np.int32)
        token_log_q = np.array([step[d] for step in self._token_log_q], np.float32)
        log_g = self.log_g[d]
        numbers = (self.origin[d], log_g, log_g, self.log_q[d], draws, False)
        self.out.add_span(tokens, token_log_q, numbers, int(self.key[d]), status, flags)
        prefix = self.prefix[self.origin[d]]
        own = [self._slots[j][self._leader[j][d]] for j in range(self.length - 1)]
        path = np.r_[prefix, np.array(own, np.int64)]
        self.rows.born[self.origin[d]] |= not flags
        trie.land(self.graph.size + len(self.out) - 1, path, tokens[:-1], len(prefix))

    def _count_token_gate(self, passed: Ints, live: Ints) -> None:
        """How many next tokens the groups were offered, and how many truncation let through."""
        if self.rules.warp is None:
            return
        _, first = np.unique(self.group[live], return_index=True)
        self.offered += len(first) * self.vocabulary
        self.passed += int(passed[live[first]].sum())

    def _spread(self, numbers: np.ndarray, flying: Ints) -> np.ndarray:
        """Numbers of the draws in flight, with 0 for all others, [D]."""
        every = np.zeros(len(self.origin), numbers.dtype)
        every[flying] = numbers
        return every
