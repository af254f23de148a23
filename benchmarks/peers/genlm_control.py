"""genlm-control: sequential Monte Carlo over its own transformers backend, with the prompt's cache kept."""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import numpy as np
import torch
from genlm.backend.llm import AsyncTransformer
from genlm.control import PromptedLLM, direct_token_sampler

from .models import END
from .work import Peer, Run, Setting, Work, logit_error, watching


class GenlmControl(Peer):
    """`direct_token_sampler(PromptedLLM).smc` with `cache_kv`: what follows the prompt is read again every token.

    It resamples where weights ask for it, and here all are equal: flat work. Its sampler must have a token that
    ends texts, which random weights draw about once in 8,192; what it then does not sample is not counted.
    """

    forks: ClassVar[bool] = False
    even: ClassVar[bool] = False  # each reads all of the text after the prompt again

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        tokenizer = type(setting.tokenizer).from_pretrained(setting.folder)
        self.llm = AsyncTransformer(setting.model, tokenizer, batch_size=10**6, timeout=0.02)
        self.prompted = PromptedLLM(self.llm, eos_byte_strings=[END.encode()])

    def run(self, work: Work, check: bool) -> Run:
        np.random.seed(work.seed)  # noqa: NPY002 (it draws from the global generator)
        torch.manual_seed(work.seed)
        self.llm.clear_cache()
        self.llm.batch_size = work.rows  # a full batch goes at once, without waiting for the timer
        self.prompted.prompt_ids = list(work.prompt)
        with watching(self.setting.model) as watch:
            start = time.perf_counter()
            self.llm.cache_kv(list(work.prompt))
            prefill = time.perf_counter() - start
            found = asyncio.run(self._sample(work))
            seconds = time.perf_counter() - start
        texts = [[t.token_id for t in text if hasattr(t, "token_id")] for text in found.contexts]
        return Run(
            sampled=sum(map(len, texts)),
            seconds=seconds,
            prefill=prefill,
            steps=work.span - 1,
            computed=watch.computed,
            kv_bytes=watch.kv_bytes,
            error=self._error(work, texts[0]) if check else None,
        )

    async def _sample(self, work: Work) -> Any:
        sampler = direct_token_sampler(self.prompted)
        return await sampler.smc(n_particles=work.rows, ess_threshold=0.0, max_tokens=work.span + 1)

    def _error(self, work: Work, text: list[int]) -> float:
        """Log-probabilities differ from logits by a constant, which both sides lose here."""
        ids = [*work.prompt, *text]
        ours = asyncio.run(self.llm.next_token_logprobs(ids))
        with torch.no_grad():
            plain = self.setting.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        return logit_error(self.setting.model, [ids], (ours + torch.logsumexp(plain, -1))[None])
