"""Attention over a part of the keys, with the log-sum-exp of its scores, so that parts merge exactly.

TorchScript compiles these functions too (`traced`), so annotations are types here, and every argument is given.
"""

from typing import NamedTuple

import torch


class Part(NamedTuple):
    """What some keys alone would give. B rows, Q queries each."""

    out: torch.Tensor  # [B, H, Q, d_v]
    log_sum: torch.Tensor  # [B, H, Q], in float32 at least; -inf where a query sees no key


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    causal: bool,
    softcap: float | None,
) -> Part:
    """Softmax attention over these keys.

    Args:
        query: [B, H, Q, d].
        keys: [B, H_kv, S, d]; heads of queries are grouped by heads of keys.
        values: [B, H_kv, S, d_v].
        bias: added to the scores, 0 or -inf, [B or 1, 1, Q or 1, S]; every query must see a key.
        scale: of the scores.
        causal: whether query i sees no more than keys 0 … i; then there is no bias.
        softcap: scores are capped by tanh at this.
    """
    if softcap is None and keys.shape[-1] == values.shape[-1] and query.device.type == "cpu":
        out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, 0.0, causal, attn_mask=bias, scale=scale
        )
        return Part(out, log_sum)
    return _written_out(query, keys, values, bias, scale, causal, softcap)


def merge(parts: list[Part], sinks: torch.Tensor | None) -> torch.Tensor:
    """Attention over all parts together, [B, H, Q, d_v].

    Args:
        parts: of the same queries over different keys.
        sinks: logits without a value that only add to the denominator, broadcast to [B, H, Q].

    Source: Dao et al., "Flash-Decoding for long-context inference", 2023; Juravsky et al., "Hydragen", 2024.
    """
    out, log_sum = parts[0].out, parts[0].log_sum
    for i, part in enumerate(parts[1:], 2):
        share = torch.sigmoid(part.log_sum - log_sum).unsqueeze(-1)  # of the weight so far
        out = torch.lerp(out, part.out, share.to(out.dtype))
        if i < len(parts) or sinks is not None:
            log_sum = torch.logaddexp(log_sum, part.log_sum)
    if sinks is not None:
        out = out * torch.sigmoid(log_sum - sinks).unsqueeze(-1).to(out.dtype)
    return out


def _written_out(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    causal: bool,
    softcap: float | None,
) -> Part:
    """The same, step by step: for capped scores (gemma2), unequal head sizes (latent attention), other devices."""
    b, h, q, d = query.shape
    grouped = query.reshape(b, keys.shape[1], -1, d)  # [B, H_kv, groups · Q, d]
    scores = (grouped @ keys.transpose(2, 3)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.view(b, h, q, -1)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill_(later, float("-inf"))
    if bias is not None:
        scores = scores + bias
    log_sum = scores.logsumexp(-1)
    weights = (scores - log_sum.unsqueeze(-1)).exp().to(values.dtype)
    out = weights.view(b, keys.shape[1], -1, scores.shape[-1]) @ values
    return Part(out.view(b, h, q, -1), log_sum)
