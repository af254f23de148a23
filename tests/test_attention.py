"""Keys and values stored once against the oracle: every path of a random forest through a plain forward pass.

Weights are drawn with std 0.15, so that an error in attention shows in the logits; the control below leaves the
prompt's keys out and is far off.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from marks import slow_but
from tiny_models import FAMILIES, SIZES, PlainLogits, family_model, plain_logits, tiny_model

from babblegraph.budget import Budget, Meter
from babblegraph.lm import Babbler, cascade, layout, pools
from babblegraph.lm.attention import NAME
from babblegraph.lm.plan import Plan
from babblegraph.lm.store import Store
from babblegraph.protocols import ALL, Chosen, Draws
from babblegraph.randomness import Rng
from babblegraph.status import Status

LIMIT = 1e-4  # max|difference| / max|reference|, fp32
PROMPTS = ["3 5>8\n", "1 2 3 4 5 6 7 8 9>45\n", "7"]


def grown(babbler, seed, rounds=7, prompts=PROMPTS, watch=None):
    """A random forest: forks, spans that end early, releases, revived nodes, re-expansion with and without fresh draws.

    `watch` is called after each round with the graph and the ids of all nodes to look at.
    """
    draw = np.random.default_rng(seed)
    graph, rng = babbler.start(prompts, seed), Rng(seed)
    meter = Meter(Budget(tokens=10**6), graph.trees)
    for _ in range(rounds):
        fits = np.flatnonzero(~graph.is_leaf())
        ids = np.sort(draw.choice(fits, min(len(fits), int(draw.integers(1, 5))), replace=False))
        draws = draw.choice([1, 3, 8], len(ids))
        born = graph.add(
            babbler.expand(
                graph,
                Chosen(ids, draws),
                rng,
                meter,
                Draws.FRESH if draw.random() < 0.6 else Draws.MULTINOMIAL,
            )
        )
        if watch:
            watch(graph, np.arange(graph.size) if draw.random() < 0.3 else born, meter)
        babbler.release(graph, draw.choice(graph.size, graph.size // 3, replace=False))
    return graph, meter


def worst_error(babbler, seed):
    """The largest error over all nodes: logits after each node, and the stored log-probabilities of its span."""
    errors, oracle = [], PlainLogits(babbler.model)

    def watch(graph, ids, meter):
        ours = babbler.next_logits(graph, ids, meter)
        truth = oracle.of([graph.path_tokens(i) for i in ids.tolist()])
        for logits, plain, i in zip(ours, truth, ids.tolist(), strict=True):
            path = graph.path_tokens(i)
            errors.append(float((logits - plain[-1]).abs().max() / plain.abs().max()))
            if (p := int(graph.parent[i])) >= 0:
                at = np.arange(graph.length[p], graph.length[i])
                told = torch.log_softmax(plain.double(), -1)[at - 1, path[at]].sum()
                errors.append(
                    abs(float(told) - (graph.log_p_f[i] - graph.log_p_f[p])) / float(plain.abs().max())
                )

    graph, _ = grown(babbler, seed, watch=watch)
    assert len(np.unique(graph.length)) > 6, "the forest must have nodes at many depths"
    return max(errors)


@pytest.fixture(params=[2, 12, 10**9], ids=["all shared", "some shared", "nothing shared"])
def sharing(request, monkeypatch):
    """From how many rows × tokens on a segment is read once for all its rows; the default never, in texts so short."""
    monkeypatch.setitem(layout.LEAST, "cpu", request.param)


@pytest.mark.parametrize("family", slow_but(["llama", "gemma3_text"], FAMILIES))
def test_a_forest_equals_plain_forward_on_every_node(family, sharing, characters):
    babbler = Babbler(family_model(family, characters), characters, span=4, stop=" ", max_new_tokens=20)
    assert worst_error(babbler, seed=1) < LIMIT


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
def test_rows_that_are_read_in_blocks_equal_plain_forward(family, characters, monkeypatch):
    """Blocks of a row or a few, with windows, caps and heads that share keys among them."""
    monkeypatch.setattr(pools, "BLOCK", 3000)
    blocks, room = [], pools.Pools._room

    def noted(made, keys, values, rows, tokens):
        blocks.append(cascade.rows_at_once(keys, values, tokens, made.block))
        return room(made, keys, values, rows, tokens)

    monkeypatch.setattr(pools.Pools, "_room", noted)
    babbler = Babbler(family_model(family, characters), characters, span=4, stop=" ", max_new_tokens=20)
    assert worst_error(babbler, seed=1) < LIMIT
    assert min(blocks) < 3
    assert len(set(blocks)) > 3


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_other_forests_equal_plain_forward_too(seed, llama, characters):
    babbler = Babbler(llama, characters, span=seed, stop=("\n", ">"), temperature=1.5, max_new_tokens=30)
    assert worst_error(babbler, seed) < LIMIT


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_leaving_the_prompt_out_is_far_off(family, characters, monkeypatch):
    plain_seen = Plan.seen

    def without_prompt(self, places, window):
        # of queries after the shortest stretch that keeps a key of their own
        later = self._positions >= 3
        return plain_seen(self, places, window) & ~(later[:, :, None] & (places < 3)[:, None])

    babbler = Babbler(family_model(family, characters), characters, span=4, max_new_tokens=20)
    monkeypatch.setattr(Plan, "seen", without_prompt)
    assert worst_error(babbler, seed=1) > 1e-2


def test_leaving_a_shared_segment_out_is_far_off(llama, characters, monkeypatch):
    monkeypatch.setitem(layout.LEAST, "cpu", 12)
    babbler = Babbler(llama, characters, span=4, max_new_tokens=20)
    monkeypatch.setattr(Plan, "levels", lambda self, window, groups: [])
    assert worst_error(babbler, seed=1) > 1e-2


@pytest.mark.parametrize("method", ["seen", "levels"])
def test_the_window_matters_in_these_forests(method, characters, monkeypatch):
    monkeypatch.setitem(layout.LEAST, "cpu", 12 if method == "levels" else 10**9)
    babbler = Babbler(family_model("mistral", characters), characters, span=4, max_new_tokens=20)
    plain = getattr(Plan, method)
    blind = {
        "seen": lambda self, places, window: plain(self, places, None),
        "levels": lambda self, window, groups: plain(self, None, groups),
    }
    monkeypatch.setattr(Plan, method, blind[method])
    assert worst_error(babbler, seed=1) > 1e-2


def test_the_cap_on_scores_matters(characters, monkeypatch):
    babbler = Babbler(family_model("gemma2", characters), characters, span=4, max_new_tokens=20)
    for layer in babbler.model.model.layers:  # the plain pass keeps its own cap below
        monkeypatch.setattr(layer.self_attn, "attn_logit_softcapping", None)
    uncapped = plain_logits(babbler.model, range(12))
    monkeypatch.undo()
    assert float((uncapped - plain_logits(babbler.model, range(12))).abs().max()) > 1e-2


BASE = {"vocab_size": 24, "hidden_size": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("llama4_text", {"attention_chunk_size": 24, "intermediate_size_mlp": 64, "num_local_experts": 2}),
        ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 4}),
    ],
)
def test_a_window_that_the_layers_do_not_tell_of_bounds_the_text(family, sizes, characters):
    heads = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    experts = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4}
    model = tiny_model(family, **(BASE | heads | experts | {"intermediate_size": 64} | sizes))
    babbler = Babbler(model, characters, span=4, stop=" ")
    assert babbler.context == 24, "longer texts would silently see more than the plain model"
    assert worst_error(babbler, seed=1) < LIMIT


def test_longrope_bounds_the_text_where_keys_are_kept(characters):
    """A text beyond the original length has other keys from its beginning on, and so has all that runs with it."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 24}
    rope = {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **factors}}
    sizes = SIZES | FAMILIES["phi3"] | rope | {"original_max_position_embeddings": 24}
    model = tiny_model("phi3", vocab_size=len(characters), **sizes)
    for engine in ("cascade", "dense"):
        babbler = Babbler(model, characters, span=4, stop=" ", max_new_tokens=20, engine=engine)
        assert babbler.context == 24
        assert worst_error(babbler, seed=1) < LIMIT
    assert Babbler(model, characters, engine="recompute").context == 96, "it reads every text anew"


