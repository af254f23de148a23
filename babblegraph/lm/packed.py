"""What stands in for a model's layers while it decodes: the same numbers, sooner.

Decoding multiplies every weight with a handful of rows. On a CPU PyTorch's default product reads a weight as it lies;
oneDNN is faster on one that it has laid out anew, which takes the weight's memory a second time. Norms are one operator
(`norms`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from babblegraph.errors import BadInput
from babblegraph.lm.modules import modules_of
from babblegraph.lm.norms import Call, fused_norm

PACK_BYTES = 1 << 30
LEAST_WEIGHTS = 1 << 17  # of a layer; a smaller one lies in the cache, and gains less than the call costs


class Packed:
    """Copies of a model's weights, made when they are first needed; the model itself stays as it is.

    Only single precision on an x86 CPU gains by copies of weights; anywhere else, and for layers of other classes or
    with hooks of their own, nothing is copied. When weights have changed, they are packed again.

    Args:
        model: any model; the copies do not keep it alive.
        most_bytes: that the copies may take; layers are packed in the model's order until it is used up.

    Raises:
        BadInput: `most_bytes` below 0.
    """

    def __init__(self, model: nn.Module, most_bytes: int = PACK_BYTES) -> None:
        if most_bytes < 0:
            raise BadInput(f"pack_bytes must not be negative, got {most_bytes}: use 0 for no copies")
        self._model, self._most_bytes = weakref.ref(model), most_bytes
        self._weights: Hashable = None  # that the copies are of
        self._packs: dict[nn.Module, Call] | None = None
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes that the copies take."""
        return self._nbytes

    @contextmanager
    def standing_in(self, weights: Hashable = None) -> Iterator[None]:
        """Within this block the copies compute; a block within a block changes nothing.

        Args:
            weights: what tells them from what they were before, of `weights.stamp`.
        """
        if self._packs is None or weights != self._weights:
            self._packs, self._weights = self._packed(), weights
        mine = []
        try:
            for layer, call in self._packs.items():
                if "forward" not in layer.__dict__:
                    layer.__dict__["forward"] = call
                    mine.append(layer)
            yield
        finally:
            for layer in mine:
                del layer.__dict__["forward"]

    def _packed(self) -> dict[nn.Module, Call]:
        """A copy of every layer that gains by one, as its weight is now, and norms that are one operator."""
        packs: dict[nn.Module, Call] = {}
        self._nbytes = 0
        model = self._model()
        for layer in () if model is None else modules_of(model):
            if (norm := fused_norm(layer)) is not None:
                packs[layer] = norm
                continue
            weight = _weight(layer)
            if weight is None:
                continue
            size = weight.numel() * weight.element_size()
            if self._nbytes + size <= self._most_bytes:
                self._nbytes += size
                packs[layer] = _call(layer, weight)
        return packs


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
def _call(layer: nn.Module, weight: nn.Parameter) -> Call:
    """The layer's product with a copy of its weight."""
    original: Callable[..., torch.Tensor] = type(layer).forward
    multiply = torch.ops.mkldnn._linear_pointwise.default
    rows = weight.t().contiguous() if isinstance(layer, Conv1D) else weight.detach()
    copy = torch.ops.mkldnn._reorder_linear_weight(rows, None)

    def call(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or x.dtype is not torch.float32:
            return original(layer, x)
        product: torch.Tensor = multiply(x, copy, layer.bias, "none", [], "")
        return product

    return call
