"""What the tracer warns of without need: where a model asks about sizes.

In a trace sizes are recorded as numbers that depend on the step, so a condition on them looks like one on the step's
data. That two tensors are as large as each other says nothing of what is in them, nor does whether there are so many
embeddings that a padding token is one of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

ASKED = ("aten::eq", "aten::ne")


class EqualSizes(TorchFunctionMode):
    """Within this block a trace may ask whether sizes are equal, and takes the answer as one for all steps.

    Nor does it ask whether a padding token is in range.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every function of PyTorch that is called."""
        if func is F.embedding and torch.jit.is_tracing():
            return _embedded(*args, **(kwargs or {}))
        if func is torch.Tensor.__bool__ and torch.jit.is_tracing() and _of_sizes(args[0]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", torch.jit.TracerWarning)
                return func(*args)
        return func(*args, **(kwargs or {}))


def _embedded(
    input: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None, *rest: Any, **named: Any
) -> torch.Tensor:
    """`F.embedding` without word of which token is padding: that matters to gradients alone."""
    return F.embedding(input, weight, None, *rest, **named)


def _of_sizes(answer: torch.Tensor) -> bool:
    """Whether a traced answer compares nothing but sizes and constants."""
    node = torch._C._get_value_trace(answer).node()  # type: ignore[attr-defined]
    return node.kind() in ASKED and all(_size(value) for value in node.inputs())


def _size(value: Any) -> bool:
    node = value.node()
    if node.kind() == "prim::NumToTensor":
        return _size(next(iter(node.inputs())))
    return node.kind() in ("aten::size", "prim::Constant")
