"""Attention along a token trie whose keys and values are stored once, as a transformers attention function.

Rows share slots, never copies of them. What is computed is `cascade`'s, or on a GPU that of kernels.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import AttentionInterface, PreTrainedModel

from babblegraph.lm.cascade import How
from babblegraph.lm.modules import modules_of
from babblegraph.lm.turn import undoing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedConfig

NAME = "babblegraph_trie"  # no mask function is registered for it, so transformers builds no mask


class Attending(Protocol):
    """Who answers a model's attention in a pass: `plan.Plan`, or a step that is recorded."""

    def attention(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: How,
        window: int | None,
    ) -> torch.Tensor: ...


def trie_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [B, H, L, d]
    key: torch.Tensor,  # [B, H_kv, L, d]
    value: torch.Tensor,  # [B, H_kv, L, d_v]
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    tree: Attending | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Stores the new keys and values, and attends along each row's path; returns [B, L, H, d_v]."""
    if tree is None:
        raise RuntimeError(
            "this model is inside a babblegraph search; leave the search before using it directly"
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return tree.attention(layer, query, key, value, How(scale, softcap, s_aux), sliding_window), None


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
    with undoing(model, partial(tell, before)):
        tell(NAME)
        if not known and _of_one_configuration(model):
            _told.add(model)
        yield


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
