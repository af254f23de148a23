"""What every decoder is asked to do, and what is measured while it does so."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch

CHILDREN = 4  # of every survivor


@dataclass(frozen=True)
class Work:
    """Rows of new tokens below one prompt, in levels; between levels a quarter of the rows survives and forks.

    One level is the flat case: `rows` continuations of the prompt. With more, level l+1 has `CHILDREN` rows
    below each of the rows/4 survivors of level l. Which rows survive is drawn once, the same for all decoders.
    """

    prompt: tuple[int, ...]
    rows: int
    span: int  # new tokens of a row in one level
    levels: int = 1
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that are sampled in all."""
        return self.rows * self.span * self.levels

    def survivors(self, level: int) -> np.ndarray:
        """The rows of a level that go on, in order, [rows / CHILDREN]."""
        draw = np.random.default_rng([self.seed, level])
        return np.sort(draw.choice(self.rows, self.rows // CHILDREN, replace=False))

    def origins(self, level: int) -> np.ndarray:
        """For each row of a level, its parent's row in the level before, [rows]."""
        return np.repeat(self.survivors(level - 1), CHILDREN)

    def inner(self, level: int) -> int:
        """Unique tokens between the prompt and the spans of a level."""
        alive, spans = np.arange(self.rows), 0
        for below in range(level, 0, -1):
            alive = np.unique(self.origins(below)[alive])
            spans += len(alive)
        return spans * self.span

    def unique_tokens(self) -> int:
        """The most unique tokens that live rows need at any time: at the end of a level."""
        most = max(self.inner(level) for level in range(self.levels))
        return len(self.prompt) + most + self.rows * self.span

    def with_span(self, span: int, levels: int | None = None) -> Work:
        return replace(self, span=span, levels=levels or self.levels)


class Setting(NamedTuple):
    """The one model of a run, and where it is saved."""

    model: Any
    tokenizer: Any
    folder: Path
    threads: int


@dataclass
class Run:
    """What one run took.

    Args:
        sampled: tokens that the decoder delivered.
        seconds: wall time.
        prefill: of them, all but decoding: until prompts (and, where it starts again, survivors) were read.
        steps: forward passes that the rest of the time went into; each is one token more for every row.
        computed: tokens that went through the model, padding included; None where that cannot be seen.
        kv_bytes: the most bytes of keys and values in use.
        kv_allocated: the most that were allocated.
        error: max|difference| / max|logit| to a plain forward pass.
        restarts: whether each level pays the prefill again.
    """

    sampled: int
    seconds: float
    prefill: float
    steps: int
    computed: int | None = None
    kv_bytes: int | None = None
    kv_allocated: int | None = None
    error: float | None = None
    restarts: bool = False

    @property
    def step(self) -> float:
        """Seconds for one token more in every row."""
        return max(self.seconds - self.prefill, 1e-9) / self.steps

    def seconds_for(self, work: Work, ran: Work) -> float:
        """Seconds for all of the work, going on at the pace of the part that ran.

        Later steps and levels see more tokens, so this is too low rather than too high.
        """
        return self.prefill * self._again(work, ran) + self.step * self._steps(work, ran)

    def computed_for(self, work: Work, ran: Work) -> float | None:
        """Tokens that went through the model, for all of the work."""
        if self.computed is None:
            return None
        read = self.computed - self.steps * work.rows
        return read * self._again(work, ran) + self._steps(work, ran) * work.rows

    def _again(self, work: Work, ran: Work) -> float:
        return work.levels / ran.levels if self.restarts else 1.0

    def _steps(self, work: Work, ran: Work) -> float:
        return self.steps + work.levels * work.span - ran.levels * ran.span


class Peer(Protocol):
    """A decoder."""

    forks: ClassVar[bool]  # whether it can do more than one level
    even: ClassVar[bool] = (
        True  # whether a step costs about the same early and late, so that a few tell of all
    )

    def run(self, work: Work, check: bool) -> Run:
        """Does the work; with `check` it also compares logits, outside of the time that it reports."""
        ...


@dataclass
class Watch:
    """Sees every forward pass of a transformers model: when it began, its shape, and the cache after it."""

    packed: bool = False  # rows lie side by side in one sequence
    started: list[float] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    kv_bytes: int = 0
    ended: float = 0.0

    @property
    def computed(self) -> int:
        return sum(rows * length for rows, length in self.shapes)

    def decoding(self, rows: int) -> list[float]:
        """Seconds from the start of each pass that reads a token a row to the start of the next pass."""
        until = [*self.started[1:], self.ended]
        return [
            stop - start
            for start, stop, (batch, length) in zip(self.started, until, self.shapes, strict=True)
            if (length <= rows if self.packed and batch == 1 else length == 1)
        ]

    def steps(self, rows: int) -> int:
        """How many passes were decoding."""
        return len(self.decoding(rows))

    def step(self, rows: int) -> float:
        """The median of their seconds: the last of a call also ends the call."""
        return median(self.decoding(rows))


@contextmanager
def watching(model: torch.nn.Module, packed: bool = False) -> Iterator[Watch]:
    """A watch on a model while it runs; the embedding is what no token can go around."""
    watch = Watch(packed)

    def before(_module: Any, args: Any) -> None:
        watch.started.append(time.perf_counter())
        watch.shapes.append((args[0].shape[0], args[0].shape[1]))

    def after(_module: Any, _args: Any, output: Any) -> None:
        cache = getattr(output, "past_key_values", None)
        watch.kv_bytes = max(watch.kv_bytes, cache_bytes(cache))

    hooks = [
        model.get_input_embeddings().register_forward_pre_hook(before),
        model.register_forward_hook(after),
    ]
    try:
        yield watch
    finally:
        watch.ended = time.perf_counter()
        for hook in hooks:
            hook.remove()


def failure(problem: Exception, folder: Path, most: int) -> str:
    """What a decoder failed on, in so many characters; where a model lies is nobody's business."""
    return f"{type(problem).__name__}: {str(problem).replace(str(folder), 'the model').strip()[:most]}"


def cache_bytes(cache: Any) -> int:
    """Bytes of a transformers cache's keys and values."""
    layers = getattr(cache, "layers", None) or []
    tensors = (t for layer in layers for t in (layer.keys, layer.values) if t is not None)
    return sum(t.numel() * t.element_size() for t in tensors)


@torch.no_grad()
def logit_error(model: torch.nn.Module, texts: Sequence[Sequence[int]], logits: torch.Tensor) -> float:
    """The largest difference from plain forward passes, relative to the largest logit.

    Args:
        texts: token ids of B texts, prompts included.
        logits: what a decoder has for the token after each, [B, V].
    """
    device = next(model.parameters()).device
    ids = [torch.as_tensor(np.asarray(text, np.int64), device=device)[None] for text in texts]
    plain = torch.cat([model(i, use_cache=False, logits_to_keep=1).logits[:, -1] for i in ids]).float()
    return float((logits.to(plain) - plain).abs().max() / plain.abs().max())
