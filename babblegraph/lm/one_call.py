"""Babblers that live as long as one call of `generate`: what depends on the model alone is kept for the next."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple

from babblegraph.lm.babbler import Babbler
from babblegraph.lm.weights import Structure, structure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.lm.engine import Choice
    from babblegraph.lm.packed import Packed


class Known(NamedTuple):
    """What was found out about a model, and of what kind it was then."""

    structure: Structure
    choice: Choice
    packed: Packed


# neither side holds the model
_known: weakref.WeakKeyDictionary[PreTrainedModel, Known] = weakref.WeakKeyDictionary()


class OneCall(Babbler):
    """A `Babbler` that takes the engine, and the copies of weights, from the last such babbler of its model.

    Both are good whatever the numbers in the weights: a model that learns from one call to the next is not checked
    again, and its copies are made anew. One that has changed in kind (precision, device, layers, adapters, config) is
    checked again. The copies take their memory as long as the model lives.
    """

    def _choice(self, engine: str | None, packed: Packed) -> tuple[Choice, Packed]:
        now, known = structure(self.model), _known.get(self.model)
        if known is None or known.structure != now:
            known = _known[self.model] = Known(now, *super()._choice(engine, packed))
        return known.choice, known.packed
