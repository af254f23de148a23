"""Which of many cases are marked slow, so that some of each kind are left in the fast part; what needs triton."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import pytest

NEEDS_TRITON = [
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),  # of its interpreter
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="needs triton, which comes with torch for GPUs"
    ),
]


def slow_but(fast: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases, for `parametrize`; those that are not among the fast ones are marked slow."""
    quick, cases = list(fast), list(cases)
    if unknown := [case for case in quick if case not in cases]:
        raise ValueError(f"no such cases: {unknown}")
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
