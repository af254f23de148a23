"""The engines of one babbler's graphs: made when a graph first needs one, and dropped when the weights change."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from babblegraph.errors import BadInput
from babblegraph.lm.base import without_adapters
from babblegraph.lm.fingerprint import fingerprint
from babblegraph.lm.trie import Trie
from babblegraph.lm.turn import turn_of
from babblegraph.lm.weights import Stamp, stamp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.base import Base
    from babblegraph.lm.engine import Choice, Engine
    from babblegraph.lm.mixture import Pair
    from babblegraph.lm.packed import Packed


class Engines:
    """Keys and values of graphs, and the model in its place while they are computed.

    Args:
        model: what runs.
        choice: how it runs.
        limit: bytes that one graph's engine may take; None for no bound.
        cache_bytes: as for `Babbler`.
        packed: copies of its weights.
        base: what runs beside it, with half of the limit.
        compiled: what decoding steps on a GPU call instead of the model.

    Attributes:
        fingerprint: of the model's weights, when they were last looked at.
        base_fingerprint: of the base's; None where there is none.
        memory: what an engine is told of it.
        recorded: layers whose hidden states are kept.
        spare: what a graph that is over has left for the next one; see `Trie.serves_again`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        choice: Choice,
        limit: int | None,
        cache_bytes: int,
        packed: Packed,
        base: Base | None = None,
        compiled: Callable[..., Any] | None = None,
    ) -> None:
        self.model, self.choice, self.base = model, choice, base
        self.packed, self._compiled = packed, compiled
        self._bounds = limit if base is None else limit and limit // 2, cache_bytes
        self.recorded: tuple[int, ...] = ()
        self.memory = self._room()
        self._of: weakref.WeakKeyDictionary[BabbleGraph, Engine | Pair] = weakref.WeakKeyDictionary()
        self.spare: Trie | None = None
        self._stamps: list[Stamp] = []
        self.fingerprint, self.base_fingerprint = "", None if base is None else ""
        self.look()

    @property
    def models(self) -> list[PreTrainedModel]:
        """What runs: the model, and a base that is another one."""
        return [self.model] if self.base is None or self.base.shared else [self.model, self.base.model]

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys, values and recorded states."""
        config = self.model.config.get_text_config()
        states = len(self.recorded) * config.hidden_size * self.model.dtype.itemsize if self.recorded else 0
        return self.choice.token_bytes + states

    @contextmanager
    def running(self, graph: BabbleGraph) -> Iterator[Engine | Pair]:
        """The model in its place; whatever interrupts it (Ctrl-C, no memory) leaves the engine as it was.

        Raises:
            BadInput: other weights, or another base, began the graph.
        """
        engine = None
        try:
            with turn_of(*self.models):
                now = self.look()
                engine = self.of(graph)
                with (
                    self.choice.rung.running(self.model),
                    self.packed.standing_in(now[0].weights),
                    nullcontext() if self.base is None else self.base.running(now[-1].weights),
                ):
                    yield engine
        except BaseException:  # also one that comes while the model is put back as it was
            if engine is not None:
                engine.restore(graph.size)
            raise

    def look(self) -> list[Stamp]:
        """What the weights are now; if they have changed, all that was computed from them before is dropped."""
        now = [stamp(model) for model in self.models]
        if now != self._stamps:
            self.spare = None
            self._of.clear()
            self.fingerprint = fingerprint(self.model)
            if self.base is not None:
                self.base_fingerprint = self.base.fingerprint
            self._stamps = now  # last: an interrupt before it has all of this done again
        return now

    def of(self, graph: BabbleGraph) -> Engine | Pair:
        """The engine of a graph."""
        if graph not in self._of:
            self._belongs(graph)
            made, self.spare = self.spare or self._made(), None
            self._of[graph] = made if self.base is None else self.base.beside(made)
            if self.recorded:
                self._of[graph].record(self.recorded)
        return self._of[graph]

    def release(self, graph: BabbleGraph, ids: NDArray[np.int64]) -> None:
        """Gives up the keys and values of nodes; when no node holds any, the engine is free."""
        if (engine := self._of.get(graph)) is None:
            return
        engine.release(ids)
        if not engine.held:
            del self._of[graph]
            if isinstance(engine, Trie) and engine.serves_again:
                engine.clear()
                self.spare = engine

    def record(self, layers: Sequence[int]) -> None:
        """From now on engines keep hidden states of these layers too."""
        wanted = tuple(sorted({*self.recorded, *layers}))
        if wanted != self.recorded:
            self.recorded, self.spare = wanted, None  # the spare one was made for other bounds
            self.memory = self._room()
            for engine in self._of.values():
                engine.record(wanted)

    def _room(self) -> dict[str, int]:
        return self.choice.rung.memory(*self._bounds, self.token_bytes)

    def _made(self) -> Engine:
        made = self.choice.rung.make(self.model, **self.memory)
        if self._compiled is not None and isinstance(made, Trie):
            made.compile(self._compiled)
        return made

    def _belongs(self, graph: BabbleGraph) -> None:
        if graph.meta.get("fingerprint") != self.fingerprint:
            raise BadInput(
                f"a graph must go on with the model that began it, {graph.meta.get('model')!r}, got another one or "
                "other weights: load that one"
            )
        if graph.meta.get("sampling", {}).get("base") != self.base_fingerprint:
            raise BadInput(
                "a graph must go on with the base that began it, got another one or none: load that one"
            )


class WithoutAdapters(Engines):
    """The same of a model whose adapters are off meanwhile, for the graphs of any model of its tokenizer."""

    def __init__(self, adapted: Engines) -> None:
        bounds, packed = adapted._bounds, adapted.packed
        super().__init__(adapted.model, adapted.choice, *bounds, packed, compiled=adapted._compiled)

    @contextmanager
    def running(self, graph: BabbleGraph) -> Iterator[Engine | Pair]:
        """As of any model, with the adapters off."""
        with self.off(), super().running(graph) as engine:
            yield engine

    @contextmanager
    def off(self) -> Iterator[None]:
        """The model's turn, its adapters off; they come on again before anybody else has it."""
        with turn_of(self.model), (without_adapters(self.model) or nullcontext)():
            yield

    def _belongs(self, graph: BabbleGraph) -> None:
        """Whatever began it: what is read are its tokens."""
