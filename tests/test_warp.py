"""From f to q: the slow twin is written out with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from babblegraph.errors import BadInput
from babblegraph.lm.warp import warper

LOG_F = torch.log_softmax(torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * 3, -1)


def by_hand(log_f, temperature, top_k, top_p):
    p = np.exp(log_f.astype(float) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    if top_k is not None:
        p[order[top_k:]] = 0
        p /= p.sum()
    if top_p is not None:
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= top_p]] = 0
        p /= p.sum()
    return p


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 7, 1000])
@pytest.mark.parametrize("top_p", [None, 0.3, 0.95, 1.0])
def test_q_is_the_warped_f(temperature, top_k, top_p):
    warp = warper(temperature, top_k, top_p)
    scores = LOG_F if warp is None else warp(LOG_F)
    q = torch.softmax(scores.double(), -1).numpy()
    expected = np.stack([by_hand(row, temperature, top_k, top_p) for row in LOG_F.numpy()])
    np.testing.assert_allclose(q, expected, atol=1e-6)


def test_nothing_to_warp_is_none():
    assert warper() is None
    assert warper(1.0, None, 1.0) is None


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "a"}, "temperature"),
        ({"temperature": 1e-40}, "top_k=1"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": -3}, "top_k"),
        ({"top_k": 2.5}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(options, name):
    (value,) = options.values()
    with pytest.raises(BadInput, match=name) as caught:
        warper(**options)
    assert str(value) in str(caught.value)
    assert "\n" not in str(caught.value)
