"""Rows of token ids for teacher-forced passes, and the log-probabilities of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.at_once import AtOnce
from babblegraph.lm.doubles import doubled

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 1 << 14  # of a pass, padding counted
LOGITS_AT_ONCE = 1 << 28  # of a pass that learns; each takes about twelve bytes until the gradient is there


class Batch(NamedTuple):
    """B texts side by side, padded at the right, where causality hides it.

    Args:
        ids: token ids, [B, L].
        mask: 1 where a token is there, [B, L].
        learned: whether the token *after* each place was generated: neither prompt nor padding, [B, L − 1].
    """

    ids: torch.Tensor
    mask: torch.Tensor
    learned: torch.Tensor


def pad(tokens: Sequence[NDArray[Any]], start: Sequence[int] | NDArray[Any], device: Any = None) -> Batch:
    """One batch of texts.

    Args:
        tokens: exactly the sampled ids, the prompt's in front.
        start: how many of each are the prompt's.

    >>> batch = pad([np.array([5, 6, 7]), np.array([5, 8])], [1, 1])
    >>> batch.ids.tolist(), batch.learned.int().tolist()
    ([[5, 6, 7], [5, 8, 0]], [[1, 1], [1, 0]])
    """
    longest = max(map(len, tokens))
    ids, mask = np.zeros((2, len(tokens), longest), np.int64)
    for row, some in enumerate(tokens):
        ids[row, : len(some)], mask[row, : len(some)] = some, 1
    learned = (mask[:, 1:] > 0) & (np.arange(1, longest) >= np.asarray(start)[:, None])
    return Batch(*(torch.from_numpy(x).to(device) for x in (ids, mask, learned)))


def logits_of(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Logits of the token after each place but the last, [B, L − 1, V] in float32 or better."""
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits[:, :-1]
    return logits if logits.dtype == torch.float64 else logits.float()


@contextmanager
def as_sampled(*models: torch.nn.Module) -> Iterator[None]:
    """Within this block models compute what they do in a search: without dropout and autocast, whatever is around."""
    training = [module for model in models for module in model.modules() if module.training]
    kinds = {p.device.type for model in models for p in model.parameters()}
    on = [kind for kind in kinds if torch.is_autocast_enabled(kind)]
    with ExitStack() as stack:
        for kind in on:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            for module in training:
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True


class Passes(AtOnce):
    """Passes over texts of about one length.

    Args:
        model: whose passes.
        tokens: of a pass at first, padding counted; fewer where they have many logits. A longer text is a pass of its
            own.
    """

    def __init__(self, model: PreTrainedModel, tokens: int = TOKENS_AT_ONCE) -> None:
        config = getattr(model, "config", None)  # none of what only calls like a model
        vocabulary = 1 if config is None else int(config.get_text_config().vocab_size)
        super().__init__(max(1, min(tokens, LOGITS_AT_ONCE // vocabulary)), "tokens in one pass")

    def over(
        self,
        tokens: Sequence[NDArray[Any]],
        run: Callable[[NDArray[np.intp]], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Calls `begin`, then `run` with the places of each pass's texts; all of it anew where memory lacks."""

        def passes(at_once: int) -> None:
            begin()
            for some in by_length(tokens, at_once):
                run(some)

        self(passes, least=max(map(len, tokens), default=1))


@torch.no_grad()
def log_p(model: PreTrainedModel, tokens: Sequence[NDArray[Any]], start: NDArray[Any]) -> NDArray[np.float64]:
    """log-probability of what was generated of each text, given its prompt, [M].

    Args:
        model: the generator; untruncated and at temperature 1.
        tokens, start: as for `pad`.
    """
    found = np.zeros(len(tokens))
    device = next(model.parameters()).device

    def run(some: NDArray[np.intp]) -> None:
        batch = pad([tokens[i] for i in some], start[some], device)
        each = logits_of(model, batch).log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[..., 0]
        found[some] = doubled(each * batch.learned).sum(-1).cpu().numpy()

    with as_sampled(model):
        Passes(model).over(tokens, run)
    return found


def by_length(tokens: Sequence[NDArray[Any]], at_once: int = TOKENS_AT_ONCE) -> Iterator[NDArray[np.intp]]:
    """Places of texts of about one length, as many as make so many tokens with their padding."""
    length = np.array([len(some) for some in tokens], np.intp)
    order = np.argsort(-length, kind="stable")
    first = 0
    while first < len(order):
        n = max(1, at_once // max(1, int(length[order[first]])))
        yield order[first : first + n]
        first += n
