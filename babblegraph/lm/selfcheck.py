"""Does an engine give what plain forward passes give? A small tree tells, at load."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm.quantized import is_quantized
from babblegraph.lm.roundings import swing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.lm.engine import Engine

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest logit; others are half-precision
HALF_TOLERANCE = 0.05
UNSTEADY = 1 / 3  # of the texts may be off by more in half precision, where rounding alone explains it
SWINGS = 2  # times what rounding alone did in a few tries
BLIND = (
    0.1  # an error must be less than so much of what it would be if texts were not read from their beginning
)
Tokens = tuple[int, ...]


class NotNumbers(BadInput):
    """The model itself is broken, or overflows."""


class Checked(NamedTuple):
    """What the check found out."""

    error: float  # max|difference| / max|logit|
    reach: int | None  # texts may have so many tokens; None for no such bound
    token_bytes: int  # of one token's keys and values in all layers


@torch.no_grad()
def check(
    model: PreTrainedModel,
    make: Callable[..., Engine],
    running: Callable[[PreTrainedModel], AbstractContextManager[None]],
) -> Checked:
    """Compares an engine's logits on a small tree with those of plain forward passes.

    Args:
        model: any causal language model.
        make: the engine for a new graph.
        running: the state of the model in which the engine runs.

    Returns:
        The error; and how long texts may be where that is less than the model's context: where some layers see less
        than the whole text without telling the attention function how much (llama4's chunks, qwen2_moe's window), or
        where the keys of a longer text are others from its beginning on (phi3's LongRoPE).
    Raises:
        NotNumbers: those of plain forward passes are not finite, however the model is run.
        ValueError: the logits differ.
        Exception: whatever the model raises when it cannot run this way.
    """
    engine = make(model)
    with running(model):
        ours = _grown(engine, int(model.get_input_embeddings().num_embeddings))
    plain = _plain(model, list(ours))
    for text, logits in plain.items():
        if not bool(torch.isfinite(logits).all()):
            raise NotNumbers(
                f"a model must give finite numbers, {model.config.model_type!r} gives "
                f"{float(logits[~torch.isfinite(logits)][0])} after {len(text)} tokens in {model.dtype}: load it in "
                "float32 or bfloat16 (float16 overflows), or look at its weights"
            )
    size = max(float(logits.abs().max()) for logits in plain.values())
    errors = {text: float((ours[text] - plain[text]).abs().max()) / size for text in ours}
    limit = HALF_TOLERANCE
    if model.dtype in TOLERANCE:  # else rounding may exceed what a short text's beginning is worth
        tight = min(TOLERANCE[model.dtype], BLIND * _worth(model, plain) / size)
        if _largest(errors) < tight or not is_quantized(model):  # which may round within its layers
            limit = tight
    if limit == HALF_TOLERANCE and (far := {text: e for text, e in errors.items() if not e < limit}):
        near = {text: error for text, error in errors.items() if text not in far}
        errors = near | _unexplained(model, far, size, len(errors))
    error = _largest(errors)
    if not error < limit:
        raise ValueError(
            f"its logits along a tree are off by {error:.1e} of the largest, more than {limit:.1e}"
        )
    return Checked(error, _reach(model, engine), engine.store.token_bytes)


def _largest(errors: dict[Tokens, float]) -> float:
    """NaN if any is."""
    return float(np.max(list(errors.values())))


def _unexplained(
    model: PreTrainedModel, far: dict[Tokens, float], size: float, texts: int
) -> dict[Tokens, float]:
    """Those of the texts that are far off in half precision that rounding alone does not move as far.

    A mixture of experts is not steady there: where two experts are nearly even, plain passes of the same text differ
    as much as that. Of too many texts it is not believed.
    """
    if len(far) > UNSTEADY * texts:
        return far
    return {text: error for text, error in far.items() if not error < SWINGS * swing(model, text) / size}


def _grown(engine: Engine, vocabulary: int) -> dict[Tokens, torch.Tensor]:
    """The logits after every text of a small tree, [V]: forks, rows of unequal length, nodes that are left and
    come back, words that are not kept."""
    word = [int(i) * 7919 % vocabulary for i in range(11, 40)]
    one, two = word[:6], word[6:9]
    graph, meter = BabbleGraph(["1", "2"], [one, two], {}), Meter(Budget(tokens=1), 2)
    a, b, c, d, e, f, g, h = word[9:17]
    found: dict[Tokens, torch.Tensor] = {}

    def note(texts: list[list[int]], logits: torch.Tensor) -> None:
        found.update({tuple(text): row for text, row in zip(texts, logits.float().cpu(), strict=True)})

    note([one, two], engine.open(graph, np.array([0, 1]), meter))
    grown = [[*one, a], [*one, b], [*two, c]]
    note(grown, engine.advance(np.array([0, 0, 1]), np.array([a, b, c]), meter))
    engine.keep(2, 1)
    engine.keep(3, 2)
    grown = [[*two, c, d], [*one, a, e], [*one, a, f]]
    note(grown, engine.advance(np.array([2, 0, 0]), np.array([d, e, f]), meter))
    engine.close()
    graph.add(Born.of_spans([0, 1], spans=[[b, g], [c, h]], log_q=[-1.0, -1.0]))
    note([[*two, c, h], [*one, b, g]], engine.next_logits(graph, np.array([3, 2]), meter))
    note([[*one, b, g, d, e], [*two, d, e]], engine.after(graph, np.array([2, 1]), [d, e], meter))
    engine.release(np.array([0, 1]))
    engine.open(graph, np.array([0, 2]), meter)
    grown = [[*one, b, g, a], [*one, c], [*one, b, g, f]]
    note(grown, engine.advance(np.array([1, 0, 1]), np.array([a, c, f]), meter))
    engine.close()
    if not engine.store.allocated_bytes:
        raise RuntimeError("no layer called the attention function")
    engine.release(np.arange(graph.size))
    return found


def _plain(model: PreTrainedModel, texts: list[Tokens]) -> dict[Tokens, torch.Tensor]:
    """The logits after each text, [V], from plain forward passes over the longest ones."""
    found: dict[Tokens, torch.Tensor] = {}
    for text in sorted(texts, key=len, reverse=True):
        if text not in found:
            logits = _forward(model, text)
            for n in range(1, len(text) + 1):
                found.setdefault(text[:n], logits[n - 1])
    return {text: found[text] for text in texts}


def _worth(model: PreTrainedModel, plain: dict[Tokens, torch.Tensor]) -> float:
    """How far off the logits of the longest text are when all but its last two tokens are left out."""
    text = max(plain, key=len)
    return float((plain[text] - _forward(model, text[-2:])[-1]).abs().max())


def _forward(model: PreTrainedModel, text: Tokens) -> torch.Tensor:
    ids = torch.as_tensor(text, device=model.device)[None]
    return model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float().cpu()


def _reach(model: PreTrainedModel, engine: Engine) -> int | None:
    """Up to how many tokens the check holds; see `check`."""
    bounds = _untold(model, engine.windows) if engine.windows is not None else []
    if not engine.forgets:
        bounds += _turns(model)
    return min(bounds, default=None)


def _untold(model: PreTrainedModel, windows: set[int | None]) -> list[int]:
    """How far layers see that have not told of it."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    bounds = {
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    return [
        b for kind, b in bounds.items() if kind in kinds and isinstance(b, int) and b and b not in windows
    ]


def _turns(model: PreTrainedModel) -> list[int]:
    """Up to how many tokens LongRoPE turns keys by its short factors; those of a longer text by others, all of them."""
    given = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    of_layers = [kind for kind in given.values() if isinstance(kind, dict)]  # in some families
    return [
        int(kind["original_max_position_embeddings"])
        for kind in (given, *of_layers)
        if kind.get("rope_type") == "longrope"
    ]
