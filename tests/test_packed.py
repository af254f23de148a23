"""Copies of weights compute what the weights compute, and leave no trace in the model."""

from __future__ import annotations

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.prune import l1_unstructured
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler, products
from babblegraph.lm.packed import PACK_BYTES, Packed
from babblegraph.lm.products import LEAST_WEIGHTS, Product, available
from babblegraph.lm.weights import stamp
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng

pytestmark = pytest.mark.skipif(not available(), reason="weights are copied on x86 only")


class Doubled(nn.Linear):
    """A linear layer with a mind of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def layers() -> nn.Sequential:
    """A large layer, one of GPT-2's kind, one without a bias, one too small to gain, one of another class."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 4096), Conv1D(64, 4096), nn.Linear(64, 4096, bias=False), nn.Linear(4096, 8), Doubled(8, 32768)
    )  # fmt: skip


CHANGES = {
    "in place": lambda layer: layer.weight.mul_(3),
    "another parameter": lambda layer: setattr(layer, "weight", nn.Parameter(layer.weight * 3)),
    "in place through .data": lambda layer: layer.weight.data.mul_(3),
    "another .data": lambda layer: setattr(layer.weight, "data", layer.weight * 3),
    "pruned": lambda layer: l1_unstructured(layer, "weight", 0.5),
}


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.15}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, **ends)).eval()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 64), (5, 1, 64), (2, 7, 64)])
def test_copies_compute_what_the_layers_do(shape):
    model, x = layers(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    plain = model(x)
    packed = Packed(model)
    with packed.standing_in():
        assert [("forward" in layer.__dict__) for layer in model] == [True, True, True, False, False]
        torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-4)
    assert packed.nbytes == 3 * 4096 * 64 * 4


@torch.no_grad()
def test_the_model_is_left_as_it_was_also_after_an_error_and_only_by_the_outer_block():
    model = layers()
    packed, before = Packed(model), [dict(layer.__dict__) for layer in model]
    with packed.standing_in():
        with Packed(model).standing_in():
            pass
        assert "forward" in model[0].__dict__
    with pytest.raises(KeyboardInterrupt), packed.standing_in():
        raise KeyboardInterrupt
    assert [dict(layer.__dict__) for layer in model] == before


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_a_weight_that_has_changed_is_packed_again(change):
    model, x = layers(), torch.ones(1, 64)
    packed, calls = Packed(model), []
    for _ in range(2):
        with packed.standing_in(stamp(model).weights):
            before = model(x)
            calls.append(model[0].__dict__["forward"])
    assert calls[0] is calls[1], "what has not changed is not packed again"
    CHANGES[change](model[0])
    after = model(x)
    assert not torch.allclose(before, after, rtol=1e-2)
    with packed.standing_in(stamp(model).weights):
        torch.testing.assert_close(model(x), after, rtol=1e-4, atol=1e-4)


def test_gradients_do_not_go_through_copies():
    model, x = layers(), torch.ones(1, 64)
    with Packed(model).standing_in():
        model(x).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_copies_take_no_more_memory_than_they_may():
    model, one = layers(), 4096 * 64 * 4
    for most, count in ((0, 0), (one - 1, 0), (one, 1), (2 * one + 1, 2), (PACK_BYTES, 3)):
        packed = Packed(model, most)
        with packed.standing_in():
            assert sum("forward" in layer.__dict__ for layer in model) == count
        assert packed.nbytes == count * one
    with pytest.raises(BadInput, match="pack_bytes must not be negative, got -1"):
        Packed(model, -1)


