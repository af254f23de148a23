"""its-hub: particle filtering, step by step, on a language model that is a `generate` of the same weights."""

from __future__ import annotations

import random
import time
from typing import Any, ClassVar

import numpy as np
import torch
from its_hub.api import AbstractLanguageModel, AbstractProcessRewardModel
from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
from its_hub.core.lms.step_generation import StepGeneration

from .generate import sample
from .work import Peer, Run, Setting, Work, watching

FIRST = 0xF0000  # private characters: one for each token, so that text and tokens are one to one


class ItsHub(Peer):
    """`ParticleFiltering` with W particles and a reward that is the same for all; a step is one span.

    It hands texts to its language model, so every step starts again from them. It resamples after each.
    """

    forks: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def run(self, work: Work, check: bool) -> Run:
        for seeded in (random.seed, np.random.seed, torch.manual_seed):  # it draws from all of them
            seeded(work.seed)
        steps = StepGeneration(max_steps=work.levels - 1, tokens_per_step=work.span, temperature=1.0)
        algorithm = ParticleFiltering(steps, SameReward())
        with watching(self.setting.model) as watch:
            start = time.perf_counter()
            found = algorithm.infer(
                LocalModel(self.setting.model), text_of(work.prompt), work.rows, return_response_only=False
            )
            seconds = time.perf_counter() - start
        lengths = {len(each["content"]) for each in found.responses}
        if lengths != {work.levels * work.span} or len(found.responses) != work.rows:
            raise RuntimeError(f"{work.rows} rows of {work.levels * work.span} were wanted, got {lengths}")
        return Run(
            sampled=work.tokens,
            seconds=seconds,
            prefill=seconds - watch.steps(work.rows) * watch.step(work.rows),
            steps=watch.steps(work.rows),
            computed=watch.computed,
            kv_bytes=watch.kv_bytes,
            restarts=True,
        )


class LocalModel(AbstractLanguageModel):
    """All conversations of a step as one batch of `generate`; they are equally long."""

    def __init__(self, model: Any) -> None:
        self.model = model

    async def agenerate(self, messages: Any, stop: str | None = None, **options: Any) -> Any:
        ids = torch.tensor([tokens_of("".join(m.content for m in chat)) for chat in messages])
        span = options["max_completion_tokens"]
        found = sample(self.model, ids, span, logits=False).sequences[:, ids.shape[1] :]
        return [{"role": "assistant", "content": text_of(row)} for row in found.tolist()]


class SameReward(AbstractProcessRewardModel):
    """No time goes into scoring."""

    async def ascore(self, prompt_or_messages: Any, response_or_responses: Any, **options: Any) -> Any:
        return self.score(prompt_or_messages, response_or_responses)

    def score(self, prompt_or_messages: Any, response_or_responses: Any, **options: Any) -> Any:
        several = isinstance(response_or_responses, list)
        return [0.5] * len(response_or_responses) if several else 0.5


def text_of(tokens: Any) -> str:
    return "".join(chr(FIRST + token) for token in tokens)


def tokens_of(text: str) -> list[int]:
    return [ord(character) - FIRST for character in text]
