"""transformers' `generate`, in three ways."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import torch
from transformers import DynamicCache, GenerationConfig

from .work import CHILDREN, Peer, Run, Setting, Watch, Work, logit_error, watching

SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


class Generate(Peer):
    """`generate(num_return_sequences=W)`; at a fork it starts again from the survivors' tokens."""

    forks: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.model = setting.model

    def run(self, work: Work, check: bool) -> Run:
        torch.manual_seed(work.seed)
        with watching(self.model) as watch:
            start = time.perf_counter()
            ids, copies = prompt_of(work, self.model), work.rows
            for level in range(work.levels):
                if level:
                    ids, copies = ids[torch.as_tensor(work.survivors(level - 1))], CHILDREN
                found = sample(self.model, ids, work.span, check, num_return_sequences=copies)
                ids = found.sequences
            seconds = time.perf_counter() - start
        return self._run(work, watch, seconds, found, check, restarts=True)

    def _run(self, work: Work, watch: Watch, seconds: float, found: Any, check: bool, restarts: bool) -> Run:
        total = len(work.prompt) + work.levels * work.span
        if found.sequences.shape != (work.rows, total):
            raise RuntimeError(f"{work.rows} rows of {total} tokens were wanted, got {found.sequences.shape}")
        error = None
        if check:  # the last logits are those that the last token was drawn from
            error = logit_error(self.model, found.sequences[:4, :-1].tolist(), found.logits[-1][:4])
        return Run(
            sampled=work.tokens,
            seconds=seconds,
            prefill=seconds - watch.steps(work.rows) * watch.step(work.rows),
            steps=watch.steps(work.rows),
            computed=watch.computed,
            kv_bytes=watch.kv_bytes,
            error=error,
            restarts=restarts,
        )


class CacheKept(Generate):
    """As its experts do it: the prompt is read once, its cache is repeated, and reordered at every fork."""

    def run(self, work: Work, check: bool) -> Run:
        torch.manual_seed(work.seed)
        with watching(self.model) as watch:
            start = time.perf_counter()
            cache, ids = DynamicCache(config=self.model.config), prompt_of(work, self.model)
            with torch.no_grad():
                self.model(ids[:, :-1], past_key_values=cache, logits_to_keep=1)
            cache.batch_repeat_interleave(work.rows)
            ids = ids.repeat_interleave(work.rows, 0)
            for level in range(work.levels):
                if level:
                    origins = torch.as_tensor(work.origins(level))
                    cache.reorder_cache(origins)
                    ids = ids[origins]
                found = sample(self.model, ids, work.span, check, cache)
                ids = found.sequences
            seconds = time.perf_counter() - start
        return self._run(work, watch, seconds, found, check, restarts=False)


class Beams(Generate):
    """`generate(num_beams=W)`: the W likeliest, not samples; it forks wherever it likes, so only flat work."""

    forks: ClassVar[bool] = False

    def run(self, work: Work, check: bool) -> Run:
        config = {"num_beams": work.rows, "num_return_sequences": work.rows, "do_sample": False}
        with watching(self.model) as watch:
            start = time.perf_counter()
            found = sample(self.model, prompt_of(work, self.model), work.span, False, **config)
            seconds = time.perf_counter() - start
        return self._run(work, watch, seconds, found, check=False, restarts=True)


def prompt_of(work: Work, model: Any) -> torch.Tensor:
    """[1, T] where the model is."""
    return torch.tensor([work.prompt], device=model.device)


def sample(model: Any, ids: torch.Tensor, span: int, logits: bool, cache: Any = None, **options: Any) -> Any:
    """So many new tokens below each text, drawn from the model's own distribution."""
    named = {} if cache is None else {"past_key_values": cache}
    config = GenerationConfig(
        **(SAMPLED | options),
        max_new_tokens=span,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=logits,
    )
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config, **named)
