"""A model's own cache, whatever its kind: rows are taken out of it, and caches of several texts are put together.

transformers has no way to join caches, and its `reorder_cache` forgets what some families keep beside their layers
(MiniMax's linear states). So a cache is walked as what it is: nested lists, dictionaries and layers, whose tensors
have the rows of the batch first. A cache that holds anything else is an error, never a guess.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import Cache, PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin, LinearAttentionCacheLayerMixin

PLAIN = (int, float, str, bytes, type, torch.dtype, torch.device, torch.Size, PreTrainedConfig, type(None))
Join = Callable[[Sequence[torch.Tensor]], torch.Tensor]


def take(cache: Any, rows: Sequence[int], batch: int) -> Any:
    """A cache of some rows of another, any number of times and in any order; it shares no memory with it.

    Args:
        cache: of `batch` texts of equal length.
        rows: which of them, [R].
        batch: how many there are.

    Raises:
        TypeError: the cache holds what has no rows.
    """
    index = torch.as_tensor(rows, dtype=torch.long)

    def picked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        (tensor,) = parts
        _check(tensor, batch)
        if _is_shared(tensor, batch):
            return tensor.clone()
        return tensor.index_select(0, index.to(tensor.device))

    return _rebuilt([cache], picked)


def join(caches: Sequence[Any]) -> Any:
    """One cache of the texts of several caches of one text each, all of equal length; shares no memory with them.

    Raises:
        TypeError: a cache holds what has no rows.
    """

    def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        for part in parts:
            _check(part, 1)
        return torch.cat(list(parts))

    return _rebuilt(caches, joined)


def nbytes(cache: Any) -> int:
    """Bytes of all tensors in a cache."""
    return sum(t.numel() * t.element_size() for t in _tensors(cache))


def slots(cache: Any) -> int:
    """Tokens whose keys and values each row of a cache holds; 0 where there are only recurrent states."""
    try:
        return int(cache.get_seq_length()) if isinstance(cache, Cache) else 0
    except ValueError:  # no layer of this cache counts tokens
        return 0


def _rebuilt(parts: Sequence[Any], f: Join) -> Any:
    """The structure of the first part, in which `f` has been applied to the tensors that are in the same place."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return f(parts) if first.dim() and first.numel() else first.clone()
    if isinstance(first, list | tuple):
        return type(first)(_rebuilt(items, f) for items in zip(*parts, strict=True))
    if isinstance(first, dict):
        return type(first)((key, _rebuilt([part[key] for part in parts], f)) for key in first)
    if _is_cache(first):
        built = copy.copy(first)
        for name in vars(first):
            setattr(built, name, _rebuilt([getattr(part, name) for part in parts], f))
        return built
    if not isinstance(first, PLAIN):
        raise TypeError(
            f"a cache must be made of tensors, layers and plain values, not {type(first).__name__}"
        )
    return first


def _tensors(part: Any) -> Iterator[torch.Tensor]:
    if isinstance(part, torch.Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _tensors(item)
    elif isinstance(part, dict) or _is_cache(part):
        for item in (part if isinstance(part, dict) else vars(part)).values():
            yield from _tensors(item)


def _is_cache(part: Any) -> bool:
    """A cache or one of its layers; some families have a class of their own, and layers without a cache a dummy."""
    kinds = (Cache, CacheLayerMixin, LinearAttentionCacheLayerMixin)
    own = type(part).__module__ == Cache.__module__
    return own or isinstance(part, kinds) or type(part).__name__.endswith("Cache")


def _is_shared(tensor: torch.Tensor, batch: int) -> bool:
    """A counter, such as the number of tokens so far, which is the same for all rows."""
    return tensor.numel() == 1 and tensor.shape[0] != batch and not tensor.is_floating_point()


def _check(tensor: torch.Tensor, batch: int) -> None:
    if tensor.shape[0] != batch and not _is_shared(tensor, batch):
        raise TypeError(
            f"a cache of {batch} rows must have them first, got a tensor of {tuple(tensor.shape)}"
        )
