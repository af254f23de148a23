"""Weights that are kept in fewer bits, by whichever library: bitsandbytes, torchao, quanto, and others."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

FULL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def kept_as(weight: Any) -> list[torch.Tensor]:
    """The plain tensors that a weight of a class of its own (torchao's, quanto's) is made of; else itself."""
    if not is_traceable_wrapper_subclass(weight):
        return [weight]
    names, _ = weight.__tensor_flatten__()
    return [part for name in names for part in kept_as(getattr(weight, name))]


def is_quantized(model: nn.Module) -> bool:
    """Whether some of a model's weights are no plain numbers, and so cannot learn."""
    if getattr(model, "quantization_method", None) is not None:
        return True
    return any(w.dtype not in FULL or is_traceable_wrapper_subclass(w) for w in model.parameters())


def full_weight(layer: nn.Module, name: str = "weight") -> torch.Tensor:
    """A layer's weight as plain numbers.

    Raises:
        TypeError: it is kept in a way that neither its class nor peft can undo.
    """
    from peft.utils.integrations import dequantize_bnb_weight, dequantize_module_weight

    weight: Any = getattr(layer, name, None)
    if (
        type(weight).__name__ == "Int8Params"
    ):  # the other function leaves such a layer on a CPU without its scales
        weight = dequantize_bnb_weight(weight, layer.state)
    elif name == "weight" and (weight is not None or hasattr(layer, "W_q")):
        weight = dequantize_module_weight(layer)
    if weight is not None and is_traceable_wrapper_subclass(weight) and hasattr(weight, "dequantize"):
        weight = weight.dequantize()
    if not isinstance(weight, torch.Tensor) or weight.dtype not in FULL or len(kept_as(weight)) > 1:
        raise TypeError(f"the {name} of a {type(layer).__name__} cannot be written in full")
    found: torch.Tensor = weight.detach()
    return found
