"""The base model under adapters: the same weights, without what training has added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from babblegraph.lm.babbler import Babbler
from babblegraph.lm.engines import WithoutAdapters

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.hidden import SpanStates


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
        self._engines: WithoutAdapters = WithoutAdapters(babbler._engines)

    def __reduce__(self) -> tuple[Any, ...]:
        return Frozen, (self._adapted,), self._state

    def again(self, model: PreTrainedModel | None = None, **changed: Any) -> Babbler:
        """The same base with other options; with another model it is not frozen any more."""
        made = self._adapted.again(model, **changed)
        return Frozen(made) if model is None else made

    def hidden(self, graph: BabbleGraph, ids: ArrayLike, layers: Sequence[int], meter: Meter) -> SpanStates:
        """As the base has them; see `Babbler.hidden`."""
        with self._engines.off():
            return super().hidden(graph, ids, layers, meter)
