"""The same on a GPU, where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_attention import LIMIT, worst_error
from test_decode import OPTIONS, digits, same
from test_quantized import KINDS, NEAR, PROMPTS, learned, lengths, quantized, spread
from tiny_models import FAMILIES, PlainLogits, family_model, tiny_llama
from transformers import AutoModelForCausalLM

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.lm import babbler as babbler_file
from babblegraph.lm import layout
from babblegraph.lm.decode import Step
from babblegraph.scoring import JudgeValue, likelihood
from babblegraph.status import Status

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_logits_on_cuda_equal_plain_forward_on_every_node_of_a_search(characters):
    model = tiny_llama(characters).cuda()
    babbler = bg.Babbler(model, characters, span=4, max_new_tokens=20)
    result = bg.babble(babbler, ["3 5>8\n", "7"], value=likelihood, budget=300)
    graph, meter = result.graph, Meter(Budget(tokens=1), 2)
    ids = np.flatnonzero(graph.status <= Status.EXPANDED)
    ours = babbler.next_logits(graph, ids, meter).cpu()
    for row, node in zip(ours, ids, strict=True):
        tokens = torch.as_tensor(graph.path_tokens(int(node)).astype(np.int64)).cuda()[None]
        with torch.no_grad():
            plain = model(input_ids=tokens, use_cache=False).logits[0, -1].float().cpu()
        assert float((row - plain).abs().max() / plain.abs().max()) < 1e-4


def test_the_judge_runs_on_cuda(characters):
    babbler = bg.Babbler(tiny_llama(characters).cuda(), characters, span=4, max_new_tokens=12)
    result = bg.babble(babbler, "1 2", value=JudgeValue(babbler, "=", ["y"], ["n"]), budget=80)
    assert result.spent.scored > 0


def test_generate_on_cuda_draws_what_it_draws_on_the_cpu(characters):
    characters.padding_side = "left"
    inputs = characters(["1+2=3\n4", "7*8"], return_tensors="pt", padding=True)
    options = {"max_new_tokens": 6, "budget": 120, "num_return_sequences": 2, "do_sample": True, "top_k": 9}
    options |= {"custom_generate": bg.generate, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    found = tiny_llama(characters).cuda().generate(**inputs.to("cuda"), **options)
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), tiny_llama(characters).generate(**inputs.to("cpu"), **options))


@pytest.fixture
def exact_products():
    """Matrix products in fp32 proper, so that errors are ours."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.filterwarnings("ignore:the model cannot be captured")  # some experts are chosen on the host
