"""What stands in for a model's layers while it decodes: the same numbers, sooner.

Decoding multiplies every weight with a handful of rows. On a CPU PyTorch's default product reads a weight as it lies;
oneDNN is faster on one that it has laid out anew, which takes the weight's memory a second time. Norms are one operator
(`norms`), and a step of the whole model is one program (`traced`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from babblegraph.errors import BadInput
from babblegraph.lm.coast import Ahead, Coasted
from babblegraph.lm.modules import modules_of
from babblegraph.lm.norms import Call, fused_norm
from babblegraph.lm.plan import Plan
from babblegraph.lm.traced import Traced, plain

PACK_BYTES = 1 << 30
LEAST_WEIGHTS = 1 << 17  # of a layer; a smaller one lies in the cache, and gains less than the call costs


class Packed:
    """Copies of a model's weights, made when they are first needed; the model itself stays as it is.

    Only single precision on an x86 CPU gains by copies of weights; anywhere else, and for layers of other classes or
    with hooks of their own, nothing is copied. When weights have changed, they are packed again.

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

    @property
    def nbytes(self) -> int:
        """Bytes that the copies take."""
        return sum(copy.numel() * copy.element_size() for copy in self._copies)

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
            self._packs, self._weights = self._packed(), weights
            if self._traced is not None and (model is None or not self._traced.goes_on(model, self._copies)):
                self._traced = None
        mine = []
        try:
            for layer, call in self._packs.items():
                if "forward" not in layer.__dict__:
                    layer.__dict__["forward"] = call
                    mine.append(layer)
            if whole is not None:
                whole.__dict__["forward"] = Whole(whole, self._programs)
                mine.append(whole)
            yield
        finally:
            for layer in mine:
                del layer.__dict__["forward"]

    def _programs(self, model: nn.Module) -> Traced:
        if self._traced is None:
            self._traced = Traced(model, self._copies)
        return self._traced

    def _packed(self) -> dict[nn.Module, Call]:
        """A copy of every layer that gains by one, as its weight is now, and norms that are one operator."""
        packs: dict[nn.Module, Call] = {}
        self._copies, taken = [], 0
        model = self._model()
        for layer in () if model is None else modules_of(model):
            if (norm := fused_norm(layer)) is not None:
                packs[layer] = norm
                continue
            weight = _weight(layer)
            if weight is None:
                continue
            size = weight.numel() * weight.element_size()
            if taken + size <= self._most_bytes:
                taken += size
                self._copies.append(copy := _copy(layer, weight))
                packs[layer] = _call(layer, copy)
        return packs


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

    def coasts(self, hidden: bool) -> bool:
        """As of `Traced`."""
        return self._programs(self._model).coasts(hidden)

    def coast(self, plan: Plan, logits: torch.Tensor, ahead: Ahead, hidden: bool) -> Coasted:
        """As of `Traced`."""
        return self._programs(self._model).coast(plan, logits, ahead, hidden)


def _weight(layer: nn.Module) -> nn.Parameter | None:
    """The weight of a layer that gains by a copy."""
    if type(layer) not in (nn.Linear, Conv1D) or not _available():
        return None
    weight = layer._parameters.get("weight")  # none where torch prunes or reparametrizes it
    if type(weight) is not nn.Parameter or weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return None
    return weight if weight.numel() >= LEAST_WEIGHTS else None


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability()


@torch.no_grad()
def _copy(layer: nn.Module, weight: nn.Parameter) -> torch.Tensor:
    """A layer's weight as oneDNN lays it out."""
    rows = weight.t().contiguous() if isinstance(layer, Conv1D) else weight.detach()
    copy: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(rows, None)
    return copy


def _call(layer: nn.Module, copy: torch.Tensor) -> Call:
    """The layer's product with a copy of its weight."""
    original: Callable[..., torch.Tensor] = type(layer).forward
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def call(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or x.dtype is not torch.float32:
            return original(layer, x)
        if torch.jit.is_tracing():
            return _product()(x, copy, layer.bias)
        product: torch.Tensor = multiply(x, copy, layer.bias, "none", [], "")
        return product

    return call


@cache
def _product() -> Callable[..., torch.Tensor]:
    """The same operator for the tracer, which cannot write down a list of no numbers."""
    graph = torch._C.parse_ir(
        """graph(%x : Tensor, %copy : Tensor, %bias : Tensor?):
        %none : str = prim::Constant[value="none"]()
        %empty : str = prim::Constant[value=""]()
        %list : Scalar?[] = prim::ListConstruct()
        %product : Tensor = mkldnn::_linear_pointwise(%x, %copy, %bias, %none, %list, %empty)
        return (%product)"""
    )
    made: Callable[..., torch.Tensor] = torch._C._create_function_from_graph("packed_product", graph)
    return made
