"""The base model under adapters: the same weights, without what training has added."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from babblegraph.lm.babbler import Babbler
from babblegraph.lm.base import without_adapters

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.engine import Engine
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
        self.__dict__.update(copy.copy(babbler).__dict__)
        self._tries: weakref.WeakKeyDictionary[BabbleGraph, Engine | Pair] = weakref.WeakKeyDictionary()
        self._recorded, self._base = (), None

    @contextmanager
    def _running(self, graph: BabbleGraph) -> Iterator[Engine | Pair]:
        off = without_adapters(self.model) or nullcontext
        with off(), super()._running(graph) as trie:
            yield trie

    def _trie(self, graph: BabbleGraph) -> Engine | Pair:
        if graph not in self._tries:
            self._tries[graph] = self._rung.make(self.model, **self._memory)
        return self._tries[graph]