def test_nothing_is_copied_that_does_not_gain():
    small, half = nn.Linear(64, LEAST_WEIGHTS // 64 - 1), nn.Linear(64, 4096).to(torch.bfloat16)
    with Packed(nn.Sequential(small, half)).standing_in():
        assert "forward" not in small.__dict__
        assert "forward" not in half.__dict__


@torch.no_grad()
def test_a_pruned_layer_keeps_its_own_product():
    model = layers()
    l1_unstructured(model[0], "weight", 0.5)
    with Packed(model).standing_in():
        assert ["forward" in layer.__dict__ for layer in model] == [False, True, True, False, False]


def test_a_layer_with_a_forward_of_its_own_keeps_it():
    model = layers()
    model[0].forward = own = copy.copy(model[0].forward)
    with Packed(model).standing_in():
        assert model[0].forward is own
    assert model[0].forward is own


@torch.no_grad()
def test_a_search_computes_with_copies_and_its_logits_are_those_of_the_model():
    model = llama()
    babbler = Babbler(model, span=4, engine="cascade")
    graph = babbler.start([[1, 2, 3], [4, 5]])
    logits = babbler.next_logits(graph, [0, 1], Meter(Budget(tokens=10), 2))
    assert babbler._engines.packed.nbytes == 2 * (3 * 1024 + 128 + 64 + 64) * 128 * 4
    plain = [model(torch.tensor([ids])).logits[0, -1] for ids in ([1, 2, 3], [4, 5])]
    torch.testing.assert_close(logits, torch.stack(plain), rtol=1e-4, atol=1e-4)
    assert not any("forward" in layer.__dict__ for layer in model.modules())


@torch.no_grad()
def test_a_base_beside_the_model_has_copies_of_its_own():
    base = llama(1)
    babbler = Babbler(llama(0), span=1, base=base)
    graph = babbler.start([[1, 2, 3]])
    chosen = Chosen(np.array([0]), np.array([3]))
    born = babbler.expand(graph, chosen, Rng(0), Meter(Budget(tokens=10), 1))
    plain = torch.log_softmax(base(torch.tensor([[1, 2, 3]])).logits[0, -1], -1)
    np.testing.assert_allclose(born.log_p_f, plain[torch.as_tensor(born.tokens).long()].numpy(), rtol=1e-4)
    assert babbler._engines.packed.nbytes == babbler._engines.base._packed.nbytes > 0


def test_no_copies_are_made_where_none_are_wanted():
    babbler = Babbler(llama(), span=4, pack_bytes=0)
    babbler.next_logits(babbler.start([[1, 2, 3]]), [0], Meter(Budget(tokens=10), 1))
    assert babbler._engines.packed.nbytes == 0
    assert babbler.again()._given["pack_bytes"] == 0


class Attends(nn.Module):
    """As attention asks for its numbers, in a row or not."""

    def __init__(self, biased: bool = False, large: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        size = 1024 if large else 48
        self.q_proj, self.k_proj = nn.Linear(64, 2 * size), nn.Linear(64, size, bias=biased)
        self.v_proj, self.o_proj = nn.Linear(64, size), nn.Linear(2 * size, 64)
        self.keys_of = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = x if self.keys_of == 1.0 else self.keys_of * x
        keys, values = self.k_proj(other), self.v_proj(x)
        return self.o_proj(self.q_proj(x) * torch.cat([keys, values], -1))


@torch.no_grad()
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("keys_of", [1.0, 2.0])  # the very same numbers, and others
def test_layers_that_multiply_the_same_numbers_are_one_product(biased, large, keys_of, monkeypatch):
    model = Attends(biased, large)
    model.keys_of = keys_of
    x = torch.randn(3, 1, 64, generator=torch.Generator().manual_seed(1))
    plain, packed, made = model(x), Packed(model), []
    product = Product._product
    monkeypatch.setattr(Product, "_product", lambda self, x: made.append(len(x)) or product(self, x))
    with packed.standing_in():
        assert [name for name, layer in model.named_children() if "forward" in layer.__dict__] == [
            "q_proj", "k_proj", "v_proj", *(["o_proj"] if large else [])
        ]  # fmt: skip
        torch.testing.assert_close(model(x), plain, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(x[:2]), plain[:2], rtol=1e-4, atol=1e-4)
    assert len(made) == 2 * ((1 if keys_of == 1.0 else 2) + large)
    with torch.enable_grad(), packed.standing_in():
        model(x).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


@torch.no_grad()
def test_numbers_that_were_multiplied_are_not_kept():
    model, x = Attends(), torch.randn(3, 1, 64)
    packed, seen = Packed(model), weakref.ref(x)
    with packed.standing_in():
        model(x)
        del x
        assert seen() is None


def test_layers_of_one_product_may_take_no_more_memory_either():
    model = Attends(biased=True)
    size = 4 * sum(p.numel() for name, p in model.named_parameters() if not name.startswith("o"))
    for most, expected in ((size - 1, 0), (size, size)):
        packed = Packed(model, most)
        with packed.standing_in():
            assert packed.nbytes == expected


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """bf16 weights here are those that a GPU multiplies together."""
    monkeypatch.setattr(products, "TOGETHER_ON", ("cpu",))


@torch.no_grad()
@pytest.mark.parametrize("biased", [True, False])
def test_on_a_gpu_layers_that_multiply_the_same_numbers_are_one_product_as_they_lie(biased, as_on_a_gpu):
    model = Attends(biased, large=True).to(torch.bfloat16)
    x = torch.randn(3, 1, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    plain, packed = model(x), Packed(model)
    with packed.standing_in():
        assert [name for name, layer in model.named_children() if "forward" in layer.__dict__] == [
            "q_proj", "k_proj", "v_proj"
        ]  # fmt: skip
        torch.testing.assert_close(model(x), plain, rtol=0.02, atol=0.02)
    weights = [layer.weight for layer in (model.q_proj, model.k_proj, model.v_proj)]
    biases = sum(map(len, weights))  # zeros for a layer without
    assert packed.nbytes == 2 * (sum(w.numel() for w in weights) + biases)


def test_products_that_take_longer_to_read_than_to_launch_stay_apart_on_a_gpu(as_on_a_gpu, monkeypatch):
    model = Attends(large=True).to("meta")
    weights = sum(layer.weight.numel() for layer in (model.q_proj, model.k_proj, model.v_proj))
    monkeypatch.setattr(products, "TOGETHER_ON", ("meta",))
    for most, groups in ((weights, 1), (weights - 1, 0)):
        monkeypatch.setattr(products, "MOST_WEIGHTS", most)
        assert len(products.products_of([*model.modules()])) == groups


@pytest.mark.slow  # dynamo takes long to import
@torch.no_grad()
def test_compiled_layers_that_multiply_the_same_numbers_are_one_product(as_on_a_gpu):
    model, graphs = Attends(large=True).to(torch.bfloat16), []

    def as_it_is(graph, inputs):
        graphs.append(graph)
        return graph.forward

    x = torch.randn(3, 1, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    packed, compiled = Packed(model), torch.compile(model, backend=as_it_is, dynamic=True)
    with packed.standing_in():
        told = model(x)
        assert torch.equal(compiled(x), told)
        assert torch.equal(compiled(x[:2]), model(x[:2]))
    products_made = [str(n.target) for g in graphs for n in g.graph.nodes if "linear" in str(n.target)]
    assert len(products_made) == 2 * len(graphs) > 0  # one of three layers, and that of the output
