"""An outcome reward model as a value: any Hugging Face sequence classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.doubles import doubled
from babblegraph.scoring import rewards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph

Pairs = Sequence[tuple[str, str]]  # prompts and texts


class RewardModelValue(rewards.Pretrained):
    """P(good) of whole texts: the sigmoid of a single logit, or the probability of the last of several labels.

    Args:
        model: a sequence classifier.
        tokenizer: its own tokenizer.
        batch_size: texts in one forward pass.
        template: how a prompt and a text are laid out, with places {prompt} and {text}, or "chat" for the
            tokenizer's own chat template.
        scale: mean and standard deviation of its rewards (log-odds), so that values use the whole of [0, 1]; see
            `pilot`.
        asked: what the user asked, by prompts as the generator read them, where a chat template made these; the
            reward model reads what was asked.

    Raises:
        BadInput: a template that cannot be filled in.
    """

    what = "reward model"
    auto, kind = "AutoModelForSequenceClassification", "sequence classifier"
    others: ClassVar = {"ForTokenClassification": "--process-model (ProcessModelValue)"}

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        *,
        template: str = rewards.PLAIN,
        scale: rewards.Scale = (0.0, 1.0),
        asked: Mapping[str, str] | None = None,
    ) -> None:
        self.asked = asked or {}
        self.max_length = rewards.prepared(model, tokenizer)
        self.model, self.tokenizer, self.scale = model.eval(), tokenizer, scale
        self.template = rewards.check_template(template, tokenizer)
        self.batch_size = batch_size if tokenizer.pad_token is not None else 1
        # on the left it would shift the positions that most models count; XLNet counts none, and reads the last place
        reads_last = getattr(model.config, "summary_type", None) == "last"
        self._side = tokenizer.padding_side if reads_last else "right"

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        """Values of nodes, [M] in [0, 1], NaN where a text is longer than the model reads, or it gives no numbers.

        Every token it reads is counted as scored.
        """
        nodes = ids.tolist()
        prompts = map(graph.prompt, nodes)
        found, lengths = self._rewards(
            [(self.asked.get(p, p), graph.text(i)) for p, i in zip(prompts, nodes, strict=True)]
        )
        read = self.readable(graph, ids, lengths)
        meter.count("scored", graph.root[ids], lengths * read)
        found[read] = rewards.as_values(found[read], self.scale)
        self.note_unknown(graph, ids[read], found[read])
        return found

    def pilot(self, texts: Pairs) -> RewardModelValue:
        """The same value with rewards brought to zero mean and unit deviation on a sample.

        Args:
            texts: pairs of a prompt and a text, such as unpruned texts of the generator; those that are longer than
                the model reads are left out.

        Raises:
            BadInput: fewer than two texts, or all with the same reward.
        """
        found = self._rewards(texts)[0]
        scale = rewards.scale_of(found[~np.isnan(found)])
        how: dict[str, Any] = {"template": self.template, "scale": scale, "asked": self.asked}
        return RewardModelValue(self.model, self.tokenizer, self.batch_size, **how)

    @torch.no_grad()
    def _rewards(self, texts: Pairs) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Log-odds of prompts with texts, NaN for too long a text, and how many tokens each has; [M] each."""
        laid_out = [rewards.filled(self.template, self.tokenizer, *pair) for pair in texts]
        lengths = np.array([len(self._read(each, verbose=False)["input_ids"]) for each in laid_out], np.int64)
        found, readable = np.full(len(texts), np.nan), np.flatnonzero(lengths <= self.max_length)
        for at in range(0, len(readable), self.batch_size):
            batch = readable[at : at + self.batch_size]
            padded = {"return_tensors": "pt", "padding": len(batch) > 1, "padding_side": self._side}
            inputs = self._read([laid_out[i] for i in batch], **padded)
            logits = doubled(self.model(**inputs.to(self.model.device)).logits)
            found[batch] = rewards.rewards_of(logits).cpu().numpy()
        return found, lengths

    def _read(self, texts: str | list[str], **how: Any) -> Any:
        return self.tokenizer(texts, add_special_tokens=self.template != rewards.CHAT, **how)
