"""What a layer does to single numbers, on a GPU a kernel each: norms, and turning queries and keys by their positions.

Written out by operators these are eight kernels a norm and ten a turn, most of what a step of a small model launches.
The results are rounded where a model's own operators round them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

NUMBERS = 1024  # of one program, about


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """A root mean square norm over the last dimension.

    Args:
        x: [..., d], as `fits` says.
        weight: [d].

    Returns:
        The same shape, contiguous.

    Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """
    size = x.shape[-1]
    if (dims := _two_dims(x[..., 0])) is None:
        raise ValueError(f"the norm reads two strides at most, got {x.stride()}: ask `fits` before")
    (_, outer_stride), (inner, inner_stride) = dims
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    rows = x.numel() // size
    some = max(NUMBERS // triton.next_power_of_2(size), 1)
    _norm[triton.cdiv(rows, some),](
        *(x, weight, out, rows, inner, outer_stride, inner_stride, eps, 1 / size),
        SIZE=size,
        ALL=triton.next_power_of_2(size),
        SOME=some,
    )
    return out


def turn(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys turned by their positions, the first half of each head against the second.

    Args:
        query, key: [B, H, L, d] and [B, H_kv, L, d], in any layout whose last dimension lies together.
        cos, sin: [B or 1, L, d].

    Source: Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
    """
    b, heads, length, d = query.shape
    kv_heads, half = key.shape[1], d // 2
    found = query.new_empty(b, length, heads, d), key.new_empty(b, length, kv_heads, d)
    some = max(NUMBERS // triton.next_power_of_2(d), 1)
    of_cos, of_sin = ((0 if len(x) == 1 else x.stride(0), x.stride(1)) for x in (cos, sin))
    grid = (b * length, triton.cdiv(heads, some) + triton.cdiv(kv_heads, some))
    _turn[grid](
        *(query, key, cos, sin, *found, heads, kv_heads, length),
        *(*query.stride()[:3], *key.stride()[:3], *of_cos, *of_sin),
        HALF=half,
        ALL=triton.next_power_of_2(half),
        SOME=some,
        enable_fp_fusion=False,  # a product and a sum are two roundings
    )
    return found[0].transpose(1, 2), found[1].transpose(1, 2)


def fits(x: torch.Tensor) -> bool:
    """Whether the norm reads a layout: its last dimension lies together, and the others are two strides."""
    return x.dim() > 1 and x.numel() > 0 and x.stride(-1) == 1 and _two_dims(x[..., 0]) is not None


def _two_dims(x: torch.Tensor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """A layout as two dimensions, (size, stride) each, the outer one first; None where it has more."""
    dims: list[tuple[int, int]] = []
    for size, stride in zip(x.shape, x.stride(), strict=True):
        if size == 1:
            continue
        if dims and dims[-1][1] == size * stride:
            dims[-1] = (dims[-1][0] * size, stride)
        else:
            dims.append((size, stride))
    if len(dims) > 2:
        return None
    dims = [(1, 0)] * (2 - len(dims)) + dims
    return dims[0], dims[1]


@triton.jit
def _norm(
    x,
    weight,
    out,
    rows,
    inner,
    outer_stride,
    inner_stride,
    eps,
    share,
    SIZE: tl.constexpr,
    ALL: tl.constexpr,
    SOME: tl.constexpr,
):
    row = (tl.program_id(0) * SOME + tl.arange(0, SOME)).to(tl.int64)
    d = tl.arange(0, ALL)
    there = (row < rows)[:, None] & (d < SIZE)[None, :]
    at = row // inner * outer_stride + row % inner * inner_stride
    numbers = tl.load(x + at[:, None] + d[None, :], mask=there, other=0.0)
    exact = numbers.to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(exact * exact, 1) * share + eps)
    w = tl.load(weight + d, mask=d < SIZE, other=0.0)
    scaled = (exact * scale[:, None]).to(numbers.dtype).to(tl.float32)
    tl.store(out + row[:, None] * SIZE + d[None, :], scaled * w.to(tl.float32)[None, :], mask=there)


@triton.jit
def _turn(
    query,
    key,
    cos,
    sin,
    query_out,
    key_out,
    heads,
    kv_heads,
    length,
    query_b,
    query_h,
    query_l,
    key_b,
    key_h,
    key_l,
    cos_b,
    cos_l,
    sin_b,
    sin_l,
    HALF: tl.constexpr,
    ALL: tl.constexpr,
    SOME: tl.constexpr,
):
    """One token, and some heads of its query or of its key."""
    b, place = (tl.program_id(0) // length).to(tl.int64), (tl.program_id(0) % length).to(tl.int64)
    d, of_queries = tl.arange(0, ALL), tl.cdiv(heads, SOME)
    real = d < HALF
    at_cos, at_sin = cos + b * cos_b + place * cos_l + d, sin + b * sin_b + place * sin_l + d
    cos_1, cos_2 = tl.load(at_cos, mask=real, other=0.0), tl.load(at_cos + HALF, mask=real, other=0.0)
    sin_1, sin_2 = tl.load(at_sin, mask=real, other=0.0), tl.load(at_sin + HALF, mask=real, other=0.0)
    part = tl.program_id(1)
    if part < of_queries:
        head = part * SOME + tl.arange(0, SOME)
        start = query + b * query_b + place * query_l
        to = query_out + (b * length + place) * heads * 2 * HALF
        _turn_heads(start, to, head, heads, query_h, d, real, cos_1, cos_2, sin_1, sin_2, HALF)
    else:
        head = (part - of_queries) * SOME + tl.arange(0, SOME)
        start = key + b * key_b + place * key_l
        to = key_out + (b * length + place) * kv_heads * 2 * HALF
        _turn_heads(start, to, head, kv_heads, key_h, d, real, cos_1, cos_2, sin_1, sin_2, HALF)


@triton.jit
def _turn_heads(start, to, head, heads, stride, d, real, cos_1, cos_2, sin_1, sin_2, HALF: tl.constexpr):
    there = (head < heads)[:, None] & real[None, :]
    at = start + head.to(tl.int64)[:, None] * stride + d[None, :]
    first, second = tl.load(at, mask=there, other=0.0), tl.load(at + HALF, mask=there, other=0.0)
    to = to + head[:, None] * 2 * HALF + d[None, :]
    tl.store(to, _times(first, cos_1) - _times(second, sin_1), mask=there)
    tl.store(to + HALF, _times(second, cos_2) + _times(first, sin_2), mask=there)


@triton.jit
def _times(x, y):
    """The product rounded as an operator of its own rounds it."""
    return (x.to(tl.float32) * y.to(tl.float32)[None, :]).to(x.dtype).to(tl.float32)
