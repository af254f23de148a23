"""A norm by one operator computes what the model's own does, or does not stand in for it."""

from __future__ import annotations

import pytest
import torch
from tiny_models import family_model
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import babblegraph as bg
from babblegraph.lm import norms
from babblegraph.lm.norms import fused_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_one_operator_computes_what_eight_do(dtype):
    norm = LlamaRMSNorm(64).to(dtype)
    torch.manual_seed(0)
    nn.init.normal_(norm.weight)
    x = 10 * torch.randn(5, 3, 64, dtype=dtype)
    call = fused_norm(norm)
    assert call is not None
    torch.testing.assert_close(call(x), norm(x), rtol=3 * torch.finfo(dtype).eps, atol=0)


class Halved(LlamaRMSNorm):
    """Another scale under the same name."""

    def forward(self, x):
        return super().forward(x) / 2


Halved.__name__ = "HalvedRMSNorm"


class Gated(LlamaRMSNorm):
    def forward(self, x, gate=None):
        return super().forward(x)


Gated.__name__ = "GatedRMSNorm"


@pytest.mark.parametrize(
    "norm",
    [GemmaRMSNorm(8), Halved(8), Gated(8), nn.LayerNorm(8), nn.Linear(8, 8)],
    ids=lambda n: type(n).__name__,
)
def test_what_is_another_norm_stays_as_it_is(norm):
    assert fused_norm(norm) is None


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_a_search_finds_the_same(family, characters, monkeypatch):
    model = family_model(family, characters)
    found = []
    for places in (("cpu",), ()):
        monkeypatch.setattr(norms, "FASTER_ON", places)
        babbler = bg.Babbler(model, characters, span=4, max_new_tokens=20)
        found.append(bg.babble(babbler, "1 2", value=lambda texts: [0.5] * len(texts), budget=60).graph)
    assert found[0].tokens.tolist() == found[1].tokens.tolist()
    assert not any("forward" in module.__dict__ for module in model.modules())
