"""AdamW for weights of any precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BETAS, CLIP = (0.9, 0.98), 1.0
PRECISE = (torch.float32, torch.float64)


class Optimiser:
    """AdamW with clipped gradients; weights in bfloat16 or float16 learn in float32 and are rounded after each step.

    A step changes a weight by about the learning rate, and bfloat16 rounds away what is less than a half per cent of
    the weight: without the float32 copies a careful rate would change nothing.

    Args:
        weights: that learn.
        weight_decay: as in AdamW.

    Source: Loshchilov & Hutter, "Decoupled Weight Decay Regularization"; Micikevicius et al., "Mixed Precision
    Training".
    """

    def __init__(self, weights: Sequence[torch.Tensor], weight_decay: float = 0.0) -> None:
        self._weights = weights
        self._copies = [w if w.dtype in PRECISE else w.detach().float() for w in weights]
        self._rounded = [(w, c) for w, c in zip(weights, self._copies, strict=True) if w is not c]
        self._adam = torch.optim.AdamW(self._copies, betas=BETAS, weight_decay=weight_decay)

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for weight in self._weights:
            weight.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Moves the weights along their gradients."""
        for weight, copy in self._rounded:
            copy.grad = None if weight.grad is None else weight.grad.float()
        torch.nn.utils.clip_grad_norm_(self._copies, CLIP)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        for weight, copy in self._rounded:
            weight.copy_(copy)
