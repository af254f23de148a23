"""A generator with adapters as a model of plain weights, which any transformers program loads."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from babblegraph.errors import BadInput, first_line
from babblegraph.lm.quantized import FULL, full_weight, is_quantized


def merged(adapted: Any, adapter: str) -> Any:
    """A copy in the CPU's memory whose weights are the model's own with an adapter's added.

    Quantized weights are written in full: in as few bits as they are kept in, what an update moved would be rounded
    away.

    Args:
        adapted: peft's model.
        adapter: the name of the one that counts.
    """
    if is_quantized(adapted.get_base_model()):
        return _in_full(adapted.get_base_model(), adapter)
    return _on_cpu(adapted).merge_and_unload(adapter_names=[adapter])


def check_merging(adapted: Any) -> None:
    """Whether `merged` can write this generator.

    Raises:
        BadInput: its weights are quantized in a way that cannot be undone.
    """
    model = adapted.get_base_model()
    if not is_quantized(model):
        return
    try:
        kinds = {type(one.base_layer): one.base_layer for one in model.modules() if _has_adapters(one)}
        for layer in kinds.values():
            full_weight(layer)
    except (TypeError, ValueError, RuntimeError, ImportError, AttributeError) as problem:
        raise BadInput(
            f"levels are written with weights in full, got a quantized generator: {first_line(problem)}; learn without "
            "a directory, or load it in another way"
        ) from problem


@torch.no_grad()
def _in_full(model: Any, adapter: str) -> Any:
    """A model of the same class that was never quantized, layer by layer: a GPU may not hold it."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    found: dict[str, torch.Tensor] = {}
    for path, module in plain.named_modules():
        ours = model.get_submodule(path)
        layer = ours.base_layer if _has_adapters(ours) else ours
        for name in module._parameters:
            if (weight := _full(ours, layer, name, adapter, model.dtype)) is not None:
                turned = isinstance(module, Conv1D) and not isinstance(layer, Conv1D) and name == "weight"
                found[f"{path}.{name}".removeprefix(".")] = weight.T.contiguous() if turned else weight
    kept = plain.state_dict().keys()
    found |= {name: buffer.cpu() for name, buffer in model.named_buffers() if name in kept}
    plain.load_state_dict(found, strict=False, assign=True)
    plain.tie_weights()
    if missing := [name for name, weight in plain.named_parameters() if weight.is_meta]:
        raise BadInput(
            f"a level must hold all weights, {missing[0]!r} is not among those of the quantized model: load it in "
            "another way, or learn without a directory"
        )
    plain.generation_config = model.generation_config
    return plain


def _full(ours: Any, layer: Any, name: str, adapter: str, dtype: torch.dtype) -> torch.Tensor | None:
    """One weight of a layer, an adapter's share added; None where the layer has none of this name.

    Args:
        ours: the layer, or what holds it and its adapters.
        layer: the layer itself.
        dtype: of a quantized one when it is written in full.
    """
    own = getattr(layer, name, None)
    if own is None and not hasattr(layer, "W_q"):
        return None
    weight = full_weight(layer, name)
    if name == "weight" and ours is not layer and adapter in ours.lora_A:
        weight = weight.float() + ours.get_delta_weight(adapter).float()
    return weight.to("cpu", own.dtype if own is not None and own.dtype in FULL else dtype)


def _has_adapters(module: Any) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")


def _on_cpu(model: Any) -> Any:
    """A copy of a model whose weights are in the CPU's memory, since a GPU's may not hold them twice."""
    memo: dict[int, Any] = {
        id(p): torch.nn.Parameter(p.detach().to("cpu", copy=True), p.requires_grad)
        for p in model.parameters()
        if type(p) is torch.nn.Parameter
    }
    memo |= {id(b): b.to("cpu", copy=True) for b in model.buffers()}
    return copy.deepcopy(model, memo)
