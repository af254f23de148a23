"""What one expansion brings to the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.status import Status


@dataclass(frozen=True)
class Born:
    """What one expansion brought, before it is in the graph. M nodes, T tokens of their spans together.

    All log-probabilities are of the span alone, given its parent; `BabbleGraph.add` adds the parent's.
    """

    parent: NDArray[np.int32]  # [M]
    tokens: NDArray[np.int32]  # [T] spans one after the other
    lengths: NDArray[np.int32]  # [M] tokens of each span
    token_log_q: NDArray[np.float32]  # [T]
    log_p_f: NDArray[np.float64]  # [M] under the base generator
    log_p_g: NDArray[np.float64]  # [M] under the current generator
    log_q: NDArray[np.float64]  # [M] under what was sampled from
    log_inclusion: NDArray[np.float64]  # [M] log of the conditional inclusion factor
    count: NDArray[np.int32]  # [M] draws that this node stands for
    status: NDArray[np.uint8]  # [M]
    flags: NDArray[np.uint8]  # [M]
    key: NDArray[np.uint64]  # [M] random key of the node's path
    expanded: NDArray[np.int32]  # [F] the nodes that were expanded
    draws: NDArray[np.int32]  # [F] how many draws each of them got
    parent_flags: NDArray[np.uint8]  # [F] flags that the expansion gives to them: EXHAUSTED, CUT
    repeats: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    # [K, 2] children that were there already, and how many more draws each stands for

    @classmethod
    def of_spans(
        cls,
        parent: ArrayLike,
        spans: Sequence[Sequence[int]],
        log_q: ArrayLike,
        status: ArrayLike = Status.FRONTIER,
        log_inclusion: ArrayLike | None = None,
    ) -> Born:
        """Nodes given by hand: every span drawn once from f = g = q, each weight its parent's times 1.

        Args:
            parent: node ids, [M].
            spans: token ids, M lists.
            log_q: of each span, [M].
            status: of each node, [M] or one for all.
            log_inclusion: of each span, [M]; log_q by default, as for a single draw.
        """
        up, lq = np.asarray(parent, np.int32), np.asarray(log_q, np.float64)
        lengths, m = np.array([len(s) for s in spans], np.int32), len(spans)
        expanded, draws = np.unique(up, return_counts=True)
        return cls(
            parent=up,
            tokens=np.array([t for s in spans for t in s], np.int32),
            lengths=lengths,
            token_log_q=np.repeat(lq / np.maximum(lengths, 1), lengths).astype(np.float32),
            log_p_f=lq,
            log_p_g=lq,
            log_q=lq,
            log_inclusion=lq if log_inclusion is None else np.asarray(log_inclusion, np.float64),
            count=np.ones(m, np.int32),
            status=np.broadcast_to(np.asarray(status, np.uint8), (m,)).copy(),
            flags=np.zeros(m, np.uint8),
            key=np.arange(1, m + 1, dtype=np.uint64),
            expanded=expanded.astype(np.int32),
            draws=draws.astype(np.int32),
            parent_flags=np.zeros(len(expanded), np.uint8),
        )
