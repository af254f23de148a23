"""The spans that an expansion has finished, collected until they become nodes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from babblegraph.born import Born
from babblegraph.protocols import ALL
from babblegraph.status import Flag, Status

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.rows import Rows
    from babblegraph.protocols import Chosen

NOT_NUMBERS = (
    "a model must give numbers, got NaN for what follows a text, which ends there, and so does every such text: load "
    "it in float32 or bfloat16 (float16 overflows), or look at its weights"
)

BASE_NOT_NUMBERS = (
    "a base must give numbers, got NaN for a token that was drawn, so there is no estimate under it: load it in "
    "float32 or bfloat16 (float16 overflows), or look at its weights"
)


class Emitted:
    """Finished spans, in the order in which they ended."""

    def __init__(self) -> None:
        self.spans: list[np.ndarray] = []
        self.token_log_q: list[np.ndarray] = []
        self.numbers: list[tuple[float, ...]] = []  # origin, log f, log g, log q, draws, full
        self.keys: list[int] = []
        self.marks: list[tuple[int, int]] = []  # status, flags
        self.repeats: list[tuple[int, int]] = []  # child that is there already, draws

    def __len__(self) -> int:
        return len(self.spans)

    def add(self, rows: Rows, row: int, draws: int, status: Status, flags: int = 0) -> None:
        """Row `row` ends: it becomes a node that stands for `draws` draws."""
        numbers = (rows.origin[row], rows.log_f[row], rows.log_g[row], rows.log_q[row], draws, rows.full[row])
        span = [rows.tokens[row]], [rows.token_log_q[row]]
        self.add_spans(*span, [numbers], [int(rows.key[row])], [(status, flags)])
        rows.way.end(rows, row, new=True)

    def add_spans(
        self,
        tokens: Iterable[np.ndarray],
        token_log_q: Iterable[np.ndarray],
        numbers: Iterable[tuple[float, ...]],
        keys: Iterable[int],
        marks: Iterable[tuple[int, int]],
    ) -> None:
        """Spans become nodes; each argument is what the attribute of its name gets."""
        self.spans.extend(tokens)
        self.token_log_q.extend(token_log_q)
        self.numbers.extend(numbers)
        self.keys.extend(keys)
        self.marks.extend(marks)

    def repeat(self, rows: Rows, row: int, child: int, draws: int) -> None:
        """Row `row` ends as a child that is there already: it stands for more draws now."""
        rows.way.end(rows, row, new=False)
        self.repeats.append((child, draws))

    def born(self, chosen: Chosen, rows: Rows) -> Born:
        """The new nodes' columns."""
        numbers = np.array(self.numbers, np.float64).reshape(-1, 6)
        log_f, log_g, log_q = numbers[:, 1:4].T
        origin, draws, full = (numbers[:, i].astype(np.intp) for i in (0, 4, 5))
        status = np.array([s for s, _ in self.marks], np.uint8)
        inclusion, lost = rows.way.inclusion(origin, log_q, draws)
        status[lost] = Status.PRUNED
        parent_flags = np.where(rows.exhausted, Flag.EXHAUSTED, 0) | np.where(rows.lost, Flag.CUT, 0)
        used = rows.expanded | rows.exhausted
        return Born(
            parent=np.asarray(chosen.ids)[origin].astype(np.int32),
            tokens=np.concatenate([*self.spans, np.zeros(0, np.int32)]),
            lengths=np.array([len(s) for s in self.spans], np.int32),
            token_log_q=np.concatenate([*self.token_log_q, np.zeros(0, np.float32)]),
            log_p_f=log_f,
            log_p_g=log_g,
            log_q=log_q,
            log_inclusion=np.where(full > 0, 0.0, inclusion),
            count=draws.astype(np.int32),
            status=status,
            flags=np.array([f for _, f in self.marks], np.uint8),
            key=np.array(self.keys, np.uint64),
            expanded=np.asarray(chosen.ids)[used].astype(np.int32),
            draws=np.where(chosen.draws == ALL, 1, chosen.draws)[used].astype(np.int32),
            parent_flags=parent_flags[used].astype(np.uint8),
            repeats=np.array(self.repeats, np.int32).reshape(-1, 2),
        )


def count_token_gate(graph: BabbleGraph, entered: int, passed: int) -> None:
    """How many next tokens the generator offered, and how many top-k and top-p let through."""
    gate = graph.meta.setdefault("token_gate", {"entered": 0, "passed": 0})
    gate["entered"] += entered
    gate["passed"] += passed


def note_unknown(graph: BabbleGraph, texts: int) -> None:
    """How many texts ended because the model gave no numbers for what follows them; it is told once a graph."""
    _note(graph, "not_numbers", texts, NOT_NUMBERS)


def note_unknown_base(graph: BabbleGraph, texts: int) -> None:
    """How many texts went on by a token whose probability under the base is no number; they go on all the same."""
    _note(graph, "base_not_numbers", texts, BASE_NOT_NUMBERS)


def _note(graph: BabbleGraph, name: str, texts: int, message: str) -> None:
    if not texts:
        return
    before = graph.meta.get(name, 0)
    graph.meta[name] = before + texts
    if not before:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
