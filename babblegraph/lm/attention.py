"""Attention over a token trie whose keys and values are stored once, as a transformers attention function.

Every row of a forward pass is some new tokens at the end of a path. Their keys and values are written to the
store first; then each row attends to the slots of its own path. Rows share slots, never copies of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from babblegraph.lm.store import Store

NAME = "babblegraph_trie"  # no mask function is registered for it, so transformers builds no mask


class Plan:
    """Where the keys of one forward pass are. B rows, L new tokens each (padded on the left), paths up to S long.

    Args:
        store: the keys and values.
        paths: slots of each row's path, the new tokens included, padded with 0 on the right, [B, S].
        slots: where the new tokens go, 0 for padding, [B, L].
        positions: of the new tokens, counted from the start of the prompt, [B, L].
    """

    def __init__(
        self, store: Store, paths: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor
    ) -> None:
        self.store, self.paths, self.slots, self.positions = store, paths, slots.reshape(-1), positions
        self._masks: dict[int | None, torch.Tensor] = {}

    @property
    def windows(self) -> set[int | None]:
        """The sliding windows that the layers have asked for."""
        return set(self._masks)

    def mask(self, window: int | None) -> torch.Tensor:
        """Which keys each new token sees, [B, 1, L, S]: the index of a key is its position."""
        if window not in self._masks:
            age = self.positions[:, :, None] - torch.arange(self.paths.shape[1], device=self.paths.device)
            seen = age >= 0 if window is None else (age >= 0) & (age < window)
            self._masks[window] = seen[:, None]
        return self._masks[window]


def trie_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, H, L, d]
    key: torch.Tensor,  # [B, H_kv, L, d]
    value: torch.Tensor,  # [B, H_kv, L, d_v]
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    tree: Plan | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Writes the new keys and values, then attends along each row's path; returns [B, L, H, d_v]."""
    if tree is None:
        raise RuntimeError(
            "this model is inside a babblegraph search; leave the search before using it directly"
        )
    keys, values = tree.store.exchange(int(module.layer_idx), key, value, tree)  # type: ignore[arg-type]
    mask = tree.mask(sliding_window)
    if softcap is None and s_aux is None:
        gqa = keys.shape[1] != query.shape[1]
        out = F.scaled_dot_product_attention(query, keys, values, mask, scale=scaling, enable_gqa=gqa)
    else:
        out = _written_out(query, keys, values, mask, scaling, softcap, s_aux)
    return out.transpose(1, 2).contiguous(), None


def _written_out(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention for families whose scores are capped (gemma2) or have a sink, a logit without a value (gpt_oss)."""
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
    scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, float("-inf")).float()
    if sinks is not None:
        extra = sinks.view(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1).to(scores)
        weights = torch.cat([scores, extra], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return weights.to(values.dtype) @ values


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Within this block the model attends along tries; afterwards as it did before."""
    before = model.config._attn_implementation
    if before == NAME:
        yield
        return
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(NAME, trie_attention)
