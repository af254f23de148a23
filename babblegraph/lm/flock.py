"""Draws in flight, each a row of its own: which of them agree so far, where their spans end, what becomes a node."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.lm.decode import AHEAD, Drawn
from babblegraph.lm.emitted import Emitted, note_unknown
from babblegraph.lm.growing import Spans
from babblegraph.lm.rows import Rows, first_of_each_tree
from babblegraph.lm.samples import Samples
from babblegraph.randomness import chain
from babblegraph.status import Flag, Status

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.expand import Rules
    from babblegraph.lm.parts import Earlier
    from babblegraph.lm.trie import Trie
    from babblegraph.protocols import Chosen, Draws
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
LOOK = 16  # steps between looks at the texts, where strings end spans


class Flock:
    """D draws in flight, in groups that agree so far.

    Args:
        earlier: what other parts of the expansion did before, and the tokens that each tree may still draw.
        paths: slots of the chosen nodes' own paths, [F].
        vocabulary: how many next tokens there are.

    Attributes:
        origin: which chosen node each draw is below, [D].
        group: which draws agree, [D]; -1 for those whose span has ended.
        length: tokens of the spans so far.
        newest: the last token of each, [D].
    """

    def __init__(
        self,
        graph: BabbleGraph,
        chosen: Chosen,
        rng: Rng,
        rules: Rules,
        draws: Draws,
        earlier: Earlier,
        paths: Sequence[Ints],
        vocabulary: int,
    ) -> None:
        self.graph, self.rng, self.rules, self.out = graph, rng, rules, Emitted()
        self.left, self.prefix, self.vocabulary = earlier.left.copy(), paths, vocabulary
        self.next_id = graph.size + earlier.nodes
        self.offered = self.passed = 0  # next tokens at the token gate
        self.rows = Rows.begin(graph, chosen, draws, rules)  # what the chosen nodes are told afterwards
        draw = Samples(graph, chosen, draws)
        self.origin, self.number = draw.row, draw.number + earlier.draws[draw.row]
        self.node = np.asarray(chosen.ids)[self.origin]
        self.tree = graph.root[self.node].astype(np.int64)
        self.room = rules.max_length[self.tree] - graph.length[self.node]
        self.key = graph.key[self.node].copy()
        self.tails = list(self.rows.tails)  # of each group, the bytes that matter to stop strings
        self.group, self.length = self.origin.copy(), 0
        self.newest: Ints = np.zeros(len(self.origin), np.int64)
        self._spans = Spans(len(self.origin))
        self._landed: list[tuple[Ints, Ints]] = []  # paths of new nodes, and the tokens of them that are new
        self._end_ids = np.array([*rules.span.end_ids], np.int64)
        self.log_g, self.log_q = np.zeros(len(self.origin)), np.zeros(len(self.origin))
        # of tokens that were computed, and are not in the spans yet, [D] each
        self._slots: deque[Ints] = deque()
        # which draw's newest token stands for those that agree, [D]
        self._leader = np.arange(len(self.origin))

    def uniforms(self, steps: int) -> Floats:
        """What the next tokens of the spans are drawn by, [S, D]."""
        key, number = self.graph.key[self.node], self.graph.draws[self.node] + self.number
        return self.rng.uniforms(key, number, self.length + np.arange(steps)[:, None])

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
        drawn = Drawn(*(self._spread(table, flying) for table in drawn))
        turns = np.isin(drawn.tokens, self._end_ids) | np.isnan(drawn.log_q)  # where somebody has to look
        first, step = self.next_id + len(self.out), 0
        while step < len(drawn.tokens) and (self.group >= 0).any():
            if steps := self._straight(turns[step:]):
                self._go_on(Drawn(*(table[step : step + steps] for table in drawn)))
            else:
                self._step(Drawn(*(table[step] for table in drawn)))
            step += steps or 1
        if self._landed:
            paths, tokens = zip(*self._landed, strict=True)
            trie.land(first, paths, tokens)
            self._landed = []

    def _straight(self, turns: NDArray[np.bool_]) -> int:
        """How many of the next steps only make spans longer: nobody agrees any more, and nobody's span ends."""
        live = np.flatnonzero(self.group >= 0)
        if self.rules.span.strings or len(live) > len(self.tails):
            return 0
        most = min(len(turns), int(self.room[live].min()) - self.length - 1)
        if self.rules.span.tokens is not None:
            most = min(most, self.rules.span.tokens - self.length - 1)
        draws = np.bincount(self.tree[live], minlength=len(self.left))
        most = min(most, int((self.left[draws > 0] // draws[draws > 0]).min()))
        stops = np.flatnonzero(turns[: max(most, 0), live].any(1))
        return int(stops[0]) if len(stops) else max(most, 0)

    def _go_on(self, drawn: Drawn) -> None:
        """Such steps, [S, D]."""
        live, steps = np.flatnonzero(self.group >= 0), len(drawn.tokens)
        self.left = self.left - steps * np.bincount(self.tree[live], minlength=len(self.left))
        self.rows.expanded[self.origin[live]] = True
        for token, log_g, log_q, passed in zip(*drawn, strict=True):
            self._count_token_gate(passed, live)
            self._append(token, log_g, log_q, live, live)

    def _step(self, drawn: Drawn) -> None:
        """One token, [D]."""
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
        self._cut_short(pairs >> 32, lead, count, allowed)
        self._append(token, log_g, log_q, live, lead[which])
        group = np.full(len(pairs), -1)
        group[allowed] = np.arange(int(allowed.sum()))
        self.group[live] = group[which]
        lead, count = lead[allowed], count[allowed]
        ends = self._ends((pairs >> 32)[allowed], token[lead].tolist(), self.room[lead] - self.length)
        if ends.count(None) == len(ends):
            return
        goes_on = np.array([end is None for end in ends], np.bool_)
        self._emit(lead[~goes_on], count[~goes_on], [(end, 0) for end in ends if end is not None])
        self.tails = [tail for tail, on in zip(self.tails, goes_on, strict=True) if on]
        # the last is for draws that were cut
        place = np.append(np.where(goes_on, np.cumsum(goes_on) - 1, -1), -1)
        self.group[live] = place[self.group[live]]

    def _ends(self, parent: Ints, tokens: list[int], room: Ints) -> list[Status | None]:
        """How each new group ends, [G]; `parent` is the group that it comes from."""
        rule = self.rules.span
        if rule.strings:
            given = zip(parent.tolist(), tokens, strict=True)
            self.tails = [rule.tail(self.tails[g], token, self.rules.vocabulary) for g, token in given]
        else:
            self.tails = [b""] * len(tokens)
        return rule.ends(tokens, self.tails, self.length, room.tolist())

    def _without_unknown(self, live: Ints, log_q: Floats) -> Ints:
        """The draws that the model gave numbers for; the others end as nothing, as in `Rows.draw`."""
        unknown = np.isnan(log_q[live])
        note_unknown(self.graph, len(np.unique(self.group[live[unknown]])))
        self.group[live[unknown]] = -1
        living = np.bincount(self.origin[live[~unknown]], minlength=len(self.rows.born)) > 0
        ended = self.origin[live[unknown]]
        self.rows.exhausted[ended] |= ~(living | self.rows.born | self.rows.lost)[ended]
        return live[~unknown]

    def _affordable(self, lead: Ints) -> NDArray[np.bool_]:
        """Which pairs the budget allows, [P]: of each tree's new tokens the first so many."""
        tree = self.tree[lead]
        allowed = first_of_each_tree(tree, self.left)
        self.left = self.left - np.bincount(tree[allowed], minlength=len(self.left))
        self.rows.expanded[self.origin[lead[allowed]]] = True
        self.rows.lost[self.origin[lead[~allowed]]] = True
        return allowed

    def _cut_short(self, group: Ints, lead: Ints, count: Ints, allowed: NDArray[np.bool_]) -> None:
        """Groups whose next tokens the budget does not allow end here, with the draws that stop."""
        if allowed.all() or not self.length:
            return
        stopped, first, which = np.unique(group[~allowed], return_index=True, return_inverse=True)
        draws = np.bincount(which, count[~allowed]).astype(int)
        self._emit(lead[~allowed][first], draws, [(Status.FRONTIER, Flag.CUT)] * len(stopped))

    def _append(self, token: Ints, log_g: Floats, log_q: Floats, live: Ints, lead: Ints) -> None:
        """Every draw that is left goes on by a token, and shares its place with the first that agrees."""
        slots = self._slots.popleft()[self._leader] if self.length else None
        self._spans.append(token, log_q, slots)
        self.newest = token
        self._leader = np.zeros(len(self.origin), np.int64)
        self._leader[live] = lead
        self.log_g[live] += log_g[live]
        self.log_q[live] += log_q[live]
        self.key[live] = chain(self.key[live], token[live])
        self.length += 1

    def _emit(self, ended: Ints, draws: Ints, marks: list[tuple[Status, int]]) -> None:
        """The spans of M draws become nodes, which hold their paths.

        Args:
            ended: which draws, [M].
            draws: how many each stands for, [M].
            marks: status and flags.
        """
        tokens, token_log_q, slots = self._spans.of(ended)
        origin, log_g = self.origin[ended], self.log_g[ended]
        columns = (origin, log_g, log_g, self.log_q[ended], draws, np.zeros(len(ended)))
        numbers = zip(*(column.tolist() for column in columns), strict=True)
        self.out.add_spans(tokens, token_log_q, numbers, self.key[ended].tolist(), marks)
        self.rows.born[[o for o, (_, flags) in zip(origin.tolist(), marks, strict=True) if not flags]] = True
        for o, new, span in zip(origin.tolist(), slots, tokens, strict=True):
            self._landed.append((np.concatenate([self.prefix[o], new]), span[:-1]))

    def _count_token_gate(self, passed: Ints, live: Ints) -> None:
        """How many next tokens the groups were offered, and how many truncation let through."""
        if self.rules.warp is None:
            return
        _, first = np.unique(self.group[live], return_index=True)
        self.offered += len(first) * self.vocabulary
        self.passed += int(passed[live[first]].sum())

    def _spread(self, numbers: np.ndarray, flying: Ints) -> np.ndarray:
        """Numbers of the draws in flight, with 0 for all others, [..., D]."""
        every = np.zeros((*numbers.shape[:-1], len(self.origin)), numbers.dtype)
        every[..., flying] = numbers
        return every
