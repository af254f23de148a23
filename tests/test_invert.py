"""Sampling by inversion in two steps: the same tokens as by cumulating the whole row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from babblegraph.lm.invert import BLOCK, Inverse


def slow(p, row, u):
    """The twin: one cumulated row after the other, in double precision."""
    found = []
    for r, x in zip(row, u, strict=True):
        below = np.cumsum(p[r].double().numpy())
        found.append(int(np.searchsorted(below, x * below[-1], side="right")))
    return np.array(found)


@pytest.mark.parametrize("vocabulary", [3, BLOCK, BLOCK + 1, 5 * BLOCK - 7])
def test_the_tokens_are_those_of_the_whole_cumulated_row(vocabulary, rng):
    p = torch.as_tensor(rng.dirichlet(np.full(vocabulary, 0.05), 6))
    row, u = rng.integers(0, 6, 4000), rng.random(4000)
    assert np.array_equal(Inverse(p).at(row, u), slow(p, row, u))
    assert Inverse(3 * p).total == pytest.approx(3, abs=1e-12)


def test_each_token_has_exactly_its_probability():
    """A fine grid of uniforms: the share of points of each token, up to the grid."""
    p = torch.zeros(1, 2 * BLOCK + 5, dtype=torch.float64)
    p[0, [3, BLOCK - 1, BLOCK, 2 * BLOCK + 4]] = torch.tensor([0.125, 0.5, 0.25, 0.125], dtype=torch.float64)
    n = 1 << 12
    tokens = Inverse(p).at(np.zeros(n, np.int64), np.arange(n) / n)
    assert np.array_equal(np.bincount(tokens, minlength=p.shape[1]) / n, p[0].numpy())


def test_a_token_without_probability_is_never_drawn_even_where_rounding_ends_a_row(rng):
    p = torch.as_tensor(rng.random((64, 3000)), dtype=torch.float32)
    p[rng.random((64, 3000)) < 0.9] = 0.0
    p[:, 2000:] = 0.0
    row = np.repeat(np.arange(64), 300)
    u = np.tile(np.r_[0.0, np.nextafter(1, 0) - np.arange(99) * 2.0**-53, rng.random(200)], 64)
    tokens = Inverse(p).at(row, u)
    assert (p[row, tokens] > 0).all()


def test_single_precision_moves_a_draw_only_by_rounding(rng):
    logits = torch.as_tensor(rng.normal(size=(8, 20_000)) * 3)
    p = logits.softmax(-1)
    row, u = rng.integers(0, 8, 5000), rng.random(5000)
    exact, rounded = slow(p, row, u), Inverse(p.float()).at(row, u)
    below = p.cumsum(-1)[row].numpy()
    gap = np.abs(below[np.arange(5000), rounded] - below[np.arange(5000), exact])
    assert (exact == rounded).mean() > 0.99
    assert gap[exact != rounded].max(initial=0) < 1e-2, "a neighbour, at the border between the two"


def test_what_a_draw_gets_does_not_depend_on_the_others(rng):
    p = torch.as_tensor(rng.dirichlet(np.full(700, 0.1), 40), dtype=torch.float32)
    row, u = rng.integers(0, 40, 500), rng.random(500)
    together = Inverse(p).at(row, u)
    alone = [Inverse(p[r : r + 1]).at(np.zeros(1, np.int64), u[i : i + 1])[0] for i, r in enumerate(row)]
    assert together.tolist() == alone
