"""A model's turn: what a search needs of a model while its tokens go through it, and no longer."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from babblegraph.lm.modules import modules_of

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


@contextmanager
def turn_of(*models: PreTrainedModel) -> Iterator[None]:
    """Within this block some models are this thread's alone, and compute what they did in the check at load.

    Another thread waits for its turn, since a search changes the model's attention and linear layers. Dropout is
    off, and so are autocast and inference mode: the keys of one round are read in the next, wherever that runs.
    Afterwards everything is as it was.
    """
    locks = sorted(map(_lock, models), key=id)  # in one order, so that no two threads wait for each other
    with ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        for model in models:
            stack.enter_context(_evaluating(model))
            if model.device.type == "cuda":
                stack.enter_context(torch.cuda.device(model.device))  # where kernels are launched
            if torch.is_autocast_enabled(model.device.type):
                stack.enter_context(torch.autocast(model.device.type, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        yield


def _lock(model: PreTrainedModel) -> threading.RLock:
    """By a layer, since a model and the wrapper of its adapters are one."""
    with _making:
        return _locks.setdefault(model.get_input_embeddings(), threading.RLock())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in modules_of(model) if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
