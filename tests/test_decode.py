"""Decoding by tables, as on a GPU: the code is the same here but for the kernels, whose place plain torch takes.

`test_kernels.py` has the kernels themselves, `test_cuda.py` both together where there is a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from marks import slow_but
from test_attention import LIMIT, grown, worst_error
from tiny_models import family_model, tiny_llama
from transformers import AttentionInterface
from written_out import decoder_of

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler, babbler, fly, forward, layout, trie
from babblegraph.lm.attention import NAME, around_attention, trie_attention
from babblegraph.lm.decode import Decoder, Step
from babblegraph.protocols import Chosen, Draws
from babblegraph.randomness import Rng
from babblegraph.status import Status

# what tables hold depends on how a family attends: plainly, by groups, capped, by windows, with sinks
ATTEND_OTHERWISE = ["gpt2", "llama", "gemma2", "gemma3_text", "gpt_oss", "starcoder2"]
EXACT = ("parent", "tokens", "start", "stop", "status", "flags", "count", "key", "draws", "born")


@pytest.fixture(params=[2, 10**9], ids=["shared", "not shared"])
def tables(request, monkeypatch):
    """Models decode by tables, and flights are counted."""
    monkeypatch.setattr(forward, "decoder_of", decoder_of)
    monkeypatch.setitem(layout.LEAST, "cpu", request.param)
    return flown(monkeypatch)


def flown(monkeypatch):
    calls = []
    monkeypatch.setattr(babbler, "fly", lambda *given: calls.append(1) or fly.fly(*given))
    return calls


@pytest.mark.parametrize("family", slow_but(["llama", "gemma3_text"], ATTEND_OTHERWISE))
def test_logits_by_tables_equal_plain_forward_on_every_node(family, characters, tables):
    model = family_model(family, characters)
    assert worst_error(Babbler(model, characters, span=4, max_new_tokens=24), seed=3) < LIMIT
    assert tables, "no expansion was a flight"


def both(monkeypatch, make, draw):
    """The graph that `draw(babbler)` gives on the host and by tables, and how many flights the latter had."""
    plain = draw(make())
    monkeypatch.setattr(forward, "decoder_of", decoder_of)
    calls = flown(monkeypatch)
    return plain, draw(make()), len(calls)


def same(a, b):
    for column in EXACT:
        assert np.array_equal(getattr(a, column), getattr(b, column)), column
    for column in ("log_p_f", "log_p_g", "log_q", "log_inclusion"):
        np.testing.assert_allclose(getattr(a, column), getattr(b, column), atol=1e-3)


OPTIONS = {
    "spans": {"span": 5},
    "to the end": {"span": 30, "max_new_tokens": 40, "temperature": 3.0},  # no two draws agree for long
    "stop strings": {"stop": ["3", "+1"], "until": "=", "max_new_tokens": 40},
    "end of text": {"span": 9, "end_ids": [3, 4, 5, 6]},
    "truncated": {"span": 6, "top_k": 5, "temperature": 0.7},
    "nucleus": {"span": 6, "top_p": 0.8},
    "little memory": {"span": 4, "memory_limit": 300_000},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("budget", slow_but([60], [60, 2000]))
def test_a_flight_gives_the_graph_that_the_host_gives(options, budget, characters, monkeypatch):
    model = tiny_llama(characters)

    def draw(babbler):
        graph = babbler.start(["3 5>8\n", "7", "7"], 5)
        meter, rng = Meter(Budget(tokens=budget), graph.trees), Rng(5)
        for number in range(4):
            if not len(live := graph.frontier()[:5]):
                break
            draws = np.full(len(live), 6 if number else 20)
            graph.add(babbler.expand(graph, Chosen(live, draws), rng, meter, Draws.FRESH))
            babbler.release(graph, graph.frontier()[5:])
        return graph, meter.counts["sampled"].tolist(), graph.meta.get("token_gate")

    (plain, *told), (ours, *also), flights = both(
        monkeypatch, lambda: Babbler(model, characters, **options), draw
    )
    assert flights > 1
    assert told == also
    same(plain, ours)


def test_flights_in_parts_bring_what_the_host_brings_at_once(characters, monkeypatch):
    """Draws that were made in an earlier part are not made again, and nodes are in the order of one expansion."""
    model, token = tiny_llama(characters), 3 * 2 * 2 * 16 * 4
    options, parts = {"span": 6, "max_new_tokens": 40}, []

    def draw(babbler):
        graph = babbler.start(["3 5>8\n", "7"], 5)
        meter, rng = Meter(Budget(tokens=10**6), graph.trees), Rng(5)
        for number in range(2):
            live = graph.frontier()[:4]
            chosen = Chosen(live, np.full(len(live), 4 if number else 25))
            graph.add(babbler.expand(graph, chosen, rng, meter, Draws.FRESH))
        return graph, meter.counts["sampled"].tolist()

    plain, sampled = draw(Babbler(model, characters, **options))
    monkeypatch.setattr(forward, "decoder_of", decoder_of)
    monkeypatch.setattr(
        babbler, "fly", lambda *given: parts.append((born := fly.fly(*given), given[-1].draws.copy())) or born
    )
    tight = Babbler(model, characters, **options, memory_limit=75 * token * 8 // 7 + 8)
    with pytest.warns(RuntimeWarning, match="draws at once: going on with"):
        ours, again = draw(tight)
    same(plain, ours)
    assert again == sampled
    assert len(parts) > 4
    assert any(earlier.any() for _, earlier in parts), "a node's draws were in several flights"


def test_whole_searches_give_the_same_graphs(characters, monkeypatch):
    model = tiny_llama(characters)

    def draw(babbler):
        found = []
        for way in (bg.strategies.best_of_n(), bg.strategies.frontier(width=4, keep=6), None):
            given = {} if way is None else {"strategy": way}
            found.append(bg.babble(babbler, ["1 2", "3"], value=digits, budget=250, seed=2, **given).graph)
        return found

    plain, ours, flights = both(
        monkeypatch, lambda: Babbler(model, characters, span=4, max_new_tokens=16), draw
    )
    assert flights > 5
    for a, b in zip(plain, ours, strict=True):
        same(a, b)


def digits(texts):
    return [sum(c in "13579" for c in text) / max(len(text), 1) for text in texts]


def test_logits_are_not_written_over_by_the_next_step(characters, tables, monkeypatch):
    """A captured graph puts the logits of every step into the same memory; here they are copied there."""
    plain, memory = Step.run, {}

    def run(step):
        logits = plain(step)
        return memory.setdefault((id(step), logits.shape), torch.empty_like(logits)).copy_(logits)

    judge = Babbler(tiny_llama(characters), characters, span=4, max_new_tokens=40)
    monkeypatch.setattr(Step, "run", run)
    monkeypatch.setattr(babbler, "may_fly", lambda *given: False)
    graph, meter = judge.start(["3 5>8\n"]), Meter(Budget(tokens=1), 1)
    first = judge.logits_after(graph, [0], [3], meter)
    kept = first.clone()
    judge.logits_after(graph, [0], [4], meter)
    assert torch.equal(first, kept)
    tight = forward.Forward.__init__
    monkeypatch.setattr(  # as if the device had memory for three tokens a pass
        forward.Forward,
        "__init__",
        lambda self, model, store, tokens, *rest: tight(self, model, store, 3, *rest),
    )
    assert worst_error(judge, seed=3) < LIMIT


def test_draws_that_agree_are_one_node_and_one_path(characters, tables):
    babbler = Babbler(tiny_llama(characters), characters, span=6, temperature=0.05)
    graph = babbler.start(["3 5>8\n"], 1)
    meter = Meter(Budget(tokens=10**6), 1)
    graph.add(babbler.expand(graph, Chosen(np.array([0]), np.array([40])), Rng(1), meter))
    assert graph.size < 20
    assert graph.count[1:].sum() == 40
    unique = {
        tuple(graph.path_tokens(i)[:n].tolist())
        for i in range(1, graph.size)
        for n in range(1, graph.length[i])
    }
    babbler.release(graph, np.array([0]))
    assert babbler.trie(graph).store.in_use == len(unique)


def test_a_flight_without_memory_goes_on_with_the_host(characters, monkeypatch):
    monkeypatch.setattr(forward, "decoder_of", decoder_of)

    def fails(*given):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(Decoder, "draw", fails)
    babbler = Babbler(tiny_llama(characters), characters, span=4)
    with pytest.warns(RuntimeWarning, match="no memory"):
        graph = bg.babble(babbler, "1 2", value=digits, budget=60).graph
    assert graph.size > 5


def test_a_search_by_tables_goes_on_after_an_interruption(characters, tables, monkeypatch):
    babbler = Babbler(tiny_llama(characters), characters, span=4)
    graph, _ = grown(babbler, 4, rounds=2)
    draw, size = Decoder.draw, graph.size

    def interrupted(*given):
        draw(*given)
        raise KeyboardInterrupt

    newborn = graph.frontier()[:3]
    meter = Meter(Budget(tokens=10**6), graph.trees)
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            babbler.expand(graph, Chosen(newborn, np.full(3, 4)), Rng(1), meter)
    assert meter.counts["sampled"].sum() == 0
    born = graph.add(babbler.expand(graph, Chosen(newborn, np.full(3, 4)), Rng(1), meter))
    assert graph.size == size + len(born)
    assert set(graph.status[born]) <= {Status.FRONTIER, Status.LEAF_END}
    assert not graph.flags[born].any()


@pytest.fixture
def unregistered():
    """The attention function is as it was before, whatever a test has registered."""
    yield
    AttentionInterface.register(NAME, trie_attention)


@pytest.mark.slow  # dynamo takes long to import
def test_a_compiled_model_gives_the_same_graph(characters, monkeypatch, unregistered):
    """With a backend that compiles nothing: where dynamo stops is what is tested, and that it stops once."""
    compile, graphs = torch.compile, []

    def as_it_is(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **how: compile(model, backend=as_it_is, **how))
    monkeypatch.setattr(forward, "decoder_of", decoder_of)
    model = tiny_llama(characters)
    model.model.layers = model.model.layers[:1]  # tracing is slow
    model.config.num_hidden_layers = 1
    plain = Babbler(model, characters, span=5)
    with pytest.raises(BadInput, match="compile needs a model on a GPU, got one on cpu: leave it out"):
        plain.again(compile=True)
    compiled = plain.again()
    compiled._engines._compiled = around_attention(model)
    same(*(bg.babble(one, "1 2", value=digits, budget=40, seed=2).graph for one in (plain, compiled)))
    before, one_row = len(graphs), bg.strategies.best_of_n(n=1)
    bg.babble(compiled, "3", value=digits, strategy=one_row, budget=10)
    assert len(graphs) == before > 0, "one row was compiled once more"


@pytest.mark.slow
def test_what_one_graph_leaves_serves_the_next(characters, monkeypatch):
    """On a GPU pools grow and steps are captured once, not once a graph."""
    monkeypatch.setattr(forward, "decoder_of", decoder_of)
    model = tiny_llama(characters)
    one, anew = (Babbler(model, characters, span=4, max_new_tokens=16) for _ in range(2))
    tries = []
    for seed in range(3):
        graph = bg.babble(one, ["1 2", "3"], value=digits, budget=120, seed=seed).graph
        anew._engines.spare = None
        same(graph, bg.babble(anew, ["1 2", "3"], value=digits, budget=120, seed=seed).graph)
        tries.append(one._engines.spare)
        assert one._engines.spare.store.in_use == 0
        assert not one._engines.spare.held
        one.record([1, 2] if seed == 1 else [])
    assert tries[0] is tries[1] is not None
    assert tries[2] is not tries[1], "the bounds have changed"
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    one.start(["1"])
    assert one._engines.spare is None, "its steps are of other weights"


def test_what_takes_much_memory_is_given_up(characters, monkeypatch):
    monkeypatch.setattr(forward, "decoder_of", decoder_of)
    monkeypatch.setattr(trie, "SPARE", 1 << 40)
    babbler = Babbler(tiny_llama(characters), characters, span=4)
    bg.babble(babbler, "1 2", value=digits, budget=60)
    assert babbler._engines.spare is None
