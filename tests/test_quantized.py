"""Models in fewer bits, by the libraries that people load them with, and models of which a part is elsewhere."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from marks import slow_but
from tiny_models import PlainLogits, character_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.lm.offloaded import devices_of, is_away
from babblegraph.lm.quantized import is_quantized

# torchao is not among what the tests install: where it is, transformers loads it with every model, seconds and noise
KINDS = ("bitsandbytes, 4 bits", "bitsandbytes, 8 bits", "torchao, 8 bits")
NEAR = {
    "bitsandbytes, 8 bits": 0.3
}  # it rounds what goes into a layer too, by what is beside it in the batch
PROMPTS = ["2 3 4>24\n", "3 5 7>38\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama and its tokenizer as people have them: a folder."""
    place = tmp_path_factory.mktemp("model")
    tokenizer = character_tokenizer()
    tiny_llama(tokenizer).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def lengths(texts):
    return [len(text) % 7 / 7 for text in texts]


@pytest.fixture
def loaded(folder):
    return lambda kind: quantized(folder, kind)


def quantized(folder, kind, **how):
    if kind.startswith("torchao"):
        quantization = pytest.importorskip("torchao.quantization")
        config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    else:
        pytest.importorskip("bitsandbytes")
        four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
        config = BitsAndBytesConfig(**four if "4 bits" in kind else {"load_in_8bit": True})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of these libraries
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, quantization_config=config, **how
        )
    return model.eval()


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")  # it says at every call that it works in fp16
@pytest.mark.parametrize("kind", slow_but(KINDS[:1], KINDS))
def test_a_quantized_model_takes_the_cascade_and_gives_what_its_plain_passes_give(loaded, kind, characters):
    model = loaded(kind)
    assert is_quantized(model)
    babbler = bg.Babbler(model, characters, stop="\n", span=8, max_new_tokens=16)
    assert babbler.engine == "cascade"
    graph = bg.babble(babbler, PROMPTS[0], value=lengths, budget=120, seed=1).graph
    oracle, nodes = PlainLogits(model), np.arange(0, graph.size, 5)
    ours = babbler.next_logits(graph, nodes, Meter(Budget(tokens=1), 1))
    for row, told in zip(ours, oracle.of([graph.path_tokens(int(i)) for i in nodes]), strict=True):
        assert torch.allclose(row, told[-1], atol=NEAR.get(kind, 1e-4))


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("kind", slow_but(KINDS[:1], KINDS))
def test_the_fingerprint_tells_quantized_models_apart(loaded, folder, kind, tmp_path, characters):
    """Not by the few bits alone: also two models of one shape, which their weights' kinds do not tell."""
    tiny_llama(characters, seed=1).save_pretrained(tmp_path)
    prints = [bg.Babbler(model, characters).fingerprint for model in (loaded(kind), loaded(kind))]
    other = bg.Babbler(quantized(tmp_path, kind), characters).fingerprint
    plain = bg.Babbler(AutoModelForCausalLM.from_pretrained(folder), characters).fingerprint
    assert prints[0] == prints[1]
    assert len({prints[0], other, plain}) == 3


def learned(base, **given):
    """One level of learning, which moves the logits far."""
    settings = bg.Settings(
        levels=1, draws=8, top=3, learning_rate=1e-2, epochs=4, batch=4, mode="lora", lora_rank=4
    )
    return bg.cem(base, PROMPTS, value=lengths, held_out=[], settings=settings, **given)


@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("kind", slow_but(KINDS[:1], KINDS))
def test_a_level_of_a_quantized_generator_is_written_in_full_and_is_the_same_generator(
    loaded, kind, tmp_path, characters
):
    """Merged into four bits most of what an update moves is rounded away."""
    model = loaded(kind)
    base = bg.Babbler(model, characters, stop="\n", span=8, max_new_tokens=16)
    text = torch.arange(20)[None]
    with torch.no_grad():
        before = model(text).logits
        run = learned(base, directory=tmp_path / "run")
        assert [level.number for level in run] == [0, 1]
        now = model(text).logits
        with run.generators.as_base():
            assert torch.equal(model(text).logits, before), "writing leaves the model as it was"
    for number, told in ((0, before), (1, now)):
        level = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / f"{number:03d}").eval()
        assert not is_quantized(level)
        with torch.no_grad():
            off = float((level(text).logits - told).abs().max())
        assert off < NEAR.get(kind, 1e-4)
    assert float((now - before).abs().max()) > 1


