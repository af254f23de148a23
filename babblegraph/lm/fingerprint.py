"""Tells two models apart without reading all of their weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from babblegraph.lm.offloaded import at_hand
from babblegraph.lm.quantized import kept_as

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 64  # numbers of each weight


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str:
    """A hash of every weight's name, shape and some of its numbers; the same in any precision that keeps them.

    Numbers are rounded to three digits, so that a model in bfloat16 is usually told from another model, and
    not from itself on another device. Of a quantized weight they are those that it is kept as.
    """
    digest = hashlib.blake2b(model.config.model_type.encode(), digest_size=16)
    seen = set()
    for path, module in model.named_modules():
        names = [n for n, w in module._parameters.items() if w is not None and id(w) not in seen]
        seen |= {id(module._parameters[name]) for name in names}
        with at_hand(module):
            for name in names:
                weight = module._parameters[name]
                whole = f"{path}.{name}".removeprefix(".")
                some = [number for part in kept_as(weight) for number in _some(part)]
                digest.update(f"{whole}{tuple(weight.shape)}{some}".encode())
    return digest.hexdigest()


def _some(weight: torch.Tensor) -> list[str]:
    if weight.device.type == "meta":
        return []  # nowhere: such a model does not run
    flat = weight.detach().reshape(-1)
    return [f"{x:.2e}" for x in flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].float().tolist()]
