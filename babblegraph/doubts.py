"""Why not to trust an estimate too much, in words."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FEW_TREES, FEW_HITS, FEW_LEAVES = 32, 10, 30  # below these an estimate says so
HEAVY_LEAF, HEAVY_TREE = 0.1, 1 / 3  # and above these

Floats = NDArray[np.float64]


def doubts(
    effective: float,
    heaviest: float,
    hits: int,
    per_tree: Floats,
    total: Floats,
    per_prompt: NDArray[np.intp],
    ratio: bool = False,
    failed: float = 0.0,
) -> tuple[str, ...]:
    """All that speaks against an estimate.

    Args:
        effective: the effective sample size of its leaves.
        heaviest: the share of all weight that one leaf holds.
        hits: trees with a leaf that counts.
        per_tree: Σ w h of each tree, [trees].
        total: Σ w of each tree, [trees].
        per_prompt: trees of each prompt.
        ratio: whether weights are divided by their sum.
        failed: the share of all weight on leaves that could not be scored.
    """
    said = []
    if failed > 0:
        said.append(f"leaves with {failed:.2g} of all weight could not be scored, and count as misses")
    few = int(per_prompt.min())
    if few < 2:
        said.append("one tree a prompt gives no interval")
    elif few < FEW_TREES:
        said.append(f"{few} trees a prompt are fewer than {FEW_TREES}: the interval may be too short")
    if effective < FEW_LEAVES:
        said.append(f"the effective sample size {effective:.3g} is below {FEW_LEAVES}")
    if heaviest > HEAVY_LEAF:
        said.append(f"one leaf holds {heaviest:.0%} of all weight")
    if 0 < hits < min(FEW_HITS, len(total)):
        said.append(f"only {hits} of {len(total)} trees have a hit: the interval may be too short")
    size = np.abs(per_tree)
    if hits >= FEW_HITS and size.max() > HEAVY_TREE * size.sum():
        share = size.max() / size.sum()
        said.append(f"one of {len(total)} trees brings {share:.0%} of it: the interval may be too short")
    deviation = float(total.std())
    if hits == 0 and deviation > 1e-9:
        said.append("the weights of a tree do not always sum to 1: the bound is not exact")
    off = abs(total.mean() - 1) > 5 * deviation / math.sqrt(max(len(total) - 1, 1)) + 1e-9
    if len(total) > 1 and off and not ratio:
        said.append(f"the weights of a tree sum to {total.mean():.3g} on average, not to 1")
    return tuple(said)
