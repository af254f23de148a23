"""llm-reasoners: beam search over a world model whose actions are spans of the same weights."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import numpy as np
import torch
from reasoners import Reasoner, SearchConfig, WorldModel
from reasoners.algorithm import BeamSearch

from .generate import sample
from .work import CHILDREN, Peer, Run, Setting, Work, watching


class LLMReasoners(Peer):
    """`Reasoner(world_model, search_config, BeamSearch)`; a node's children are one batch, nodes go one by one.

    The beam holds rows/4 states with four actions each; the first level has as many actions as there are rows.
    """

    forks: ClassVar[bool] = True

    def __init__(self, setting: Setting) -> None:
        self.model = setting.model

    def run(self, work: Work, check: bool) -> Run:
        torch.manual_seed(work.seed)
        config = Spans(self.model, work)
        beam = BeamSearch(beam_size=work.rows // CHILDREN, max_depth=work.levels, early_terminate=True)
        reasoner = Reasoner(world_model=Texts(), search_config=config, search_algo=beam)
        with watching(self.model) as watch:
            start = time.perf_counter()
            reasoner(work.prompt)
            seconds = time.perf_counter() - start
        if config.sampled != work.tokens:
            raise RuntimeError(f"{work.tokens} tokens were wanted, got {config.sampled}")
        return Run(
            sampled=config.sampled,
            seconds=seconds,
            prefill=seconds - sum(watch.decoding(work.rows)),
            steps=work.levels * (work.span - 1),
            computed=watch.computed,
            kv_bytes=watch.kv_bytes,
            restarts=True,
        )


class Texts(WorldModel):
    """A state is the token ids so far."""

    def init_state(self) -> tuple[int, ...]:
        return tuple(self.example)

    def step(self, state: tuple[int, ...], action: tuple[int, ...]) -> Any:
        return state + action, {}

    def is_terminal(self, state: tuple[int, ...]) -> bool:
        return False


class Spans(SearchConfig):
    """An action is a span; its reward is drawn, so that no time goes into scoring."""

    def __init__(self, model: Any, work: Work) -> None:
        super().__init__()
        self.model, self.work, self.sampled = model, work, 0
        self.draw = np.random.default_rng(work.seed)

    def get_actions(self, state: tuple[int, ...]) -> list[tuple[int, ...]]:
        copies = CHILDREN if len(state) > len(self.work.prompt) else self.work.rows
        found = sample(
            self.model, torch.tensor([state]), self.work.span, logits=False, num_return_sequences=copies
        )
        self.sampled += copies * self.work.span
        return [tuple(row) for row in found.sequences[:, len(state) :].tolist()]

    def reward(self, state: Any, action: Any, **known: Any) -> tuple[float, dict]:
        return float(self.draw.random()), {}
