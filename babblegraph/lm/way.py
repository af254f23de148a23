"""How a model runs, found out once: its engine and the copies of its weights, which several babblers may share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from babblegraph.lm.engine import choose
from babblegraph.lm.packed import Packed
from babblegraph.lm.weights import structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Way:
    """The engine that a model takes, with the copies of its weights and its programs; it does not hold the model.

    All are good whatever the numbers in the weights: copies of weights that have changed are made anew. A model that
    has changed in kind (precision, device, layers, adapters, config) has to be checked again, see `fits`.

    Args:
        model, engine, pack_bytes, trace: as for `Babbler`.

    Raises:
        BadInput: the model takes no engine, or a bad option.
    """

    def __init__(self, model: PreTrainedModel, engine: str | None, pack_bytes: int, trace: bool) -> None:
        self._structure, self._asked = structure(model), (pack_bytes, trace)
        self._engines = {engine}  # that lead to this choice
        self.packed = Packed(model, pack_bytes, trace)
        self.choice = choose(model, engine)
        self._engines.add(self.choice.rung.name)

    def fits(self, model: PreTrainedModel, engine: str | None, pack_bytes: int, trace: bool) -> bool:
        """Whether another check would find the same out."""
        return (
            self.packed.is_of(model)
            and engine in self._engines
            and (pack_bytes, trace) == self._asked
            and structure(model) == self._structure
        )
