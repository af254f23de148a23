"""New tokens through a model with its own cache: as a batch, or in smaller pieces where the model needs that."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from babblegraph.lm import caches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHES = ("past_key_values", "cache_params", "state")  # what families call it, as output and as keyword


class After(NamedTuple):
    """The logits after some tokens, [B, V], and the cache with them."""

    logits: torch.Tensor
    cache: Any


class Step(Protocol):
    """Puts tokens [B, L] behind texts of equal length. The cache that comes in is used up; None for no token."""

    forgets: bool  # whether earlier tokens are pushed through the model again

    def __call__(self, cache: Any, tokens: torch.Tensor, length: int) -> After: ...


class Cached:
    """The model continues its cache, as in `generate`."""

    forgets = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.name = model, CACHES[0]
        self.accepted = set(inspect.signature(model.forward).parameters)

    def __call__(self, cache: Any, tokens: torch.Tensor, length: int) -> After:
        named = {} if cache is None else {self.name: cache}
        if "position_ids" in self.accepted:  # some hybrids would begin at 0 again
            positions = torch.arange(length, length + tokens.shape[1], device=tokens.device)
            named["position_ids"] = positions.expand(tokens.shape)
        if "logits_to_keep" in self.accepted:
            named["logits_to_keep"] = 1
        out = self.model(input_ids=tokens, use_cache=True, **named)
        for name in CACHES:
            if getattr(out, name, None) is not None:
                self.name = name
                return After(out.logits[:, -1].float(), getattr(out, name))
        raise TypeError("the model gives no cache to go on from")


class OneByOne(Cached):
    """For models whose cache takes only one new token at a time (mamba, jamba)."""

    def __call__(self, cache: Any, tokens: torch.Tensor, length: int) -> After:
        if cache is None:
            return super().__call__(cache, tokens, length)
        for at in range(tokens.shape[1]):
            logits, cache = super().__call__(cache, tokens[:, at : at + 1], length + at)
        return After(logits, cache)


class Alone(Cached):
    """For models that continue only one text at a time (rwkv, whose states broadcast over a batch)."""

    def __call__(self, cache: Any, tokens: torch.Tensor, length: int) -> After:
        batch = len(tokens)
        alone = [None if cache is None else caches.take(cache, [b], batch) for b in range(batch)]
        made = [super(Alone, self).__call__(own, tokens[b : b + 1], length) for b, own in enumerate(alone)]
        return After(torch.cat([m.logits for m in made]), caches.join([m.cache for m in made]))


class Recomputed:
    """For models without a cache that can be forked: every text from its beginning; the cache is its tokens."""

    forgets = True

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def __call__(self, cache: Any, tokens: torch.Tensor, length: int) -> After:
        texts = tokens if cache is None else torch.cat([cache, tokens], 1)
        out = self.model(input_ids=texts, attention_mask=torch.ones_like(texts), use_cache=False)
        return After(out.logits[:, -1].float(), texts)
