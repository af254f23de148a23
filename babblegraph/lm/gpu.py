"""What a GPU has: kernels that are written for it, and memory."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether numbers of this precision have kernels where they are."""
    return device.type == "cuda" and dtype in DTYPES and _has_triton()


def layer_kernels(device: torch.device, dtype: torch.dtype) -> Any:
    """The module of that name, which loads triton; None where its kernels do not run."""
    if not has_kernels(device, dtype):
        return None
    from babblegraph.lm import layer_kernels

    return layer_kernels


def memory_of(device: torch.device) -> int:
    """Bytes of a GPU; elsewhere, where others need memory too, 4 GB."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 1 << 32


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
