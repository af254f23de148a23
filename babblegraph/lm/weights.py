"""Whether a model's weights are still those that its keys, values and copies were computed from."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from babblegraph.lm.modules import modules_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 16  # numbers of each weight
PLAIN = (nn.Parameter, torch.Tensor)


class Stamp(NamedTuple):
    """Equal stamps of one model: the same weights, and the same adapters at work."""

    weights: tuple[Any, ...]
    adapters: tuple[Any, ...]


@torch.no_grad()
def stamp(model: nn.Module) -> Stamp:
    """What tells a model from what it was before, without reading all of it: a few microseconds for each weight.

    That is which modules it has, its weights, and its buffers (how positions are turned, say).

    PyTorch counts what is written to a weight, except through `.data`, as peft merges adapters and some optimizers
    write; so a few numbers of each weight are looked at too. Weights of classes of their own have only the count.
    """
    weights: list[torch.Tensor] = []
    buffers: list[torch.Tensor] = []
    adapters: list[Any] = []
    modules = modules_of(model)
    for module in modules:
        weights += [weight for weight in module._parameters.values() if weight is not None]
        buffers += [buffer for buffer in module._buffers.values() if buffer is not None]
        if hasattr(type(module), "merged_adapters"):  # a layer of peft
            adapters.append(at_work(module))
    counts = tuple([0 if w.is_inference() else w._version for w in weights])
    looks = _looks_at(model, [*weights, *buffers])  # no counts of buffers: some are written at every pass
    return Stamp((tuple(map(id, modules)), looks.places, counts, looks.numbers()), tuple(adapters))


class Structure(NamedTuple):
    """Equal structures: models of one kind, whatever the numbers in their weights."""

    layers: tuple[Any, ...]
    adapters: tuple[Any, ...]
    config: str
    attention: str | None


def structure(model: PreTrainedModel) -> Structure:
    """What an engine has to fit, apart from weights: some milliseconds for a large model."""
    layers, adapters = [], []
    for module in modules_of(model):
        kinds = [(n, w.shape, w.dtype, w.device) for n, w in module._parameters.items() if w is not None]
        layers.append((type(module), *kinds))
        if hasattr(type(module), "merged_adapters"):
            adapters.append(at_work(module))
    config = model.config
    attention = getattr(config, "_attn_implementation", None)
    return Structure(tuple(layers), tuple(adapters), config.to_json_string(use_diff=False), attention)


def at_work(layer: Any) -> tuple[Any, ...]:
    """Which adapters of a layer of peft are at work, and how much."""
    scaling = getattr(layer, "scaling", {})
    shares = tuple(scaling.items()) if isinstance(scaling, dict) else scaling
    return tuple(layer.active_adapters), layer.disable_adapters, tuple(layer.merged_adapters), shares


class _Looks(NamedTuple):
    """Where a model's weights are looked at: views of them, which see whatever is written there."""

    places: tuple[tuple[int, int], ...]  # which weights these are, and where they lie
    views: list[list[torch.Tensor]]  # by device and kind of number

    def numbers(self) -> tuple[bytes, ...]:
        """Some numbers of each weight, those of one kind collected at once."""
        return tuple(torch.cat(some).view(torch.uint8).cpu().numpy().tobytes() for some in self.views)


_looks: weakref.WeakKeyDictionary[nn.Module, _Looks] = weakref.WeakKeyDictionary()


def _looks_at(model: nn.Module, weights: Sequence[torch.Tensor]) -> _Looks:
    """The views of the last time, as long as the weights are where they were."""
    places = tuple([(id(w), w.data_ptr() if type(w) in PLAIN else 0) for w in weights])
    looks = _looks.get(model)
    if looks is None or looks.places != places:
        alike: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for weight in weights:
            if type(weight) in PLAIN and weight.device.type != "meta" and (size := weight.numel()):
                step = size // SAMPLED if weight.is_contiguous() else 0  # 0: the first number alone
                view = weight.as_strided((SAMPLED,), (step,))
                alike.setdefault((weight.device, weight.dtype), []).append(view)
        looks = _looks[model] = _Looks(places, list(alike.values()))
    return looks
