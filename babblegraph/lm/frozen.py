"""The base model under adapters: the same weights, without what training has added."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from babblegraph.lm.babbler import Babbler
from babblegraph.lm.base import without_adapters
from babblegraph.lm.turn import turn_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.engine import Engine
    from babblegraph.lm.hidden import SpanStates
    from babblegraph.lm.mixture import Pair


class Frozen(Babbler):
    """A babbler's model with its adapters switched off, for judges and references; it shares all weights.

    Keys and values of the adapted model are of no use to it, so it holds its own; whoever asks it gives them up
    with `release`. A model without adapters is its own base. It reads the graphs of any model of its tokenizer, such as
    those of a generator that has learned.

    Args:
        babbler: what is trained, with adapters of `peft` or of transformers.
    """

    def __init__(self, babbler: Babbler) -> None:
        self._adapted = babbler
        self.__dict__.update(babbler.__dict__)
        self._tries: weakref.WeakKeyDictionary[BabbleGraph, Engine | Pair] = weakref.WeakKeyDictionary()
        self._recorded, self._base = (), None

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self._adapted,), self._state

    def again(self, model: PreTrainedModel | None = None, **changed: Any) -> Babbler:
        """The same base with other options; with another model it is not frozen any more."""
        made = self._adapted.again(model, **changed)
        return Frozen(made) if model is None else made

    def hidden(self, graph: BabbleGraph, ids: ArrayLike, layers: Sequence[int], meter: Meter) -> SpanStates:
        """As the base has them; see `Babbler.hidden`."""
        with turn_of(self.model), self._off():
            return super().hidden(graph, ids, layers, meter)

    @contextmanager
    def _running(self, graph: BabbleGraph) -> Iterator[Engine | Pair]:
        with turn_of(self.model), self._off(), super()._running(graph) as trie:
            yield trie

    def _off(self) -> AbstractContextManager[Any]:
        return (without_adapters(self.model) or nullcontext)()

    def _trie(self, graph: BabbleGraph) -> Engine | Pair:
        if graph not in self._tries:
            made = self._tries[graph] = self._rung.make(self.model, **self._memory)
            if self._recorded:
                made.record(self._recorded)
        return self._tries[graph]
