"""Rows that do not fit into one pass go through in pieces, and nothing tells the difference but the memory."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from marks import slow_but
from test_attention import LIMIT, worst_error
from tiny_models import FAMILIES, SIZES, family_model, plain_logits, tiny_model

from babblegraph.budget import Budget, Meter
from babblegraph.lm import Babbler, forward
from babblegraph.lm.hidden import computed
from babblegraph.lm.plan import Plan
from babblegraph.lm.trie import Trie

TEXT = "3 5 7 11>24\n1 2 3>6 9 9 9 9>81\n2 4 6 8>10 3 5 7 11>2"  # 52 tokens


def meter_of(graph):
    return Meter(Budget(tokens=10**6), graph.trees)


def after(babbler, text):
    """The logits after a prompt, the meter, and the forward passes of its trie."""
    graph = babbler.start([text])
    meter = meter_of(graph)
    return babbler.next_logits(graph, np.array([0]), meter)[0], meter, babbler.trie(graph)._forward


def plain(babbler, text):
    return plain_logits(babbler.model, babbler.start([text]).path_tokens(0))[-1]


@pytest.mark.parametrize("family", slow_but(["llama", "gemma3_text"], FAMILIES))
def test_a_forest_in_pieces_equals_plain_forward_on_every_node(family, characters, monkeypatch):
    """Passes of seven tokens at most, and of few enough that masks have 60 numbers."""
    monkeypatch.setattr("babblegraph.lm.engine.Trie", partial(Trie, forward_tokens=7))
    monkeypatch.setattr(forward, "MASK", 60)
    model = family_model(family, characters)
    passes, real = [], Plan.__init__
    monkeypatch.setattr(Plan, "__init__", lambda plan, *how: passes.append(how[2].shape) or real(plan, *how))
    babbler = Babbler(model, characters, span=4, stop=" ", max_new_tokens=20)
    passes.clear()
    assert worst_error(babbler, seed=1) < LIMIT
    assert max(rows * length for rows, length in passes) <= 7
    assert len({length for _, length in passes}) > 3


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss"])
def test_hidden_states_and_counts_of_pieces_are_those_of_one_pass(family, characters, monkeypatch):
    babbler = Babbler(family_model(family, characters), characters)
    babbler.record([1, 4])
    states, meters = [], []
    for tokens in (8192, 5):
        monkeypatch.setattr("babblegraph.lm.engine.Trie", partial(Trie, forward_tokens=tokens))
        graph = babbler.start([TEXT])
        meters.append(meter_of(graph))
        states.append(babbler.hidden(graph, np.array([0]), [1, 4], meters[-1]))
    assert all(np.array_equal(meters[0].counts[kind], meters[1].counts[kind]) for kind in meters[0].counts)
    assert meters[1].read().prefilled == len(TEXT)
    truth = computed(babbler.model, graph, np.array([0]), [1, 4], meters[0])
    for one, other, third in zip(*states, truth, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
        assert torch.allclose(third, other, atol=1e-4)


def test_words_around_a_long_text_go_through_in_pieces(characters, monkeypatch):
    monkeypatch.setattr("babblegraph.lm.engine.Trie", partial(Trie, forward_tokens=6))
    babbler = Babbler(family_model("mistral", characters), characters)
    graph = babbler.start([TEXT])
    meter = meter_of(graph)
    ours = babbler.logits_after(graph, np.array([0]), [3, 4], meter, before=[5])[0]
    truth = plain_logits(babbler.model, [5, *graph.path_tokens(0).tolist(), 3, 4])[-1]
    assert float((ours - truth).abs().max() / truth.abs().max()) < LIMIT
    assert meter.read().scored == len(TEXT) + 3


def test_a_single_row_that_the_device_has_no_memory_for_goes_through_in_halves(
    llama, characters, monkeypatch
):
    babbler = Babbler(llama, characters)
    truth, run, sizes = plain(babbler, TEXT), llama.forward, []

    def small(*args, **named):
        sizes.append(named["input_ids"].numel())
        if sizes[-1] > 15:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return run(*args, **named)

    monkeypatch.setattr(llama, "forward", small)
    with pytest.warns(RuntimeWarning, match=f"no memory for {len(TEXT)} tokens in one forward pass") as told:
        logits, meter, passes = after(babbler, TEXT)
    assert len(told) == 1, "said once"
    assert float((logits - truth).abs().max() / truth.abs().max()) < LIMIT
    assert meter.read().prefilled == len(TEXT), "what failed is not counted"
    assert sizes == [52, 26, 13, 13, 13, 13]
    assert passes.tokens == 13, "it learns what fits"


def test_where_a_single_token_has_no_memory_it_is_not_the_pass_that_takes_it(llama, characters, monkeypatch):
    babbler = Babbler(llama, characters)
    graph = babbler.start(["12"])
    passes = babbler.trie(graph)._forward

    def never(*args, **named):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(llama, "forward", never)
    with pytest.warns(RuntimeWarning, match="no memory"), pytest.raises(torch.OutOfMemoryError):
        babbler.next_logits(graph, np.array([0]), meter_of(graph))
    assert passes.tokens == 8192


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_masks_of_long_prompts_are_bounded(family, characters, monkeypatch):
    monkeypatch.setattr(forward, "MASK", 500)
    babbler = Babbler(family_model(family, characters), characters)
    sizes, real = [], Plan._as_bias
    monkeypatch.setattr(Plan, "_as_bias", lambda plan, seen: sizes.append(seen.size) or real(plan, seen))
    graph = babbler.start([TEXT, TEXT[:30], TEXT[3:33]])
    found = babbler.next_logits(graph, np.arange(3), meter_of(graph))
    assert max(sizes, default=0) <= 500
    assert len(sizes) > 3 or family == "llama"
    for ours, i in zip(found, range(3), strict=True):
        truth = plain_logits(babbler.model, graph.path_tokens(i))[-1]
        assert float((ours - truth).abs().max() / truth.abs().max()) < LIMIT


def test_a_window_over_a_long_prompt_takes_a_byte_or_two_for_each_pair_of_tokens(characters):
    length = 1500
    sizes = SIZES | FAMILIES["mistral"] | {"max_position_embeddings": 2048}
    babbler = Babbler(tiny_model("mistral", 0, vocab_size=len(characters), **sizes), characters)
    graph = babbler.start([np.random.default_rng(0).integers(0, 19, length).tolist()])
    tracemalloc.start()
    try:
        babbler.next_logits(graph, np.array([0]), meter_of(graph))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * length**2, "arrays of NumPy; positions as 64-bit numbers took eight"
