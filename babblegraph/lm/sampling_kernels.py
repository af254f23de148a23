"""Sampling by inversion on a GPU, in one pass over the logits.

The same as `invert.Inverse` of a softmax: which tokens a uniform number falls between is found among sums of blocks
first, and then within one block. A softmax, its logarithm and the sums, each by an operator of its own, read and write
the logits of a large vocabulary ten times, in single precision.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 256  # tokens that are summed before anything is cumulated
BLOCKS = 16  # that are read together


def pick(
    logits: torch.Tensor, u: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The token of each row at which the distribution function passes u.

    Args:
        logits: [R, V].
        u: in [0, 1), in double precision, [R].
        temperature: of what is sampled from, above 0.

    Returns:
        Tokens, their log-probabilities at temperature 1 and at the one given, and how many tokens were possible, [R]
        each.
    """
    rows, size = logits.shape
    blocks = triton.cdiv(size, BLOCK)
    largest, sums, plain = logits.new_empty(3, rows, blocks, dtype=torch.float32)
    possible = logits.new_empty(rows, blocks, dtype=torch.int32)
    token, count = logits.new_empty(2, rows, dtype=torch.int64)
    log_g, log_q = logits.new_empty(2, rows, dtype=torch.float64)
    given = (logits, logits.stride(0), size, 1 / temperature, largest, sums, plain, possible, blocks)
    tempered = temperature != 1
    _sum[rows, triton.cdiv(blocks, BLOCKS)](*given, SIZE=BLOCK, SOME=BLOCKS, TEMPERED=tempered)
    all_blocks = triton.next_power_of_2(blocks)
    _find[rows,](*given, u, token, log_g, log_q, count, SIZE=BLOCK, ALL=all_blocks, TEMPERED=tempered)
    return token, log_g, log_q, count


@triton.jit
def _sum(
    logits,
    stride,
    size,
    sharpness,
    largest,
    sums,
    plain,
    possible,
    blocks,
    SIZE: tl.constexpr,
    SOME: tl.constexpr,
    TEMPERED: tl.constexpr,
):
    """Of each block its largest logit, the sum of the others relative to it, and how many tokens are possible."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * SOME + tl.arange(0, SOME)
    token = block[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    x = tl.load(logits + row * stride + token, mask=token < size, other=float("-inf")).to(tl.float32)
    most = tl.max(x, 1)
    below = x - tl.where(most == float("-inf"), 0.0, most)[:, None]
    to, there = row * blocks + block, block < blocks
    tl.store(largest + to, most, mask=there)
    tl.store(sums + to, tl.sum(tl.exp(below * sharpness), 1), mask=there)
    tl.store(possible + to, tl.sum((x > float("-inf")).to(tl.int32), 1), mask=there)
    if TEMPERED:
        tl.store(plain + to, tl.sum(tl.exp(below), 1), mask=there)


@triton.jit
def _find(
    logits,
    stride,
    size,
    sharpness,
    largest,
    sums,
    plain,
    possible,
    blocks,
    uniforms,
    tokens,
    log_g,
    log_q,
    counts,
    SIZE: tl.constexpr,
    ALL: tl.constexpr,
    TEMPERED: tl.constexpr,
):
    """The block that the uniform falls into, and the token in it: the last with any weight where rounding lets none."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, ALL)
    at, there = row * blocks + block, block < blocks
    largest_of = tl.load(largest + at, mask=there, other=float("-inf"))
    most = tl.max(largest_of, 0)
    weight = tl.load(sums + at, mask=there, other=0.0) * tl.exp((largest_of - most) * sharpness)
    until = tl.cumsum(weight.to(tl.float64), 0)
    total = tl.max(until, 0)
    point = tl.load(uniforms + row) * total
    found = tl.minimum(tl.sum((until <= point).to(tl.int32), 0), tl.sum((until < total).to(tl.int32), 0))
    before = tl.max(tl.where(block < found, until, 0.0), 0)

    token = found * SIZE + tl.arange(0, SIZE)
    x = tl.load(logits + row * stride + token, mask=token < size, other=float("-inf")).to(tl.float32)
    inside = tl.cumsum(tl.exp((x - most) * sharpness).to(tl.float64), 0)
    place = tl.minimum(
        tl.sum((inside <= point - before).to(tl.int32), 0),
        tl.sum((inside < tl.max(inside, 0)).to(tl.int32), 0),
    )
    here = (tl.max(tl.where(tl.arange(0, SIZE) == place, x, float("-inf")), 0) - most).to(tl.float64)
    tl.store(tokens + row, (found * SIZE + place).to(tl.int64))
    tl.store(counts + row, tl.sum(tl.load(possible + at, mask=there, other=0), 0).to(tl.int64))
    total = tl.sum(weight.to(tl.float64), 0)  # no number where a logit is none
    tl.store(log_q + row, here * sharpness - tl.log(total))
    if TEMPERED:
        weight = tl.load(plain + at, mask=there, other=0.0) * tl.exp(largest_of - most)
        total = tl.sum(weight.to(tl.float64), 0)
    tl.store(log_g + row, here - tl.log(total))
