"""The base generator f beside the one that is sampled from: a frozen model, or the model without its adapters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from babblegraph.errors import BadInput
from babblegraph.lm.fingerprint import fingerprint
from babblegraph.lm.mixture import Pair
from babblegraph.lm.modules import modules_of
from babblegraph.lm.turn import turn_of, undoing
from babblegraph.lm.way import Way

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from babblegraph.lm.engine import Engine

Off = Callable[[], AbstractContextManager[Any]]


class Base:
    """A model that is only asked for log-probabilities, on keys and values of its own.

    Args:
        base: f; the model itself for its own weights without adapters, whose keys and values differ too.
        model: g, which is sampled from.
        memory_limit: of both together.
        cache_bytes, engine, pack_bytes, trace: as for `Babbler`.

    Raises:
        BadInput: another vocabulary than the model's, the model itself without adapters, or no engine for it.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        model: PreTrainedModel,
        memory_limit: int | None,
        cache_bytes: int,
        engine: str | None,
        pack_bytes: int,
        trace: bool,
    ) -> None:
        self.model = base.eval()
        self.shared = base is model
        off = without_adapters(base) if self.shared else nullcontext
        if off is None:
            raise BadInput(
                "the base can be the model itself only where it has adapters, got none: load it twice"
            )
        if (ours := _words(base)) != (theirs := _words(model)):
            raise BadInput(
                f"the base must have the model's {theirs} tokens, got {ours}: take what it was trained from"
            )
        self.off: Off = off
        with turn_of(base), self.off():
            way = Way(base, engine, pack_bytes, trace)
        self._packed, (self._rung, _, reach, token_bytes) = way.packed, way.choice
        self.context = min(context_of(base), reach or context_of(base))
        self._memory = self._rung.memory(memory_limit and memory_limit // 2, cache_bytes, token_bytes)

    @property
    def fingerprint(self) -> str:
        """Of the weights as they are now."""
        return f"{fingerprint(self.model)}{' without adapters' if self.shared else ''}"

    @contextmanager
    def running(self, weights: Hashable) -> Iterator[None]:
        """The base in its place, beside the model; `weights` as for `Packed.standing_in`."""
        if self.shared:
            yield
        else:
            with self._rung.running(self.model), self._packed.standing_in(weights):
                yield

    def beside(self, engine: Engine) -> Pair:
        """The model's engine for a new graph, and the base's beside it."""
        return Pair(self._rung.make(self.model, **self._memory), engine, self.off)


def moved(base: Base | None, mixture: float | None, warped: bool) -> dict[str, Any]:
    """What a graph remembers of its base and mixture: nothing where there is none.

    Raises:
        BadInput: a mixture without a base or not between 0 and 1, or of something that is warped.
    """
    if mixture is not None:
        if not 0 < mixture < 1:
            raise BadInput(f"mixture must be above 0 and below 1, got {mixture:g}: 0.1 bounds weights by 10")
        if base is None:
            raise BadInput(
                f"a mixture needs the base that is mixed in, got mixture={mixture:g} alone: pass base"
            )
        if warped:
            raise BadInput(
                "a mixture is of f and g as they are, got temperature or truncation too: leave those out"
            )
    if base is None:
        return {}
    return {"base": base.fingerprint} | ({} if mixture is None else {"mixture": mixture})


def context_of(model: PreTrainedModel) -> int:
    """How many tokens a text may have."""
    config = model.config.get_text_config()
    named = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(named or 1 << 30)


def without_adapters(model: PreTrainedModel) -> Off | None:
    """How a model's adapters are switched off for a while; None where it has none.

    They are found wherever they are: in a wrapper of peft, put in by transformers, or in layers alone, as they are
    in the model that such a wrapper was put around.
    """
    if sys.modules.get("peft") is None:
        return None  # whoever has put in any has imported it
    if _adapted(model):
        return partial(_switched_off, model)
    off: Off | None = getattr(model, "disable_adapter", None)  # of adapters without layers of their own
    return off


def _adapted(model: PreTrainedModel) -> list[Any]:
    """Layers with adapters, as they are now."""
    peft = sys.modules["peft"]
    kinds = (peft.tuners.tuners_utils.BaseTunerLayer, peft.utils.AuxiliaryTrainingWrapper)
    return [layer for layer in modules_of(model) if isinstance(layer, kinds)]


@contextmanager
def _switched_off(model: PreTrainedModel) -> Iterator[None]:
    """What was off before stays off afterwards: such blocks may lie within each other."""
    on = [layer for layer in _adapted(model) if not layer.disable_adapters]
    learning = [(p, p.requires_grad) for layer in on for p in layer.parameters()]
    with undoing(model, partial(_switch_on, on, learning)):
        for layer in on:
            layer.enable_adapters(False)
        yield


def _switch_on(layers: Sequence[Any], learning: Sequence[tuple[torch.nn.Parameter, bool]]) -> None:
    for layer in layers:
        layer.enable_adapters(True)
    for parameter, learns in learning:  # peft lets all learn that it switches on
        parameter.requires_grad_(learns)


def _words(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)
