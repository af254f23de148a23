"""transformers' continuous batching, `generate_batch`, with its paged cache."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, ClassVar

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from .generate import SAMPLED
from .machine import Shape
from .work import CHILDREN, Peer, Run, Setting, Work, watching

PAGE = 32  # tokens; its default of 256 would leave most of a page empty here


class GenerateBatch(Peer):
    """Prefixes are shared where its cache finds whole pages; at a fork it starts again.

    Every call starts its manager and ends it, about half a second here, which counts as prefill.
    """

    forks: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.model, self.kv_bytes = setting.model, Shape.of(setting.model).kv_bytes
        logging.getLogger("transformers").setLevel(logging.ERROR)

    def run(self, work: Work, check: bool) -> Run:
        longest = len(work.prompt) + work.span * work.levels
        pages = work.rows * (math.ceil(longest / PAGE) + 1)
        batching = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages,
            max_batch_tokens=max(512, work.rows),
            max_requests_per_batch=work.rows,
            seed=work.seed,
        )
        with watching(self.model, packed=True) as watch:
            start = time.perf_counter()
            texts, copies = [list(work.prompt)], work.rows
            for level in range(work.levels):
                if level:
                    texts, copies = [texts[i] for i in work.survivors(level - 1)], CHILDREN
                texts = self._sample(texts, copies, work.span, batching)
            seconds = time.perf_counter() - start
        if [len(text) for text in texts] != [longest] * work.rows:
            raise RuntimeError(f"{work.rows} rows of {longest} tokens were wanted, got {len(texts)}")
        return Run(
            sampled=work.tokens,
            seconds=seconds,
            prefill=seconds - watch.steps(work.rows) * watch.step(work.rows),
            steps=watch.steps(work.rows),
            computed=watch.computed,
            kv_allocated=pages * PAGE * self.kv_bytes,
            restarts=True,
        )

    def _sample(self, texts: list[list[int]], copies: int, span: int, batching: Any) -> list[list[int]]:
        config = GenerationConfig(
            **SAMPLED, num_return_sequences=copies, max_new_tokens=span, eos_token_id=-1, pad_token_id=0
        )
        with torch.no_grad():
            found = self.model.generate_batch(
                inputs=texts, generation_config=config, continuous_batching_config=batching, warmup=False
            )
        if not found:
            raise RuntimeError("continuous batching gave nothing back")
        return [[*each.prompt_ids, *each.generated_tokens] for each in found.values()]
