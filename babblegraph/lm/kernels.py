"""Attention of one new token a row along a token trie, on a GPU: two kernels a layer, whatever the tree's shape.

The first attends to what rows share: an item is some keys with the queries of the neighbouring rows that have them, and
leaves a partial result. The second attends to a row's own tail and its new token, stores that token's keys and
values, and merges the parts. Both read the tree from tables in device memory, so that a captured graph of them stays
good for every tree that fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from babblegraph.lm.tables import Tables

TILE = 64  # queries of an item, at most
KEYS = 64  # keys that are read together
KEYS_WARPS, KEYS_STAGES = 4, 2
TAIL = 64  # the same in a row's own tail, times the bytes of a number
TAIL_WARPS, TAIL_STAGES = 1, 2  # warps for 16 queries, which a product of matrices takes at once
PARTS = 16  # partial results that are merged together, of all heads of a group
PROGRAMS = 512  # that the items of all heads are dealt out to, at most


def rows_of_an_item(groups: int) -> int:
    """How many rows' queries fill a tile, where so many heads ask one head of keys."""
    return max(TILE // triton.next_power_of_2(groups), 1)


def items_enough(kv_heads: int) -> int:
    """How many items give every multiprocessor of a large GPU something to do."""
    return max(PROGRAMS // 2 // kv_heads, 1)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: Tables,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Stores the new keys and values in their slots, and attends along each row's path.

    Args:
        query, key, value: of the new tokens, [R, H, d], [R, H_kv, d], [R, H_kv, d_v].
        keys, values: the layer's pools, [slots, H_kv, d] and [slots, H_kv, d_v].
        tables: where each row's path lies.
        scale: of the scores.
        softcap: scores are capped by tanh at this.
        window: a sliding window in tokens.
        sinks: logits that only add to the denominator, [H].

    Returns:
        [R, H, d_v].

    Source: Juravsky et al., "Hydragen", 2024; Dao et al., "Flash-Decoding for long-context inference", 2023.
    """
    rows, heads, d = query.shape
    kv_heads, d_v = value.shape[1:]
    groups = heads // kv_heads
    sizes: dict[str, Any] = {
        "G": groups,
        "GP": triton.next_power_of_2(groups),
        "D": d,
        "DP": max(triton.next_power_of_2(d), 16),
        "DV": d_v,
        "DVP": max(triton.next_power_of_2(d_v), 16),
        "WINDOW": window or 0,
        "SOFTCAP": softcap or 0.0,
    }
    if tables.tile != rows_of_an_item(groups):
        raise ValueError(
            f"the tables have items of {tables.tile} rows, for other heads than {heads} and {kv_heads}"
        )
    tile = tables.tile * sizes["GP"]
    out = query.new_empty(rows, heads, d_v)
    most = len(tables.items)
    part = query.new_empty(kv_heads, most, tile, d_v, dtype=torch.float32)
    log_sum = query.new_empty(kv_heads, most, tile, dtype=torch.float32)
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    fixed = (tables.items, tables.count, tables.keys, tables.places, tables.positions, part, log_sum)
    programs = min(most, max(PROGRAMS // kv_heads, 1))
    _shared[programs, kv_heads](
        *(query, keys, values, *fixed, scale, kv_heads, most),
        **sizes,
        M=tile,
        N=KEYS,
        STEP=programs,
        num_warps=KEYS_WARPS,
        num_stages=KEYS_STAGES,
    )
    own = (tables.slots, tables.positions, tables.tails, tables.tail_places, tables.lengths)
    parts = (tables.of_row, tables.parts, part, log_sum)
    shape = (kv_heads, most * tables.tile, tables.tails.shape[1], tables.of_row.shape[1])
    sink, asked = query if sinks is None else sinks, max(sizes["GP"], 16)
    _own[rows, kv_heads](
        *(query, key, value, keys, values, out, *own, *parts, sink, scale, *shape),
        **sizes,
        T=max(TAIL // query.element_size(), 16),
        P=max(PARTS // sizes["GP"], 1),
        Q=asked,
        SINKS=sinks is not None,
        num_warps=min(TAIL_WARPS * asked // 16, 8),
        num_stages=TAIL_STAGES,
    )
    return out


@triton.jit
def _scores(scores, scale, SOFTCAP: tl.constexpr):
    scores = scores * scale
    if SOFTCAP > 0:
        scaled = scores / SOFTCAP
        scores = SOFTCAP * (2 * tl.sigmoid(2 * scaled) - 1)  # tanh
    return scores


@triton.jit
def _shared(
    query,
    keys,
    values,
    items,
    count,
    item_keys,
    places,
    positions,
    part,
    log_sum,
    scale,
    kv_heads,
    most_items,
    G: tl.constexpr,
    GP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    DV: tl.constexpr,
    DVP: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    STEP: tl.constexpr,
):
    head = tl.program_id(1)
    d, d_v, m, n = tl.arange(0, DP), tl.arange(0, DVP), tl.arange(0, M), tl.arange(0, N)
    for item in range(tl.program_id(0), tl.load(count), STEP):
        start = tl.load(items + item * 4)
        length = tl.load(items + item * 4 + 1)
        first = tl.load(items + item * 4 + 2)
        rows = tl.load(items + item * 4 + 3)
        asked = (m // GP < rows) & (m % GP < G)
        row = first + m // GP
        at = ((row * kv_heads + head) * G + m % GP).to(tl.int64) * D
        q = tl.load(query + at[:, None] + d[None, :], mask=asked[:, None] & (d < D)[None, :], other=0.0)
        position = tl.load(positions + row, mask=asked, other=0)
        most = tl.full([M], float("-inf"), tl.float32)
        total = tl.zeros([M], tl.float32)
        mean = tl.zeros([M, DVP], tl.float32)
        for j in range(0, length, N):
            there = j + n < length
            slot = tl.load(item_keys + start + j + n, mask=there, other=0).to(tl.int64)
            at_key = (slot * kv_heads + head) * D
            k = tl.load(
                keys + at_key[None, :] + d[:, None], mask=there[None, :] & (d < D)[:, None], other=0.0
            )
            scores = _scores(tl.dot(q, k, input_precision="ieee"), scale, SOFTCAP)
            seen = there[None, :] & asked[:, None]
            if WINDOW > 0:
                place = tl.load(places + start + j + n, mask=there, other=0)
                seen = seen & (position[:, None] - place[None, :] < WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
            higher = tl.maximum(most, tl.max(scores, 1))
            base = tl.where(higher == float("-inf"), 0.0, higher)
            weight = tl.exp(scores - base[:, None])
            shrunk = tl.exp(most - base)
            at_value = (slot * kv_heads + head) * DV
            v = tl.load(
                values + at_value[:, None] + d_v[None, :],
                mask=there[:, None] & (d_v < DV)[None, :],
                other=0.0,
            )
            mean = mean * shrunk[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
            total = total * shrunk + tl.sum(weight, 1)
            most = higher
        safe = tl.where(total > 0, total, 1.0)
        to = (head * most_items + item).to(tl.int64) * M + m
        tl.store(part + to[:, None] * DV + d_v[None, :], mean / safe[:, None], mask=(d_v < DV)[None, :])
        tl.store(log_sum + to, tl.where(total > 0, most + tl.log(safe), float("-inf")))


@triton.jit
def _own(
    query,
    key,
    value,
    keys,
    values,
    out,
    slots,
    positions,
    tails,
    tail_places,
    lengths,
    of_row,
    parts,
    part,
    log_sum,
    sinks,
    scale,
    kv_heads,
    most_places,
    most_tail,
    most_parts,
    G: tl.constexpr,
    GP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    DV: tl.constexpr,
    DVP: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    T: tl.constexpr,
    P: tl.constexpr,
    Q: tl.constexpr,
    SINKS: tl.constexpr,
):
    row, head = tl.program_id(0), tl.program_id(1)
    d, d_v, g, t = tl.arange(0, DP), tl.arange(0, DVP), tl.arange(0, Q), tl.arange(0, T)
    at = ((row * kv_heads + head) * G + g).to(tl.int64)
    q = tl.load(query + at[:, None] * D + d[None, :], mask=(g < G)[:, None] & (d < D)[None, :], other=0.0)
    new_key = tl.load(key + (row * kv_heads + head) * D + d, mask=d < D, other=0.0)
    new_value = tl.load(value + (row * kv_heads + head) * DV + d_v, mask=d_v < DV, other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    position = tl.load(positions + row)
    length = tl.load(lengths + row)
    count = tl.load(parts + row)
    tl.store(keys + (slot * kv_heads + head) * D + d, new_key, mask=d < D)
    tl.store(values + (slot * kv_heads + head) * DV + d_v, new_value, mask=d_v < DV)
    most = _scores(tl.sum(q.to(tl.float32) * new_key.to(tl.float32)[None, :], 1), scale, SOFTCAP)
    total = tl.full([Q], 1.0, tl.float32)
    mean = tl.zeros([Q, DVP], tl.float32) + new_value.to(tl.float32)[None, :]
    for j in range(0, length, T):
        there = j + t < length
        other = tl.load(tails + row * most_tail + j + t, mask=there, other=0).to(tl.int64)
        at_key = (other * kv_heads + head) * D
        k = tl.load(keys + at_key[None, :] + d[:, None], mask=there[None, :] & (d < D)[:, None], other=0.0)
        at_value = (other * kv_heads + head) * DV
        v = tl.load(
            values + at_value[:, None] + d_v[None, :], mask=there[:, None] & (d_v < DV)[None, :], other=0.0
        )
        scores = _scores(tl.dot(q, k, input_precision="ieee"), scale, SOFTCAP)
        seen = there
        if WINDOW > 0:
            place = tl.load(tail_places + row * most_tail + j + t, mask=there, other=0)
            seen = seen & (position - place < WINDOW)
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        weight = tl.exp(scores - higher[:, None])
        shrunk = tl.exp(most - higher)
        mean = mean * shrunk[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        total = total * shrunk + tl.sum(weight, 1)
        most = higher
    if Q > GP:  # what is a group's alone, without the padding that a product of matrices takes
        first = g < GP
        most = tl.sum(tl.reshape(tl.where(first, most, 0.0), [Q // GP, GP]), 0)
        total = tl.sum(tl.reshape(tl.where(first, total, 0.0), [Q // GP, GP]), 0)
        mean = tl.sum(tl.reshape(tl.where(first[:, None], mean, 0.0), [Q // GP, GP, DVP]), 0)
    p, one = tl.arange(0, P), tl.arange(0, GP)
    for i in range(0, count, P):
        there = i + p < count
        place = tl.load(of_row + row * most_parts + i + p, mask=there, other=0)
        at_part = (head * most_places + place).to(tl.int64)[:, None] * GP + one[None, :]
        known = there[:, None] & (one < G)[None, :]
        lse = tl.load(log_sum + at_part, mask=known, other=float("-inf"))
        o = tl.load(
            part + at_part[:, :, None] * DV + d_v[None, None, :],
            mask=known[:, :, None] & (d_v < DV)[None, None, :],
            other=0.0,
        )
        higher = tl.maximum(most, tl.max(lse, 0))
        weight, shrunk = tl.exp(lse - higher[None, :]), tl.exp(most - higher)
        mean = mean * shrunk[:, None] + tl.sum(weight[:, :, None] * o, 0)
        total = total * shrunk + tl.sum(weight, 0)
        most = higher
    if SINKS:
        sink = tl.load(sinks + head * G + one, mask=one < G, other=0.0).to(tl.float32)
        total = total + tl.exp(sink - most)
    to = ((row * kv_heads + head) * G + one).to(tl.int64) * DV
    tl.store(
        out + to[:, None] + d_v[None, :], mean / total[:, None], mask=(one < G)[:, None] & (d_v < DV)[None, :]
    )
