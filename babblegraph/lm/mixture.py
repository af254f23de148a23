"""Two generators at once: the base f that estimates are about, and g, which is sampled from, alone or mixed with f."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.engine import Engine, Measured
    from babblegraph.lm.hidden import SpanStates

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]


class Both(NamedTuple):
    """Logits of the next token under two generators, each [R, V]."""

    f: torch.Tensor
    g: torch.Tensor


def mixed(
    log_f: torch.Tensor, log_g: torch.Tensor, path_f: Floats, path_g: Floats, share: float
) -> torch.Tensor:
    """The next token of the defensive mixture of whole texts, ε f(x) + (1−ε) g(x), as log-probabilities.

    The share of f shrinks where a text goes on as g would have it: z(n) = ε f(n) / (ε f(n) + (1−ε) g(n)). So the
    weight f/q of any beginning of a text is at most 1/ε; with a constant share at each token it would have no bound.

    Args:
        log_f, log_g: of the next token, [R, V].
        path_f, path_g: log-probabilities of each row's text so far, [R].
        share: ε.

    Source: design/statistics.md, "The objective".
    """
    of_f = np.log(share) + path_f
    of_g = np.log1p(-share) + path_g
    total = np.logaddexp(of_f, of_g)
    log_z, log_rest = (
        torch.as_tensor(x - total, device=log_f.device).to(log_f.dtype)[:, None] for x in (of_f, of_g)
    )
    return torch.logaddexp(log_z + log_f, log_rest + log_g)


class Pair:
    """An engine for each of two models of one tokenizer: rows are in flight in both, words of a judge in g alone.

    Args:
        f, g: their engines.
        base: the state of the model while f's runs, such as adapters that are switched off.
    """

    def __init__(
        self, f: Engine, g: Engine, base: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self.f, self.g, self.base = f, g, base

    @property
    def held(self) -> Mapping[int, Any]:
        """By node, of g."""
        return self.g.held

    @property
    def store(self) -> Measured:
        """What g holds; f holds as much again."""
        return self.g.store

    @property
    def windows(self) -> set[int | None] | None:
        """What g's layers told of."""
        return self.g.windows

    def record(self, layers: Sequence[int]) -> None:
        """Of g, as the engine says."""
        self.g.record(layers)

    def hidden(
        self, graph: BabbleGraph, ids: Ints, meter: Meter
    ) -> tuple[NDArray[np.bool_], SpanStates | None]:
        """Of g, as the engine says."""
        return self.g.hidden(graph, ids, meter)

    def begin(self, graph: BabbleGraph) -> None:
        """A new expansion, in both."""
        self.f.begin(graph)
        self.g.begin(graph)

    def open(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> Both:
        """Puts one row in flight at the end of each node, in both."""
        with self.base():
            f = self.f.open(graph, ids, meter)
        return Both(f, self.g.open(graph, ids, meter))

    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> Both:
        """Appends tokens to rows in flight, in both."""
        with self.base():
            f = self.f.advance(rows, tokens, meter)
        return Both(f, self.g.advance(rows, tokens, meter))

    def keep(self, node: int, row: int) -> None:
        """Holds the path of a row for a node, in both."""
        self.f.keep(node, row)
        self.g.keep(node, row)

    def renumber(self, first: int, order: Ints) -> None:
        """Numbers promised nodes anew, in both."""
        self.f.renumber(first, order)
        self.g.renumber(first, order)

    def crowded(self, ids: Ints) -> bool:
        """Whether these nodes take more than a third of the room in one of them."""
        return self.f.crowded(ids) or self.g.crowded(ids)

    def close(self) -> None:
        """Ends the expansion, or a part of it, in both."""
        self.f.close()
        self.g.close()

    def restore(self, size: int) -> None:
        """After an interruption, in both."""
        self.f.restore(size)
        self.g.restore(size)

    def release(self, ids: Ints) -> None:
        """Gives up the paths of nodes, in both."""
        self.f.release(ids)
        self.g.release(ids)

    def next_logits(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor:
        """What follows each node, under g."""
        return self.g.next_logits(graph, ids, meter)

    def after(self, graph: BabbleGraph, ids: Ints, words: Sequence[int], meter: Meter) -> torch.Tensor:
        """What would follow some words, under g."""
        return self.g.after(graph, ids, words, meter)

    def around(
        self,
        graph: BabbleGraph,
        ids: Ints,
        before: Sequence[int],
        after: Sequence[int],
        meter: Meter,
        first: int | None = None,
    ) -> torch.Tensor:
        """What follows words around each text, under g."""
        return self.g.around(graph, ids, before, after, meter, first)
