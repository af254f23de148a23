"""The keys and values of slots: a pool for each layer, written to and read from."""

from __future__ import annotations

import sys

import torch

SHARE = 0.8  # of a GPU's free memory that pools may take; passes need the rest
BLOCK = 1 << 22  # bytes of keys and values that a CPU collects at a time: they stay in its cache


class Pools:
    """Keys and values of all layers; slot 0 is where padding is written, and is never read.

    Args:
        device: where they live.

    Attributes:
        slots: how many there are; pools follow when they are written to, or with `settle`.
        keys, values: by layer, [slots, H_kv, d] each.
        moved: how often a pool has been replaced by a larger one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.slots, self.moved = device, 0, 0
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._rooms = Room(), Room()  # where keys and values are collected

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all pools, in use or not."""
        return sum(t.numel() * t.element_size() for t in (*self.keys.values(), *self.values.values()))

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers; 0 before the first."""
        rows = next((len(pool) for pool in self.keys.values()), 0)
        return self.allocated_bytes // rows if rows else 0

    @property
    def dtype(self) -> torch.dtype:
        """Of the keys; known once something was written."""
        return next(iter(self.keys.values())).dtype

    def write(self, layer: int, key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor) -> None:
        """Stores the keys and values of new tokens, [B, H_kv, L, d] each, in their slots, [B · L]."""
        for pools, new in ((self.keys, key), (self.values, value)):
            rows = new.transpose(1, 2).flatten(0, 1)  # [B · L, H_kv, d]
            self._pool(pools, layer, rows).index_copy_(0, slots, rows)

    def read(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of rows of slots, [B, T], collected.

        Returns:
            [B, H_kv, T, d] each; on a CPU good until the next call.
        """
        found = []
        for pools, room in ((self.keys, self._rooms[0]), (self.values, self._rooms[1])):
            pool, at = pools[layer], slots.reshape(-1)
            out = room.take(len(at), pool) if self.device.type == "cpu" else None
            rows = torch.index_select(pool, 0, at, out=out)
            found.append(rows.view(*slots.shape, *pool.shape[1:]).transpose(1, 2))
        return found[0], found[1]

    def block(self, layer: int, tokens: int) -> int:
        """How many rows of so many tokens are best read together."""
        if self.device.type != "cpu":
            return sys.maxsize
        token = sum(pools[layer].stride(0) * pools[layer].itemsize for pools in (self.keys, self.values))
        return max(1, BLOCK // (tokens * token))

    def read_segment(self, layer: int, where: slice | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a run of slots, where they lie, or of some slots, collected: [1, H_kv, n, d] each."""
        found = (
            pools[layer][where] if isinstance(where, slice) else pools[layer].index_select(0, where)
            for pools in (self.keys, self.values)
        )
        key, value = (rows.transpose(0, 1)[None] for rows in found)
        return key, value

    def _pool(self, pools: dict[int, torch.Tensor], layer: int, like: torch.Tensor) -> torch.Tensor:
        """A layer's pool, with room for every slot."""
        pool = pools.get(layer)
        if pool is None or pool.shape[0] < self.slots:
            grown = like.new_empty(self.slots, *like.shape[1:])
            if pool is None:
                grown[0] = 0  # hidden by a bias of -inf, which would not hide a NaN
            else:
                grown[: pool.shape[0]] = pool
            pool = pools[layer] = grown
            self.moved += 1
        return pool

    def settle(self) -> None:
        """Every pool gets room for every slot now, instead of when it is written to."""
        for pools in (self.keys, self.values):
            for layer, pool in pools.items():
                self._pool(pools, layer, pool)


class Room:
    """Memory that is used again and again: pages that a process has touched before cost nothing."""

    def __init__(self) -> None:
        self._flat: torch.Tensor | None = None
        self._latest: torch.Tensor | None = None

    def take(self, rows: int, like: torch.Tensor) -> torch.Tensor:
        """Room for so many rows of a pool."""
        latest, shape = self._latest, (rows, *like.shape[1:])
        if latest is not None and latest.shape == shape and latest.dtype == like.dtype:
            return latest  # as for all layers of a step
        size = rows * like.stride(0)
        if self._flat is None or self._flat.dtype != like.dtype or len(self._flat) < size:
            self._flat = like.new_empty(size + size // 4)  # since tails grow by a token a step
        self._latest = self._flat[:size].view(shape)
        return self._latest


def free_bytes(device: torch.device) -> int:
    """Bytes that a GPU still has for pools; elsewhere nobody knows, and there is no bound."""
    if device.type != "cuda":
        return sys.maxsize
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * (torch.cuda.mem_get_info(device)[0] + cached))
