"""The ring of remembered logits: the newest ones, and all of them while there is room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from babblegraph.lm.logits import LogitCache

V = 8
ROW = 4 * V  # bytes


def logits(slots, turn):
    """Numbers that tell a slot and a turn from others, [M, V]."""
    return (torch.as_tensor(slots)[:, None] * 1000.0 + turn).expand(-1, V)


@pytest.mark.parametrize("most", [64, 100, 1000])
def test_what_is_remembered_is_what_was_put_last(most, rng):
    cache, truth, order, slots = LogitCache(most * ROW, torch.device("cpu")), {}, [], 20
    cache.reserve(slots)
    for turn in range(200):
        if turn % 40 == 39:
            slots *= 2
            cache.reserve(slots)
        some = rng.choice(slots, rng.integers(1, 15), replace=False)
        cache.put(some, logits(some, turn))
        truth |= {int(slot): turn for slot in some}
        order += [(int(slot), turn) for slot in some]
        gone = rng.choice(slots, 2, replace=False)
        cache.forget(gone)
        for slot in gone.tolist():
            truth.pop(slot, None)
        there = np.flatnonzero(cache.has(np.arange(slots)))
        expected = logits(there, 0) + torch.tensor([float(truth[int(s)]) for s in there])[:, None]
        assert torch.equal(cache.get(there), expected)
        kept = dict(zip(there.tolist(), there.tolist(), strict=True))
        newest = order[-min(most, 20) :]  # a ring has at least as many rows as there were slots at first
        assert all(slot in kept for slot, at in newest if truth.get(slot) == at)
    assert len(cache.ring) <= most


def test_a_ring_is_copied_only_when_it_is_full():
    """More slots alone are no reason: a search makes room for them every few steps."""
    cache = LogitCache(1000 * ROW, torch.device("cpu"))
    cache.reserve(50)
    cache.put(np.arange(10), logits(np.arange(10), 0))
    ring = cache.ring
    cache.reserve(200)
    cache.put(np.arange(10, 50), logits(np.arange(10, 50), 1))
    assert cache.ring is ring
    cache.put(np.arange(50, 60), logits(np.arange(50, 60), 2))
    assert len(cache.ring) == 200
    assert cache.has(np.arange(60)).all()
