"""Whether two ways to compute the same numbers agree."""

from __future__ import annotations

import torch

ROUNDINGS = 4  # by how many roundings of the largest number results may differ


def alike(found: torch.Tensor, told: torch.Tensor) -> bool:
    """Whether numbers are the same but for rounding; never where there are NaN. Both of one shape and precision."""
    bound = ROUNDINGS * torch.finfo(told.dtype).eps * float(told.abs().max())
    return float((found - told).abs().max()) <= bound
