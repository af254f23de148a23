"""Expansion with counted rows: many draws below many nodes, every distinct token computed once.

Each draw samples with its own uniforms, keyed by (node, draw, position), exactly as if it were alone. Draws that
agree so far are one row; where they disagree the row splits. So N samples cost the tokens of their trie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.ahead import Pauses, go_ahead
from babblegraph.lm.doubles import with_doubles
from babblegraph.lm.emitted import Emitted, count_token_gate
from babblegraph.lm.mixture import Both, mixed
from babblegraph.lm.race import Race
from babblegraph.lm.rows import Rows
from babblegraph.lm.spans import SpanRule
from babblegraph.lm.warp import Warp, warped
from babblegraph.status import Flag, Status

if TYPE_CHECKING:
    from babblegraph.born import Born
    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.constraint import Constraint
    from babblegraph.lm.parts import Earlier
    from babblegraph.protocols import Chosen, Draws
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]


class Source(Protocol):
    """Next-token logits of rows in flight. `lm.trie.Trie` has them from a model, a test from a table.

    Logits of both generators where f and g are not the same.
    """

    def open(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor | Both: ...
    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> torch.Tensor | Both: ...
    def keep(self, node: int, row: int) -> None: ...
    def close(self) -> None: ...


class Next(NamedTuple):
    """Log-probabilities of the next token under f, g and q, each [R, V]; the same object where they are the same."""

    f: torch.Tensor
    g: torch.Tensor
    q: torch.Tensor


class Rules(NamedTuple):
    """How texts grow: where spans end, how long texts may be, and the map from f and g to q."""

    span: SpanRule
    max_length: NDArray[np.int64]  # tokens of each tree's texts, prompts included, [trees]
    vocabulary: Mapping[int, bytes]
    warp: Warp | None = None  # temperature, top-k, top-p
    constraint: Constraint | None = (
        None  # logits processors, which come before the warp, and stopping criteria
    )

    mixture: float | None = None  # the share of f in what is sampled from, with neither warp nor processors
    pauses: Pauses | None = None  # where rows may go on by themselves

    def next(self, rows: Rows, logits: torch.Tensor | Both) -> Next:
        """The distributions of what follows each row."""
        if isinstance(logits, torch.Tensor):
            logits = with_doubles(logits)  # draws are made in them
            log_f = log_g = torch.log_softmax(logits, -1)
            return Next(log_f, log_g, self._log_q(rows, logits, log_g))
        logits = Both(*map(with_doubles, logits))
        log_f, log_g = torch.log_softmax(logits.f, -1), torch.log_softmax(logits.g, -1)
        if self.mixture is None:
            return Next(log_f, log_g, self._log_q(rows, logits.g, log_g))
        above_f, above_g = rows.graph.log_p_f[rows.node], rows.graph.log_p_g[rows.node]
        log_q = mixed(log_f, log_g, above_f + rows.log_f, above_g + rows.log_g, self.mixture)
        return Next(log_f, log_g, log_q)

    def _log_q(self, rows: Rows, logits: torch.Tensor, log_g: torch.Tensor) -> torch.Tensor:
        """g as it is warped; g itself where nothing changes it."""
        if self.constraint is None or not self.constraint.processors:
            return warped(self.warp, log_g)
        log_q = warped(self.warp, torch.log_softmax(self.constraint.scores(rows, logits), -1))
        nothing = log_q.isnan() & ~log_g.isnan()  # no token is allowed; not where the model itself says NaN
        return torch.where(nothing, -torch.inf, log_q)


def expand(
    source: Source,
    graph: BabbleGraph,
    chosen: Chosen,
    rng: Rng,
    meter: Meter,
    rules: Rules,
    draws: Draws,
    earlier: Earlier | None = None,
) -> Born:
    """Draws spans below nodes.

    Args:
        source: where logits come from.
        graph: read only; what is returned has to be added to it next.
        chosen: distinct nodes, and the number of draws for each (or `ALL`: every possible next token, once).
        rng: uniforms.
        meter: sampled tokens are counted here, and its budget cuts spans short.
        rules: see `Rules`.
        draws: how the draws of a node go together.
        earlier: what other parts of the same expansion did before; see `lm.parts`.

    Returns:
        The new nodes; see "One bookkeeping for every operation" in the docs on statistics for their weights.
        Spans that lost against others of a contest are born pruned.
    """
    rows = Rows.begin(graph, chosen, draws, rules, None if earlier is None else earlier.draws)
    out, first = Emitted(), graph.size + (0 if earlier is None else earlier.nodes)  # the next free id
    left = allowed = meter.tokens_left() if earlier is None else earlier.left
    logits = source.open(graph, chosen.ids, meter)
    while True:
        log_p = rules.next(rows, logits)
        if log_p.q is not log_p.g:
            count_token_gate(graph, log_p.q.numel(), int((log_p.q > -torch.inf).sum()))
        rows.draw(log_p.q, rng)
        newer = rows.affordable(left)
        for row, count in rows.cut_short(newer):
            out.add(rows, row, count, Status.FRONTIER, Flag.CUT)
            source.keep(first + len(out) - 1, row)
        if not newer.any():
            break
        parents = rows.step(newer, log_p, rules)
        left = left - np.bincount(rows.tree[rows.novel], minlength=len(left))
        ended = np.array([s is not None for s in rows.ends])
        for row, end in enumerate(rows.ends):
            if end is None:
                continue
            if (child := rows.repeated(row)) is not None:
                out.repeat(rows, row, child, int(rows.count[row]))
            else:
                out.add(rows, row, int(rows.count[row]), end)
                source.keep(first + len(out) - 1, int(parents[row]))
        if ended.all():
            break
        logits = source.advance(parents[~ended], rows.newest[~ended], meter)
        if ended.any():
            rows.take(np.flatnonzero(~ended))
        logits, left = go_ahead(source, rows, logits, rng, left, rules, meter)
    source.close()
    born = out.born(chosen, rows)
    if isinstance(rows.way, Race):
        rows.way.tell(chosen)
    meter.count("sampled", np.arange(len(left)), allowed - left)
    return born
