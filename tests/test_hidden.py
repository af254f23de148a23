"""Hidden states that the engine hands out against plain forward passes over whole texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, counting_real_tokens, family_model, tiny_llama

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.stem import hold_back

PROMPTS = ["Once upon a time", "This is", "The numbers are 1 2 3 4 5 6"]
LAYERS = (1, 3)


def babbler_of(family="llama", **options):
    tokenizer = byte_tokenizer()
    model = tiny_llama(tokenizer) if family == "llama" else family_model(family, tokenizer)
    return Babbler(model, tokenizer, span=5, max_new_tokens=20, **options)


def meter_of(graph):
    return Meter(Budget(tokens=10**6), graph.trees)


def forest(babbler, rounds=3, graph=None):
    graph = graph or babbler.start(PROMPTS)
    for _ in range(rounds):
        ids = graph.frontier()[:6]
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 4)), Rng(0), meter_of(graph)))
    return graph


def by_hand(babbler, graph, node, layers=LAYERS):
    """One plain forward over the whole text: the last token's states, the mean over the node's span, the prompt's."""
    tokens = torch.as_tensor(graph.path_tokens(node).astype(np.int64))[None]
    with torch.no_grad():
        states = babbler.model(tokens, use_cache=False, output_hidden_states=True).hidden_states
    chosen = torch.stack([states[layer][0] for layer in layers], 1)  # [L, layers, H]
    span = int(graph.stop[node] - graph.start[node])
    prompt = int(graph.length[graph.root[node]])
    return chosen[-1].numpy(), chosen[-max(span, 1) :].mean(0).numpy(), chosen[prompt - 1].numpy()


def assert_right(babbler, graph, ids, found, layers=LAYERS):
    for row, node in enumerate(np.asarray(ids).tolist()):
        last, mean, prompt = by_hand(babbler, graph, node, layers)
        np.testing.assert_allclose(found.last[row].numpy(), last, atol=2e-4)
        np.testing.assert_allclose(found.mean[row].numpy(), mean, atol=2e-4)
        np.testing.assert_allclose(found.prompt[row].numpy(), prompt, atol=2e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "gpt_oss"])
def test_kept_states_are_those_of_plain_forward_passes(family):
    babbler = babbler_of(family)
    assert babbler.engine == "cascade"
    babbler.record(LAYERS)
    graph = forest(babbler)
    ids = np.random.default_rng(0).permutation(graph.size)
    meter = meter_of(graph)
    found = babbler.hidden(graph, ids, LAYERS, meter)
    assert meter.read().scored == 0  # everything was there
    assert_right(babbler, graph, ids, found)
    assert found.last.std() > 0.01


def test_only_last_tokens_are_pushed_and_never_again():
    babbler = babbler_of()
    babbler.record(LAYERS)
    graph = forest(babbler)
    ids, meter = graph.frontier(), meter_of(graph)
    with counting_real_tokens(babbler.model) as pushed:
        babbler.hidden(graph, ids, LAYERS, meter)
        assert sum(pushed) == meter.read().forwarded <= len(ids)
        before = sum(pushed)
        babbler.hidden(graph, ids, LAYERS, meter)
        babbler.next_logits(graph, ids, meter)
        assert sum(pushed) == before


def test_a_recorded_search_counts_what_a_plain_one_counts():
    """Asking for the states of every node that is expanded next costs no token more in all."""
    counts = []
    for recorded in (False, True):
        babbler, meter = babbler_of(), None
        if recorded:
            babbler.record(LAYERS)
        graph = babbler.start(PROMPTS)
        meter = meter_of(graph)
        for _ in range(3):
            ids = graph.frontier()
            if recorded:
                babbler.hidden(graph, ids, LAYERS, meter)
            graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 3)), Rng(0), meter))
        spent = meter.read()
        counts.append((spent.sampled, spent.forwarded + spent.prefilled, spent.scored))
    assert counts[0] == counts[1]


def test_what_was_computed_before_recording_is_computed_anew_and_counted():
    babbler = babbler_of()
    graph = forest(babbler, rounds=2)
    babbler.record(LAYERS)  # too late for the prompt, which every node's states are of too
    old = graph.size
    graph = forest(babbler, rounds=1, graph=graph)
    ids, meter = np.arange(graph.size), meter_of(graph)
    assert_right(babbler, graph, ids, babbler.hidden(graph, ids, LAYERS, meter))
    assert meter.read().scored >= graph.length[:old].sum()


@pytest.mark.parametrize("family", ["mamba", "bloom"])
def test_engines_without_kept_states_compute_them(family):
    babbler = babbler_of(family)
    assert babbler.engine != "cascade"
    babbler.record(LAYERS)
    graph = forest(babbler, rounds=2)
    ids, meter = np.arange(graph.size), meter_of(graph)
    assert_right(babbler, graph, ids, babbler.hidden(graph, ids, LAYERS, meter))
    assert meter.read().scored == graph.length.sum()


def test_states_survive_eviction_release_and_slots_that_are_used_again():
    babbler = babbler_of(cache_bytes=0)
    babbler.record(LAYERS)
    graph = forest(babbler)
    for seed in range(3):
        babbler.release(graph, np.arange(3, graph.size)[:: 2 + seed])
        ids = np.random.default_rng(seed).permutation(graph.size)[:12]
        assert_right(babbler, graph, ids, babbler.hidden(graph, ids, LAYERS, meter_of(graph)))
        forest(babbler, rounds=1, graph=graph)


def test_a_memory_limit_counts_the_states():
    plain, recorded = (babbler_of(memory_limit=2_000_000) for _ in range(2))
    recorded.record(LAYERS)
    slots = [b.trie(b.start(PROMPTS)).store.most_slots for b in (plain, recorded)]
    token = 3 * 2 * 2 * 16 * 4  # layers, keys and values, heads, width, bytes
    assert slots[1] == pytest.approx(slots[0] * token / (token + 2 * 64 * 4), rel=0.01)


def test_a_stem_has_the_state_of_its_parent():
    babbler = babbler_of()
    babbler.record(LAYERS)
    graph = forest(babbler, rounds=1)
    stems = hold_back(graph, graph.frontier()[:3])
    found = babbler.hidden(graph, stems, LAYERS, meter_of(graph))
    assert_right(babbler, graph, stems, found)
    torch.testing.assert_close(found.last, found.mean)


def test_a_layer_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(BadInput, match="0 \\(the embedding\\) to 3, got 4"):
        babbler_of().record([0, 4])
