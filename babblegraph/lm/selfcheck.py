"""Does this model's attention go through our function? A small tree against plain forward passes tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm.attention import attending
from babblegraph.lm.forward import Row
from babblegraph.lm.trie import Trie

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest logit; others are half-precision
HALF_TOLERANCE = 0.05


class Checked(NamedTuple):
    """What the check found out."""

    error: float  # max|difference| / max|logit|
    reach: int | None  # texts may have so many tokens; None for no such bound
    token_bytes: int  # of one token's keys and values in all layers


@torch.no_grad()
def check(model: PreTrainedModel) -> Checked:
    """Compares logits on a small tree with those of plain forward passes.

    Returns:
        The error; and how long texts may be where some layers see less than the whole text without telling the
        attention function how much (llama4's chunks, qwen2_moe's window): up to there it makes no difference.
    Raises:
        BadInput: they differ, or the model cannot run this way (recurrent layers, attention of its own).
    """
    kind = model.config.model_type
    if not getattr(model, "_can_set_attn_implementation", lambda: True)():
        raise BadInput(
            f"the model's attention must go through transformers' attention interface, {kind!r} has its own: "
            "use another family"
        )
    try:
        error, trie = _error(model)
    except Exception as problem:
        first = (str(problem).strip() or "no message").splitlines()[0]
        raise BadInput(
            f"the model's attention must go through transformers' attention interface; {kind!r} failed with "
            f"{type(problem).__name__}: {first}: use another family"
        ) from problem
    limit = TOLERANCE.get(model.dtype, HALF_TOLERANCE)
    if not error < limit:
        raise BadInput(
            f"a tree's logits must equal plain forward passes within {limit:g}, got {error:.1e} for {kind!r}: "
            "this family is not supported"
        )
    return Checked(error, _reach(model, trie.windows), trie.store.token_bytes)


def _error(model: PreTrainedModel) -> tuple[float, Trie]:
    size = int(model.get_input_embeddings().num_embeddings)
    trunk, *branches = ((np.arange(n) * 7919 + 11 * n) % size for n in (6, 2, 3))
    trie, meter = Trie(model), Meter(Budget(tokens=1), 1)
    with attending(model):
        root = trie.store.take(len(trunk))
        logits = [trie._forward([Row(root, trunk, 0, "prefilled")], meter)]
        slots = [trie.store.take(len(b)) for b in branches]
        rows = [
            Row(np.concatenate([root, s]), b, 0, "forwarded") for s, b in zip(slots, branches, strict=True)
        ]
        logits.append(trie._forward(rows, meter, remember=False))
    ours = torch.cat(logits)
    if not trie.store.keys:
        raise RuntimeError("no layer called the attention function")
    texts = [trunk, *(np.concatenate([trunk, b]) for b in branches)]
    plain = torch.cat([_plain(model, t) for t in texts]).float()
    return float((ours - plain).abs().max() / plain.abs().max()), trie


def _plain(model: PreTrainedModel, tokens: NDArray[np.int64]) -> torch.Tensor:
    ids = torch.as_tensor(tokens, device=model.device)[None]
    return model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1]


def _reach(model: PreTrainedModel, windows: set[int | None]) -> int | None:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    bounds = {
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    untold = [
        b for kind, b in bounds.items() if kind in kinds and isinstance(b, int) and b and b not in windows
    ]
    return min(untold, default=None)
