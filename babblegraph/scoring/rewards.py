"""What reward models have in common: where they are loaded from, how a text is laid out, how rewards become values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.lm.pretrained import load
from babblegraph.scoring.contain import note_failure

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from babblegraph.graph import BabbleGraph

CHAT = "chat"  # as a template: the tokenizer's own
PLAIN = "{prompt}{text}"
Scale = tuple[float, float]  # mean and standard deviation of rewards


class Pretrained:
    """A value that is a classifier of a kind and its tokenizer, which comes first in its options."""

    auto: ClassVar[str]  # the name of the transformers class that loads it
    what: ClassVar[str]  # what it is called in the message,
    kind: ClassVar[str]  # and which kind of model that has to be
    others: ClassVar[dict[str, str]]  # see `lm.pretrained.load`
    max_length: int  # tokens that it reads, at most

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Self:
        """Loads the classifier, in float32, safetensors only.

        Args:
            name_or_path: a folder, or a name on the hub.
            device: a GPU if there is one by default.
            trust_remote_code: whether code from the model's repository may run here.
            options: of the value.

        Raises:
            BadInput: there is no such model, or it is of another kind.
        """
        how: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code, "others": cls.others}
        rule = f"a {cls.what} must be a {cls.kind}"
        loaded = load(getattr(transformers, cls.auto), rule, name_or_path, dtype=torch.float32, **how)
        return cls(*loaded, **options)  # type: ignore[call-arg]

    def readable(
        self, graph: BabbleGraph, ids: NDArray[np.intp], lengths: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which texts are not longer than the model reads, [M]; the others are noted as failures.

        Args:
            ids: their nodes, [M].
            lengths: tokens of each as the model reads it, [M].
        """
        fits = np.asarray(lengths, np.int64) <= self.max_length
        for i in ids[~fits].tolist():
            note_failure(graph, i, f"the {self.what} reads {self.max_length} tokens at most", "")
        return fits

    def note_unknown(self, graph: BabbleGraph, ids: NDArray[np.intp], values: NDArray[np.float64]) -> None:
        """Notes texts that were read, and of which the model gave no numbers, as failures; [M] each."""
        for i in ids[np.isnan(values)].tolist():
            note_failure(graph, i, f"the {self.what} gives NaN for this text", graph.text(i))


def prepared(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Makes padding safe, and says how many tokens a text may have: cut off, its end would count for nothing."""
    config = model.config.get_text_config()
    if tokenizer.pad_token is None:
        own = None if config.pad_token_id is None else tokenizer.convert_ids_to_tokens(config.pad_token_id)
        # the last one only for want of others: a text may end with it, and is then read one token too early
        tokenizer.pad_token = own or tokenizer.unk_token or tokenizer.bos_token or tokenizer.eos_token
    for each in (model.config, config):  # decoders find the last token by it
        each.pad_token_id = tokenizer.pad_token_id
    longest = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
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
    parts = {"{prompt}": prompt, "{text}": text}  # put in at once: a prompt may say {text} itself
    return re.sub(r"\{prompt\}|\{text\}", lambda place: parts[place[0]], template)


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
    """σ((r − mean) / deviation), in [0, 1]; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -(rewards - scale[0]) / scale[1]))
