"""What users give: numbers of any library, messages of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from babblegraph.errors import BadInput


def is_whole(given: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(given, Integral)


def is_number(given: Any) -> bool:
    """Whether it is a real number, and not NaN."""
    return isinstance(given, Real) and given == given


def need_whole(name: str, given: Any, least: int = 1) -> None:
    """Raises BadInput unless it is a whole number from `least` on."""
    if not is_whole(given) or given < least:
        raise BadInput(
            f"{name} must be a whole number of at least {least}, got {given!r:.80}: give {least} or more"
        )


def need_seed(given: Any) -> None:
    """Raises BadInput unless it is the seed of random numbers."""
    if not is_whole(given) or given < 0:
        raise BadInput(f"a seed must be a whole number, not negative, got {given!r:.80}: use 0 or above")


def is_message(given: Any) -> bool:
    """Whether a chat's template has something to write: it writes nothing of what is missing, and does not say so."""
    if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
        return False
    content = given.get("content")
    return isinstance(content, str | list) or (content is None and bool(given.get("tool_calls")))
