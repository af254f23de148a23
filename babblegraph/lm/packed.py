"""What stands in for a model's layers while it decodes: the same numbers, sooner.

Products with weights go through copies of these (`products`), norms are one operator (`norms`), on a GPU queries and
keys are turned by one kernel (`rotary`), and on a CPU a step of the whole model is one program (`traced`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from babblegraph.errors import BadInput
from babblegraph.lm.coast import Ahead, Coasted
from babblegraph.lm.gpu import memory_of
from babblegraph.lm.modules import modules_of
from babblegraph.lm.norms import Call, fused_norm
from babblegraph.lm.plan import Plan
from babblegraph.lm.products import Product, copied, products_of
from babblegraph.lm.rotary import fused_rotary
from babblegraph.lm.traced import Traced, plain
from babblegraph.lm.turn import undoing

PACK_BYTES = 1 << 30
SHARE = 16  # what part of a GPU's memory copies may take


class Packed:
    """Copies of a model's weights, made when they are first needed; the model itself stays as it is.

    Single precision on an x86 CPU gains by copies of weights, and small layers on a GPU; anywhere else, and for layers
    of other classes or with hooks of their own, nothing is copied. When weights have changed, they are packed again.

    Args:
        model: any model; what stands in does not keep it alive.
        most_bytes: that the copies may take; layers are packed in the model's order until it is used up.
        trace: whether steps on a CPU are programs, where the model can be written down as one.

    Raises:
        BadInput: `most_bytes` below 0.
    """

    def __init__(self, model: nn.Module, most_bytes: int = PACK_BYTES, trace: bool = False) -> None:
        if most_bytes < 0:
            raise BadInput(f"pack_bytes must not be negative, got {most_bytes}: use 0 for no copies")
        self._model, self._most_bytes, self._trace = weakref.ref(model), most_bytes, trace
        self._weights: Hashable = None  # that the copies are of
        self._packs: dict[nn.Module, Call] | None = None
        self._copies: list[torch.Tensor] = []
        self._traced: Traced | None = None

    def is_of(self, model: nn.Module) -> bool:
        """Whether this is the model."""
        return self._model() is model

    @property
    def nbytes(self) -> int:
        """Bytes that the copies take."""
        return _nbytes(self._copies)

    @property
    def traced(self) -> Traced | None:
        """The programs; None before the first step, and where there are none to be."""
        return self._traced

    @contextmanager
    def standing_in(self, weights: Hashable = None) -> Iterator[None]:
        """Within this block the copies compute; a block within a block changes nothing.

        Args:
            weights: what tells them from what they were before, of `weights.stamp`.
        """
        model = self._model()
        whole = model if self._trace and model is not None and plain(model) else None
        if self._packs is None or weights != self._weights:
            self._weights, self._packs = None, self._packed()
            if self._traced is not None and (model is None or not self._traced.goes_on(model, self._copies)):
                self._traced = None
            self._weights = weights  # last: an interrupt before it has all of this done again
        calls = {layer: call for layer, call in self._packs.items() if "forward" not in layer.__dict__}
        if whole is not None:
            calls[whole] = Whole(whole, self._programs)
        with nullcontext() if model is None else undoing(model, partial(_take_away, calls)):
            for layer, call in calls.items():
                layer.__dict__["forward"] = call
            yield

    def _programs(self, model: nn.Module) -> Traced:
        if self._traced is None:
            self._traced = Traced(model, self._copies)
        return self._traced

    def _packed(self) -> dict[nn.Module, Call]:
        """Products with copies of weights as they are now, and what is one operator instead of several."""
        self._copies = []
        if (model := self._model()) is None:
            return {}
        modules = modules_of(model)
        fused = {module: fused_norm(module) or fused_rotary(module) for module in modules}
        packs = {module: call for module, call in fused.items() if call is not None}
        taken = 0
        for layers in products_of(modules):
            tensors = copied(layers)
            if (needed := taken + _nbytes(tensors)) <= self._most(tensors[0].device):
                taken = needed
                product = Product(layers)
                self._copies += product.copies
                packs |= {layer: product.of(layer, number) for number, layer in enumerate(layers)}
        return packs

    def _most(self, device: torch.device) -> int:
        """Bytes that copies may take."""
        share = memory_of(device) // SHARE if device.type == "cuda" else self._most_bytes
        return min(share, self._most_bytes)


class Whole:
    """What stands in for a whole model: its programs where there are any, and its modules."""

    def __init__(self, model: nn.Module, programs: Callable[[nn.Module], Traced]) -> None:
        self._model, self._programs = model, programs

    def __call__(self, *args: Any, **given: Any) -> Any:
        """A forward pass."""
        plan = given.get("tree")
        if isinstance(plan, Plan) and given["input_ids"].shape[1] == 1 and not torch.is_grad_enabled():
            out = self._programs(self._model).step(self._model, plan, given)
            if out is not None:
                return out
        return type(self._model).forward(self._model, *args, **given)

    def coasts(self, hidden: bool) -> int:
        """As of `Traced`."""
        return self._programs(self._model).coasts(hidden)

    def coast(self, plan: Plan, logits: torch.Tensor, ahead: Ahead, hidden: bool) -> Coasted:
        """As of `Traced`."""
        return self._programs(self._model).coast(plan, logits, ahead, hidden)


def _take_away(calls: dict[nn.Module, Call]) -> None:
    for layer, call in calls.items():
        if layer.__dict__.get("forward") is call:
            del layer.__dict__["forward"]


def _nbytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
