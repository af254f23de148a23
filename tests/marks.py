"""Which of many cases are marked slow, so that some of each kind are left in the fast part of the suite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(fast: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases, for `parametrize`; those that are not among the fast ones are marked slow."""
    quick, cases = list(fast), list(cases)
    if unknown := [case for case in quick if case not in cases]:
        raise ValueError(f"no such cases: {unknown}")
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
