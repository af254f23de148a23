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
        size = min(BLOCK, p.shape[1])
        whole = F.pad(p, (0, rest)) if (rest := -p.shape[1] % size) else p
        self.blocks = whole.view(len(p), -1, size)  # [R, V / BLOCK, BLOCK]
        # [R, V / BLOCK], of each block and all before it
        self.below = self.blocks.sum(-1).double().cumsum(-1)

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
        start, p, point = self._blocks_of(*self._here(row, u))
        return (start + _first_above(p.double().cumsum(-1), point)).cpu().numpy()

    def split(
        self, row: NDArray[np.integer[Any]], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The same tokens, and where in the token's own interval each point lies, in [0, 1); both [D]."""
        token, rest = self.find(*self._here(row, u))
        return token.cpu().numpy(), rest.cpu().numpy()

    def find(self, row: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as `split`, of tensors on the device of the probabilities; some token where these are NaN."""
        start, p, point = self._blocks_of(row, u)
        until = p.double().cumsum(-1)
        place = _first_above(until, point)[:, None]
        width = p.gather(1, place).double()
        rest = (point - until.gather(1, place)) / width + 1
        token = (start + place[:, 0]).clamp_max(self.p.shape[1] - 1)
        return token, rest[:, 0].clamp(0.0, 1 - 2.0**-53)

    def _blocks_of(
        self, row: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor | int, torch.Tensor, torch.Tensor]:
        """The first token of the block that each draw falls into, [D], its probabilities, [D, BLOCK], and the point
        in it, [D, 1]."""
        below = self.below.index_select(0, row)  # [D, V / BLOCK]
        point = u[:, None] * below[:, -1:]
        if self.blocks.shape[1] == 1:
            return 0, self.blocks[:, 0].index_select(0, row), point
        block = _first_above(below, point)
        before = torch.where(block > 0, below.gather(1, (block - 1).clamp_min(0)[:, None])[:, 0], 0.0)
        return block * BLOCK, self.blocks[row, block], point - before[:, None]

    def _here(self, *arrays: NDArray[Any]) -> Iterator[torch.Tensor]:
        """Arrays on the device of the probabilities."""
        return (torch.as_tensor(array, device=self.p.device) for array in arrays)


def _first_above(below: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Where cumulated numbers first exceed a point, [D]; where rounding lets none, the last that adds something."""
    found = torch.searchsorted(below, point, right=True)[:, 0]
    last = torch.searchsorted(below, below[:, -1:].contiguous())[:, 0]
    return torch.minimum(found, last).clamp_max(below.shape[1] - 1)  # beyond it only by NaN
