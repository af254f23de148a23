"""A model's turn: what a search needs of a model while its tokens go through it, and no longer."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from babblegraph.lm.modules import modules_of

_locks: dict[int, tuple[weakref.ref[object], threading.RLock]] = {}  # by the id of what they lock
_making = threading.Lock()


class Turn:
    """A turn that goes on as long as somebody has it."""


class Changes:
    """What is changed in a model meanwhile, and how to undo it."""

    def __init__(self) -> None:
        self.turn: Callable[[], Turn | None] = lambda: None  # the outermost one that goes on
        self.undo: list[Callable[[], None]] = []


_changes: weakref.WeakKeyDictionary[nn.Module, Changes] = weakref.WeakKeyDictionary()


@contextmanager
def turn_of(*models: PreTrainedModel) -> Iterator[None]:
    """Within this block some models are this thread's alone, and compute what they did in the check at load.

    Another thread waits for its turn, since a search changes the model's attention and linear layers. Dropout is
    off, and so are autocast and inference mode: the keys of one round are read in the next, wherever that runs.
    Afterwards everything is as it was. Should Ctrl-C have kept a turn from that, the next one sees to it.
    """
    locks = {id(lock): lock for model in models for lock in _locks_of(model)}
    with ExitStack() as stack:
        for name in sorted(locks):  # in one order, so that no two threads wait for each other
            stack.enter_context(locks[name])
        mine = Turn()
        for model in models:
            _begin(model, mine)
            stack.enter_context(_evaluating(model))
            if model.device.type == "cuda":
                stack.enter_context(torch.cuda.device(model.device))  # where kernels are launched
            if torch.is_autocast_enabled(model.device.type):
                stack.enter_context(torch.autocast(model.device.type, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        try:
            yield
        finally:
            del mine  # a traceback may hold this frame for longer than the turn goes on


@contextmanager
def undoing(model: nn.Module, undo: Callable[[], None]) -> Iterator[None]:
    """Undoes a change of a model at the end of this block; where that is interrupted, when its next turn begins.

    Args:
        model: whose turn it is; where it is nobody's, only the end of the block undoes the change.
        undo: puts it back as it was; twice is as good as once.
    """
    changes = _changes_of(model)
    noted = changes.undo if changes.turn() is not None else []
    noted.append(undo)  # before anything is changed
    try:
        yield
    finally:
        undo()
        noted.remove(undo)


def _begin(model: PreTrainedModel, mine: Turn) -> None:
    """Undoes what an interrupted turn has left; a turn within a turn leaves all as it is."""
    changes = _changes_of(model)
    if changes.turn() is not None:
        return
    changes.turn = weakref.ref(mine)
    for undo in reversed(changes.undo):
        undo()
    changes.undo.clear()


def _changes_of(model: nn.Module) -> Changes:
    return _changes.setdefault(_layer_of(model), Changes())


def _layer_of(model: nn.Module) -> nn.Module:
    """A layer that stands for the model: it and the wrapper of its adapters are one."""
    found = getattr(model, "get_input_embeddings", lambda: model)  # a wrapper hands the question on
    layer: nn.Module = found()
    return layer


def _locks_of(model: PreTrainedModel) -> list[threading.RLock]:
    """Its own, and that of the configuration, which several models may share."""
    with _making:
        return [_lock(_layer_of(model)), _lock(model.config)]


def _lock(thing: object) -> threading.RLock:
    key = id(thing)
    if key not in _locks:
        _locks[key] = weakref.ref(thing, lambda _: _locks.pop(key, None)), threading.RLock()
    return _locks[key][1]


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = [module for module in modules_of(model) if module.training]
    with undoing(model, partial(_train, training)):
        for module in training:
            module.training = False
        yield


def _train(modules: list[nn.Module]) -> None:
    for module in modules:
        module.training = True
