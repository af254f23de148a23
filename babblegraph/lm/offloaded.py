"""Models whose layers are spread: some on another device, or in a CPU's memory or on a disk until they are called.

accelerate moves such weights to their device before a module's forward pass and away after it; meanwhile they have no
numbers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from babblegraph.lm.modules import modules_of


def is_away(module: nn.Module) -> bool:
    """Whether weights of this very module come only when it is called."""
    own = module._parameters.values()
    return hasattr(module, "_hf_hook") and any(w is not None and w.device.type == "meta" for w in own)


def comes_and_goes(model: nn.Module) -> bool:
    """Whether some of a model's weights are away between its passes."""
    return any(map(is_away, modules_of(model)))


def at_hand(module: nn.Module) -> AbstractContextManager[Any]:
    """Within this block a module's own weights have their numbers."""
    if not is_away(module):
        return nullcontext()
    from accelerate.utils import align_module_device

    found: AbstractContextManager[Any] = align_module_device(module)
    return found


def devices_of(model: nn.Module) -> set[torch.device]:
    """Where a model's layers compute."""
    found = set()
    for module in modules_of(model):
        if is_away(module):
            at: Any = module._hf_hook
            found.add(torch.device(at.execution_device))
        else:
            found |= {w.device for w in module._parameters.values() if w is not None}
    return found
