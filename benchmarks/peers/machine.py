"""What this machine can do, and the shortest time in which it could take a step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .work import Work


class Machine(NamedTuple):
    """Measured in this process, with the threads that the decoders get."""

    bandwidth: float  # bytes/s read
    peak: float  # floating-point operations/s of a matrix product


class Shape(NamedTuple):
    """What of a model the limit depends on."""

    weight_bytes: int
    kv_bytes: int  # κ: of one token
    parameters: int
    attention: int  # layers · heads · head_dim
    vocabulary: int
    item: int  # bytes of one number

    @classmethod
    def of(cls, model: Any) -> Shape:
        c = model.config.get_text_config()
        head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        item = next(model.parameters()).element_size()
        parameters = sum(p.numel() for p in model.parameters())
        kv_heads = getattr(c, "num_key_value_heads", c.num_attention_heads)
        kv_bytes = 2 * c.num_hidden_layers * kv_heads * head * item
        attention = c.num_hidden_layers * c.num_attention_heads * head
        return cls(parameters * item, kv_bytes, parameters, attention, c.vocab_size, item)


def measure(device: str = "cpu", dtype: torch.dtype = torch.float32, megabytes: int = 256) -> Machine:
    """Bandwidth of reading weights (a matrix-vector product) and the peak of a matrix product, best of several.

    Args:
        megabytes: of the matrix that is read; far above the last cache.
    """
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    item = torch.empty(0, dtype=dtype).element_size()
    rows = megabytes * 2**20 // (4096 * item)
    weights = torch.randn(rows, 4096, dtype=dtype, device=device)
    vector = torch.randn(4096, dtype=dtype, device=device)
    bandwidth = weights.numel() * item / _fastest(lambda: weights @ vector, wait)
    n = 8192 if device == "cuda" else 1024 if megabytes < 256 else 2048
    square = torch.randn(n, n, dtype=dtype, device=device)
    return Machine(bandwidth, 2 * n**3 / _fastest(lambda: square @ square, wait))


def best_step(machine: Machine, shape: Shape, work: Work) -> float:
    """t*: no decoder can take less for a step of this work, averaged over its steps, in seconds.

    Every unique token's keys and values are read once, the weights once, the logits written once; or the
    arithmetic of all rows at the measured peak, whichever takes longer. Source: design/engine.md, "The limit".
    """
    seconds = []
    for level in range(work.levels):
        tail = (work.span + 1) / 2
        unique = len(work.prompt) + work.inner(level) + work.rows * tail
        path = len(work.prompt) + level * work.span + tail
        logits = work.rows * shape.vocabulary * shape.item
        read = shape.weight_bytes + unique * shape.kv_bytes + logits
        compute = 2 * shape.parameters * work.rows + 4 * shape.attention * work.rows * path
        seconds.append(max(read / machine.bandwidth, compute / machine.peak))
    return statistics.mean(seconds)


def _fastest(call: Callable[[], Any], wait: Callable[[], Any], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return min(times[1:])