@pytest.mark.slow
def test_a_run_of_a_quantized_generator_goes_on_to_the_same_end(loaded, tmp_path, characters):
    def run(directory, levels, **how):
        settings = bg.Settings(
            levels=levels, draws=8, top=3, learning_rate=1e-2, epochs=1, mode="lora", lora_rank=4
        )
        base = bg.Babbler(loaded(KINDS[0]), characters, stop="\n", span=8, max_new_tokens=16)
        made = bg.cem(
            base, PROMPTS, value=lengths, held_out=[], settings=settings, directory=directory, **how
        )
        list(made)
        return made.generators.weights()

    whole = run(tmp_path / "whole", 2)
    run(tmp_path / "parts", 1)
    parts = run(tmp_path / "parts", 2, resume=True)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_all_weights_of_a_quantized_generator_cannot_learn(loaded, characters):
    base = bg.Babbler(loaded(KINDS[0]), characters, stop="\n")
    with pytest.raises(bg.BadInput, match="all weights can learn only where none is quantized"):
        bg.cem(base, PROMPTS, value=lengths, held_out=[], settings=bg.Settings(levels=1, top=1))


@pytest.mark.slow
def test_weights_that_cannot_be_written_in_full_are_refused_before_a_run_begins(
    loaded, monkeypatch, tmp_path, characters
):
    """As those of formats that peft does not undo."""
    integrations = pytest.importorskip("peft.utils.integrations")
    monkeypatch.setattr(integrations, "dequantize_module_weight", lambda layer: layer.weight)
    base = bg.Babbler(loaded(KINDS[0]), characters, stop="\n", span=8, max_new_tokens=16)
    with pytest.raises(bg.BadInput, match=r"levels are written with weights in full.*Linear4bit cannot"):
        learned(base, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert [level.number for level in learned(base)] == [0, 1], "without a directory nothing is written"


def spread(folder, on_disk=(), main="cpu", in_memory=()):
    """The model with some layers on a disk or in the CPU's memory, all else on its main device."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    names = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    names += [f"model.layers.{i}" for i in range(model.config.num_hidden_layers)]
    places = dict.fromkeys(names, main) | {f"model.layers.{i}": "disk" for i in on_disk}
    places |= {f"model.layers.{i}": "cpu" for i in in_memory}
    return AutoModelForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=folder / "offload"
    ).eval()


def test_a_model_with_layers_on_a_disk_searches_as_it_does_in_memory(folder, characters):
    pytest.importorskip("accelerate")
    here, there = AutoModelForCausalLM.from_pretrained(folder), spread(folder, on_disk=[1])
    assert [is_away(module) for module in there.modules()].count(True) > 0
    found = []
    for model in (here, there):
        babbler = bg.Babbler(model, characters, stop="\n", span=8, max_new_tokens=16)
        assert babbler.engine == "cascade"
        graph = bg.babble(babbler, PROMPTS[0], value=lengths, budget=120, seed=1).graph
        found.append((babbler.fingerprint, graph.tokens.tolist(), graph.parent.tolist()))
    assert found[0] == found[1]


def test_a_model_with_layers_elsewhere_does_not_learn(folder, characters):
    """peft would give those layers adapters without numbers."""
    pytest.importorskip("accelerate")
    base = bg.Babbler(spread(folder, on_disk=[1]), characters, stop="\n", span=8, max_new_tokens=16)
    with pytest.raises(bg.BadInput, match="must be on its device as a whole"):
        learned(base)


def test_layers_on_several_devices_do_not_take_the_cascade(llama, characters):
    """Its keys and values lie in one place; a kernel that is given another device's memory ends the process."""
    llama.model.layers[1].to("meta")
    for module in llama.model.layers[1].modules():
        module._hf_hook = SimpleNamespace(execution_device=torch.device("cuda", 1))
    assert devices_of(llama) == {torch.device("cpu"), torch.device("cuda", 1)}
    with pytest.raises(bg.BadInput, match="its layers lie on several devices"):
        bg.Babbler(llama, characters, engine="cascade")
