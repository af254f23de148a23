"""Prompts as users give them (texts, chats, token ids), and where the model itself says that a text ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from babblegraph.errors import BadInput, first_line
from babblegraph.given import is_message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Written(str):
    """A chat as a model's template writes it; whatever special tokens it begins with are in the text."""

    __slots__ = ()


def one_or_more(prompts: Any) -> Sequence[Any]:
    """Prompts as a sequence of them, where a single one was given too.

    Raises:
        BadInput: a tokenizer's output, whose names are no prompts; or what has no prompts in it.
    """
    if isinstance(prompts, Mapping):
        raise BadInput(
            f"prompts must be texts, chats or token ids, got a {type(prompts).__name__}: "
            "pass its input_ids, without padding"
        )
    if not isinstance(prompts, Sequence | torch.Tensor | np.ndarray):
        if not isinstance(prompts, Iterable):
            raise BadInput(
                f"prompts must be texts, chats or token ids, got {prompts!r:.80}: pass a list of them"
            )
        prompts = list(prompts)
    one_chat = len(prompts) > 0 and isinstance(prompts[0], Mapping)
    alone = isinstance(prompts, str) or one_chat or _token_ids(prompts) is not None
    return [prompts] if alone else prompts


def encoded(prompt: Any, tokenizer: Any, vocabulary: Mapping[int, bytes]) -> tuple[str, list[int]]:
    """The text of a prompt and its token ids.

    Args:
        prompt: a text, a chat as a list of messages, or token ids.
        tokenizer: None where prompts are token ids.
        vocabulary: bytes of each token.

    Raises:
        BadInput: an empty prompt, one that is not Unicode, ids of no tokens, or a chat that `written` does not take.
    """
    if (ids := _token_ids(prompt)) is not None:
        least, most = min(ids), max(ids)
        if least < 0 or (tokenizer is not None and tokenizer.convert_ids_to_tokens(most) is None):
            raise BadInput(
                f"token ids must be those of the tokenizer, got {least} to {most}: is it another model's?"
            )
        return b"".join(vocabulary[i] for i in ids).decode(errors="replace"), ids
    if tokenizer is None:
        raise BadInput(f"without a tokenizer a prompt must be token ids, got {prompt!r:.80}: give either")
    if not isinstance(prompt, str):
        prompt = written(prompt, tokenizer)
    if isinstance(prompt, Written):
        return prompt, list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    if not prompt.strip():
        raise BadInput(f"a prompt must not be empty, got {prompt!r}: give it some text")
    try:
        prompt.encode()
    except UnicodeEncodeError as problem:
        raise BadInput(f"a prompt must be valid Unicode, got {prompt!r}: check its encoding") from problem
    return prompt, list(tokenizer(prompt)["input_ids"])


def written(chat: Any, tokenizer: Any) -> Written:
    """A chat as the model reads it, up to where its answer begins.

    Args:
        chat: a list of messages.
        tokenizer: whose template writes it.

    Raises:
        BadInput: no template, or a chat that it does not take or that says nothing.
    """
    messages = chat if isinstance(chat, Sequence) else [chat]
    if wrong := [message for message in messages if not is_message(message)]:
        raise BadInput(
            "messages must have a role and a content, a text or a list of parts, "
            f"got {wrong[0]!r:.80}: give it both"
        )
    if not tokenizer.chat_template:
        raise BadInput(
            "a list of messages needs a model with a chat template, this one has none: pass a text"
        )
    try:
        return Written(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except Exception as problem:  # templates are programs: they raise whatever they like
        raise BadInput(
            "a chat must be a list of messages that the model's template takes, "
            f"got {chat!r}: {first_line(problem)}"
        ) from problem


def end_ids_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> frozenset[int]:
    """Every token that ends a text: the generation config may name several, the tokenizer one more."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = named if isinstance(named, list) else [named]
    own = None if tokenizer is None else tokenizer.eos_token_id
    return frozenset(i for i in (*ids, own) if i is not None)


def _token_ids(prompt: Any) -> list[int] | None:
    """The token ids that a prompt is given as; None for a text or a chat."""
    if isinstance(prompt, torch.Tensor | np.ndarray):
        prompt = prompt.tolist()
    whole = (
        isinstance(prompt, list | tuple) and len(prompt) > 0 and all(isinstance(i, Integral) for i in prompt)
    )
    return [int(i) for i in prompt] if whole else None
