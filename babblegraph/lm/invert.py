"""Sampling by inversion: the token at which a distribution function passes a uniform number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

BLOCK = 256  # tokens that are summed before anything is cumulated


class Inverse:
    """The distribution functions of R rows, ready to be inverted.

    Two steps, so that large vocabularies cost one pass in the precision of the probabilities: sums of blocks are
    cumulated in double precision, and then the tokens of the one block that each draw falls into. What a draw
    gets depends on its own row and uniform alone.

    Args:
        p: probabilities, which need not sum to one, [R, V].
    """

    def __init__(self, p: torch.Tensor) -> None:
        self.p = p
        self.blocks, self.below = in_blocks(p, BLOCK)

    @property
    def total(self) -> NDArray[np.float64]:
        """What the probabilities of each row sum to, [R]."""
        return self.below[:, -1].cpu().numpy()

    def at(self, row: NDArray[np.integer[Any]], u: NDArray[np.float64]) -> NDArray[np.int64]:
        """The first token of each row whose cumulated probability exceeds u · total; never one without probability.

        Args:
            row: of each draw, [D]; its total must be above zero.
            u: in [0, 1), [D].
        """
        return tokens_at(self.blocks, self.below, *self._here(row, u)).cpu().numpy()

    def split(
        self, row: NDArray[np.integer[Any]], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The same tokens, and where in the token's own interval each point lies, in [0, 1); both [D]."""
        token, rest = self.find(*self._here(row, u))
        return token.cpu().numpy(), rest.cpu().numpy()

    def find(self, row: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as `split`, of tensors on the device of the probabilities; some token where these are NaN."""
        start, p, point = block_of(self.blocks, self.below, row, u)
        until = p.double().cumsum(-1)
        place = first_above(until, point)[:, None]
        width = p.gather(1, place).double()
        rest = (point - until.gather(1, place)) / width + 1
        token = (start + place[:, 0]).clamp_max(self.p.shape[1] - 1)
        return token, rest[:, 0].clamp(0.0, 1 - 2.0**-53)

    def _here(self, *arrays: NDArray[Any]) -> Iterator[torch.Tensor]:
        """Arrays on the device of the probabilities."""
        return (torch.as_tensor(array, device=self.p.device) for array in arrays)


# TorchScript compiles what follows, too (`coast`)


def drawn(
    p: torch.Tensor, row: torch.Tensor, u: torch.Tensor, block: int, noise: float
) -> tuple[torch.Tensor, bool]:
    """What `Inverse.at` gives, [D], and whether every row has something to draw, more than noise, and no NaN."""
    blocks, below = in_blocks(p, block)
    return tokens_at(blocks, below, row, u), bool((below[:, -1] > noise).all())


def in_blocks(p: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities in blocks, [R, V / block, block], and the sums of each block and all before it, [R, V / block]."""
    size = min(block, p.shape[1])
    rest = -p.shape[1] % size
    blocks = (F.pad(p, [0, rest]) if rest > 0 else p).view(p.shape[0], -1, size)
    return blocks, blocks.sum(-1).double().cumsum(-1)


def tokens_at(blocks: torch.Tensor, below: torch.Tensor, row: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The token of each draw, [D]."""
    start, p, point = block_of(blocks, below, row, u)
    return start + first_above(p.double().cumsum(-1), point)


def block_of(
    blocks: torch.Tensor, below: torch.Tensor, row: torch.Tensor, u: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first token of the block that each draw falls into, [D], its probabilities, [D, block], and the point in
    it, [D, 1]."""
    mine = below.index_select(0, row)  # [D, V / block]
    point = u[:, None] * mine[:, -1:]
    if blocks.shape[1] == 1:
        return torch.zeros_like(row), blocks[:, 0].index_select(0, row), point
    block = first_above(mine, point)
    before = torch.where(block > 0, mine.gather(1, (block - 1).clamp_min(0)[:, None])[:, 0], 0.0)
    return block * blocks.shape[2], blocks[row, block], point - before[:, None]


def first_above(below: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Where cumulated numbers first exceed a point, [D]; where rounding lets none, the last that adds something."""
    found = torch.searchsorted(below, point, right=True)[:, 0]
    last = torch.searchsorted(below, below[:, -1:].contiguous())[:, 0]
    return torch.minimum(found, last).clamp_max(below.shape[1] - 1)  # beyond it only by NaN
