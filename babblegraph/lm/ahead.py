"""Rows go on by themselves between two looks of the host: the draws, spans and nodes are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from babblegraph.lm.decode import AHEAD
from babblegraph.lm.emitted import count_token_gate
from babblegraph.lm.flock import LOOK
from babblegraph.lm.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from babblegraph.budget import Meter
    from babblegraph.lm.expand import Ints, Rules
    from babblegraph.lm.mixture import Both
    from babblegraph.lm.rows import Rows
    from babblegraph.lm.spans import SpanRule
    from babblegraph.randomness import Rng

SMALL = 1024  # a vocabulary that is looked through at once


class Pauses:
    """After which tokens somebody has to look whether a span ends.

    What a token says is looked up when it is first drawn: until then it is one of them, if strings end spans.

    Args:
        rule: where spans end.
        vocabulary: the bytes of tokens.
    """

    def __init__(self, rule: SpanRule, vocabulary: Mapping[int, bytes]) -> None:
        self._rule, self._vocabulary = rule, vocabulary
        self._last = bytes(
            {s.encode()[-1] for s in (*rule.stop, *rule.until)}
        )  # bytes that may complete a string
        self._seen: set[int] = set()
        self._table = torch.zeros(0, dtype=torch.bool)

    def table(self, vocabulary: int) -> torch.Tensor:
        """Of all tokens, [V]."""
        if len(self._table) != vocabulary:
            self._table = torch.full((vocabulary,), self._rule.strings)
            self._table[[i for i in self._rule.end_ids if i < vocabulary]] = True
            self._seen = set()
            if vocabulary <= SMALL:
                self.learn(np.arange(vocabulary))
        return self._table

    def learn(self, tokens: Ints) -> None:
        """These were drawn: from now on it is known whether they matter."""
        if not self._rule.strings:
            return
        for token in set(tokens.tolist()) - self._seen:
            self._seen.add(token)
            if token not in self._rule.end_ids and not any(b in self._last for b in self._vocabulary[token]):
                self._table[token] = False


def go_ahead(
    source: Any, rows: Rows, logits: torch.Tensor | Both, rng: Rng, left: Ints, rules: Rules, meter: Meter
) -> tuple[torch.Tensor | Both, Ints]:
    """The logits after the rows' newest tokens, [R, V], and the tokens left, when they have gone on as far as they can.

    That is until draws of a row part, or a token comes after which a span may end; not at all where what is drawn needs
    the host at every step. Arguments are those of `expand.expand`.
    """
    in_flight, way = getattr(source, "in_flight", None), rows.way
    if in_flight is None or rules.pauses is None or not isinstance(logits, torch.Tensor):
        return logits, left
    if not isinstance(way, Samples) or way.systematic or rows.full.any() or any(map(len, rows.twins)):
        return logits, left
    if rules.constraint is not None or (rules.warp is not None and rules.warp.truncates):
        return logits, left
    pausing = rules.pauses.table(logits.shape[1])
    rules.pauses.learn(rows.newest)
    if not (steps := in_flight.may_coast(max(_steps(rows, rules, left), 0))):
        return logits, left
    temperature = 1.0 if rules.warp is None else rules.warp.temperature
    found = in_flight.coast(logits, way.ahead(rows, steps, rng), way.row, pausing, temperature, meter)
    if found is None or not found.tokens:
        return logits, left
    tokens, log_g, log_q = (
        torch.stack(numbers).numpy() for numbers in (found.tokens, found.log_g, found.log_q)
    )
    if rules.warp is not None:
        count_token_gate(rows.graph, tokens.size * logits.shape[1], found.passed)
    rows.go_on(tokens, log_g, log_q, rules)
    left = left - len(tokens) * np.bincount(rows.tree, minlength=len(left))
    return found.logits[-1], left


def _steps(rows: Rows, rules: Rules, left: Ints) -> int:
    """How many tokens every row may have before its last one."""
    length = rows.tokens.shape[1]
    most = int((rules.max_length[rows.tree] - rows.graph.length[rows.node]).min()) - length - 1
    if rules.span.tokens is not None:
        most = min(most, rules.span.tokens - length - 1)
    each = np.bincount(rows.tree, minlength=len(left))
    most = min(most, int((left[each > 0] // each[each > 0]).min()))
    return min(most, LOOK if rules.span.strings else AHEAD)
