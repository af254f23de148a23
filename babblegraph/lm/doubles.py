"""Double precision, which Apple's GPUs do not have: there, numbers that need it go to the CPU first."""

from __future__ import annotations

import torch

LACKED_BY = {"mps"}


def with_doubles(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where it can be turned into doubles: as it is, or on the CPU."""
    return tensor.cpu() if tensor.device.type in LACKED_BY else tensor


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in double precision."""
    return with_doubles(tensor).double()


def most_precise(device: torch.device) -> torch.dtype:
    """What numbers can be at best on a device."""
    return torch.float32 if device.type in LACKED_BY else torch.float64
