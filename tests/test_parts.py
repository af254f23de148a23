"""An expansion that the memory does not hold at once goes in parts, and brings what it would have brought whole."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from marks import slow_but
from test_trie import MANY, check_store, same
from tiny_models import tiny_llama
from transformers import TopKLogitsWarper

from babblegraph.budget import Budget, Meter
from babblegraph.errors import NoRoom
from babblegraph.lm import Babbler
from babblegraph.lm.trie import Trie
from babblegraph.loop import search
from babblegraph.protocols import ALL, Chosen, Draws
from babblegraph.randomness import Rng
from babblegraph.scoring import Score
from babblegraph.status import Flag
from babblegraph.strategies import best_of_n, stochastic_beam

TOKEN = 3 * 2 * 2 * 16 * 4  # bytes: layers × (keys, values) × heads × size × those of a number
IN_PARTS = "draws at once: going on with"


def limit_of(slots):
    """A memory limit that holds so many tokens."""
    return slots * TOKEN * 8 // 7 + 8


def meter_of(graph, tokens=10**6):
    return Meter(Budget(tokens=tokens), graph.trees)


def grown(babbler, way, draws, rounds=2, keep=4, meter=None):
    """Rounds that expand all prompts, and then some nodes, a root again among them."""
    graph, rng = babbler.start(MANY[:2]), Rng(0)
    meter = meter or meter_of(graph)
    for number in range(rounds):
        ids = np.r_[0, graph.frontier()[:keep]] if number else np.arange(graph.trees)
        made = np.resize(draws, len(ids))
        graph.add(babbler.expand(graph, Chosen(ids, made), rng, meter, way))
    return graph, meter


@pytest.fixture
def both(llama, characters):
    """The same babbler with and without a limit that holds 64 tokens."""
    how = {"span": 6, "max_new_tokens": 40, "top_k": 9}
    return Babbler(llama, characters, **how), Babbler(llama, characters, **how, memory_limit=limit_of(64))


@pytest.mark.parametrize(
    ("way", "draws"),
    [
        (Draws.MULTINOMIAL, [12, 7, 1]),
        (Draws.FRESH, [12, 1, 5]),
        (Draws.SYSTEMATIC, [6, 7]),
        (Draws.DISTINCT, [5, 6, 1]),
        (Draws.MULTINOMIAL, [9, ALL, 12]),
        (Draws.DISTINCT, [ALL, 5]),
    ],
    ids=lambda x: str(getattr(x, "value", x)),
)
def test_parts_bring_the_same_nodes_in_the_same_order(both, way, draws):
    free, tight = both
    whole, spent = grown(free, way, draws)
    with pytest.warns(RuntimeWarning, match=IN_PARTS):
        graph, paid = grown(tight, way, draws)
    assert same(graph, whole)
    assert np.array_equal(paid.counts["sampled"], spent.counts["sampled"])
    assert paid.read().prefilled > spent.read().prefilled, "what was given up is computed again, and counted"
    assert len(tight.trie(graph).store.references) <= 64
    check_store(tight, graph)


@pytest.mark.parametrize("at_once", slow_but([4], [1, 4, 9]))
@pytest.mark.parametrize(
    ("way", "options"),
    [
        (Draws.FRESH, {"top_k": 2, "span": 2}),  # until nothing is left to draw
        (Draws.MULTINOMIAL, {"temperature": 0.5, "stop": ["3", "+"], "until": "="}),
        (Draws.MULTINOMIAL, {"logits_processor": [TopKLogitsWarper(3)], "end_ids": [3, 4]}),
        (Draws.SYSTEMATIC, {"top_p": 0.7}),
        (Draws.DISTINCT, {"span": 2}),
    ],
    ids=["exhausted", "strings", "processors", "systematic", "distinct"],
)
def test_in_however_many_parts_the_nodes_are_the_same(way, options, at_once, llama, characters, monkeypatch):
    babbler = Babbler(llama, characters, **{"span": 4, "max_new_tokens": 9, **options})
    whole, spent = grown(babbler, way, [9, ALL, 6], rounds=4)
    babbler._parts.most = at_once
    monkeypatch.setattr(Trie, "crowded", lambda *how: True)
    graph, paid = grown(babbler, way, [9, ALL, 6], rounds=4)
    assert same(graph, whole)
    assert np.array_equal(paid.counts["sampled"], spent.counts["sampled"])
    assert np.array_equal(paid.counts["forwarded"] > 0, spent.counts["forwarded"] > 0)
    check_store(babbler, graph)
    if "top_k" in options:
        assert (graph.flags & Flag.EXHAUSTED).any()


def test_nodes_keep_the_paths_of_their_own_texts(both):
    _, tight = both
    with pytest.warns(RuntimeWarning, match=IN_PARTS):
        graph, _ = grown(tight, Draws.MULTINOMIAL, [24], rounds=1)
    trie, tokens = tight.trie(graph), {}
    for node in trie.held:
        for slot, token in zip(trie.held[node].tolist(), graph.path_tokens(node).tolist(), strict=False):
            assert tokens.setdefault(slot, (node, token))[1] == token
    assert len(trie.held) > 3


def test_a_search_under_a_limit_says_once_that_it_goes_on_with_less(llama, characters):
    told = []
    for memory in (None, limit_of(70)):
        babbler = Babbler(llama, characters, span=8, max_new_tokens=30, memory_limit=memory)
        how = {"strategy": best_of_n(width=6), "score": Score(value=constant), "budget": Budget(tokens=120)}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            *_, last = search(babbler, MANY[:2], **how)
        told.append((last.graph, [str(one.message) for one in said]))
    (whole, nothing), (graph, once) = told
    assert not nothing
    assert len(once) == 1, once
    assert IN_PARTS in once[0]
    most = min(graph.size, whole.size) - 30  # where the budget ends, the first parts get what is left
    assert np.array_equal(graph.key[:most], whole.key[:most])
    assert np.allclose(graph.log_inclusion[:most], whole.log_inclusion[:most], atol=1e-4)


def test_a_budget_holds_over_all_parts(both):
    _, tight = both
    with pytest.warns(RuntimeWarning, match=IN_PARTS):
        graph, meter = grown(tight, Draws.MULTINOMIAL, [24], rounds=1, meter=Meter(Budget(tokens=40), 2))
    assert (meter.counts["sampled"] == 40).all()
    spans = [tuple(graph.path_tokens(i)) for i in range(2, graph.size)]
    assert len(set(spans)) == len(spans)
    assert (graph.flags[:2] & Flag.CUT).all()


def test_what_is_in_parts_grows_again_when_there_is_room(both):
    _, tight = both
    with pytest.warns(RuntimeWarning, match=IN_PARTS):
        grown(tight, Draws.MULTINOMIAL, [24], rounds=1)
    few = tight._parts.most
    graph = tight.start(["7"])
    meter = meter_of(graph)
    for _ in range(3):
        ids = np.r_[0, graph.frontier()[:1]]
        graph.add(tight.expand(graph, Chosen(ids, np.full(len(ids), few)), Rng(0), meter))
        assert few <= tight._parts.most < 64


def test_a_contest_is_split_between_trees_alone(llama, characters):
    """What a tree loses and keeps is decided among its own nodes."""
    runs = []
    for memory in (None, limit_of(130)):
        babbler = Babbler(llama, characters, span=6, max_new_tokens=18, memory_limit=memory)
        how = {
            "strategy": stochastic_beam(width=6),
            "score": Score(value=constant),
            "budget": Budget(tokens=10**4),
        }
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            *_, last = search(babbler, MANY, **how)
        runs.append(last)
    assert any(IN_PARTS in str(one.message) for one in told)
    assert same(runs[1].graph, runs[0].graph)
    assert runs[1].spent.sampled == runs[0].spent.sampled
    babbler = Babbler(llama, characters, span=6, max_new_tokens=18, memory_limit=limit_of(66))
    with pytest.raises(NoRoom, match="make the beam narrower"):
        list(search(babbler, MANY[:1], **how | {"strategy": stochastic_beam(width=40)}))


@pytest.mark.parametrize("stop_at", [0.5, 0.8])
def test_an_interruption_in_a_later_part_leaves_nothing_of_the_round(both, llama, monkeypatch, stop_at):
    free, tight = both
    whole, _ = grown(free, Draws.MULTINOMIAL, [12], rounds=2)
    with pytest.warns(RuntimeWarning, match=IN_PARTS):
        graph, meter = grown(tight, Draws.MULTINOMIAL, [12], rounds=1)
    size, sampled, gate = graph.size, meter.counts["sampled"].copy(), dict(graph.meta["token_gate"])
    ids = np.r_[0, graph.frontier()[:4]]
    chosen, plain, calls = Chosen(ids, np.full(len(ids), 12)), llama.forward, []
    parts = []

    def interrupted(*args, **named):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return plain(*args, **named)

    monkeypatch.setattr(llama, "forward", interrupted)
    stop, expanded = 0, Trie.open
    monkeypatch.setattr(Trie, "open", lambda *how: parts.append(len(calls)) or expanded(*how))
    tight.expand(graph, chosen, Rng(0), meter_of(graph))  # how many passes it takes
    stop = int(stop_at * len(calls)) + (len(calls) > 0)
    assert sum(begun < stop for begun in parts) > 1, "not in the first part"
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        tight.expand(graph, chosen, Rng(0), meter)
    assert graph.size == size
    assert np.array_equal(meter.counts["sampled"], sampled)
    assert all(node < size for node in tight.trie(graph).held)
    check_store(tight, graph)
    graph.meta["token_gate"] = gate
    graph.add(tight.expand(graph, chosen, Rng(0), meter))
    assert same(graph, whole)


def test_where_a_pass_itself_has_no_memory_fewer_draws_go_on(both, llama, monkeypatch):
    """As on a GPU whose pools cannot grow: not even one row at a time goes through."""
    free, _ = both
    whole, _ = grown(free, Draws.MULTINOMIAL, [12], rounds=1)
    plain, trie = llama.forward, None

    def small(*args, **named):
        if trie is not None and len(trie.in_flight) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(*args, **named)

    monkeypatch.setattr(llama, "forward", small)
    graph = free.start(MANY[:2])
    trie = free.trie(graph)
    with pytest.warns(RuntimeWarning, match="no memory for"):
        graph.add(free.expand(graph, Chosen(np.arange(2), np.full(2, 12)), Rng(0), meter_of(graph)))
    assert same(graph, whole)


def test_logits_and_states_of_more_nodes_than_the_memory_holds_are_found_in_parts(llama, characters):
    told = []
    for memory in (None, limit_of(64) * 2):
        babbler = Babbler(llama, characters, span=5, max_new_tokens=40, memory_limit=memory)
        babbler.record([1, 3])
        slots = babbler._engines.memory.get("most_slots", 10**9)
        graph, rng = babbler.start(MANY[:2]), Rng(0)
        meter = meter_of(graph)
        for number in range(3):  # so few at once that they fit
            ids = graph.frontier()[:3] if number else np.arange(2)
            for i in ids:
                graph.add(babbler.expand(graph, Chosen(np.array([i]), np.array([4])), rng, meter))
        ids = graph.frontier()
        assert graph.length[ids].sum() > 3 * slots or memory is None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = [
                babbler.next_logits(graph, ids, meter),
                babbler.logits_after(graph, ids, [3, 4], meter),
                babbler.logits_after(graph, ids, [3, 4], meter, before=[5]),
                *babbler.hidden(graph, ids, [1, 3], meter),
            ]
        check_store(babbler, graph)
        told.append((graph, found, said))
    (whole, ours, nothing), (graph, theirs, said) = told
    assert not nothing
    assert all("nodes at once: going on with" in str(one.message) for one in said)
    assert said
    assert same(graph, whole)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_states_that_are_computed_anew_are_of_as_many_nodes_as_the_device_has_memory_for(
    both, llama, monkeypatch
):
    babbler, _ = both
    graph, meter = grown(babbler, Draws.MULTINOMIAL, [4])
    ids, plain = graph.frontier(), llama.forward
    whole = babbler.hidden(graph, ids, [1, 3], meter)

    def small(*args, **named):
        if named["input_ids"].numel() > 50:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(*args, **named)

    monkeypatch.setattr(llama, "forward", small)
    with pytest.warns(RuntimeWarning, match=f"no memory for {len(ids)} nodes at once"):
        parts = babbler.hidden(graph, ids, [1, 3], meter)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_base_and_a_generator_go_on_in_the_same_parts(llama, characters):
    moved = tiny_llama(characters, seed=3)
    graphs = []
    for memory in (None, 2 * limit_of(70)):
        babbler = Babbler(moved, characters, span=6, max_new_tokens=30, base=llama, memory_limit=memory)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            graphs.append(grown(babbler, Draws.MULTINOMIAL, [10], rounds=2, keep=3)[0])
    assert any(IN_PARTS in str(one.message) for one in told)
    assert same(*graphs)
    assert np.allclose(graphs[0].log_p_f, graphs[1].log_p_f, atol=1e-4)
    pair = babbler.trie(graphs[1])
    assert set(pair.g.held) <= set(range(graphs[1].size))
    assert set(pair.f.held) <= set(range(graphs[1].size))


def constant(graph, ids, meter):
    return np.full(len(ids), 0.5)
