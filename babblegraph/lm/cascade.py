"""Attention of a forward pass along a trie: what many rows share is read once for all of them, tails row by row.

Every row of a pass is some new tokens at the end of a path. Their keys and values are written to the pools first; then
each row attends to its own tail, and together with its neighbours to every segment that they share.

TorchScript compiles these functions too (`traced`), so annotations are types here, and every argument is given.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from babblegraph.lm.attend import Part, attend, merge


class Piece(NamedTuple):
    """What a window leaves of a shared segment, for the rows that have it."""

    start: int  # slots start … stop − 1 where they are a run
    stop: int
    slots: torch.Tensor | None  # [n], where they are not
    first: int  # rows first … last − 1
    last: int
    bias: torch.Tensor | None  # [1, 1, rows · Q, n]; None where every query sees every key
    blind: torch.Tensor | None  # [rows, Q], which queries see nothing


class Seen(NamedTuple):
    """Which keys the new tokens of a pass see, in layers of one window."""

    causal: bool  # each new token sees of its tail just the new tokens up to itself
    bias: (
        torch.Tensor | None
    )  # added to the scores of tails, 0 or -inf, [B, 1, L or 1, T]; None where all is seen
    levels: list[list[Piece]]  # shared segments; those of one level have no row in common


class Pass(NamedTuple):
    """Where the keys and values of a pass are. B rows, L new tokens each, padded on the left."""

    slots: torch.Tensor  # [B · L] of the new tokens, 0 for padding
    tails: torch.Tensor  # [B, T] slots of each row's tail, padded with 0
    own: bool  # whether tails have nothing but the new tokens, as the pass has them
    block: int  # bytes of keys and values that are collected at a time


class Pool(NamedTuple):
    """One layer's keys and values by slot, and memory on a CPU in which some of them are collected."""

    keys: torch.Tensor  # [slots, H_kv, d]
    values: torch.Tensor  # [slots, H_kv, d_v]
    key_room: torch.Tensor  # [n], enough for what is collected at a time
    value_room: torch.Tensor


class How(NamedTuple):
    """How a layer attends."""

    scale: float
    softcap: float | None
    sinks: torch.Tensor | None


def along(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pool: Pool, here: Pass, seen: Seen, how: How
) -> torch.Tensor:
    """Writes the new keys and values, then attends along each row's path; returns [B, L, H, d_v].

    Args:
        query: [B, H, L, d].
        key: [B, H_kv, L, d].
        value: [B, H_kv, L, d_v].
        pool: of the layer.
        here: the pass.
        seen: what a layer of this window sees.
        how: the layer's.
    """
    _write(pool.keys, key, here.slots)
    _write(pool.values, value, here.slots)
    b, heads, new, d = query.shape
    one = new == 1  # then the heads that share keys stand beside each other, as queries of one head
    asked = query.reshape(b, key.shape[1], -1, d) if one else query
    if seen.causal and len(seen.levels) == 0 and how.softcap is None and how.sinks is None:
        grouped = key.shape[1] != heads
        whole = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=how.scale, enable_gqa=grouped
        )
        return whole.transpose(1, 2).contiguous()

    if here.own:
        parts = [attend(asked, key, value, seen.bias, how.scale, seen.causal, how.softcap)]
    else:
        parts = [_tails(asked, pool, here, seen.bias, how)]
    if len(seen.levels) > 0:
        beside = asked.transpose(0, 1).contiguous()  # [heads, B, Q, d]: neighbours are one block of queries
        for level in seen.levels:
            parts.append(_shared(level, beside, pool, how))
    sinks = how.sinks
    out = merge(parts, None if sinks is None else sinks.view(1, asked.shape[1], -1))
    if one:  # [B, H_kv, groups, d_v]
        return out.reshape(b, 1, heads, -1)
    return out.transpose(1, 2).contiguous()  # of [B, H, L, d_v]


class StepAttention(nn.Module):
    """The same for all layers of one pass after the other, which TorchScript compiles whole.

    Attributes:
        pools: by layer.
        here: the pass.
        seen: by kind of layer.
    """

    pools: list[Pool]
    here: Pass
    seen: list[Seen]

    def __init__(self, pools: list[Pool], here: Pass, seen: list[Seen]) -> None:
        super().__init__()
        self.pools, self.here, self.seen = pools, here, seen

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layer: int,
        kind: int,
        scale: float,
        softcap: float | None,
        sinks: torch.Tensor | None,
    ) -> torch.Tensor:
        """As `along`."""
        how = How(scale, softcap, sinks)
        return along(query, key, value, self.pools[layer], self.here, self.seen[kind], how)

    @torch.jit.export
    def move(self, slots: torch.Tensor, tails: torch.Tensor, unseen: torch.Tensor | None) -> None:
        """To the next step: its new tokens' slots, [B], the tails with them, and what rows do not have of these.

        Where no text outgrows a layer's window, so that nothing of a segment is lost from sight.
        """
        self.here = Pass(slots, tails, self.here.own, self.here.block)
        bias: torch.Tensor | None = None
        if unseen is not None:
            keys = self.pools[0].keys
            bias = torch.zeros(unseen.shape, dtype=keys.dtype, device=keys.device)
            bias = bias.masked_fill_(unseen, float("-inf")).unsqueeze(1).unsqueeze(1)
        seen: list[Seen] = []
        for old in self.seen:
            seen.append(Seen(False, bias, old.levels))
        self.seen = seen


