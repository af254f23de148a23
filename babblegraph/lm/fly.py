"""Expansion without the host in between: every draw is a row of its own, and the device draws token after token.

The draws are those of `expand.expand`: the same uniforms, the same spans, the same nodes in the same order. Draws that
agree are computed beside each other and counted as one afterwards, since on a GPU a wider step takes hardly longer
than a narrow one, and a look at the host takes longer than the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.decode import AHEAD, Drawn, Sampler
from babblegraph.lm.emitted import Emitted
from babblegraph.lm.rows import Rows
from babblegraph.protocols import ALL, Draws
from babblegraph.randomness import chain
from babblegraph.status import Flag, Status

if TYPE_CHECKING:
    from babblegraph.born import Born
    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.expand import Rules
    from babblegraph.lm.trie import Trie
    from babblegraph.protocols import Chosen
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
LOOK = 16  # steps between looks at the texts, where strings end spans
MOST_ROWS = 1024


def may_fly(trie: Any, graph: BabbleGraph, chosen: Chosen, rules: Rules, draws: Draws) -> TypeGuard[Trie]:
    """Whether an expansion needs the host only at its end: draws with replacement below nodes without children."""
    ids, made = np.asarray(chosen.ids), np.asarray(chosen.draws)
    return (
        getattr(trie, "decoder", None) is not None
        and draws in (Draws.MULTINOMIAL, Draws.FRESH)
        and rules.constraint is None
        and rules.mixture is None
        and len(ids) > 0
        and not (made == ALL).any()
        and 0 < made.sum() <= MOST_ROWS
        and not any(len(graph.children(int(i))) for i in ids)
    )


def fly(
    trie: Trie, graph: BabbleGraph, chosen: Chosen, rng: Rng, meter: Meter, rules: Rules, draws: Draws
) -> Born:
    """Draws spans below nodes; arguments and result are those of `expand.expand`."""
    left, sampler = meter.tokens_left(), Sampler(rules.warp)
    logits = trie.open(graph, chosen.ids, meter)
    paths = [trie.path(i) for i in range(len(chosen))]
    flock = Flock(graph, chosen, rng, rules, draws, left, paths, logits.shape[1])
    row, flying = flock.origin.copy(), np.arange(len(flock.origin))
    given = (torch.as_tensor(x, device=logits.device) for x in (row, flock.uniforms(1)[0]))
    flock.look(Drawn(*(t.cpu().numpy()[None] for t in sampler(logits, *given))), trie, flying)
    while len(flying := np.flatnonzero(flock.group >= 0)):
        u = flock.uniforms(flock.steps())[:, flying]
        drawn, slots = trie.glide(row[flying], flock.tokens[-1][flying], u, sampler, meter)
        flock.own(slots, flying)
        flock.look(drawn, trie, flying)
        row[flying] = np.arange(len(flying))
    trie.close()
    meter.count("sampled", np.arange(len(left)), left - flock.left)
    return flock.out.born(chosen, flock.rows)


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
        self.rows = Rows.begin(graph, chosen, draws, rules)  # what the chosen nodes are told afterwards
        self.made = np.asarray(chosen.draws)
        self.origin = np.repeat(np.arange(len(chosen)), self.made)
        self.number = np.arange(len(self.origin)) - np.repeat(np.cumsum(self.made) - self.made, self.made)
        self.node = np.asarray(chosen.ids)[self.origin]
        self.tree = graph.root[self.node].astype(np.int64)
        self.room = rules.max_length[self.tree] - graph.length[self.node]
        self.key = graph.key[self.node].copy()
        self.tails = [self.rows.tails[o] for o in self.origin]
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
        live = np.flatnonzero(self.group >= 0)
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
        lead, count = lead[allowed], count[allowed]
        if self.rules.span.strings:
            for d in lead.tolist():
                self.tails[d] = self.rules.span.tail(self.tails[d], int(token[d]), self.rules.vocabulary)
        tails, room = [self.tails[d] for d in lead], self.room[lead] - self.length
        ends = self.rules.span.ends(token[lead].tolist(), tails, self.length, room.tolist())
        for d, draws, end in zip(lead.tolist(), count.tolist(), ends, strict=True):
            if end is not None:
                self._emit(d, draws, end, trie)
        place = np.array([-1 if end is not None else i for i, end in enumerate(ends)] + [-1])
        for d in live.tolist() if self.rules.span.strings else ():
            self.tails[d] = tails[self.group[d]] if self.group[d] >= 0 else b""
        self.group[live] = place[self.group[live]]  # the last entry is for draws that were cut

    def _affordable(self, lead: Ints) -> NDArray[np.bool_]:
        """Which pairs the budget allows, [P]: of each tree's new tokens the first so many."""
        tree = self.tree[lead]
        order = np.argsort(tree, kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.searchsorted(tree[order], tree[order])
        allowed = rank < self.left[tree]
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
        trie.land(self.graph.size + len(self.out) - 1, path, tokens[:-1], len(prefix))

    def _count_token_gate(self, passed: Ints, live: Ints) -> None:
        """How many next tokens the generator offered, and how many top-k and top-p let through."""
        if self.rules.warp is None:
            return
        _, first = np.unique(self.group[live], return_index=True)
        gate = self.graph.meta.setdefault("token_gate", {"entered": 0, "passed": 0})
        gate["entered"] += len(first) * self.vocabulary
        gate["passed"] += int(passed[live[first]].sum())

    def _spread(self, numbers: np.ndarray, flying: Ints) -> np.ndarray:
        """Numbers of the draws in flight, with 0 for all others, [D]."""
        every = np.zeros(len(self.origin), numbers.dtype)
        every[flying] = numbers
        return every
