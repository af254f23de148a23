"""Searches on every engine: the same draws wherever the model allows it, and recurrent models at all."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import character_tokenizer, family_model, tiny_llama

import babblegraph as bg
from babblegraph.strategies import best_of_n, frontier

TOKENIZER = character_tokenizer()
PROMPTS = ["1+2=", "34+5=", "1+2="]


def found(babbler: bg.Babbler, strategy, seed: int = 3) -> bg.BabbleGraph:
    return bg.babble(babbler, PROMPTS, strategy=strategy, value=vowels, budget=300, seed=seed).graph


def vowels(texts):
    return [0.1 + 0.8 * ("4" in text) for text in texts]


@pytest.mark.parametrize("engine", ["dense", "recompute"])
@pytest.mark.parametrize(
    "strategy", [frontier(width=3, keep=4), best_of_n(n=6)], ids=["frontier", "best-of-n"]
)
def test_the_same_seed_gives_the_same_graph_on_every_engine(engine, strategy):
    graphs = [
        found(bg.Babbler(tiny_llama(TOKENIZER), TOKENIZER, span=2, max_new_tokens=6, engine=name), strategy)
        for name in ("cascade", engine)
    ]
    assert graphs[1].meta["engine"] == engine
    ours, theirs = graphs
    assert ours.size == theirs.size
    for name in ("parent", "count", "status", "stop"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert np.array_equal(ours.tokens, theirs.tokens)
    assert np.allclose(ours.log_p_f, theirs.log_p_f, atol=1e-4)
    assert np.array_equal(*(graph.meta["spent"]["counts"]["sampled"] for graph in graphs))


@pytest.mark.parametrize("family", ["mamba", "jamba", "bloom", "qwen3_next"])
def test_models_that_cannot_share_search_all_the_same(family):
    babbler = bg.Babbler(family_model(family, TOKENIZER), TOKENIZER, span=2, max_new_tokens=6)
    assert babbler.engine != "cascade"
    graph = found(babbler, frontier(width=3, keep=4))
    assert graph.is_leaf().any()
    assert np.isfinite(graph.log_p_f).all()
    again = found(babbler, frontier(width=3, keep=4))
    assert np.array_equal(graph.tokens, again.tokens), "the same seed, the same graph"
    assert not np.array_equal(graph.tokens, found(babbler, frontier(width=3, keep=4), seed=4).tokens)


def test_a_limit_of_memory_is_kept_without_a_change_of_what_is_drawn():
    model = tiny_llama(TOKENIZER)
    free = bg.Babbler(model, TOKENIZER, span=2, max_new_tokens=6, engine="dense")
    tight = bg.Babbler(model, TOKENIZER, span=2, max_new_tokens=6, engine="dense", memory_limit=1 << 16)
    ours, theirs = (found(babbler, frontier(width=3, keep=4)) for babbler in (free, tight))
    assert np.array_equal(ours.tokens, theirs.tokens)
    prefilled = [np.sum(graph.meta["spent"]["counts"]["prefilled"]) for graph in (ours, theirs)]
    assert prefilled[0] <= prefilled[1]
