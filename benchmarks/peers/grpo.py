"""TRL's GRPO on the same prompts: a policy gradient of groups of samples, with TRL's own defaults but for the sizes."""

from __future__ import annotations

import tempfile
from typing import Any, NamedTuple

RATE = 1e-4  # the better of 1e-4 and 3e-4 on validation puzzles
GROUPS = 8  # prompts of an update


class Learned(NamedTuple):
    """What the trainer did: tokens that it sampled, texts that it learned from, and updates."""

    tokens: int
    texts: int
    updates: int


def learn(
    model: Any, tokenizer: Any, task: Any, prompts: list[str], draws: int, seed: int, rate: float = RATE
) -> Learned:
    """Moves the model in place; each prompt is sampled `draws` times, once."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    told = {"tokens": 0}

    def reward(prompts: list[str], completions: list[str], completion_ids: Any, **_: Any) -> list[float]:
        told["tokens"] += sum(map(len, completion_ids))
        return [task.verify(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            num_generations=draws,
            per_device_train_batch_size=GROUPS * draws,
            steps_per_generation=1,
            max_steps=len(prompts) // GROUPS,
            max_completion_length=80,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=len(prompts) // GROUPS // 10,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            seed=seed,
        )
        data = Dataset.from_dict({"prompt": prompts})
        trainer = GRPOTrainer(model, reward, args=config, train_dataset=data, processing_class=tokenizer)
        trainer.train()
    return Learned(told["tokens"], draws * len(prompts), int(trainer.state.global_step))
