"""Tells two models apart without reading all of their weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED = 64  # numbers of each weight


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str:
    """A hash of every weight's name, shape and some of its numbers; the same in any precision that keeps them.

    Numbers are rounded to three digits, so that a model in bfloat16 is usually told from another model, and
    not from itself on another device.
    """
    digest = hashlib.blake2b(model.config.model_type.encode(), digest_size=16)
    for name, weight in model.named_parameters():
        flat = weight.detach().reshape(-1)
        some = flat[:: max(1, len(flat) // SAMPLED)][:SAMPLED].float().cpu()
        digest.update(f"{name}{tuple(weight.shape)}{[f'{x:.2e}' for x in some.tolist()]}".encode())
    return digest.hexdigest()