@pytest.mark.parametrize("least", [2, 10**9], ids=["shared", "not shared"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_on_cuda_equal_plain_forward_in_every_family(
    family, least, characters, monkeypatch, exact_products
):
    monkeypatch.setitem(layout.LEAST, "cuda", least)
    model = family_model(family, characters).cuda()
    babbler = bg.Babbler(model, characters, span=4, max_new_tokens=40)
    assert worst_error(babbler, seed=3) < LIMIT


@pytest.mark.filterwarnings("ignore:no memory for")  # where there is little
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_search_on_cuda_gives_the_graph_that_the_host_gives(options, characters, monkeypatch):
    model = tiny_llama(characters).cuda()

    captured = []
    capture = Step._capture
    monkeypatch.setattr(Step, "_capture", lambda step: captured.append(capture(step)))

    def search():
        babbler = bg.Babbler(model, characters, **options)
        return bg.babble(babbler, ["1 2", "3"], value=digits, budget=400, seed=2).graph

    ours = search()
    assert captured, "nothing was captured as a CUDA graph"
    same(ours, search())
    monkeypatch.setattr(babbler_file, "may_fly", lambda *given: False)
    same(ours, search())


def test_a_model_that_cannot_be_captured_leaves_torch_as_it_was(characters):
    model = tiny_llama(characters).cuda()

    def search():
        babbler = bg.Babbler(model, characters, span=4)
        return bg.babble(babbler, ["1 2", "3"], value=digits, budget=200, seed=2).graph

    plain, stream = search(), torch.cuda.current_stream()
    looks = model.model.norm.register_forward_hook(lambda module, given, out: out + 0 * float(out.sum()))
    with pytest.warns(RuntimeWarning, match="the model cannot be captured as a CUDA graph"):
        ours = search()
    looks.remove()
    same(plain, ours)
    assert torch.cuda.current_stream() == stream
    assert torch.randn(3, device="cuda").isfinite().all()


def test_steps_are_captured_anew_when_pools_have_moved(characters, monkeypatch):
    """Also in memory of their own kinds: several rows, with a sampler and without, one graph after the other."""
    model, captured, capture = tiny_llama(characters).cuda(), [], Step._capture
    monkeypatch.setattr(Step, "_capture", lambda step: captured.append(capture(step)))
    babbler = bg.Babbler(model, characters, span=20, max_new_tokens=200)
    wide = bg.strategies.best_of_n(n=64)
    found = [
        bg.babble(babbler, "1 2", value=digits, strategy=wide, budget=6000, seed=2).graph for _ in range(3)
    ]
    assert len(captured) > 1
    assert babbler._engines.spare._forward.decoder.setting.graphs, "a capture has failed"
    same(found[0], found[1])
    same(found[0], found[2])
    monkeypatch.setattr(babbler_file, "may_fly", lambda *given: False)
    same(found[0], bg.babble(babbler, "1 2", value=digits, strategy=wide, budget=6000, seed=2).graph)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, characters):
    place = tmp_path_factory.mktemp("model")
    tiny_llama(characters).save_pretrained(place)
    return place


def searched(model, characters, **options):
    babbler = bg.Babbler(model, characters, stop="\n", span=8, max_new_tokens=16, **options)
    graph = bg.babble(babbler, PROMPTS[0], value=lengths, budget=120, seed=1).graph
    return babbler, graph


@pytest.mark.filterwarnings("ignore:MatMul8bitLt", "ignore:the model cannot be captured")
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_on_cuda_gives_what_its_plain_passes_give(folder, kind, characters):
    model = quantized(folder, kind, device_map="cuda")
    babbler, graph = searched(model, characters)
    assert babbler.engine == "cascade"
    oracle, nodes = PlainLogits(model), np.arange(0, graph.size, 5)
    ours = babbler.next_logits(graph, nodes, Meter(Budget(tokens=1), 1))
    for row, told in zip(ours, oracle.of([graph.path_tokens(int(i)) for i in nodes]), strict=True):
        assert torch.allclose(row, told[-1].to(row), atol=max(NEAR.get(kind, 0), 2e-3))


@pytest.mark.filterwarnings("ignore:MatMul8bitLt", "ignore:the model cannot be captured")
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_on_cuda_learns_and_its_level_is_the_same_generator(
    folder, kind, characters, tmp_path
):
    pytest.importorskip("peft")
    model = quantized(folder, kind, device_map="cuda")
    base = bg.Babbler(model, characters, stop="\n", span=8, max_new_tokens=16)
    text = torch.arange(20, device="cuda")[None]
    assert [level.number for level in learned(base, directory=tmp_path / "run")] == [0, 1]
    level = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / "001").eval().cuda()
    with torch.no_grad():
        off = float((level(text).logits - model(text).logits).abs().max())
    assert off < max(NEAR.get(kind, 0), 2e-3)


def test_layers_in_the_memory_of_the_host_search_as_they_do_on_cuda(folder, characters):
    pytest.importorskip("accelerate")
    there = spread(folder, main="cuda:0", in_memory=[1])
    here = AutoModelForCausalLM.from_pretrained(folder).cuda()
    (ours, graph), (alone, plain) = searched(there, characters), searched(here, characters)
    assert ours.engine == "cascade"
    assert ours.fingerprint == alone.fingerprint
    same(graph, plain)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_generator_in_bf16_learns_on_cuda(mode, folder, characters, tmp_path):
    """A level moves it, and what is written is what it has become."""
    if mode == "lora":
        pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).cuda()
    base = bg.Babbler(model, characters, stop="\n", span=8, max_new_tokens=16)
    text = torch.arange(20, device="cuda")[None]
    with torch.no_grad():
        before = model(text).logits.float()
    settings = bg.Settings(levels=1, draws=8, top=3, learning_rate=1e-2, epochs=4, batch=4, mode=mode)
    run = bg.cem(base, PROMPTS, value=lengths, held_out=[], settings=settings, directory=tmp_path / "run")
    assert [level.number for level in run] == [0, 1]
    level = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / "001").eval().cuda()
    with torch.no_grad():
        now, written = (m(text).logits.float() for m in (run.generators.learner, level))
    assert float((now - before).abs().max()) > 0.5
    assert float((written - now).abs().max()) < 0.1 * float((now - before).abs().max())


def test_babblers_of_one_model_share_its_way_on_cuda(characters):
    model = tiny_llama(characters).cuda()
    first, _ = searched(model, characters)
    _, graph = searched(model, characters, way=first.way)
    _, alone = searched(tiny_llama(characters).cuda(), characters)
    same(graph, alone)
