"""What the trie of keys and values costs, and that nothing of it is lost or left behind."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from test_attention import LIMIT, PROMPTS, grown
from tiny_models import counting_real_tokens, plain_logits, tiny_llama

import babblegraph.lm as lm
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler
from babblegraph.lm.store import Store
from babblegraph.loop import search
from babblegraph.protocols import Chosen, Draws, Strategy
from babblegraph.randomness import Rng
from babblegraph.scoring import Score
from babblegraph.status import Status
from babblegraph.stem import hold_back
from babblegraph.strategies import babble, best_of_n, frontier

MANY = ["3 5 7 11>24\n", "1 2 3>6\n", "9 9 9 9>81\n", "2 4 6 8>10\n"]


def trie_tokens(graph, ids=None):
    """Distinct tokens of the tries of some nodes' texts (of all nodes), prompts included: the brute force."""
    prefixes = set()
    for i in range(graph.size) if ids is None else ids:
        path = tuple(graph.path_tokens(int(i)).tolist())
        prefixes.update((int(graph.root[i]), path[:n]) for n in range(1, len(path) + 1))
    return len(prefixes)


def pool_bytes(store):
    """Bytes of one token's keys and values in all layers."""
    pools = [*store.keys.values(), *store.values.values()]
    return sum(t[0].numel() * t.element_size() for t in pools)


def same(a, b):
    """The same draws; log-probabilities up to rounding, since paths may have been computed in other batches."""
    exact = ("parent", "start", "stop", "count", "status", "flags", "key", "draws", "tokens")
    near = ("log_p_f", "log_q", "log_inclusion", "token_log_q")
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in exact) and all(
        np.allclose(getattr(a, n), getattr(b, n), atol=1e-4) for n in near
    )


def widened(babbler, rounds, draws, meter=None, prompts=MANY, keep=60):
    """A forest of some thousand tokens: every round expands up to `keep` frontier nodes."""
    graph, rng = babbler.start(prompts), Rng(0)
    meter = meter or Meter(Budget(tokens=10**6), graph.trees)
    for _ in range(rounds):
        ids = graph.frontier()[:keep] if graph.size > graph.trees else np.arange(graph.trees)
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), draws)), rng, meter))
        babbler.release(graph, np.flatnonzero(graph.is_leaf()))
    return graph, meter


def test_memory_is_what_the_live_tokens_need(llama, characters):
    babbler = Babbler(llama, characters, span=8, max_new_tokens=64)
    graph, meter = widened(babbler, rounds=6, draws=8)
    store = babbler.trie(graph).store
    # a live node's last token is computed when it is expanded, so the trie may lack some of them
    live = trie_tokens(graph, np.flatnonzero(~graph.is_leaf()))
    assert live > 3000
    assert store.in_use <= live
    assert meter.peak_slots == store.peak
    assert store.allocated_bytes <= 2 * live * pool_bytes(store)
    babbler.next_logits(graph, np.flatnonzero(~graph.is_leaf()), meter)
    assert store.in_use == live


def test_the_peak_is_the_live_tokens_of_the_fullest_round(llama, characters):
    babbler = Babbler(llama, characters, span=8, max_new_tokens=64)
    graph, rng = babbler.start(MANY), Rng(0)
    meter, live = Meter(Budget(tokens=10**6), 4), []
    for _ in range(8):
        ids = graph.frontier()[:40] if graph.size > graph.trees else np.arange(graph.trees)
        before = np.flatnonzero([i in babbler.trie(graph).held for i in range(graph.size)])
        born = graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 6)), rng, meter))
        live.append(trie_tokens(graph, np.union1d(before, np.r_[ids, born])))
        babbler.release(graph, np.r_[graph.frontier()[::3], np.flatnonzero(graph.is_leaf())])
    assert max(live) > 2000
    assert meter.peak_slots <= 1.05 * max(live)


