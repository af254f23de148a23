"""A process reward model as a value: a Hugging Face token classifier that speaks at the end of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.lm.doubles import doubled
from babblegraph.scoring import rewards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph

# Source: Lightman et al., "Let's Verify Step by Step" (product, min); Snell et al., 2024 (last)
AGGREGATES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "min": lambda steps: float(steps.min()),
    "product": lambda steps: float(steps.prod()),
    "mean": lambda steps: float(steps.mean()),
    "last": lambda steps: float(steps[-1]),
}


class ProcessModelValue(rewards.Pretrained):
    """P(good) of each step of a text, put together: the label at the token that ends a step.

    A text is cut into steps where the generator ends them, and put together again with the separator that the
    reward model was trained with, each step being tokenized for itself, as its training does. The last step
    counts whether it is complete or not. A text without any step is worth 1: nothing speaks against it yet.

    Args:
        model: a token classifier; the last of its labels means good, or the only one.
        tokenizer: its own tokenizer.
        steps: where the generator's steps end.
        separator: what the reward model wants to see behind each step; the verdict is read at its last token.
        aggregate: "min", "product", "mean" or "last".
        batch_size: texts in one forward pass.
        template: what stands before the steps, with a place {prompt}; or "chat" for the tokenizer's own.
        scale, asked: see `RewardModelValue`.

    Raises:
        BadInput: no such aggregate, an empty separator, or a template that cannot be filled in.
    """

    what = "process reward model"
    auto, kind = "AutoModelForTokenClassification", "token classifier"
    others: ClassVar = {"ForSequenceClassification": "--reward-model (RewardModelValue)"}

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        steps: str = "\n",
        separator: str = "\n",
        aggregate: str = "min",
        batch_size: int = 32,
        template: str = "{prompt}",
        scale: rewards.Scale = (0.0, 1.0),
        asked: Mapping[str, str] | None = None,
    ) -> None:
        if aggregate not in AGGREGATES:
            known = ", ".join(AGGREGATES)
            raise BadInput(f"process scores are put together by one of {known}, got {aggregate!r}")
        if not steps or not separator:
            raise BadInput("steps and separator must not be empty, got '': what ends a step?")
        if template == rewards.CHAT:
            rewards.check_template(template, tokenizer)
        elif "{prompt}" not in template:
            raise BadInput(f"a process template must have a place {{prompt}}, got {template!r}: add it")
        self.max_length = rewards.prepared(model, tokenizer)
        self.model, self.tokenizer, self.scale = model.eval(), tokenizer, scale
        self.steps, self.separator, self.aggregate = steps, separator, aggregate
        self.template, self.batch_size, self.asked = template, batch_size, asked or {}

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        """Values of nodes, [M] in [0, 1]; NaN where a text is longer than the model reads, or it gives no numbers."""
        prompts = map(graph.prompt, ids.tolist())
        laid_out = [
            self._laid_out(self.asked.get(p, p), graph.text(i))
            for p, i in zip(prompts, ids.tolist(), strict=True)
        ]
        stepless = np.array([not ends for _, ends in laid_out], np.bool_)  # of which nothing is read
        lengths = np.array([len(tokens) for tokens, _ in laid_out], np.int64) * ~stepless
        readable = np.flatnonzero(self.readable(graph, ids, lengths) & ~stepless)
        values = np.where(stepless, 1.0, np.nan)
        for at in range(0, len(readable), self.batch_size):
            batch = readable[at : at + self.batch_size]
            found = self._step_values([laid_out[place] for place in batch])
            values[batch] = [AGGREGATES[self.aggregate](steps) for steps in found]
        meter.count("scored", graph.root[ids[readable]], lengths[readable])
        self.note_unknown(graph, ids[readable], values[readable])
        return values

    def _laid_out(self, prompt: str, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a prompt and its steps, and where each step ends."""
        if self.template == rewards.CHAT:
            messages = [{"role": "user", "content": prompt}]
            before = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            tokens = list(self.tokenizer(before, add_special_tokens=False)["input_ids"])
        else:
            tokens = list(self.tokenizer(self.template.replace("{prompt}", prompt))["input_ids"])
        after = list(self.tokenizer(self.separator, add_special_tokens=False)["input_ids"])
        ends = []
        for step in filter(str.strip, text.split(self.steps)):  # a blank line is none
            tokens += [*self.tokenizer(step, add_special_tokens=False)["input_ids"], *after]
            ends.append(len(tokens) - 1)
        return tokens, ends

    @torch.no_grad()
    def _step_values(self, batch: list[tuple[list[int], list[int]]]) -> list[NDArray[np.float64]]:
        """P(good) at the ends of steps; texts are padded on the right, where causal models do not look."""
        device, longest = self.model.device, max(len(tokens) for tokens, _ in batch)
        ids = torch.full((len(batch), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, (tokens, _) in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        logits = doubled(self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits)
        found = rewards.rewards_of(logits).cpu().numpy()  # [B, L]
        return [rewards.as_values(found[row, ends], self.scale) for row, (_, ends) in enumerate(batch)]