def test_padding_never_reaches_the_logits(llama, characters):
    babbler = Babbler(llama, characters)
    short, long = babbler.start(["7"]), babbler.start(["1 2 3 4 5 6 7 8 9>45\n", "7", "123456789"])
    alone = babbler.next_logits(short, np.array([0]), Meter(Budget(tokens=1), 1))
    together = babbler.next_logits(long, np.array([0, 1, 2]), Meter(Budget(tokens=1), 3))
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=0)
    babbler.trie(short).store.values[0][0] = 1e6  # slot 0 takes the padding and is masked
    born = short.add(
        babbler.expand(short, Chosen(np.array([0]), np.array([ALL])), Rng(0), Meter(Budget(9), 1))
    )
    assert (short.status[born] == Status.FRONTIER).sum() > 1
    after = babbler.next_logits(short, born[:1], Meter(Budget(tokens=1), 1))[0]
    plain = plain_logits(llama, short.path_tokens(int(born[0])))[-1]
    torch.testing.assert_close(after, plain, atol=1e-3, rtol=0)


def test_the_attention_function_is_only_for_searches(llama):
    llama.set_attn_implementation(NAME)
    with pytest.raises(RuntimeError, match="inside a babblegraph search"):
        plain_logits(llama, [1, 2, 3])


def test_tails_are_collected_in_memory_that_is_used_again_as_they_grow():
    store = Store(torch.device("cpu"))
    slots = torch.as_tensor(store.take(60).reshape(6, 10))
    keys = torch.randn(1, 2, 60, 4)
    pool = store.pool(0, keys, keys + 1, (1, 1))
    for numbers, new in ((pool.keys, keys), (pool.values, keys + 1)):
        numbers[slots.reshape(-1)] = new[0].transpose(0, 1)
    places = set()
    for tokens in (8, 9, 10):
        pool, some = store.pool(0, keys, keys, (6, tokens)), slots[:, :tokens]
        key = cascade._collected(pool.keys, pool.key_room, some)
        value = cascade._collected(pool.values, pool.value_room, some)
        expected = keys[0].view(2, 6, 10, 4).transpose(0, 1)[:, :, :tokens]
        assert torch.equal(key, expected)
        assert torch.equal(value, expected + 1)
        places.add((key.data_ptr(), value.data_ptr()))
    assert len(places) == 1
