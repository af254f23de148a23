"""The keys and values of slots: a pool for each layer, written to and read from."""

from __future__ import annotations

import sys

import torch

from babblegraph.lm.cascade import Pool, rows_at_once

Rooms = tuple[torch.Tensor, torch.Tensor]
BLOCK = 1 << 22  # bytes of keys and values that a CPU collects at a time: they stay in its cache
SHARE = 0.8  # of a GPU's free memory that pools may take; passes need the rest


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
        self.block = BLOCK if device.type == "cpu" else sys.maxsize  # bytes that are collected at a time
        self._rooms: dict[torch.dtype, Rooms] = {}  # where

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

    def pool(self, layer: int, key: torch.Tensor, value: torch.Tensor, tails: tuple[int, int]) -> Pool:
        """A layer's pools, with room for every slot, and for what is collected of so many rows of so many tokens.

        Args:
            key: of new tokens, [B, H_kv, L, d].
            value: [B, H_kv, L, d_v].
        """
        keys, values = self._pool(self.keys, layer, key), self._pool(self.values, layer, value)
        return Pool(keys, values, *self._room(keys, values, *tails))

    def pools(self, tails: tuple[int, int]) -> list[Pool]:
        """The same of all layers, once something was written; one without keys stands for a layer that has none."""
        self.settle()
        made, empty = [], torch.zeros(0, 0, 0, device=self.device)
        for layer in range(max(self.keys) + 1):
            keys, values = self.keys.get(layer, empty), self.values.get(layer, empty)
            rooms = self._room(keys, values, *tails) if layer in self.keys else (empty, empty)
            made.append(Pool(keys, values, *rooms))
        return made

    def _room(self, keys: torch.Tensor, values: torch.Tensor, rows: int, tokens: int) -> Rooms:
        """Memory that is used again and again: pages that a process has touched before cost nothing."""
        most = rows_at_once(keys, values, 1, self.block)  # tokens; of shorter tails they are of more rows
        together = min(rows * tokens, max(most, tokens))
        of_keys, of_values = self._rooms.get(keys.dtype, (keys.new_empty(0), values.new_empty(0)))
        if self.device.type != "cpu":
            return of_keys, of_values
        if len(of_keys) < (size := together * keys.stride(0)):
            of_keys = keys.new_empty(size + size // 4)  # since tails grow by a token a step
        if len(of_values) < (size := together * values.stride(0)):
            of_values = values.new_empty(size + size // 4)
        rooms = self._rooms[keys.dtype] = of_keys, of_values
        return rooms

    def _pool(self, pools: dict[int, torch.Tensor], layer: int, new: torch.Tensor) -> torch.Tensor:
        """A layer's pool, with room for every slot; what is new has heads and numbers last but for tokens."""
        pool = pools.get(layer)
        if pool is None:
            pools[layer] = new.new_empty(self.slots, new.shape[1], new.shape[3])
            pools[layer][0] = 0  # hidden by a bias of -inf, which would not hide a NaN
            self.moved += 1
        elif pool.shape[0] < self.slots:
            pools[layer] = self._grown(pool)
        return pools[layer]

    def _grown(self, pool: torch.Tensor) -> torch.Tensor:
        grown = pool.new_empty(self.slots, *pool.shape[1:])
        grown[: pool.shape[0]] = pool
        self.moved += 1
        return grown

    def settle(self) -> None:
        """Every pool gets room for every slot now, instead of when it is written to."""
        for pools in (self.keys, self.values):
            for layer, pool in pools.items():
                if pool.shape[0] < self.slots:
                    pools[layer] = self._grown(pool)


def free_bytes(device: torch.device) -> int:
    """Bytes that a GPU still has for pools; elsewhere nobody knows, and there is no bound."""
    if device.type != "cuda":
        return sys.maxsize
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * (torch.cuda.mem_get_info(device)[0] + cached))
