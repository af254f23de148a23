"""What reward models have in common: where they are loaded from, how a text is laid out, how rewards become values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHAT = "chat"  # as a template: the tokenizer's own
PLAIN = "{prompt}{text}"
Scale = tuple[float, float]  # mean and standard deviation of rewards


def load(
    auto: Any, what: str, name_or_path: str | Path, device: str | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A classifier and its tokenizer, in float32, safetensors only.

    Args:
        auto: the transformers class that loads it.
        what: the kind of model, for the message.
        name_or_path: a folder, or a name on the hub.
        device: a GPU if there is one by default.
        trust_remote_code: whether code from the model's repository may run here.

    Raises:
        BadInput: there is no such model, or it is of another kind.
    """
    from transformers import AutoTokenizer

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
        model, report = auto.from_pretrained(
            name_or_path,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"it has no weights for {missing[0]} ({len(missing)} missing)")
        return model.to(device), tokenizer
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as problem:
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise BadInput(
            f"a reward model must be a {what} with safetensors weights, got {str(name_or_path)!r}: {first}"
        ) from problem


def prepared(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Makes padding safe, and says how many tokens a text may have."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id  # decoders find the last token by it
    longest = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(tokenizer.model_max_length, longest))


def check_template(template: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The template itself, if it can be filled in.

    Raises:
        BadInput: it has no place for the text, or there is no chat template.
    """
    if template == CHAT:
        if not tokenizer.chat_template:
            raise BadInput(f"the template {CHAT!r} needs a tokenizer with a chat template: give a text")
    elif "{text}" not in template:
        raise BadInput(f"a template must have a place {{text}}, got {template!r}: such as {PLAIN!r}")
    return template


def filled(template: str, tokenizer: PreTrainedTokenizerBase, prompt: str, text: str) -> str:
    """A prompt and its continuation as the reward model wants to read them."""
    if template == CHAT:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    return template.replace("{prompt}", prompt).replace("{text}", text)


def rewards_of(logits: torch.Tensor) -> torch.Tensor:
    """Log-odds of "good", [..., labels] -> [...]: the only logit, or the last label against all others."""
    if logits.shape[-1] == 1:
        return logits[..., 0]
    return logits[..., -1] - logits[..., :-1].logsumexp(-1)


def scale_of(rewards: Sequence[float] | NDArray[np.float64]) -> Scale:
    """Mean and standard deviation of a pilot sample's rewards.

    Raises:
        BadInput: fewer than two, or all alike.
    """
    known = np.asarray(rewards, np.float64)
    if len(known) < 2 or not known.std() > 0:
        raise BadInput(f"a pilot sample needs rewards that differ, got {len(known)} texts: give more texts")
    return float(known.mean()), float(known.std())


def as_values(rewards: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """σ((r − mean) / deviation), in [0, 1]."""
    return np.exp(-np.logaddexp(0.0, -(rewards - scale[0]) / scale[1]))
