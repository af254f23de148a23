"""Models and tokenizers from a folder or the hub: safetensors only, whole, and on their device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer

from babblegraph.errors import BadInput, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(
    auto: Any,
    rule: str,
    name_or_path: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer.

    Args:
        auto: the transformers class that loads the model.
        rule: what the model must be, for the message.
        name_or_path: a folder, or a name on the hub.
        device: a GPU if there is one by default.
        dtype: float32 on CPU, bfloat16 on a GPU by default.
        trust_remote_code: whether code from the model's repository may run here.

    Raises:
        BadInput: there is no such model, it is of another kind, or some of its weights are missing.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trust_remote_code)
        model, report = auto.from_pretrained(
            name_or_path,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype=dtype or (torch.float32 if device == "cpu" else torch.bfloat16),
            output_loading_info=True,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"it has no weights for {missing[0]} ({len(missing)} missing)")
        return model.to(device), tokenizer
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as problem:
        raise BadInput(
            f"{rule} with safetensors weights, got {str(name_or_path)!r}: {first_line(problem)}"
        ) from problem