def test_no_token_is_computed_twice(llama, characters):
    babbler = Babbler(llama, characters, span=5, max_new_tokens=40)
    with counting_real_tokens(llama) as forwarded:
        graph, meter = widened(babbler, rounds=5, draws=6)
    assert sum(forwarded) <= trie_tokens(graph)
    assert sum(forwarded) == sum(meter.read().__dict__[k] for k in ("forwarded", "prefilled", "scored"))
    assert meter.read().prefilled == sum(graph.length[: graph.trees])
    assert meter.read().sampled == trie_tokens(graph) - meter.read().prefilled


def test_reading_the_logits_of_every_node_completes_the_trie_and_no_more(llama, characters):
    babbler = Babbler(llama, characters, span=5, max_new_tokens=30)
    with counting_real_tokens(llama) as forwarded:
        graph, meter = widened(babbler, rounds=3, draws=6)
        live = np.flatnonzero(~graph.is_leaf())
        once = babbler.next_logits(graph, live, meter)
        spent = sum(forwarded)
        again = babbler.next_logits(graph, live[::-1].copy(), meter)
    assert spent == sum(forwarded) <= trie_tokens(graph)
    assert torch.equal(once, again.flip(0))


def test_the_meter_counts_what_goes_through_the_model_when_nodes_come_back(llama, characters):
    babbler = Babbler(llama, characters, span=4, stop=" ", max_new_tokens=20)
    with counting_real_tokens(llama) as forwarded:
        _, meter = grown(babbler, seed=6, rounds=12)
    spent = meter.read()
    assert sum(forwarded) == spent.forwarded + spent.prefilled + spent.scored
    assert spent.prefilled > sum(len(p) for p in PROMPTS), "some nodes were prefilled again"


def test_a_search_pushes_no_more_tokens_than_its_trie_has(llama, characters):
    babbler = Babbler(llama, characters, max_new_tokens=30)
    strategy, budget = best_of_n(n=64, width=64), Budget(tokens=3000)
    with counting_real_tokens(llama) as forwarded:
        *_, last = search(babbler, MANY, score=Score(value=constant), strategy=strategy, budget=budget)
    assert 0 < sum(forwarded) <= trie_tokens(last.graph)


def constant(graph, ids, meter):
    return np.full(len(ids), 0.5)


def test_everything_released_is_free_again(llama, characters):
    babbler = Babbler(llama, characters, span=4, stop=" ", max_new_tokens=20)
    graph, _ = grown(babbler, seed=3)
    trie = babbler.trie(graph)
    assert trie.store.in_use > 0
    babbler.release(graph, np.arange(graph.size))
    babbler.release(graph, np.arange(graph.size))  # twice does no harm
    assert trie.store.in_use == 0
    assert not trie.held
    assert not trie.store.references.any()
    assert babbler.trie(graph).store.allocated_bytes == 0, "and the memory is given back"


def test_a_finished_search_holds_nothing(llama, characters):
    babbler = Babbler(llama, characters, span=4, max_new_tokens=16)
    strategy, budget = default(), Budget(tokens=300)
    *_, last = search(babbler, PROMPTS, score=Score(value=constant), strategy=strategy, budget=budget)
    assert babbler.trie(last.graph).store.in_use == 0


def default():
    return babble(threshold=None)


@pytest.mark.slow
def test_three_hundred_rounds_leak_nothing(characters):
    model = tiny_llama(characters, context=48)
    babbler = Babbler(model, characters, span=2, stop=" ", max_new_tokens=16, cache_bytes=0)
    draw, graph, rng = np.random.default_rng(0), babbler.start(PROMPTS), Rng(0)
    meter, store, sizes = Meter(Budget(tokens=10**6), graph.trees), babbler.trie(graph).store, []
    for _ in range(300):
        open_nodes = np.flatnonzero(~graph.is_leaf())
        ids = np.sort(draw.choice(open_nodes, min(3, len(open_nodes)), replace=False))
        born = babbler.expand(graph, Chosen(ids, draw.integers(1, 4, len(ids))), rng, meter, Draws.FRESH)
        graph.add(born)
        held = np.array(list(babbler.trie(graph).held), int)
        babbler.release(graph, draw.choice(held, max(0, len(held) - 12), replace=False))
        slots = {int(s) for path in babbler.trie(graph).held.values() for s in path}
        assert store.in_use == len(slots) == (store.references > 0).sum()
        check_store(babbler, graph)
        sizes.append(store.allocated_bytes)
    assert sizes[-1] == sizes[20], "freed memory is used again"
    live = babbler.next_logits(graph, np.array(list(babbler.trie(graph).held)), meter)
    assert torch.isfinite(live).all()


