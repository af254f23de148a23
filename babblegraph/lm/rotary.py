"""Queries and keys turned by their positions in one kernel on a GPU, where a model writes that out in ten operators.

Models of many families call one function for it, by the same name. While a model decodes its attention layers run with
ours under that name, in a copy of the names that their code sees: nothing of transformers is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import nn

from babblegraph.lm.gpu import DTYPES, layer_kernels
from babblegraph.lm.norms import Call
from babblegraph.lm.roundings import alike

NAME = "apply_rotary_pos_emb"
Turned = tuple[torch.Tensor, torch.Tensor]
Turn = Callable[..., Turned]  # as `layer_kernels.turn`


def fused_rotary(module: nn.Module) -> Call | None:
    """What computes the same as an attention layer; None where it calls no such function, or one that does otherwise.

    Whether it does otherwise is found out by trying: some families turn pairs of neighbours.
    """
    forward = type(module).forward
    written = getattr(forward, "__globals__", {}).get(NAME)
    if (
        not isinstance(forward, FunctionType)
        or NAME not in forward.__code__.co_names
        or not callable(written)
    ):
        return None
    weight = next(module.parameters(), None)  # of any kind: it tells where the layer is
    if weight is None or (turn := kernel(weight.device)) is None or not _same(written, turn, weight.device):
        return None
    turned = _with(forward, written, turn)

    def call(*args: Any, **given: Any) -> Any:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return forward(module, *args, **given)
        return turned(module, *args, **given)

    return call


def kernel(device: torch.device) -> Turn | None:
    """The kernel; None where it does not run."""
    kernels = layer_kernels(device, torch.float32)
    return None if kernels is None else kernels.turn


@cache
def _with(forward: FunctionType, written: Turn, turn: Turn) -> FunctionType:
    """A layer's code that sees our function under its name."""

    def ours(
        q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *rest: Any, **named: Any
    ) -> Turned:
        if rest or named or not _reads(q, k, cos, sin):
            return written(q, k, cos, sin, *rest, **named)
        return turn(q, k, cos, sin)

    names = forward.__globals__ | {NAME: ours}
    made = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


def _reads(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> bool:
    """Whether the kernel reads these: what `layer_kernels.turn` says of their shapes, and one precision."""
    if q.dim() != 4 or k.dim() != 4:
        return False
    b, _, length, d = q.shape
    return (
        q.dtype in DTYPES
        and k.shape == (b, k.shape[1], length, d)
        and q.dtype is k.dtype is cos.dtype is sin.dtype
        and cos.shape == sin.shape == (len(cos), length, d)
        and len(cos) in (1, b)
        and d % 2 == 0
        and {x.stride(-1) for x in (q, k, cos, sin)} == {1}
    )


@cache
@torch.no_grad()
def _same(written: Turn, turn: Turn, device: torch.device) -> bool:
    """Whether a family's function does what the kernel does, tried in single precision."""
    draw = torch.Generator().manual_seed(0)
    shapes = (2, 4, 3, 16), (2, 2, 3, 16), (2, 3, 16), (2, 3, 16)
    given = [torch.randn(shape, generator=draw).to(device) for shape in shapes]
    try:
        told = written(*given)
    except Exception:  # of other arguments
        return False
    return isinstance(told, tuple) and all(
        a.shape == b.shape and a.dtype is b.dtype and alike(a, b)
        for a, b in zip(turn(*given), told, strict=True)
    )
