"""How a model is run: the first engine of a ladder that gives what plain forward passes give.

"cascade" attends along one trie of keys and values that all texts share, "dense" gives every text the model's own
cache, "recompute" reads every text anew for every token. Which of them a model can take is found out by trying.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput, first_line
from babblegraph.lm import selfcheck
from babblegraph.lm.attention import attending
from babblegraph.lm.dense import Dense
from babblegraph.lm.offloaded import devices_of
from babblegraph.lm.steps import Alone, Cached, OneByOne, Recomputed, Step
from babblegraph.lm.trie import Trie
from babblegraph.lm.turn import turn_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.hidden import SpanStates

Ints = NDArray[np.integer[Any]]


class Measured(Protocol):
    """What an engine holds, to measure it."""

    @property
    def in_use(self) -> int: ...  # tokens whose keys and values are held
    @property
    def allocated_bytes(self) -> int: ...
    @property
    def token_bytes(self) -> int: ...  # of one token's keys and values, as far as that is known


class Engine(Protocol):
    """Next-token logits of one graph's texts, and what is remembered so that they are cheap.

    An expansion is `begin` and for each of its parts `open`, any number of `advance` and `keep`, and `close`; where
    there were several, `renumber`; whatever interrupts it, `restore`.
    Tokens are counted where they go through the model.
    """

    @property
    def held(self) -> Mapping[int, Any]: ...  # by node
    @property
    def store(self) -> Measured: ...
    @property
    def windows(
        self,
    ) -> set[int | None] | None: ...  # that layers told of; None: the model sees to them itself
    @property
    def forgets(self) -> bool: ...  # whether every text goes through the model from its beginning

    def record(self, layers: Sequence[int]) -> None: ...
    def hidden(
        self, graph: BabbleGraph, ids: Ints, meter: Meter
    ) -> tuple[NDArray[np.bool_], SpanStates | None]: ...
    def begin(self, graph: BabbleGraph) -> None: ...
    def open(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor: ...
    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> torch.Tensor: ...
    def keep(self, node: int, row: int) -> None: ...
    def close(self) -> None: ...
    def renumber(self, first: int, order: Ints) -> None: ...
    def crowded(self, ids: Ints) -> bool: ...  # whether these nodes take more than a third of the room
    def restore(self, size: int) -> None: ...
    def release(self, ids: Ints) -> None: ...
    def next_logits(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor: ...
    def after(self, graph: BabbleGraph, ids: Ints, words: Sequence[int], meter: Meter) -> torch.Tensor: ...
    def around(
        self,
        graph: BabbleGraph,
        ids: Ints,
        before: Sequence[int],
        after: Sequence[int],
        meter: Meter,
        first: int | None = None,
    ) -> torch.Tensor: ...


class Rung(NamedTuple):
    """One way to run a model."""

    name: str
    make: Callable[..., Engine]  # an engine for a new graph: (model, **memory)
    running: Callable[[PreTrainedModel], AbstractContextManager[None]]  # the state of the model meanwhile
    memory: Callable[
        [int | None, int, int], dict[str, int]
    ]  # (limit, cache_bytes, token_bytes) -> how `make` is told
    tried: Callable[[PreTrainedModel], Engine]  # the engine as the check wants it


class Choice(NamedTuple):
    """The rung that a model takes, and what the check found out."""

    rung: Rung
    error: float  # max|difference| / max|logit|
    reach: int | None  # texts may have so many tokens; None for no such bound
    token_bytes: int  # of one token's keys and values in all layers


def choose(model: PreTrainedModel, only: str | None = None) -> Choice:
    """The first engine whose logits along a small tree are those of plain forward passes.

    Args:
        model: any transformers causal language model.
        only: the one engine to try; by default all, in turn.

    Raises:
        BadInput: no engine gives them, they are no numbers, or there is none of this name.

    Source: design/engine.md, "How it hooks into transformers".
    """
    names = list(dict.fromkeys(rung.name for rung in LADDER))
    if only not in (None, *names):
        raise BadInput(f"an engine must be one of {', '.join(names)}, got {only!r}: leave it out")
    reasons: dict[str, str] = {}
    for rung in LADDER:
        if only not in (None, rung.name):
            continue
        try:
            with turn_of(model):
                choice = Choice(rung, *selfcheck.check(model, rung.tried, rung.running))
        except (torch.OutOfMemoryError, selfcheck.NotNumbers):
            raise  # says nothing about the engine
        except Exception as problem:  # models fail in ways of their own
            reasons.setdefault(rung.name, f"{rung.name}: {first_line(problem)}")
            continue
        if rung.name == "cascade" and reasons:
            warnings.warn(
                f"going on without the GPU's kernels ({reasons[rung.name]})", RuntimeWarning, stacklevel=3
            )
        return choice
    raise BadInput(
        "a model must give the same logits along a tree as in plain forward passes, "
        f"{model.config.model_type!r} does not ({'; '.join(reasons.values())}): use another family"
    )


def _cascade(model: PreTrainedModel, **how: Any) -> Engine:
    if not getattr(model, "_can_set_attn_implementation", lambda: True)():
        raise TypeError("its attention does not go through transformers' attention interface")
    if len(devices_of(model)) > 1:  # keys and values lie in one place
        raise TypeError("its layers lie on several devices")
    return Trie(model, **how)


def _without_kernels(model: PreTrainedModel, **how: Any) -> Engine:
    if model.device.type != "cuda":
        raise TypeError("there are no kernels to do without")
    return _cascade(model, decode=False, **how)


def _pools(limit: int | None, cache_bytes: int, token_bytes: int) -> dict[str, int]:
    """What a trie may use: an eighth of a limit goes to logits, the rest to keys and values."""
    if limit is None:
        return {"cache_bytes": cache_bytes}
    logit_bytes = min(limit // 8, 1 << 26)
    slots = (limit - logit_bytes) // token_bytes
    if slots < LEAST_SLOTS:
        raise BadInput(
            f"memory_limit must hold at least {LEAST_SLOTS} tokens of {token_bytes:,} bytes, got {limit:,}: raise it"
        )
    return {"cache_bytes": min(cache_bytes, limit), "logit_bytes": logit_bytes, "most_slots": slots}


def _texts(limit: int | None, cache_bytes: int, token_bytes: int) -> dict[str, int]:
    if limit is None:
        return {"most_bytes": SHARELESS * cache_bytes}
    return {"most_bytes": limit, "strict": True}


@contextmanager
def _as_it_is(model: PreTrainedModel) -> Iterator[None]:
    yield


def _dense(name: str, step: Callable[[PreTrainedModel], Step]) -> Rung:
    make = partial(Dense, step=step)
    return Rung(name, make, _as_it_is, _texts, make)


LEAST_SLOTS = 64  # tokens that any memory limit must hold
SHARELESS = 16  # times the bytes: texts without anything in common take so much more
LADDER = (
    # in the check even the smallest segment is shared; where the kernels fail, the same without them
    Rung("cascade", _cascade, attending, _pools, partial(_cascade, least=2)),
    Rung(
        "cascade",
        partial(_cascade, decode=False),
        attending,
        _pools,
        partial(_cascade, least=2, decode=False),
    ),
    *(_dense("dense", step) for step in (Cached, OneByOne, Alone)),
    _dense("recompute", Recomputed),
)