def test_slots_that_are_used_again_hold_the_new_tokens(llama, characters):
    babbler = Babbler(llama, characters, span=6, max_new_tokens=30)
    graph, rng = babbler.start(MANY), Rng(0)
    meter = Meter(Budget(tokens=10**6), graph.trees)
    for r in range(12):
        ids = np.array([r % graph.trees])
        born = graph.add(babbler.expand(graph, Chosen(ids, np.array([6])), rng, meter))
        ours = babbler.next_logits(graph, born, meter)
        plain = torch.stack([plain_logits(llama, graph.path_tokens(int(i)))[-1] for i in born])
        assert float((ours - plain).abs().max() / plain.abs().max()) < LIMIT
        babbler.release(graph, np.arange(graph.size))
    assert len(babbler.trie(graph).store.references) <= 512


def test_logits_that_the_cache_has_lost_are_computed_again(llama, characters):
    babbler = Babbler(llama, characters, span=3, max_new_tokens=30)
    graph = babbler.start(MANY)
    meter = Meter(Budget(tokens=10**6), graph.trees)
    babbler._engines._of[graph] = lm.trie.Trie(llama, logit_bytes=1, forward_tokens=40)  # 64 rows at least
    for _ in range(3):
        ids = graph.frontier()[:50]
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 5)), Rng(0), meter))
    ids = graph.frontier()
    assert len(ids) > 150
    ours = babbler.next_logits(graph, ids, meter)
    plain = torch.stack([plain_logits(llama, graph.path_tokens(int(i)))[-1] for i in ids])
    assert float((ours - plain).abs().max() / plain.abs().max()) < LIMIT


