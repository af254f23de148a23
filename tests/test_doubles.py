"""Devices without double precision (Apple's GPUs): nothing asks them for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_llama

import babblegraph as bg
from babblegraph.learning.rows import log_p
from babblegraph.lm import doubles
from babblegraph.scoring.judge import JudgeValue


class Single(torch.Tensor):
    """A tensor as on a device that lacks doubles; what it is moved to the CPU as has them."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        given = [*args, *(kwargs or {}).values()]
        with torch._C.DisableTorchFunctionSubclass():  # what is asked here is no part of it
            kinds = [x.dtype for x in given if isinstance(x, torch.Tensor)]
        if function is torch.Tensor.cpu:
            return super().__torch_function__(function, types, args, kwargs or {}).as_subclass(torch.Tensor)
        asked = [x for x in given if isinstance(x, torch.dtype)]
        if function is torch.Tensor.double or torch.float64 in [*asked, *kinds]:
            raise RuntimeError("this device has no doubles")
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.fixture
def single(monkeypatch, llama):
    """A model whose logits are such tensors."""
    monkeypatch.setattr(doubles, "LACKED_BY", {"cpu"})

    def told(model, given, out):
        out.logits = out.logits.as_subclass(Single)
        return out

    llama.register_forward_hook(told)
    return llama


def test_the_tensor_of_these_tests_refuses_doubles():
    here = torch.ones(2).as_subclass(Single)
    for ask in (lambda: here.double(), lambda: here.to(torch.float64), lambda: here * torch.ones(2).double()):
        with pytest.raises(RuntimeError, match="no doubles"):
            ask()
    assert type(here * 2) is Single
    assert here.cpu().double().dtype is torch.float64


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.7, "top_p": 0.9}, {"engine": "dense"}, {"engine": "recompute"}], ids=str
)
def test_a_search_is_the_same_on_a_device_without_doubles(single, characters, options):
    found = []
    for model in (tiny_llama(characters), single):
        babbler = bg.Babbler(model, characters, stop="\n", span=8, trace=False, **options)
        judge = JudgeValue(babbler, good=["1"], bad=["2"])
        graph = bg.babble(babbler, "2 3 4>24\n", value=judge, budget=150, seed=1).graph
        found.append((graph.tokens.tolist(), graph.log_q.tolist(), graph.value[1:].tolist()))
    assert found[0] == found[1]


def test_a_generator_learns_there_what_it_learns_elsewhere(single, characters):
    found = []
    for model in (tiny_llama(characters), single):
        settings = bg.Settings(
            levels=1, draws=8, top=2, epochs=1, batch=4, learning_rate=1e-2, mode="lora", lora_rank=2
        )
        base = bg.Babbler(model, characters, stop="\n", span=8, trace=False, max_new_tokens=12)
        run = bg.cem(
            base,
            ["2 3 4>24\n"],
            value=lambda texts: [len(t) / 99 for t in texts],
            held_out=["1 2>3\n"],
            settings=settings,
        )
        assert [level.number for level in run] == [0, 1]
        found.append(log_p(run.generators.learner, [np.arange(9)], np.array([2])))
    assert np.allclose(found[0], found[1], atol=1e-5)
