"""What stands in for a model's products with its weights: the same numbers, sooner.

Decoding multiplies every weight with a handful of rows. On a CPU PyTorch's default product reads a weight as it lies;
oneDNN is faster on a large one that it has laid out anew. Layers that multiply the same numbers (queries, keys and
values; gate and up) are one product with their weights below each other: on a GPU, too, where a small one takes hardly
less time than a large one. Both take the weights' memory a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from babblegraph.lm.gpu import DTYPES
from babblegraph.lm.norms import Call

LEAST_WEIGHTS = 1 << 17  # to be laid out anew; fewer lie in the cache, and gain less than the call costs
MOST_WEIGHTS = 1 << 24  # of one product on a GPU; to read more takes longer than what one launch less saves
TOGETHER_ON = ("cuda",)  # besides CPUs
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # transformers' names


class Product:
    """The product of some layers with the same numbers, computed when the first of them is called.

    Args:
        layers: of `products_of`.

    Attributes:
        copies: what it computes with that is not the model's own.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        weights = [_rows(layer) for layer in layers]
        self._dtype = weights[0].dtype
        self._laid_out = _on_x86(weights[0]) and sum(w.numel() for w in weights) >= LEAST_WEIGHTS
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        if self._laid_out:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._weight, self._bias = weight, _bias(layers)
        self.copies = [weight] if len(weights) == 1 or self._bias is None else [weight, self._bias]
        self._sizes = [len(w) for w in weights]
        self._numbers: torch.Tensor | None = None  # that were multiplied last
        self._written = 0  # how often they had been written to
        self._parts: dict[int, torch.Tensor] = {}  # of that product, of layers that are still to be called

    def of(self, layer: nn.Module, number: int) -> Call:
        """What stands in for a layer, the `number`-th of them."""
        original: Callable[..., torch.Tensor] = type(layer).forward

        def call(x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled() or x.dtype is not self._dtype:
                return original(layer, x)
            return self._part(x, number) if len(self._sizes) > 1 else self._product(x)

        return call

    def _part(self, x: torch.Tensor, number: int) -> torch.Tensor:
        """Of the product with x: computed once, as long as the layers are called with the very same tensor."""
        unknown = torch.compiler.is_compiling() or x.is_inference()
        written = 0 if unknown else x._version  # a hook may write to what a layer is given
        if x is not self._numbers or written != self._written or number not in self._parts:
            self._parts, self._written = dict(enumerate(self._product(x).split(self._sizes, -1))), written
        part = self._parts.pop(number)
        self._numbers = x if self._parts else None  # nothing is kept alive for longer than it takes
        return part

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        if not self._laid_out:
            return F.linear(x, self._weight, self._bias)
        if torch.jit.is_tracing():
            return _written_down()(x, self._weight, self._bias)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(
            x, self._weight, self._bias, "none", [], ""
        )
        return product


def products_of(modules: Sequence[nn.Module]) -> list[list[nn.Module]]:
    """Layers that gain by copies, in order: those that multiply the same numbers together, other large ones alone."""
    together: dict[nn.Module, list[nn.Module]] = {}
    for module in modules:
        for names in TOGETHER:
            found = [_core(module._modules.get(name)) for name in names]
            layers = [m for m in found if type(m) is nn.Linear and _weight(m) is not None]
            if len(layers) > 1 and _gain_together(layers):
                together |= {layer: [*layers] for layer in layers}
    groups = {}
    for module in modules:
        if module in together or _gains_alone(module):
            group = together.get(module, [module])
            groups[group[0]] = group
    return list(groups.values())


def copied(layers: Sequence[nn.Module]) -> list[torch.Tensor]:
    """What a product of these layers has copies of: weights, and biases where there is more than one layer."""
    tensors: list[torch.Tensor]
    tensors = [tensor for layer in layers for tensor in layer._parameters.values() if tensor is not None]
    return tensors if len(layers) > 1 else tensors[:1]


def _gains_alone(layer: nn.Module) -> bool:
    weight = _weight(layer)
    return weight is not None and _on_x86(weight) and weight.numel() >= LEAST_WEIGHTS


def _gain_together(layers: Sequence[nn.Linear]) -> bool:
    if len({(layer.in_features, layer.weight.device, layer.weight.dtype) for layer in layers}) > 1:
        return False
    return _on_x86(layers[0].weight) or sum(m.weight.numel() for m in layers) <= MOST_WEIGHTS


def _weight(layer: nn.Module | None) -> nn.Parameter | None:
    """The weight of a layer where there may be a copy."""
    if layer is None or type(layer) not in (nn.Linear, Conv1D):
        return None
    weight = layer._parameters.get("weight")  # none where torch prunes or reparametrizes it
    if type(weight) is not nn.Parameter or weight.dtype not in DTYPES:
        return None
    return weight if _on_x86(weight) or weight.device.type in TOGETHER_ON else None


def _on_x86(weight: torch.Tensor) -> bool:
    """Of what lies on a CPU only single precision gains by a copy."""
    return weight.device.type == "cpu" and weight.dtype is torch.float32 and available()


@cache
def available() -> bool:
    """Whether copies gain on this machine's CPU."""
    return torch.backends.mkldnn.is_available() and "AVX" in torch.backends.cpu.get_cpu_capability()


def _core(layer: nn.Module | None) -> nn.Module | None:
    """A layer, or what peft has put its adapters around."""
    return layer if layer is None else layer._modules.get("base_layer", layer)


def _rows(layer: nn.Module) -> torch.Tensor:
    """A layer's weight, [out, in]."""
    weight: torch.Tensor = layer._parameters["weight"].detach()  # type: ignore[union-attr]
    return weight.t().contiguous() if isinstance(layer, Conv1D) else weight


def _bias(layers: Sequence[nn.Module]) -> torch.Tensor | None:
    """A layer's bias, or biases beside each other, zeros where a layer has none; None where no layer has one."""
    given = [layer._parameters.get("bias") for layer in layers]
    if len(given) == 1 or all(bias is None for bias in given):
        return given[0]
    return torch.cat(
        [
            _rows(layer).new_zeros(len(_rows(layer))) if bias is None else bias.detach()
            for layer, bias in zip(layers, given, strict=True)
        ]
    )


@cache
def _written_down() -> Callable[..., torch.Tensor]:
    """oneDNN's product for the tracer, which cannot write down a list of no numbers."""
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