def test_logits_that_were_computed_just_now_are_not_computed_again(llama, characters):
    """More prompts than the cache remembers logits for."""
    babbler = Babbler(llama, characters)
    graph = babbler.start([[1 + i % 9, 1 + i // 9] for i in range(80)])
    meter, ids = Meter(Budget(tokens=1), graph.trees), np.arange(80)[::-1]
    babbler._engines._of[graph] = lm.trie.Trie(llama, logit_bytes=1)  # of 64
    for extra in (0, 16):  # that were lost are computed again, next to those that are remembered
        ours = babbler.next_logits(graph, ids, meter)
        plain = torch.stack([plain_logits(llama, graph.path_tokens(int(i)))[-1] for i in ids])
        assert float((ours - plain).abs().max() / plain.abs().max()) < LIMIT
        assert meter.read().prefilled == 160 + extra


def test_a_path_shared_by_nodes_of_one_batch_is_computed_once(llama, characters):
    babbler = Babbler(llama, characters, span=4, max_new_tokens=30)
    graph, meter = widened(babbler, rounds=3, draws=4, keep=4)
    babbler.release(graph, np.arange(graph.size))
    ids = np.flatnonzero(~graph.is_leaf())[::-1].copy()  # children come before their parents
    spent = meter.read().prefilled
    ours = babbler.next_logits(graph, ids, meter)
    plain = torch.stack([plain_logits(llama, graph.path_tokens(int(i)))[-1] for i in ids])
    assert float((ours - plain).abs().max() / plain.abs().max()) < LIMIT
    again = len([i for i in ids if i not in graph.parent[ids]])
    assert meter.read().prefilled - spent <= trie_tokens(graph, ids) + len(ids) - again


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line that runs in the language-model room."""

    def __init__(self, n):
        self.left = n

    def __call__(self, frame, event, arg):
        if "babblegraph" not in frame.f_code.co_filename or "/lm/" not in frame.f_code.co_filename:
            return None
        return self.line

    def line(self, frame, event, arg):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self.line


def small_search(babbler, interrupt_at=None, lines=None):
    """Two rounds, a look at the logits, and one more round, which may be interrupted once."""
    graph, rng = babbler.start(["3 5>8\n", "7"]), Rng(0)
    meter = Meter(Budget(tokens=60), graph.trees)
    for round_ in range(3):
        ids = graph.frontier()[:4]
        chosen = Chosen(ids, np.full(len(ids), 4))
        if round_ == 2:
            babbler.release(graph, np.r_[0, ids[:1]])  # so that something has to be prefilled
            if interrupt_at is not None:
                before, sampled = sorted(babbler.trie(graph).held), meter.read().sampled
                tracer = Interrupt(interrupt_at)
                sys.settrace(tracer)
                try:
                    babbler.expand(graph, chosen, rng, meter)
                except KeyboardInterrupt:
                    pass
                finally:
                    sys.settrace(None)
                lines.append(tracer.left)
                if tracer.left == 0:
                    assert set(babbler.trie(graph).held) <= {*before, *ids.tolist()}
                    assert meter.read().sampled == sampled
                    check_store(babbler, graph)
                else:
                    return graph, meter
        graph.add(babbler.expand(graph, chosen, rng, meter))
    return graph, meter


def check_store(babbler, graph):
    trie = babbler.trie(graph)
    slots = {int(s) for path in trie.held.values() for s in path}
    free = np.flatnonzero(trie.store._is_free).tolist()
    assert trie.store.in_use == len(slots)
    assert sorted([*slots, *free]) == list(range(1, len(trie.store.references)))
    known = trie.store._edges
    assert all(before < 0 or before in known.values() for before in (edge >> 32 for edge in known)), "whole"


@pytest.mark.slow
def test_ctrl_c_anywhere_in_an_expansion_leaks_nothing_and_the_search_goes_on_alike(characters):
    babbler = Babbler(tiny_llama(characters, context=64), characters, span=3, stop=" ", max_new_tokens=12)
    whole, _ = small_search(babbler)
    at, step, lines = 1, 53, []  # a prime, so that no loop is always met at the same line
    while not lines or lines[-1] == 0:
        graph, _ = small_search(babbler, at, lines)
        if lines[-1] == 0:
            assert same(graph, whole), at
            babbler.release(graph, np.arange(graph.size))
            assert babbler.trie(graph).store.in_use == 0
        at += step
    assert len(lines) > 10


def test_an_error_of_the_model_leaks_nothing(llama, characters, monkeypatch):
    babbler = Babbler(llama, characters, span=4, max_new_tokens=20)
    graph, meter = widened(babbler, rounds=2, draws=4, keep=5)
    plain, calls = llama.forward, []

    def failing(*args, **named):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("a broken kernel")
        return plain(*args, **named)

    monkeypatch.setattr(llama, "forward", failing)
    ids = graph.frontier()[:5]
    with pytest.raises(RuntimeError, match="a broken kernel"):
        babbler.expand(graph, Chosen(ids, np.full(5, 4)), Rng(0), meter)
    check_store(babbler, graph)
    ours = babbler.next_logits(graph, graph.frontier(), meter)
    monkeypatch.undo()
    truth = torch.stack([plain_logits(llama, graph.path_tokens(int(i)))[-1] for i in graph.frontier()])
    assert float((ours - truth).abs().max() / truth.abs().max()) < LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [babble(threshold=None), best_of_n(width=6)])
def test_a_memory_limit_is_kept_and_changes_no_draw(strategy, characters):
    model, score, budget = tiny_llama(characters), Score(value=constant), Budget(tokens=400)
    token = 3 * 2 * 2 * 16 * 4  # layers × (keys, values) × heads × size × bytes
    graphs, limit = [], 600 * token
    for memory in (None, limit):
        babbler = Babbler(model, characters, span=4, max_new_tokens=24, memory_limit=memory)
        for one in search(babbler, MANY, score=score, strategy=strategy, budget=budget):
            store = babbler.trie(one.graph).store
            if memory is not None:
                ring = store._logits.ring
                logits = 0 if ring is None else ring.numel() * ring.element_size()
                assert store.allocated_bytes + logits <= limit
            assert store.in_use == (store.references > 0).sum()
        graphs.append(one)
    free, bound = graphs
    assert np.array_equal(free.graph.tokens, bound.graph.tokens)
    assert bound.spent.sampled == free.spent.sampled
    again = [one.spent.forwarded + one.spent.prefilled for one in (bound, free)]
    assert again[0] > again[1]  # what was given up was computed again: the limit did bind
    assert bound.spent.prefilled > free.spent.prefilled, "what was given up is computed again, and counted"


@pytest.mark.slow
def test_on_a_device_whose_memory_is_used_up_paths_are_given_up_and_no_draw_changes(characters, monkeypatch):
    """As on a GPU without a limit: pools grow as long as it has memory, whoever else takes some meanwhile."""
    model, score, budget = tiny_llama(characters), Score(value=constant), Budget(tokens=400)
    token, graphs = 3 * 2 * 2 * 16 * 4, []
    for memory in (None, 500 * token):
        babbler = Babbler(model, characters, span=4, max_new_tokens=24)

        def free(_device, most=memory, babbler=babbler):
            taken = sum(trie.store.allocated_bytes for trie in babbler._engines._of.values())
            return sys.maxsize if most is None else max(most - taken, 0)

        monkeypatch.setattr("babblegraph.lm.store.free_bytes", free)
        for one in search(babbler, MANY, score=score, strategy=babble(threshold=None), budget=budget):
            assert memory is None or babbler.trie(one.graph).store.allocated_bytes <= memory
        graphs.append(one)
    ample, tight = graphs
    assert np.array_equal(ample.graph.tokens, tight.graph.tokens)
    assert tight.spent.forwarded > ample.spent.forwarded, "what was given up was computed again"
    monkeypatch.setattr("babblegraph.lm.store.free_bytes", lambda _device: 0)
    graph, meter = babbler.start(MANY), Meter(Budget(tokens=10**6), 4)
    babbler.next_logits(graph, np.arange(4), meter)
    together = Chosen(np.arange(2), np.full(2, 150))  # their draws depend on each other
    with (
        pytest.warns(RuntimeWarning, match="no memory for 300 draws at once"),
        pytest.raises(BadInput, match=r"the device must hold .* or draw fewer times below a node"),
    ):
        babbler.expand(graph, together, Rng(0), meter, Draws.SYSTEMATIC)


def test_paths_that_are_given_up_for_memory_come_back_right(llama, characters):
    babbler = Babbler(llama, characters, span=6, max_new_tokens=30, memory_limit=250_000)
    graph, meter = widened(babbler, rounds=5, draws=4, keep=6)
    trie, ids = babbler.trie(graph), np.flatnonzero(~graph.is_leaf())
    assert trie.evicted > 10
    assert len(trie.held) < len(ids)
    check_store(babbler, graph)
    for few in np.array_split(ids, len(ids) // 5):
        ours = babbler.next_logits(graph, few, meter)
        plain = torch.stack([plain_logits(llama, graph.path_tokens(int(i)))[-1] for i in few])
        assert float((ours - plain).abs().max() / plain.abs().max()) < LIMIT
    check_store(babbler, graph)


def test_more_than_a_memory_limit_can_hold_is_said_in_one_line(llama, characters):
    with pytest.raises(BadInput, match="memory_limit must hold at least 64 tokens of 768 bytes, got 1,000"):
        Babbler(llama, characters, memory_limit=1000)
    babbler = Babbler(llama, characters, span=16, max_new_tokens=60, memory_limit=100_000)
    graph, meter = babbler.start(MANY), Meter(Budget(tokens=10**6), 4)
    long, one = babbler.start(["7" * 110]), Meter(Budget(tokens=10**6), 1)
    with pytest.raises(
        BadInput, match=r"must hold a text .* got room for 113 tokens: raise it, or keep texts shorter"
    ):
        babbler.expand(long, Chosen(np.arange(1), np.ones(1, int)), Rng(0), one)
    check_store(babbler, long)
    assert not one.counts["sampled"].any()
    born = babbler.expand(graph, Chosen(np.arange(4), np.full(4, 1)), Rng(0), meter)
    assert len(born.parent) == 4


def test_when_the_device_lacks_memory_half_as_many_rows_go_on_and_nothing_is_lost(
    llama, characters, monkeypatch
):
    babbler = Babbler(llama, characters, span=6, max_new_tokens=30)
    whole, _ = widened(babbler, rounds=3, draws=5, keep=6)
    plain, sizes = llama.forward, []

    def small(*args, **named):
        sizes.append(named["input_ids"].numel())
        if sizes[-1] > 12:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(*args, **named)

    monkeypatch.setattr(llama, "forward", small)
    with pytest.warns(RuntimeWarning, match="no memory for"):
        graph, meter = widened(babbler, rounds=3, draws=5, keep=6)
    assert same(graph, whole)
    assert sum(size > 12 for size in sizes) < 8, "it learns what fits"
    assert meter.read().sampled == trie_tokens(graph) - meter.read().prefilled


def test_ten_thousand_rounds_of_a_store_leak_nothing():
    draw, store = np.random.default_rng(0), Store(torch.device("cpu"), cache_bytes=0)
    paths, sizes = [store.take(20)], []
    store.connect(paths[0], np.r_[-1, paths[0][:-1]], np.arange(20))
    store.hold(paths[0])
    for i in range(10_000):
        stem = paths[draw.integers(len(paths))]
        stem = stem[: draw.integers(1, len(stem) + 1)]
        new = store.take(int(draw.integers(1, 12)))
        store.connect(new, np.r_[stem[-1:], new[:-1]], draw.integers(0, 10**6, len(new)))
        paths.append(np.concatenate([stem, new]))
        store.hold(paths[-1])
        if len(paths) > 30:
            store.drop(paths.pop(int(draw.integers(1, len(paths)))))
        if i % 1000 == 999:
            assert store.in_use == len(np.unique(np.concatenate(paths)))
            sizes.append(len(store.references))
            assert len(store._queue) <= 2 * store.free + 256, "outdated entries of the queue do not pile up"
    assert max(sizes) <= 2 * min(sizes)
    for path in paths:
        store.drop(path)
    assert store.in_use == 0


def test_paths_that_come_and_go_ten_thousand_times_leave_no_queue_behind():
    """As nodes that are released and revived, with nothing new in between."""
    store = Store(torch.device("cpu"), cache_bytes=0)
    path = store.take(20)
    store.connect(path, np.r_[-1, path[:-1]], np.arange(20))
    store.hold(path)
    for _ in range(10_000):
        store.drop(path)
        store.pin(path)
        store.hold(path)
    assert store.in_use == 20
    assert len(store._queue) <= 2 * store.free + 256
    store.drop(path)
    store.take(store.free - 3)
    assert [store.find(*e) for e in zip([-1, *path[:3].tolist()], range(4), strict=True)][:3] == path[
        :3
    ].tolist()
    assert store.find(int(path[2]), 3) == -1, "the longest free still go first, and of one path the last"


def test_what_was_expanded_but_never_added_is_forgotten(llama, characters):
    babbler = Babbler(llama, characters, span=4, max_new_tokens=20)
    graph, rng = babbler.start(["7"]), Rng(0)
    meter = Meter(Budget(tokens=10**6), 1)
    lost = babbler.expand(graph, Chosen(np.array([0]), np.array([12])), rng, meter)
    born = graph.add(babbler.expand(graph, Chosen(np.array([0]), np.array([2])), rng, meter))
    assert len(born) < len(lost.parent)
    check_store(babbler, graph)
    assert set(babbler.trie(graph).held) == {0, *born.tolist()}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [babble(), babble(width=16), best_of_n(width=4), frontier(keep=8)])
def test_no_search_pushes_more_tokens_than_its_trie_has(strategy, characters):
    babbler = Babbler(tiny_llama(characters), characters, span=3, max_new_tokens=12, temperature=0.3)
    score, budget = Score(value=constant), Budget(tokens=500)
    *_, last = search(babbler, MANY, score=score, strategy=strategy, budget=budget)
    assert last.spent.forwarded + last.spent.prefilled <= trie_tokens(last.graph)


def test_pools_grow_rather_than_lose_what_can_be_found_while_they_are_small(llama, characters):
    for cache_bytes, kept in ((0, False), (1 << 26, True)):
        babbler = Babbler(llama, characters, span=4, max_new_tokens=20, cache_bytes=cache_bytes)
        graph, meter = widened(babbler, rounds=3, draws=4)
        store, before = babbler.trie(graph).store, meter.read().prefilled
        babbler.release(graph, np.arange(1, graph.size))
        store.take(store._free_size - 1 if cache_bytes == 0 else 200)
        babbler.next_logits(graph, graph.frontier()[:20], meter)
        computed = meter.read().prefilled - before  # a frontier node's last token was never there
        assert (computed == 20) if kept else (computed > 20)


def test_a_store_rebuilt_from_its_paths_is_the_store():
    store = Store(torch.device("cpu"), cache_bytes=0)
    path = store.take(5)
    store.connect(path, np.r_[-1, path[:-1]], np.arange(5))
    store.hold(path)
    store.take(7)  # lost
    store.rebuild([path])
    assert store.in_use == 5
    assert [store.find(*e) for e in zip([-1, *path[:-1].tolist()], range(5), strict=True)] == path.tolist()
    store.drop(path)
    assert store.in_use == 0
    assert store.find(-1, 0) == path[0], "until its slot is taken again"
    store.take(255 - 5)
    assert store.find(-1, 0) == path[0], "the longest free go first"
    store.take(1)
    assert store.find(int(path[3]), 4) == -1, "and of one path the last"
    assert store.find(int(path[2]), 3) == path[3]
    store.take(4)
    assert store.find(-1, 0) == -1


@pytest.mark.parametrize("aim", ["estimate", "solve"])
def test_an_estimate_which_asks_for_nothing_again_takes_the_memory_that_it_needs(aim, llama, characters):
    def select(graph, meter):
        live = graph.frontier() if graph.round < 6 else np.zeros(0, np.intp)
        return Chosen(live, np.full(len(live), 4 if graph.round else 32))

    def prune(graph, rng):
        stopped = graph.frontier()[8:]
        graph.stop_nodes(stopped, Status.PRUNED)
        return stopped

    babbler = Babbler(llama, characters, span=8, max_new_tokens=64, end_ids=())
    strategy, score = Strategy("narrow", select, prune, aim), Score(value=constant)
    for last in search(babbler, PROMPTS[:1], score=score, strategy=strategy, budget=Budget(tokens=10**4)):
        if last.graph.round < 6:
            store = babbler.trie(last.graph).store
    assert len(store.references) == store.allocated_bytes // store.token_bytes
    assert (len(store.references) < 1.5 * last.spent.peak_slots) == (aim == "estimate")
    assert last.graph.size == 1 + 6 * 32


def test_what_a_waiting_stem_will_ask_for_stays(llama, characters):
    babbler = Babbler(llama, characters, span=8, max_new_tokens=64)
    graph, meter = widened(babbler, rounds=2, draws=3)
    store = babbler.trie(graph).store
    assert store.hoards
    for stems, expected in ((1, True), (0, False)):
        graph.meta["aim"] = "estimate"
        if stems:
            stem = hold_back(graph, graph.frontier()[:1])
        else:
            graph.stop_nodes(stem, Status.PRUNED)
        chosen = Chosen(graph.frontier()[:1], np.array([2]))
        graph.add(babbler.expand(graph, chosen, Rng(0), meter))
        assert store.hoards == expected


def test_paths_given_up_together_are_free_in_the_order_of_one_after_the_other():
    """Which slots are taken next does not depend on how many paths went at once."""
    draw, found = np.random.default_rng(3), []
    trunk, own = np.arange(1, 21), draw.permutation(np.arange(21, 101)).reshape(8, 10)
    paths = [np.r_[trunk[: 20 - i], own[i]] for i in range(8)]
    for together in (True, False):
        store = Store(torch.device("cpu"), cache_bytes=0)
        store.take(100)
        if together:
            store.hold(*paths)
        else:
            [store.hold(path) for path in paths]
        assert store.references[1] == 8
        store.drop(*paths[2:]) if together else [store.drop(path) for path in paths[2:]]
        assert store.references[1] == 2
        found.append((store.references.tolist(), store.in_use, store.take(50).tolist()))
    assert found[0] == found[1]
