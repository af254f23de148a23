"""Training a reward model from comparisons, by TRL: which of two texts is better?"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from babblegraph.errors import BadInput, first_line
from babblegraph.scoring import rewards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Comparison(NamedTuple):
    """Two continuations of a prompt, the better one first."""

    prompt: str
    chosen: str
    rejected: str


class Trained(NamedTuple):
    """What training came to."""

    accuracy: float | None  # share of held-out comparisons that the model decides right; None without any
    held_out: int
    comparisons: int  # that it was trained on
    loss: float  # mean over the training


def train_reward(
    comparisons: Sequence[Comparison],
    model: str | Path,
    out: str | Path,
    *,
    template: str = rewards.PLAIN,
    held_out: float = 0.1,
    epochs: float = 1.0,
    batch_size: int = 8,
    rate: float = 1e-5,
    seed: int = 0,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Trained:
    """Turns a language model into a reward model with TRL's RewardTrainer (Bradley and Terry's loss).

    The folder plugs in as `RewardModelValue.from_pretrained(out, template=template)`: texts are laid out here as
    they are there.

    Args:
        comparisons: see `read_comparisons`.
        model: a folder or hub name of a causal language model, or of a sequence classifier with one label.
        out: where the reward model and its tokenizer go.
        template: how a prompt and a text are laid out, see `RewardModelValue`.
        held_out: share of the prompts that only measure; from 0 up to below 1.
        epochs: of training.
        batch_size: comparisons a step.
        rate: of AdamW, falling linearly.
        seed: of the split, the new head and the order.
        device: "cpu" to stay there; a GPU if there is one by default.
        trust_remote_code: whether code from the model's repository may run here.

    Raises:
        BadInput: TRL is not installed, there is no such model, or too few comparisons.

    Source: Stiennon et al., 2020 (summarisation from feedback); Bradley and Terry, 1952.
    """
    _need_trl()
    train, test = _split(comparisons, held_out, seed)
    torch.manual_seed(seed)
    classifier, tokenizer = _classifier(model, trust_remote_code)
    longest = rewards.prepared(classifier, tokenizer)
    rewards.check_template(template, tokenizer)
    ids = [_ids(tokenizer, template, some, longest) for some in (train, test)]
    if not ids[0]:
        raise BadInput(
            f"comparisons must fit into the model's {longest} tokens, got none that does: shorten them"
        )
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the trainer's own parts
        how = {"num_train_epochs": epochs, "per_device_train_batch_size": batch_size, "learning_rate": rate}
        loss = _trained(classifier, tokenizer, ids[0], scratch, seed, device == "cpu", longest, how)
    classifier.eval().save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    accuracy = _accuracy(classifier, ids[1]) if ids[1] else None
    return Trained(accuracy, len(ids[1]), len(ids[0]), loss)


def read_comparisons(file: str | Path) -> list[Comparison]:
    """Comparisons of a JSON Lines file, each an object with the texts `prompt`, `chosen` and `rejected`.

    Raises:
        BadInput: no such file, no comparison in it, or a line that is none.
    """
    try:
        # not at what else ends a line: JSON texts may hold it
        lines = Path(file).read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BadInput(f"comparisons are a file of JSON Lines, got {str(file)!r}: {reason}") from error
    found = []
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            texts = [one[name] for name in Comparison._fields]
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"a comparison must be an object with prompt, chosen and rejected, got {file}:{n}: mend it"
            ) from error
        if not all(isinstance(text, str) for text in texts):
            raise BadInput(f"prompt, chosen and rejected must be texts, got {file}:{n}: write texts")
        found.append(Comparison(*texts))
    if not found:
        raise BadInput(f"a file of comparisons must have some, got none in {str(file)!r}: write one a line")
    return found


def _need_trl() -> None:
    try:
        import datasets  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"training a reward model needs TRL, got no module {error.name!r}: install babblegraph[train]"
        ) from error


def _split(
    comparisons: Sequence[Comparison], held_out: float, seed: int
) -> tuple[list[Comparison], list[Comparison]]:
    """All comparisons of a prompt on one side."""
    if not 0 <= held_out < 1:
        raise BadInput(
            f"the share that is held out must be from 0 to below 1, got {held_out:g}: 0.1 is a tenth"
        )
    prompts = sorted({c.prompt for c in comparisons})
    kept = np.random.default_rng(seed).permutation(len(prompts))[: round(held_out * len(prompts))]
    test = {prompts[i] for i in kept.tolist()}
    train = [c for c in comparisons if c.prompt not in test]
    if len(train) < 2:
        raise BadInput(
            f"a reward model needs at least two comparisons to train on, got {len(train)}: give more"
        )
    return train, [c for c in comparisons if c.prompt in test]


def _classifier(
    model: str | Path, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with a head for one number, new where it has none."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
        found, report = AutoModelForSequenceClassification.from_pretrained(
            model,
            num_labels=1,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as problem:
        raise BadInput(
            "a reward model begins as a language model with safetensors weights, "
            f"got {str(model)!r}: {first_line(problem)}"
        ) from problem
    if new := sorted(
        name for name in report["missing_keys"] if "score" not in name and "classifier" not in name
    ):
        raise BadInput(
            f"a reward model begins as a whole language model, got one without weights for {new[0]}"
        )
    return found, tokenizer


def _ids(
    tokenizer: PreTrainedTokenizerBase, template: str, comparisons: Sequence[Comparison], longest: int
) -> list[dict[str, list[int]]]:
    """Both texts of each comparison as tokens; those with a text longer than the model reads are left out."""
    special = template != rewards.CHAT
    found = []
    for prompt, chosen, rejected in comparisons:
        pair = [
            list(
                tokenizer(rewards.filled(template, tokenizer, prompt, text), add_special_tokens=special)[
                    "input_ids"
                ]
            )
            for text in (chosen, rejected)
        ]
        if max(map(len, pair)) <= longest:
            found.append({"chosen_ids": pair[0], "rejected_ids": pair[1]})
    return found


def _trained(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict[str, list[int]]],
    scratch: str,
    seed: int,
    cpu: bool,
    longest: int,
    how: dict[str, Any],
) -> float:
    """Runs the trainer; returns the mean loss."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    arguments = RewardConfig(
        output_dir=scratch,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=seed,
        use_cpu=cpu or not torch.cuda.is_available(),
        max_length=longest,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        **how,
    )
    dataset = Dataset.from_list(pairs)
    trainer = RewardTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
    return float(trainer.train().training_loss)


@torch.no_grad()
def _accuracy(model: PreTrainedModel, pairs: list[dict[str, list[int]]]) -> float:
    """The share of pairs whose chosen text has the higher reward; ties count half."""
    right = 0.0
    for pair in pairs:
        good, bad = (
            float(model(torch.tensor([pair[name]], device=model.device)).logits[0, 0])
            for name in ("chosen_ids", "rejected_ids")
        )
        right += (good > bad) + (good == bad) / 2
    return right / len(pairs)
