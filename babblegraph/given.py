"""What kinds of numbers users give, whatever library they come from."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def is_whole(given: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(given, Integral)


def is_number(given: Any) -> bool:
    """Whether it is a real number, and not NaN."""
    return isinstance(given, Real) and given == given
