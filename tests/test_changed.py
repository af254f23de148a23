"""What is changed in a model between rounds is seen, and what an interrupt leaves half done is put right."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch
from test_attention import LIMIT, grown, worst_error
from tiny_models import FAMILIES, SIZES, family_model, plain_logits, tiny_model
from torch import nn

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler, base, engines, packed, traced
from babblegraph.lm.cascade import rows_at_once
from babblegraph.lm.logits import LogitCache
from babblegraph.lm.pools import Pools
from babblegraph.lm.turn import turn_of, undoing

# peft itself
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(traced, "WAIT", 0)


@pytest.fixture
def model(characters):
    return family_model("llama", characters)


@pytest.fixture
def babbler(model, characters):
    made = Babbler(model, characters, span=4, max_new_tokens=40)
    grown(made, seed=1)
    assert made.traced
    return made


def error(babbler):
    """Of a new graph, against plain forward passes."""
    return worst_error(babbler, 2)


def left(model):
    """What a search has left in a model."""
    return [module for module in model.modules() if "forward" in module.__dict__]


def interrupted(*given):
    raise KeyboardInterrupt


@pytest.mark.parametrize("beginning", [0, 1, 7])
def test_a_padding_token_keeps_no_model_from_its_program(beginning, characters):
    sizes = SIZES | FAMILIES["llama"] | {"pad_token_id": beginning}
    babbler = Babbler(tiny_model("llama", vocab_size=len(characters), **sizes), characters, span=4)
    grown(babbler, seed=1)
    assert babbler.traced
    assert error(babbler) < LIMIT


def test_new_adapters_of_the_same_shapes_have_a_program_of_their_own(model, babbler):
    from peft import LoraConfig, get_peft_model

    def adapted(inner, alpha):
        given = LoraConfig(
            r=4, lora_alpha=alpha, target_modules=["q_proj", "down_proj"], init_lora_weights=False
        )
        torch.manual_seed(0)
        return get_peft_model(inner, given).eval()

    first = adapted(model, 8)
    assert error(babbler) < LIMIT
    adapted(first.unload(), 32)
    assert error(babbler) < LIMIT
    assert babbler.traced


def test_buffers_that_have_changed_are_seen(model, babbler):
    rotary = model.model.rotary_emb
    rotary.inv_freq = rotary.inv_freq * 0.5
    assert error(babbler) < LIMIT
    with torch.no_grad():
        rotary.inv_freq.mul_(0.5)
    assert error(babbler) < LIMIT


def test_a_module_that_was_exchanged_is_seen(model, babbler):
    model.model.layers[1].mlp.act_fn = nn.Tanh()
    assert error(babbler) < LIMIT


@pytest.mark.parametrize("layer", ["self_attn.k_proj", "mlp.up_proj"])
def test_a_hook_may_write_to_what_one_of_several_layers_is_given(layer, model, babbler):
    def moved(module, given):
        given[0].add_(0.5)

    hook = model.model.layers[1].get_submodule(layer).register_forward_pre_hook(moved)
    assert error(babbler) < LIMIT
    hook.remove()
    assert error(babbler) < LIMIT


def test_hooks_of_all_modules_are_called(babbler):
    def moved(module, given, out):
        return out * 1.5 if isinstance(module, nn.Linear) else None

    hook = nn.modules.module.register_module_forward_hook(moved)
    try:
        assert error(babbler) < LIMIT
    finally:
        hook.remove()


def test_models_of_one_configuration_take_turns(model, characters):
    other = type(model)(model.config)
    entered = threading.Event()

    def enter():
        with turn_of(other):
            entered.set()

    thread = threading.Thread(target=enter)
    with turn_of(model):
        thread.start()
        assert not entered.wait(0.2)
    thread.join(10)
    assert entered.is_set()


def test_there_is_room_for_the_tails_of_every_step_on_the_way():
    """Of shorter tails more rows are collected together."""
    pools, heads = Pools(torch.device("cpu")), torch.zeros(1, 64, 1, 128)
    pools.slots = 4
    for rows, tokens in ((2, 128), (3, 41), (1, 7), (500, 3), (9, 63)):
        pool = pools.pool(0, heads, heads, (rows, tokens))
        token = pool.keys.stride(0)
        for width in range(1, tokens + 1):
            together = min(rows, rows_at_once(pool.keys, pool.values, width, pools.block))
            assert together * width * token <= min(len(pool.key_room), len(pool.value_room))


def test_hidden_states_that_are_several_streams_are_refused(characters):
    sizes = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 24, "laurel_rank": 8}
    heads = {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16, "altup_num_inputs": 2}
    kinds = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 6}
    rest = {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * 4}
    babbler = Babbler(
        tiny_model("gemma3n_text", vocab_size=len(characters), **SIZES, **sizes, **heads, **kinds, **rest),
        characters,
    )
    with pytest.raises(BadInput, match="several streams"):
        babbler.hidden(babbler.start(["7"]), [0], [1], Meter(Budget(tokens=10), 1))
    babbler.record([1])
    with pytest.raises(BadInput, match="several streams"):
        babbler.next_logits(babbler.start(["7"]), [0], Meter(Budget(tokens=10), 1))


# ------------------------------------------------------------------------------------------------ interrupts


def test_what_an_interrupted_turn_has_left_is_undone_by_the_next_outermost_one(model):
    done, fails = [], [KeyboardInterrupt]

    def undo():
        if fails:
            raise fails.pop()
        done.append(True)

    with pytest.raises(KeyboardInterrupt), turn_of(model), undoing(model, undo):
        pass
    assert not done
    with turn_of(model):
        assert done == [True]
        with undoing(model, partial(done.append, False)), turn_of(model):
            assert done == [True], "a turn within a turn leaves all as it is"
    assert done == [True, False]


def test_layers_and_attention_that_ctrl_c_has_left_in_a_model_are_put_right(model, babbler, monkeypatch):
    plain, how = plain_logits(model, [1, 2, 3]), model.config._attn_implementation
    take_away, interrupts = packed._take_away, [interrupted]
    monkeypatch.setattr(
        packed, "_take_away", lambda calls: (interrupts.pop() if interrupts else take_away)(calls)
    )
    with pytest.raises(KeyboardInterrupt):
        grown(babbler, seed=3)
    assert left(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    assert error(babbler) < LIMIT
    assert not left(model)
    assert model.config._attn_implementation == how
    assert not torch.equal(plain, plain_logits(model, [1, 2, 3]))


@pytest.mark.parametrize("step", ["fingerprint", "_packed", "goes_on"])
def test_an_interrupt_while_changed_weights_are_taken_note_of_has_that_done_again(
    step, model, babbler, characters, monkeypatch
):
    graph = babbler.start(["7"])
    model.load_state_dict(family_model("llama", characters, seed=7).state_dict())
    place = {"fingerprint": engines, "_packed": packed.Packed, "goes_on": traced.Traced}[step]
    with monkeypatch.context() as patch:
        patch.setattr(place, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            grown(babbler, seed=3)
    with pytest.raises(BadInput, match="with the model that began it"):
        babbler.next_logits(graph, [0], None)
    assert error(babbler) < LIMIT


def test_logits_that_were_not_written_are_not_known(rng):
    cache = LogitCache(1 << 20, torch.device("cpu"))
    cache.reserve(8)
    logits = torch.as_tensor(rng.normal(size=(3, 5)))
    cache.put(np.array([1, 2, 3]), logits)
    with pytest.raises(RuntimeError):  # as an interrupt would, in the middle of it
        cache.put(np.array([3, 4]), torch.zeros(2, 7, dtype=logits.dtype))
    assert cache.has(np.arange(8)).tolist() == [False, True, True] + [False] * 5
    assert torch.equal(cache.get(np.array([1, 2])), logits[:2])


def test_adapters_that_ctrl_c_has_left_off_are_on_again(model, characters, monkeypatch):
    from peft import LoraConfig, get_peft_model

    given = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(model, given).eval()
    babbler = Babbler(adapted, characters, span=4, max_new_tokens=40, base=adapted)
    before = plain_logits(adapted, [1, 2, 3])
    switch_on, interrupts = base._switch_on, [interrupted]
    monkeypatch.setattr(
        base, "_switch_on", lambda *how: (interrupts.pop() if interrupts else switch_on)(*how)
    )
    with pytest.raises(KeyboardInterrupt):
        grown(babbler, seed=3)
    assert not torch.equal(plain_logits(adapted, [1, 2, 3]), before), "the adapters are off"
    grown(babbler, seed=3)
    assert torch.equal(plain_logits(adapted, [1, 2, 3]), before)
