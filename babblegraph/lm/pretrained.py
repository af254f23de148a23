"""Models and tokenizers from a folder or the hub: safetensors only, whole, and on their device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer

from babblegraph.errors import BadInput, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER = 10  # seconds that the hub has to answer at all


def load(
    auto: Any,
    rule: str,
    name_or_path: str | Path,
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
    others: Mapping[str, str] | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer.

    Args:
        auto: the transformers class that loads the model.
        rule: what the model must be, for the message.
        name_or_path: a folder, or a name on the hub.
        device: a GPU if there is one by default.
        dtype: float32 on CPU, bfloat16 on a GPU by default.
        trust_remote_code: whether code from the model's repository may run here.
        others: classes whose weights may fit and mean something else, by the ends of their names, and what to load
            those with.

    Raises:
        BadInput: there is no such model or device, it is of another kind, or its weights are damaged or not all there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:  # a torch without CUDA asserts that it has it
        said = first_line(problem)
        raise BadInput(f"a device must be one that torch has here, got {device!r}: {said}") from problem
    here = Path(name_or_path)
    if here.is_dir() and not any(here.glob("*config.json")):
        raise BadInput(f"{rule} with safetensors weights, got {str(here)!r}: it has no config.json")
    alone = not here.is_dir() and not _hub_answers()
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": alone}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **how)
        for end, fix in (others or {}).items():
            for saved in AutoConfig.from_pretrained(name_or_path, **how).architectures or ():
                if saved.endswith(end):
                    raise BadInput(f"{rule}, got {str(name_or_path)!r}, which is a {saved}: use {fix}")
        model, report = auto.from_pretrained(
            name_or_path,
            **how,
            use_safetensors=True,
            dtype=dtype or (torch.float32 if device == "cpu" else torch.bfloat16),
            output_loading_info=True,
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"it has no weights for {missing[0]} ({len(missing)} missing)")
        return model.to(device), tokenizer
    except BadInput:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError) as problem:
        gone = alone and isinstance(problem, OSError)  # anything else is about a model that is here
        why = "it is not on this machine, and the hub does not answer" if gone else first_line(problem)
        raise BadInput(f"{rule} with safetensors weights, got {str(name_or_path)!r}: {why}") from problem


def _hub_answers() -> bool:
    """Asked once, since transformers asks for every file of a model, again and again, for a minute in all."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER)
    except Exception:  # each version of the hub's client has errors of its own
        return False
    return True
