"""The spans that an expansion has finished, collected until they become nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from babblegraph.born import Born
from babblegraph.protocols import ALL
from babblegraph.status import Flag, Status

if TYPE_CHECKING:
    from babblegraph.lm.rows import Rows
    from babblegraph.protocols import Chosen


class Emitted:
    """Finished spans, in the order in which they ended."""

    def __init__(self) -> None:
        self.spans: list[np.ndarray] = []
        self.token_log_q: list[np.ndarray] = []
        self.numbers: list[tuple[int, float, float, int, bool]] = []  # node, log f, log q, draws, full
        self.keys: list[int] = []
        self.marks: list[tuple[int, int]] = []  # status, flags
        self.repeats: list[tuple[int, int]] = []  # child that is there already, draws

    def __len__(self) -> int:
        return len(self.spans)

    def add(self, rows: Rows, row: int, draws: int, status: Status, flags: int = 0) -> None:
        """Row `row` ends: it becomes a node that stands for `draws` draws."""
        self.spans.append(rows.tokens[row])
        self.token_log_q.append(rows.token_log_q[row])
        self.numbers.append(
            (int(rows.node[row]), rows.log_f[row], rows.log_q[row], draws, bool(rows.full[row]))
        )
        self.keys.append(int(rows.key[row]))
        self.marks.append((status, flags))

    def repeat(self, child: int, draws: int) -> None:
        """A row ends as a child that is there already: it stands for more draws now."""
        self.repeats.append((child, draws))

    def born(self, chosen: Chosen, rows: Rows) -> Born:
        """The new nodes' columns. A child drawn c times of m has log inclusion log m + log q − log c."""
        parent, log_f, log_q, draws, full = (
            (np.array(x) for x in zip(*self.numbers, strict=True))
            if self.numbers
            else (np.zeros(0) for _ in range(5))
        )
        made = dict(zip(np.asarray(chosen.ids).tolist(), np.asarray(chosen.draws).tolist(), strict=True))
        m = np.array([max(made[int(p)], 1) for p in parent])
        inclusion = np.where(full.astype(bool), 0.0, np.log(m) + log_q - np.log(np.maximum(draws, 1)))
        parent_flags = np.where(rows.exhausted, Flag.EXHAUSTED, 0) | np.where(rows.lost, Flag.CUT, 0)
        used = rows.expanded | rows.exhausted
        return Born(
            parent=parent.astype(np.int32),
            tokens=np.concatenate([*self.spans, np.zeros(0, np.int32)]),
            lengths=np.array([len(s) for s in self.spans], np.int32),
            token_log_q=np.concatenate([*self.token_log_q, np.zeros(0, np.float32)]),
            log_p_f=log_f.astype(np.float64),
            log_p_g=log_f.astype(np.float64),
            log_q=log_q.astype(np.float64),
            log_inclusion=inclusion.astype(np.float64),
            count=draws.astype(np.int32),
            status=np.array([s for s, _ in self.marks], np.uint8),
            flags=np.array([f for _, f in self.marks], np.uint8),
            key=np.array(self.keys, np.uint64),
            expanded=np.asarray(chosen.ids)[used].astype(np.int32),
            draws=np.where(chosen.draws == ALL, 1, chosen.draws)[used].astype(np.int32),
            parent_flags=parent_flags[used].astype(np.uint8),
            repeats=np.array(self.repeats, np.int32).reshape(-1, 2),
        )
