"""Whether two ways to compute the same numbers agree, and how far rounding alone may lead them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUNDINGS = 4  # by how many roundings of the largest number results may differ
TRIES = 16


def alike(found: torch.Tensor, told: torch.Tensor) -> bool:
    """Whether numbers are the same but for rounding; never where there are NaN. Both of one shape and precision."""
    bound = ROUNDINGS * torch.finfo(told.dtype).eps * float(told.abs().max())
    return float((found - told).abs().max()) <= bound


@torch.no_grad()
def swing(model: PreTrainedModel, text: Sequence[int]) -> float:
    """How far rounding alone moves the logits after a text, at most, in plain forward passes.

    The text is read `TRIES` times, every number of its embeddings off by up to a rounding. Mostly that moves logits
    by little; where two experts of a router are nearly even it chooses the other, and the logits may be any.

    Returns:
        max|difference| over the tries and the vocabulary, to the text as it is.
    """
    draw = torch.Generator().manual_seed(0)

    def moved(layer: torch.nn.Module, given: Any, embedded: torch.Tensor) -> torch.Tensor:
        noise = torch.rand((TRIES, *embedded.shape[1:]), generator=draw).mul_(2).sub_(1).to(embedded)
        noise[0] = 0  # the text as it is
        return embedded * (1 + noise * torch.finfo(embedded.dtype).eps)

    ids = torch.as_tensor(text, device=model.device).expand(TRIES, -1)
    hook = model.get_input_embeddings().register_forward_hook(moved)
    try:
        logits = model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1].float()
    finally:
        hook.remove()
    return float((logits - logits[0]).abs().max())
