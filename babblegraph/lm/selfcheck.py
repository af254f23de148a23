"""Does this model's attention go through our function? A small tree against plain forward passes tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm.attention import attending
from babblegraph.lm.trie import Row, Trie

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest logit; others are half-precision
HALF_TOLERANCE = 0.05


@torch.no_grad()
def check(model: PreTrainedModel) -> float:
    """Compares logits on a small tree with those of plain forward passes.

    Returns:
        max|difference| / max|logit|.
    Raises:
        BadInput: they differ, or the model cannot run this way (recurrent layers, attention of its own).
    """
    kind = model.config.model_type
    try:
        error = _error(model)
    except Exception as problem:
        raise BadInput(
            f"the model's attention must go through transformers' attention interface; {kind!r} failed with "
            f"{type(problem).__name__}: {problem}: use another family"
        ) from problem
    limit = TOLERANCE.get(model.dtype, HALF_TOLERANCE)
    if not error < limit:
        raise BadInput(
            f"a tree's logits must equal plain forward passes within {limit:g}, got {error:.1e} for {kind!r}: "
            "this family is not supported"
        )
    return error


def _error(model: PreTrainedModel) -> float:
    size = int(model.get_input_embeddings().num_embeddings)
    trunk, *branches = ((np.arange(n) * 7919 + 11 * n) % size for n in (6, 2, 3))
    trie, meter = Trie(model), Meter(Budget(tokens=1), 1)
    with attending(model):
        root = trie.store.take(len(trunk))
        logits = [trie._forward([Row(root, trunk, 0, "prefilled")])]
        slots = [trie.store.take(len(b)) for b in branches]
        rows = [
            Row(np.concatenate([root, s]), b, 0, "forwarded") for s, b in zip(slots, branches, strict=True)
        ]
        logits.append(trie._forward_all(rows, meter, remember=False))
    ours = torch.cat(logits)
    texts = [trunk, *(np.concatenate([trunk, b]) for b in branches)]
    plain = torch.cat(
        [model(torch.as_tensor(t, device=model.device)[None], use_cache=False).logits[:, -1] for t in texts]
    ).float()
    return float((ours - plain).abs().max() / plain.abs().max())
