"""Prompts that begin alike share what they begin with, and nothing tells the difference but the cost."""

from __future__ import annotations

import numpy as np
import pytest
from marks import slow_but
from test_attention import LIMIT
from test_decode import both, same
from test_forward import meter_of
from test_trie import trie_tokens
from tiny_models import FAMILIES, counting_real_tokens, family_model, plain_logits

from babblegraph.lm import Babbler, layout, paths
from babblegraph.protocols import Chosen, Draws
from babblegraph.randomness import Rng

SHOTS = "1 2 3>6\n1 2 3=6 y\n2 4 6 8>10\n8+6=14 14-4=10 y\n"  # 47 tokens
QUESTIONS = ["3 5 7 11>24\n", "9 9>81\n", "3 5 7 12>24\n", "4 5>20\n", "5>5\n"]
PROMPTS = [SHOTS + question for question in QUESTIONS]


@pytest.fixture(params=[2, 10**9], ids=["segments", "tails"])
def sharing(request, monkeypatch):
    monkeypatch.setitem(layout.LEAST, "cpu", request.param)


def beginnings(texts):
    return {tuple(text[:n]) for text in texts for n in range(1, len(text) + 1)}


def prompt_tokens(graph):
    return [graph.path_tokens(i).tolist() for i in range(graph.trees)]


def worst(babbler, graph, ids):
    logits = babbler.next_logits(graph, ids, meter_of(graph))
    plain = [plain_logits(babbler.model, graph.path_tokens(int(i)))[-1] for i in ids]
    return max(
        float((one - two).abs().max() / two.abs().max()) for one, two in zip(logits, plain, strict=True)
    )


@pytest.mark.parametrize("family", slow_but(["llama", "gemma3_text"], FAMILIES))
def test_a_forest_of_prompts_that_begin_alike_equals_plain_forward(family, sharing, characters):
    babbler = Babbler(family_model(family, characters), characters, span=4, max_new_tokens=12)
    graph = babbler.start(PROMPTS)
    assert worst(babbler, graph, np.arange(graph.trees)) < LIMIT
    draws = Chosen(np.arange(graph.trees), np.full(graph.trees, 3))
    born = graph.add(babbler.expand(graph, draws, Rng(0), meter_of(graph)))
    assert worst(babbler, graph, born) < LIMIT


def test_what_prompts_begin_with_is_computed_and_kept_once(llama, characters):
    babbler = Babbler(llama, characters)
    graph = babbler.start(PROMPTS)
    meter = meter_of(graph)
    with counting_real_tokens(llama) as computed:
        babbler.next_logits(graph, np.arange(graph.trees), meter)
    once = len(beginnings(prompt_tokens(graph)))
    assert sum(computed) == meter.read().prefilled == babbler.trie(graph).store.in_use == once
    assert once < sum(map(len, prompt_tokens(graph))) / 2
    assert meter.counts["prefilled"].tolist()[0] == len(prompt_tokens(graph)[0]), "the first pays for it"


def test_prompts_that_come_later_share_too(llama, characters):
    babbler = Babbler(llama, characters, span=6, max_new_tokens=6)
    graph = babbler.start(PROMPTS)
    babbler.next_logits(graph, [0], meter_of(graph))
    meter = meter_of(graph)
    babbler.next_logits(graph, [1], meter)
    one, two = prompt_tokens(graph)[:2]
    assert meter.read().prefilled == len(beginnings([one, two])) - len(one)


def test_a_prompt_given_twice_is_prefilled_once_and_drawn_differently(llama, characters):
    babbler = Babbler(llama, characters, span=8, max_new_tokens=8)
    graph = babbler.start(["7+1=", "7+1="])
    meter = meter_of(graph)
    draws = Chosen(np.array([0, 1]), np.array([8, 8]))
    born = graph.add(babbler.expand(graph, draws, Rng(0), meter))
    texts = [{tuple(graph.span(int(i)).tolist()) for i in born if graph.root[i] == r} for r in (0, 1)]
    assert texts[0] != texts[1]
    assert meter.read().prefilled == 4
    inner = {text[:n] for tree in texts for text in tree for n in range(1, len(text))}
    assert meter.read().forwarded == len(inner), "what both draw is computed once, too"


