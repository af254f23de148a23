"""Whether a model's weights are still those that its keys, values and copies were computed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from transformers import PreTrainedModel

SAMPLED = 16  # numbers of each weight


class Stamp(NamedTuple):
    """Equal stamps of one model: the same weights, and the same adapters at work."""

    weights: tuple[Any, ...]
    adapters: tuple[Any, ...]


@torch.no_grad()
def stamp(model: nn.Module) -> Stamp:
    """What tells a model from what it was before, without reading all of it: a few microseconds for each weight.

    PyTorch counts what is written to a weight, except through `.data`, as peft merges adapters and some optimizers
    write; so a few numbers of each weight are looked at too. Weights of classes of their own have only the count.
    """
    named: list[tuple[str, torch.Tensor]] = []
    adapters: list[Any] = []
    for module in model.modules():
        named += [(name, weight) for name, weight in module._parameters.items() if weight is not None]
        if hasattr(type(module), "merged_adapters"):  # a layer of peft
            adapters.append(_at_work(module))
    counts = tuple((name, id(w), 0 if w.is_inference() else w._version) for name, w in named)
    return Stamp((counts, _numbers(weight for _, weight in named)), tuple(adapters))


class Structure(NamedTuple):
    """Equal structures: models of one kind, whatever the numbers in their weights."""

    layers: tuple[Any, ...]
    adapters: tuple[Any, ...]
    config: str
    attention: str | None


def structure(model: PreTrainedModel) -> Structure:
    """What an engine has to fit, apart from weights: some milliseconds for a large model."""
    layers, adapters = [], []
    for module in model.modules():
        kinds = [(n, w.shape, w.dtype, w.device) for n, w in module._parameters.items() if w is not None]
        layers.append((type(module), *kinds))
        if hasattr(type(module), "merged_adapters"):
            adapters.append(_at_work(module))
    config = model.config
    attention = getattr(config, "_attn_implementation", None)
    return Structure(tuple(layers), tuple(adapters), config.to_json_string(use_diff=False), attention)


def _at_work(layer: Any) -> tuple[Any, ...]:
    return tuple(layer.active_adapters), layer.disable_adapters, tuple(layer.merged_adapters)


def _numbers(weights: Iterable[torch.Tensor]) -> tuple[bytes, ...]:
    """Some numbers of each weight, those of one kind collected at once."""
    alike: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for weight in weights:
        if type(weight) is nn.Parameter and weight.device.type != "meta" and (size := weight.numel()):
            step = size // SAMPLED if weight.is_contiguous() else 0  # 0: the first number alone
            alike.setdefault((weight.device, weight.dtype), []).append(weight.as_strided((SAMPLED,), (step,)))
    return tuple(torch.cat(some).view(torch.uint8).cpu().numpy().tobytes() for some in alike.values())
