"""The base model under adapters: the same weights, without what training has added."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from babblegraph.lm.babbler import Babbler

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.engine import Engine


class Base(Babbler):
    """A babbler's model with its adapters switched off, for judges and references; it shares all weights.

    Keys and values of the adapted model are of no use to it, so it holds its own; whoever asks it gives them up
    with `release`. A model without adapters is its own base.

    Args:
        babbler: what is trained, with adapters of `peft` or of transformers.
    """

    def __init__(self, babbler: Babbler) -> None:
        self.__dict__.update(copy.copy(babbler).__dict__)
        self._tries: weakref.WeakKeyDictionary[BabbleGraph, Engine] = weakref.WeakKeyDictionary()
        self._recorded = ()

    @contextmanager
    def _running(self, graph: BabbleGraph) -> Iterator[Engine]:
        with without_adapters(self.model), super()._running(graph) as trie:
            yield trie


def without_adapters(model: object) -> AbstractContextManager[None]:
    """The state of a model in which its adapters, if it has any, are switched off."""
    if hasattr(model, "disable_adapter"):  # peft's own models
        off: AbstractContextManager[None] = model.disable_adapter()
        return off
    return _transformers_off(model)


@contextmanager
def _transformers_off(model: object) -> Iterator[None]:
    """For adapters that transformers has put into the model itself."""
    if not getattr(model, "_hf_peft_config_loaded", False):
        yield
        return
    model.disable_adapters()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        model.enable_adapters()  # type: ignore[attr-defined]
