"""Searches on every engine: the same draws wherever the model allows it, and recurrent models at all."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from tiny_models import character_tokenizer, family_model, plain_logits, tiny_llama

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.errors import NoRoom
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
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


def test_texts_in_flight_count_in_a_limit_and_what_does_not_fit_goes_in_parts(monkeypatch):
    model = tiny_llama(TOKENIZER)
    graphs, limit = [], 1 << 16
    for memory in (None, limit):
        babbler = bg.Babbler(model, TOKENIZER, span=4, max_new_tokens=12, engine="dense", memory_limit=memory)
        graph, rng = babbler.start(["3 5 7>", "1+2="]), Rng(0)
        engine = babbler.trie(graph)
        if memory is not None:
            real = engine._note_peak
            taken = []

            def note(meter, engine=engine, real=real, taken=taken):
                taken.append(engine.store.allocated_bytes + engine._flights.nbytes)
                real(meter)

            monkeypatch.setattr(engine, "_note_peak", note)
        meter = Meter(Budget(tokens=10**6), 2)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for number in range(3):
                ids = graph.frontier()[:5] if number else np.arange(2)
                graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 5)), rng, meter))
            logits = babbler.next_logits(graph, graph.frontier(), meter)
        graphs.append((graph, logits, meter.read().sampled))
    (whole, truth, sampled), (graph, ours, paid) = graphs
    assert np.array_equal(graph.tokens, whole.tokens)
    assert np.array_equal(graph.parent, whole.parent)
    assert np.array_equal(graph.count, whole.count)
    assert np.allclose(graph.log_inclusion, whole.log_inclusion, atol=1e-4)
    assert torch.allclose(ours, truth, atol=1e-4)
    assert paid == sampled
    assert max(taken) <= limit
    assert {str(one.message).split(": ")[0].split(" ", 4)[4] for one in said} == {
        "draws at once",
        "nodes at once",
    }
    long = babbler.start(["7" * 100])
    with pytest.raises(NoRoom, match=r"got room for 65,536 bytes: raise it, or keep texts shorter"):
        babbler.expand(long, Chosen(np.arange(1), np.ones(1, int)), Rng(0), Meter(Budget(tokens=9), 1))


@pytest.mark.parametrize("engine", ["dense", "recompute"])
def test_passes_that_the_device_has_no_memory_for_are_halved(engine, monkeypatch):
    model = tiny_llama(TOKENIZER)
    babbler = bg.Babbler(model, TOKENIZER, engine=engine)
    texts = ["7" * 21, "8" * 21, "9" * 21]
    plain, sizes = model.forward, []
    truth = [plain_logits(model, babbler.start([text]).path_tokens(0))[-1] for text in texts]

    def small(*args, **named):
        sizes.append(named["input_ids"].numel())
        if sizes[-1] > (21 if engine == "recompute" else 10):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(*args, **named)

    monkeypatch.setattr(model, "forward", small)
    graph = babbler.start(texts)
    meter = Meter(Budget(tokens=9), 3)
    with pytest.warns(RuntimeWarning, match="no memory for 63 tokens in one forward pass"):
        logits = babbler.next_logits(graph, np.arange(3), meter)
    for one, other in zip(logits, truth, strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert meter.read().prefilled == 63
    assert len(sizes) < (6 if engine == "recompute" else 20), "it learns what fits"


def test_a_limit_of_memory_is_kept_without_a_change_of_what_is_drawn():
    model = tiny_llama(TOKENIZER)
    free = bg.Babbler(model, TOKENIZER, span=2, max_new_tokens=6, engine="dense")
    tight = bg.Babbler(model, TOKENIZER, span=2, max_new_tokens=6, engine="dense", memory_limit=1 << 16)
    ours = found(free, frontier(width=3, keep=4))
    with pytest.warns(RuntimeWarning, match="draws at once"):
        theirs = found(tight, frontier(width=3, keep=4))
    assert np.array_equal(ours.tokens, theirs.tokens)
    prefilled = [np.sum(graph.meta["spent"]["counts"]["prefilled"]) for graph in (ours, theirs)]
    assert prefilled[0] <= prefilled[1]
