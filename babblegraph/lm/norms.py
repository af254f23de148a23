"""Root mean square norms by one operator, where a model writes them out in eight: PyTorch's, on a GPU one of ours.

Ours also reads numbers that lie apart from each other, such as the queries of a product that gave keys and values too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from babblegraph.lm.gpu import layer_kernels
from babblegraph.lm.roundings import alike

Call = Callable[[torch.Tensor], torch.Tensor]
FASTER_ON = ("cuda", "cpu")  # where it was measured


@torch.no_grad()
def fused_norm(module: nn.Module) -> Call | None:
    """What computes the same as a norm by one operator; None where that is none, or not the same.

    Whether a module is such a norm is found out by trying: families have norms of their own, with other scales.
    """
    weight = module._parameters.get("weight")
    if not type(module).__name__.endswith("RMSNorm") or weight is None or weight.dim() != 1:
        return None
    if weight.device.type not in FASTER_ON or len(inspect.signature(type(module).forward).parameters) != 2:
        return None  # a gated norm, say, takes more than the numbers
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float):
        return None

    shape, kernels = list(weight.shape), layer_kernels(weight.device, weight.dtype)

    def call(x: torch.Tensor) -> torch.Tensor:
        scale: torch.Tensor = module._parameters["weight"]  # type: ignore[assignment]
        asked = kernels is not None and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if asked and x.dtype is scale.dtype and kernels.fits(x):
            found: torch.Tensor = kernels.rms_norm(x, scale, eps)
            return found
        return F.rms_norm(x, shape, scale, eps)

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, len(weight), generator=draw).to(weight.device, weight.dtype)
    told, found = module(x), call(x)
    if found.dtype != told.dtype or found.shape != told.shape:
        return None
    return call if alike(found, told) else None