def _write(pool: torch.Tensor, new: torch.Tensor, slots: torch.Tensor) -> None:
    """Stores what new tokens have, [B, H_kv, L, d], in their slots."""
    pool.index_copy_(0, slots, new.transpose(1, 2).flatten(0, 1))


def _tails(query: torch.Tensor, pool: Pool, here: Pass, bias: torch.Tensor | None, how: How) -> Part:
    """Each row with its own tail, a block of rows at a time: what is collected for them is read from the cache."""
    slots = here.tails
    rows = rows_at_once(pool.keys, pool.values, slots.shape[1], here.block)
    if slots.shape[0] <= rows:
        return _block(query, pool, slots, bias, how)
    outs: list[torch.Tensor] = []
    sums: list[torch.Tensor] = []
    for at in range(0, slots.shape[0], rows):
        to = min(at + rows, slots.shape[0])
        part = _block(query[at:to], pool, slots[at:to], _of_rows(bias, at, to), how)
        outs.append(part.out)
        sums.append(part.log_sum)
    return Part(torch.cat(outs), torch.cat(sums))


def _of_rows(bias: torch.Tensor | None, first: int, last: int) -> torch.Tensor | None:
    if bias is None or bias.shape[0] == 1:
        return bias
    return bias[first:last]


def _block(query: torch.Tensor, pool: Pool, slots: torch.Tensor, bias: torch.Tensor | None, how: How) -> Part:
    keys, values = (
        _collected(pool.keys, pool.key_room, slots),
        _collected(pool.values, pool.value_room, slots),
    )
    return attend(query, keys, values, bias, how.scale, False, how.softcap)


def _collected(pool: torch.Tensor, room: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """What some rows of slots have, [B, H_kv, T, d]; on a CPU good until the next call."""
    b, t = slots.shape
    at = slots.reshape(-1)
    if pool.device.type == "cpu":
        size = at.shape[0] * pool.shape[1] * pool.shape[2]
        rows = room[:size].view(at.shape[0], pool.shape[1], pool.shape[2])
        torch.index_select(pool, 0, at, out=rows)
    else:
        rows = torch.index_select(pool, 0, at)
    return rows.view(b, t, pool.shape[1], pool.shape[2]).transpose(1, 2)


def _shared(pieces: list[Piece], query: torch.Tensor, pool: Pool, how: How) -> Part:
    """One level of shared segments, each read once with the queries of all rows that have it; of [heads, B, Q, d]."""
    heads, b, q, _ = query.shape
    width = pool.values.shape[2]
    if len(pieces) == 1 and pieces[0].blind is None and pieces[0].last - pieces[0].first == b:
        part = _piece(pieces[0], query, pool, how)
        out, log_sum = part.out.view(heads, b, q, width), part.log_sum.view(heads, b, q)
        return Part(out.transpose(0, 1), log_sum.transpose(0, 1))
    out = query.new_zeros([heads, b, q, width])
    kind = torch.promote_types(query.dtype, torch.float32)
    log_sum = torch.full([heads, b, q], float("-inf"), dtype=kind, device=query.device)
    for piece in pieces:
        first, last = piece.first, piece.last
        part = _piece(piece, query[:, first:last], pool, how)
        out[:, first:last] = part.out.view(heads, last - first, q, width)
        log_sum[:, first:last] = part.log_sum.view(heads, last - first, q)
        blind = piece.blind
        if blind is not None:
            log_sum[:, first:last].masked_fill_(blind, float("-inf"))
    return Part(out.transpose(0, 1), log_sum.transpose(0, 1))


def _piece(piece: Piece, query: torch.Tensor, pool: Pool, how: How) -> Part:
    """One segment with all queries of its rows, [heads, rows, Q, d], as if they were one row's."""
    keys, values = _segment(pool.keys, piece), _segment(pool.values, piece)
    return attend(query.flatten(1, 2).unsqueeze(0), keys, values, piece.bias, how.scale, False, how.softcap)


def _segment(pool: torch.Tensor, piece: Piece) -> torch.Tensor:
    """A run of slots where it lies, or some slots, collected: [1, H_kv, n, d]."""
    slots = piece.slots
    rows = pool[piece.start : piece.stop] if slots is None else pool.index_select(0, slots)
    return rows.transpose(0, 1).unsqueeze(0)


def rows_at_once(keys: torch.Tensor, values: torch.Tensor, tokens: int, block: int) -> int:
    """How many rows of so many tokens are collected together."""
    token = keys.stride(0) * keys.element_size() + values.stride(0) * values.element_size()
    return max(1, block // (tokens * token))
