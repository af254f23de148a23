"""Whole programs of operations: their sums over leaves against full enumeration, and every planted mistake caught.

z-tests: 13 schemes × 3 tables × 3 functions = 117 with |z| < 6: a false alarm has the odds 117 · 2e-9 = 2.3e-7.
"""

from __future__ import annotations

import numpy as np
import pytest
from schemes import SCHEMES, Forest
from table_lm import TableLM

from babblegraph.status import Status

Z = 6.0
SIZES = [(3, 4), (4, 5), (2, 8)]
TREES = 300


def forest_of(name, size, seed=0, trees=TREES):
    scheme, options = SCHEMES[name]
    lm = TableLM(*size, seed=11 + seed, span=options.get("span", 1))
    return scheme, Forest(lm, trees, seed, options.get("temperature", 1.0))


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"V={s[0]} L={s[1]}")
@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_unbiased(name, size):
    scheme, forest = forest_of(name, size, seed=sum(map(ord, name)) % 97)
    scheme(forest)
    assert not len(forest.live(Status.FRONTIER, Status.STEM))
    worst = {h: z for h, z in forest.z().items() if abs(z) >= Z}
    assert not worst