def test_draws_do_not_depend_on_what_other_prompts_begin_with(llama, characters, monkeypatch):
    graphs = []
    for alike in (paths.ALIKE, 10**6):
        monkeypatch.setattr(paths, "ALIKE", alike)
        babbler = Babbler(llama, characters, span=6, max_new_tokens=6)
        graph = babbler.start(PROMPTS)
        draws = Chosen(np.arange(graph.trees), np.full(graph.trees, 8))
        graph.add(babbler.expand(graph, draws, Rng(0), meter_of(graph)))
        graphs.append(graph)
    assert np.array_equal(graphs[0].tokens, graphs[1].tokens)
    np.testing.assert_allclose(graphs[0].log_p_g, graphs[1].log_p_g, atol=1e-4)


def test_prompts_that_begin_alike_for_a_few_tokens_are_prefilled_side_by_side(llama, characters):
    """So that they stay one causal pass, which is faster than what sharing little would save."""
    babbler = Babbler(llama, characters)
    graph = babbler.start(["1 2 3>6\n", "1 2 4>7\n"])
    meter = meter_of(graph)
    babbler.next_logits(graph, [0, 1], meter)
    assert meter.read().prefilled == trie_tokens(graph)


def test_a_tree_that_is_given_up_takes_nothing_from_those_it_shares_with(llama, characters):
    babbler = Babbler(llama, characters)
    graph = babbler.start(PROMPTS)
    babbler.next_logits(graph, np.arange(graph.trees), meter_of(graph))
    store = babbler.trie(graph).store
    babbler.release(graph, [0])
    assert store.in_use == len(beginnings(prompt_tokens(graph)[1:]))
    assert worst(babbler, graph, np.arange(1, graph.trees)) < LIMIT
    babbler.release(graph, np.arange(graph.trees))
    assert store.in_use == 0


def test_rows_of_a_pass_are_padded_by_a_quarter_at_most(llama, characters, monkeypatch):
    """The first prompt of those that begin alike is much longer than what the others have of their own."""
    babbler = Babbler(llama, characters)
    graph = babbler.start(PROMPTS)
    tokens, real = [], llama.forward
    monkeypatch.setattr(
        llama, "forward", lambda *a, **how: tokens.append(how["input_ids"].numel()) or real(*a, **how)
    )
    babbler.next_logits(graph, np.arange(graph.trees), meter_of(graph))
    assert sum(tokens) <= 1.25 * len(beginnings(prompt_tokens(graph)))


def test_engines_that_share_nothing_give_the_same(llama, characters):
    engines = [
        Babbler(llama, characters, span=6, max_new_tokens=6, engine=name) for name in ("cascade", "dense")
    ]
    drawn = []
    for babbler in engines:
        graph = babbler.start(PROMPTS)
        draws = Chosen(np.arange(graph.trees), np.full(graph.trees, 4))
        graph.add(babbler.expand(graph, draws, Rng(0), meter_of(graph)))
        drawn.append(graph.tokens)
    assert np.array_equal(*drawn)


def test_flights_below_prompts_that_begin_alike_give_the_graph_that_the_host_gives(
    sharing, llama, characters, monkeypatch
):
    """As on a GPU: every draw has slots of its own, also below a prompt that is given twice."""

    def draw(babbler):
        graph, rng = babbler.start([*PROMPTS, PROMPTS[0]]), Rng(3)
        for _ in range(3):
            ids = graph.frontier()[:8]
            born = babbler.expand(graph, Chosen(ids, np.full(len(ids), 3)), rng, meter_of(graph), Draws.FRESH)
            graph.add(born)
            babbler.release(graph, ids[:2])
        return graph

    plain, ours, flights = both(
        monkeypatch, lambda: Babbler(llama, characters, span=4, max_new_tokens=12), draw
    )
    assert flights == 2  # what comes first makes the pools
    same(plain, ours)
