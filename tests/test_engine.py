"""Which engine a model gets, and that a wrong one is never taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import GROUPED, SIZES, family_model, plain_logits, tiny_llama, tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration

from babblegraph.errors import BadInput
from babblegraph.lm import Babbler, caches, engine
from babblegraph.lm.attention import NAME
from babblegraph.lm.dense import Dense
from babblegraph.lm.engine import LADDER, choose
from babblegraph.lm.roundings import swing
from babblegraph.lm.selfcheck import HALF_TOLERANCE
from babblegraph.lm.steps import After, Alone, Cached, OneByOne, Recomputed
from babblegraph.lm.trie import Trie

TAKEN = {
    "llama": ("cascade", None),
    "gpt_oss": ("cascade", None),
    "gptj": ("dense", Cached),
    "bloom": ("dense", Cached),
    "qwen3_next": ("dense", Cached),
    "lfm2": ("dense", Cached),
    "mamba": ("dense", OneByOne),
    "minimax": ("dense", OneByOne),
    "rwkv": ("dense", Alone),
    "recurrent_gemma": ("recompute", Recomputed),
}


@pytest.mark.parametrize("family", TAKEN)
def test_a_family_gets_the_first_engine_that_is_right_and_is_left_as_it_was(family, characters):
    model = family_model(family, characters)
    before = model.config._attn_implementation
    babbler = Babbler(model, characters)
    name, step = TAKEN[family]
    assert babbler.engine == name
    assert babbler.start(["7"]).meta["engine"] == name
    made = babbler._engines.choice.rung.make(model)
    assert isinstance(made, Trie) if step is None else type(made.step) is step
    assert model.config._attn_implementation == before != NAME
    assert babbler.error < 1e-4


def test_each_part_of_a_composite_model_is_left_as_it_was():
    text = SIZES | GROUPED | {"vocab_size": 64, "head_dim": 16}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    images = {"mm_tokens_per_image": 4, "image_token_index": 60, "boi_token_index": 61, "eoi_token_index": 62}
    sizes = {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision | sizes, **images)
    model = Gemma3ForConditionalGeneration(config).eval().float()
    for ways in (("sdpa", "eager"), ("eager", "sdpa")):
        model.set_attn_implementation({"": "sdpa", "text_config": ways[0], "vision_config": ways[1]})
        assert Babbler(model, end_ids=()).engine == "cascade"
        parts = (model.config.text_config, model.config.vision_config)
        assert tuple(part._attn_implementation for part in parts) == ways
        assert model.config._attn_implementation == "sdpa"


def test_a_model_that_no_engine_can_take_is_refused_in_one_line_with_every_reason(characters):
    with pytest.raises(BadInput, match="'bert'") as caught:
        Babbler(family_model("bert", characters), characters)
    said = str(caught.value)
    assert "\n" not in said
    assert all(f"{rung.name}: " in said for rung in LADDER)
    assert said.endswith("use another family")


def test_an_engine_may_be_asked_for_by_name(llama, characters):
    assert Babbler(llama, characters, engine="dense").engine == "dense"
    with pytest.raises(BadInput, match="an engine must be one of cascade, dense, recompute, got 'mask'"):
        Babbler(llama, characters, engine="mask")
    with pytest.raises(BadInput, match=r"recurrent|attention") as caught:
        Babbler(family_model("gptj", characters), characters, engine="cascade")
    assert "dense" not in str(caught.value)


def off(plain, factor):
    return lambda self, *rest: plain(self, *rest) * factor


@pytest.mark.parametrize(
    ("factor", "methods"), [(1.01, ("open", "advance", "next_logits", "after")), (float("nan"), ("advance",))]
)
def test_wrong_logits_fall_through_to_the_next_engine(factor, methods, llama, monkeypatch):
    """Each method of an engine that gives logits is wrong in turn; the check calls all that matter."""
    for method in methods:
        with monkeypatch.context() as patch:
            patch.setattr(Trie, method, off(getattr(Trie, method), factor))
            assert choose(llama).rung.name == "dense", method
            patch.setattr(Dense, method, off(getattr(Dense, method), factor))
            with pytest.raises(BadInput, match=r"cascade: .* off by .*; dense: .* off by"):
                choose(llama)


def test_a_row_that_goes_on_with_the_cache_of_another_is_found_out(llama, monkeypatch):
    plain = caches.take
    assert choose(llama, "dense").error < 1e-5
    monkeypatch.setattr(caches, "take", lambda cache, rows, batch: plain(cache, [0] * len(rows), batch))
    with pytest.raises(BadInput, match="off by"):
        choose(llama, "dense")


class LastTwo(Recomputed):
    """Reads only the last two tokens of a text."""

    def __call__(self, cache, tokens, length):
        texts = tokens if cache is None else torch.cat([cache, tokens], 1)
        logits = self.model(input_ids=texts[:, -2:], use_cache=False).logits[:, -1].float()
        return After(logits, texts)


def test_an_engine_that_forgets_the_beginning_is_refused_even_where_it_hardly_matters(monkeypatch):
    """Weights as small as a fresh model's: what is before the last two tokens moves the logits by very little."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = AutoConfig.for_model("llama", vocab_size=300, initializer_range=0.004, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(250)  # the newest token alone decides nearly everything
    assert choose(model).rung.name == "cascade", "the right engines pass"
    blind = engine._dense("blind", LastTwo)
    monkeypatch.setattr(engine, "LADDER", (blind,))
    with pytest.raises(BadInput, match="off by") as caught:
        choose(model)
    error = float(str(caught.value).split("off by ")[1].split(" ")[0])
    assert error < 1e-3, "a plain tolerance would have let it pass"


