"""Attention over a token trie whose keys and values are stored once, as a transformers attention function.

Every row of a forward pass is some new tokens at the end of a path. Their keys and values are written to the
store first; then each row attends to its own tail, and together with its neighbours to every segment that they
share. Rows share slots, never copies of them.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from babblegraph.lm.attend import Part, attend, merge
from babblegraph.lm.decode import Step
from babblegraph.lm.modules import modules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedConfig

    from babblegraph.lm.plan import Piece, Plan

NAME = "babblegraph_trie"  # no mask function is registered for it, so transformers builds no mask


def trie_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, H, L, d]
    key: torch.Tensor,  # [B, H_kv, L, d]
    value: torch.Tensor,  # [B, H_kv, L, d_v]
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    tree: Plan | Step | None = None,
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
    layer, window = int(module.layer_idx), sliding_window  # type: ignore[arg-type]
    if isinstance(tree, Step):
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return tree.attention(
            layer, query, key, value, scale=scale, softcap=softcap, window=window, sinks=s_aux
        ), None
    tree.store.write(layer, key, value, tree.slots)
    tree.windows.add(window)
    how: dict[str, Any] = {
        "scale": query.shape[-1] ** -0.5 if scaling is None else scaling,
        "softcap": softcap,
    }
    b, heads, new, d = query.shape
    one = new == 1  # then the heads that share keys stand beside each other, as queries of one head
    asked = query.reshape(b, key.shape[1], -1, d) if one else query
    causal, levels = tree.causal(window), tree.levels(window, heads // asked.shape[1])
    if causal and not levels and softcap is None and s_aux is None:
        grouped = key.shape[1] != query.shape[1]
        whole = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=how["scale"], enable_gqa=grouped
        )
        return whole.transpose(1, 2).contiguous(), None

    bias = None if causal else tree.bias(window)
    if tree.own:
        parts = [attend(asked, key, value, bias, causal=causal, **how)]
    else:
        parts = [_tails(asked, layer, bias, tree, how)]
    if levels:
        beside = asked.transpose(0, 1).contiguous()  # [heads, B, Q, d]: neighbours are one block of queries
        parts += [_shared(level, layer, beside, tree, value.shape[-1], how) for level in levels]
    sinks = None if s_aux is None else s_aux.view(1, asked.shape[1], -1)
    out = merge(parts, sinks)  # [B, H_kv, groups, d_v] or [B, H, L, d_v]
    if one:
        return out.reshape(b, 1, heads, -1), None
    return out.transpose(1, 2).contiguous(), None


def _tails(
    query: torch.Tensor, layer: int, bias: torch.Tensor | None, tree: Plan, how: dict[str, Any]
) -> Part:
    """Each row with its own tail, a block of rows at a time: what is collected for them is read from the cache."""
    slots, store = tree.tail, tree.store
    most = store.block(layer, slots.shape[1])
    if len(slots) <= most:
        return attend(query, *store.read(layer, slots), bias, **how)
    parts = []
    for at in range(0, len(slots), most):
        rows = slice(at, at + most)
        seen = bias if bias is None or len(bias) == 1 else bias[rows]
        parts.append(attend(query[rows], *store.read(layer, slots[rows]), seen, **how))
    return Part(torch.cat([part.out for part in parts]), torch.cat([part.log_sum for part in parts]))


def _shared(
    pieces: list[Piece], layer: int, query: torch.Tensor, tree: Plan, width: int, how: dict[str, Any]
) -> Part:
    """One level of shared segments, each read once with the queries of all rows that have it."""
    heads, b, q, _ = query.shape
    if len(pieces) == 1 and pieces[0].blind is None and pieces[0].last - pieces[0].first == b:
        part = _piece(pieces[0], layer, query, tree, how)
        shape = (heads, b, q)
        return Part(part.out.view(*shape, width).transpose(0, 1), part.log_sum.view(shape).transpose(0, 1))
    out = query.new_zeros(heads, b, q, width)
    log_sum = query.new_full(
        (heads, b, q), float("-inf"), dtype=torch.promote_types(query.dtype, torch.float32)
    )
    for piece in pieces:
        rows = slice(piece.first, piece.last)
        part = _piece(piece, layer, query[:, rows], tree, how)
        shape = (heads, piece.last - piece.first, q)
        out[:, rows] = part.out.view(*shape, width)
        log_sum[:, rows] = part.log_sum.view(shape)
        if piece.blind is not None:
            log_sum[:, rows].masked_fill_(piece.blind, float("-inf"))
    return Part(out.transpose(0, 1), log_sum.transpose(0, 1))


def _piece(piece: Piece, layer: int, query: torch.Tensor, tree: Plan, how: dict[str, Any]) -> Part:
    """One segment with all queries of its rows, [heads, rows, Q, d], as if they were one row's."""
    keys, values = tree.store.read_segment(layer, piece.where)
    return attend(query.flatten(1, 2)[None], keys, values, piece.bias, **how)


_told: weakref.WeakSet[PreTrainedModel] = (
    weakref.WeakSet()
)  # models of one configuration that attended so before


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Within this block the model attends along tries; afterwards as it did before.

    The first time transformers is asked to change it, which looks at every module and may refuse. From then on only the
    model's configuration is changed, once a round.
    """
    if model.config._attn_implementation == NAME:
        yield
        return
    before = _implementations(model.config)
    known = model in _told
    tell = partial(setattr, model.config, "_attn_implementation") if known else model.set_attn_implementation
    try:
        tell(NAME)
        if not known and _of_one_configuration(model):
            _told.add(model)
        yield
    finally:
        tell(before)


def _of_one_configuration(model: PreTrainedModel) -> bool:
    """Whether no part of a model, such as one for pictures, has a configuration of its own."""
    config = model.config
    parts = (module.config for module in modules_of(model) if isinstance(module, PreTrainedModel))
    alone = not config.sub_configs and all(part is config for part in parts)
    return alone and config._attn_implementation == NAME


def _implementations(config: PreTrainedConfig) -> Any:
    """How a model attends, as `set_attn_implementation` takes it: a composite one (text, vision) by its parts."""
    if not config.sub_configs:
        return config._attn_implementation
    parts = {name: getattr(config, name) for name in config.sub_configs}
    inner = {name: _implementations(part) for name, part in parts.items() if part is not None}
    return {"": config._attn_implementation, **inner}


def around_attention(model: PreTrainedModel) -> Callable[..., Any]:
    """The model through `torch.compile`, which stops at the attention function and goes on after it."""
    AttentionInterface.register(
        NAME, torch.compiler.disable(trie_attention)
    )  # not before: it takes long to import
    return torch.compile(model, dynamic=True)


AttentionInterface.register(NAME, trie_attention)
