"""Attention by tables, row by row in plain torch: a second computation of what the GPU's kernels do."""

from __future__ import annotations

import torch
from torch import Tensor

from babblegraph.lm.decode import Decoder, Setting
from babblegraph.lm.tables import Tables

TILE = 4  # rows of an item; small, so that a few rows need several
ENOUGH = 40  # items; more than a few rows, so that long tails are cut


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    tables: Tables,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """As `kernels.attend`."""
    keys[tables.slots.long()], values[tables.slots.long()] = key, value
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    out = query.new_zeros(len(query), heads, value.shape[2])
    for row in range(len(query)):
        length, of_row = int(tables.lengths[row]), tables.of_row[row, : int(tables.parts[row])].tolist()
        slots, places = [tables.tails[row, :length]], [tables.tail_places[row, :length]]
        for of in of_row:
            start, many, first, rows = tables.items[of // TILE].tolist()
            assert first + of % TILE == row < first + rows <= first + TILE
            slots.append(tables.keys[start : start + many])
            places.append(tables.places[start : start + many])
        slot, place = torch.cat(slots).long(), torch.cat(places)
        k = torch.cat([keys[slot], key[row][None]]).repeat_interleave(groups, 1)  # [n, H, d]
        v = torch.cat([values[slot], value[row][None]]).repeat_interleave(groups, 1)
        scores = torch.einsum("hd,nhd->hn", query[row], k) * scale
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if window is not None:
            age = tables.positions[row] - torch.cat([place, tables.positions[row][None]])
            scores = scores.masked_fill(age >= window, -torch.inf)
        if sinks is not None:
            scores = torch.cat([scores, sinks[:, None]], 1)
        weights = scores.softmax(-1)[:, : len(k)]
        out[row] = torch.einsum("hn,nhd->hd", weights, v)
    return out


def decoder_of(model, store) -> Decoder:
    """In place of `decode.decoder_of`, on the CPU."""
    return Decoder(Setting(model, store, attend, TILE, ENOUGH))
