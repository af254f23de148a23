"""A reward model as a value: any Hugging Face sequence classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph


class RewardModelValue:
    """P(good) of whole texts: the sigmoid of a single logit, or the probability of the last of several labels.

    Args:
        model: a sequence classifier.
        tokenizer: its own tokenizer.
        batch_size: texts in one forward pass.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32
    ) -> None:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id  # decoders find the last token by it
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_size = batch_size if tokenizer.pad_token is not None else 1
        longest = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
        self.max_length = min(tokenizer.model_max_length, longest)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        device: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> RewardModelValue:
        """Loads a sequence classifier, safetensors only.

        Raises:
            BadInput: there is no such model, or it is no sequence classifier.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                name_or_path,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
            if missing := sorted(report["missing_keys"]):
                raise ValueError(f"it has no weights for {missing[0]} ({len(missing)} missing)")
            model = model.to(device)
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as problem:
            first = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
            raise BadInput(
                f"a reward model must be a sequence classifier with safetensors weights, got "
                f"{str(name_or_path)!r}: {first}"
            ) from problem
        return cls(model, tokenizer, **options)

    @torch.no_grad()
    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        """Values of nodes, [M] in [0, 1]; every token it reads is counted as scored."""
        values = []
        for at in range(0, len(ids), self.batch_size):
            batch = ids[at : at + self.batch_size]
            texts = [graph.prompt(i) + graph.text(i) for i in batch.tolist()]
            inputs = self.tokenizer(
                texts,
                return_tensors="pt",
                padding=len(texts) > 1,
                truncation=True,
                max_length=self.max_length,
            )
            meter.count("scored", graph.root[batch], inputs["attention_mask"].sum(1).numpy())
            logits = self.model(**inputs.to(self.model.device)).logits.double()
            good = torch.sigmoid(logits[:, 0]) if logits.shape[1] == 1 else logits.softmax(-1)[:, -1]
            values.append(good.cpu().numpy())
        return np.concatenate(values) if values else np.zeros(0)