def test_no_memory_is_not_taken_for_a_wrong_engine(llama, monkeypatch):
    def failing(*args, **named):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(llama, "forward", failing)
    with pytest.warns(RuntimeWarning, match="half as many"), pytest.raises(torch.OutOfMemoryError):
        choose(llama)


def test_the_check_leaves_nothing_behind(llama, monkeypatch):
    made = []
    rung = LADDER[0]._replace(tried=lambda model: made.append(LADDER[0].make(model)) or made[-1])
    monkeypatch.setattr(engine, "LADDER", (rung,))
    choose(llama)
    assert made[0].store.in_use == 0
    assert not made[0].held


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_pass_the_check(dtype, characters):
    model = tiny_llama(characters).to(dtype)
    assert [choose(model, name).rung.name for name in ("cascade", "dense")] == ["cascade", "dense"]


def of_nearly_even_experts(characters) -> torch.nn.Module:
    """Which of two experts is taken is up to rounding, nearly always."""
    sizes = SIZES | GROUPED | {"num_local_experts": 2, "num_experts_per_tok": 1}
    model = tiny_model("mixtral", vocab_size=len(characters), **sizes)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            first, second = layer.mlp.gate.weight
            second.copy_(first + 1e-3 * torch.randn(first.shape, generator=draw))
    return model.to(torch.bfloat16)


def test_rounding_alone_moves_a_router_by_much_and_other_models_by_little(llama, characters):
    text, half = characters("3 5 7>24\n").input_ids, llama.to(torch.bfloat16)
    try:
        steady, unsteady = (
            swing(model, text) / float(plain_logits(model, text)[-1].abs().max())
            for model in (half, of_nearly_even_experts(characters))
        )
    finally:
        llama.float()
    assert steady < HALF_TOLERANCE < unsteady


@pytest.mark.parametrize(("method", "taken"), [("after", "cascade"), ("advance", None)])
def test_in_half_precision_a_few_texts_may_be_off_where_the_model_itself_is_not_steady(
    method, taken, characters, monkeypatch
):
    """`after` gives two texts of the check, `advance` more than a third of them."""
    plain = getattr(Trie, method)
    monkeypatch.setattr(Trie, method, lambda self, *rest: plain(self, *rest) * 1.2)
    with pytest.raises(BadInput, match="off by"):
        choose(tiny_llama(characters).to(torch.bfloat16), "cascade")  # rounding does not explain it
    if taken:
        assert choose(of_nearly_even_experts(characters), "cascade").rung.name == taken
    else:
        with pytest.raises(BadInput, match="off by"):
            choose(of_nearly_even_experts(characters), "cascade")


def test_a_vocabulary_smaller_than_the_checks_words_will_do():
    model = tiny_model(
        "llama",
        vocab_size=5,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    assert choose(model).error < 1e-4
    assert np.isfinite(choose(model, "dense").error)
