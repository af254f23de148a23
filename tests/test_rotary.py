"""Queries and keys are turned by one kernel where that gives what a model's own function gives, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, family_model
from transformers.models.llama import modeling_llama

import babblegraph as bg
from babblegraph.lm import rotary


@pytest.fixture
def turned(monkeypatch):
    """In the kernel's place operators that count their calls."""
    calls = []

    def turn(query, key, cos, sin):
        calls.append(query.shape)
        return modeling_llama.apply_rotary_pos_emb(query, key, cos, sin)

    monkeypatch.setattr(rotary, "kernel", lambda device: turn)
    return calls


def of(model):
    return [module for module in model.modules() if rotary.fused_rotary(module) is not None]


TURNS = ["llama", "qwen3", "gemma3_text", "phi3", "mistral", "olmo3"]


@pytest.mark.parametrize("family", TURNS)
def test_layers_that_turn_by_halves_are_stood_in_for(family, characters, turned):
    model = family_model(family, characters)
    layers = of(model)
    assert len(layers) == model.config.get_text_config().num_hidden_layers
    turned.clear()
    ids = torch.arange(5)[None]
    with torch.no_grad():
        plain = model(ids).logits
        assert not turned
        for layer in layers:
            layer.__dict__["forward"] = rotary.fused_rotary(layer)
        found = model(ids).logits
    assert len(turned) == len(layers)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    with torch.enable_grad():
        model(ids).logits.sum().backward()
    assert len(turned) == len(layers), "what learns computes as it is written"


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {*TURNS}))
def test_no_layer_of_another_family_computes_anything_else(family, characters, turned):
    """Those that turn pairs of neighbours, or not at all, among them."""
    model = family_model(family, characters)
    layers, ids = of(model), torch.arange(5)[None]
    with torch.no_grad():
        plain = model(ids, use_cache=False).logits
        for layer in layers:
            layer.__dict__["forward"] = rotary.fused_rotary(layer)
        torch.testing.assert_close(model(ids, use_cache=False).logits, plain, rtol=1e-5, atol=1e-5)


def test_a_search_finds_the_same_and_leaves_the_model_as_it_was(characters, turned, monkeypatch):
    found, model = [], family_model("llama", characters)
    for kernel in (rotary.kernel, lambda device: None):
        monkeypatch.setattr(rotary, "kernel", kernel)
        before = len(turned)
        babbler = bg.Babbler(model, characters, span=4, max_new_tokens=20, trace=False)
        found.append(bg.babble(babbler, "1 2", value=lambda texts: [0.5] * len(texts), budget=60).graph)
        assert (len(turned) > before) == (len(found) == 1)
    assert found[0].tokens.tolist() == found[1].tokens.tolist()
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert (
        modeling_llama.LlamaAttention.forward.__globals__["apply_rotary_pos_emb"]
        is modeling_llama.apply_rotary_pos_emb
    )


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 4, 3, 16), (2, 2, 3, 16), (2, 3, 8), (2, 3, 8)],
        [(2, 4, 3, 16), (2, 2, 5, 16), (2, 3, 16), (2, 3, 16)],
        [(2, 4, 3, 16), (2, 2, 3, 16), (2, 1, 3, 16), (2, 1, 3, 16)],
        [(4, 3, 16), (2, 3, 16), (1, 3, 16), (1, 3, 16)],
        [(3, 4, 3, 16), (3, 2, 3, 16), (2, 3, 16), (2, 3, 16)],
        [(2, 4, 3, 15), (2, 2, 3, 15), (2, 3, 15), (2, 3, 15)],
    ],
)
def test_what_the_kernel_does_not_read_is_left_to_the_model(shapes):
    given = [torch.zeros(shape) for shape in shapes]
    assert not rotary._reads(*given)
    good = [torch.zeros(shape) for shape in ((2, 4, 3, 16), (2, 2, 3, 16), (2, 3, 16), (2, 3, 16))]
    assert rotary._reads(*good)
    assert not rotary._reads(good[0].to(torch.bfloat16), *good[1:])
    assert not rotary._reads(good[0].transpose(2, 3).contiguous().transpose(2, 3), *good[1:])
