"""Counted rows against their slow twin: every draw sampled alone, token by token, from plain forward passes.

Two tests are statistical. Their bound on the chi-square statistic with k degrees of freedom,
k + 2√(k x) + 2x, is passed with odds below e^-x (Laurent & Massart, 2000), here 1e-6; the seeds are fixed. The
other tests are exact.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from marks import slow_but
from table_lm import TableLM
from tiny_models import counting_real_tokens, plain_logits, tiny_llama

from babblegraph.budget import Budget, Meter
from babblegraph.lm import Babbler
from babblegraph.protocols import ALL, Chosen, Draws
from babblegraph.randomness import Rng, uniforms
from babblegraph.status import Flag, Status

PROMPTS = ["3 5>8\n", "1 2 3 4>10\n", "7"]
X = -np.log(1e-6)


def one(node, draws):
    return Chosen(np.array([node]), np.array([draws]))


def meter_of(graph, tokens=10**6):
    return Meter(Budget(tokens=tokens), graph.trees)


def drawn_alone(babbler, graph, node, draw):
    """The slow twin: one draw of one node; its tokens, and log f and log q of each."""
    path, room = graph.path_tokens(node).tolist(), babbler._rules(graph).max_length[graph.root[node]]
    span, log_f, log_q = [], [], []
    warp = babbler.warp or (lambda x: x)
    while True:
        f = torch.log_softmax(plain_logits(babbler.model, path + span)[-1].float(), -1)
        q = torch.log_softmax(warp(f[None])[0], -1)
        below = q.double().exp().cumsum(-1)
        u = uniforms(graph.key[[node]], draw, len(span))[0]
        token = int(torch.searchsorted(below, u * float(below[-1]), right=True))
        span.append(token)
        log_f.append(float(f[token]))
        log_q.append(float(q[token]))
        text = "".join(babbler.vocabulary[t].decode() for t in span)
        if token in babbler.span.end_ids or len(path) + len(span) >= room:
            return tuple(span), log_f, log_q
        if len(span) == babbler.span.tokens or any(s in text for s in babbler.span.stop):
            return tuple(span), log_f, log_q


OPTIONS = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7, "top_k": 5},
    {"top_p": 0.8},
    {"temperature": 0.5, "top_k": 9, "top_p": 0.9},
]


@pytest.mark.parametrize("options", slow_but(OPTIONS[::3], OPTIONS))
def test_counted_rows_equal_draws_made_one_by_one(options, llama, characters):
    babbler = Babbler(llama, characters, span=4, stop=" ", max_new_tokens=7, **options)
    graph, draws = babbler.start(PROMPTS, seed=4), 24
    for ids in (np.array([0, 1, 2]), np.array([0])):  # the second time with draw numbers that go on
        first, before = graph.draws[ids].copy(), graph.count.copy()
        born = graph.add(
            babbler.expand(graph, Chosen(ids, np.full(len(ids), draws)), Rng(4), meter_of(graph))
        )
        for node, start in zip(ids.tolist(), first.tolist(), strict=True):
            twins = [drawn_alone(babbler, graph, node, start + j) for j in range(draws)]
            children = graph.children(node)
            more = [int(graph.count[c] - (before[c] if c < len(before) else 0)) for c in children]
            found = +Counter({tuple(graph.span(c).tolist()): n for c, n in zip(children, more, strict=True)})
            assert found == Counter(t[0] for t in twins)
            assert sum(found.values()) == draws
            logs = {t[0]: t[1:] for t in twins}
            for c in set(children) & set(born.tolist()):
                f, q = logs[tuple(graph.span(c).tolist())]
                gained = [graph.log_p_f[c], graph.log_q[c], graph.log_inclusion[c]]
                told = [sum(f), sum(q), np.log(draws) + sum(q) - np.log(graph.count[c])]
                np.testing.assert_allclose(gained, told, atol=1e-5 * max(1, *map(abs, told)))
                np.testing.assert_allclose(graph.token_log_q[graph.start[c] : graph.stop[c]], q, atol=1e-4)


def test_deeper_nodes_add_to_their_parents_and_keep_their_own_numbers(llama, characters):
    babbler = Babbler(llama, characters, span=2, max_new_tokens=8, temperature=0.8)
    graph = babbler.start(PROMPTS)
    for _ in range(3):
        ids = graph.frontier()[:5]
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 3)), Rng(0), meter_of(graph)))
    node = int(graph.frontier()[0])
    up = int(graph.parent[node])
    twins = [drawn_alone(babbler, graph, up, j) for j in range(3)]
    (_, f, q), *_ = (t for t in twins if t[0] == tuple(graph.span(node).tolist()))
    c = sum(t[0] == tuple(graph.span(node).tolist()) for t in twins)
    assert graph.count[node] == c
    assert graph.log_p_f[node] - graph.log_p_f[up] == pytest.approx(sum(f), abs=1e-5)
    inclusion = np.log(3) + sum(q) - np.log(c)
    assert graph.log_inclusion[node] - graph.log_inclusion[up] == pytest.approx(inclusion, abs=1e-5)


def test_log_p_f_is_never_truncated(llama, characters):
    babbler = Babbler(llama, characters, span=1, top_k=2)
    graph = babbler.start(["7"])
    born = graph.add(babbler.expand(graph, one(0, ALL), Rng(0), meter_of(graph)))
    plain = torch.log_softmax(plain_logits(llama, graph.path_tokens(0))[-1].double(), -1)
    assert len(born) == 2, "the token gate lets two through"
    assert set(graph.tokens[graph.start[born]]) == set(plain.topk(2).indices.tolist())
    np.testing.assert_allclose(graph.log_p_f[born], plain[graph.tokens[graph.start[born]]], atol=1e-5)
    np.testing.assert_allclose(np.exp(graph.log_q[born]).sum(), 1, atol=1e-6)


def test_best_of_64_costs_the_tokens_of_its_trie(llama, characters):
    babbler = Babbler(llama, characters, span=12, temperature=0.3, max_new_tokens=12)
    graph = babbler.start(["3 5>8\n"])
    meter = meter_of(graph)
    with counting_real_tokens(llama) as forwarded:
        born = graph.add(babbler.expand(graph, one(0, 64), Rng(0), meter))
    texts = [tuple(graph.span(int(i)).tolist()) for i in born]
    trie = {t[:n] for t in texts for n in range(1, len(t) + 1)}
    separate = int((graph.count[born] * [len(t) for t in texts]).sum())
    assert meter.read().sampled == len(trie)
    inner = {t[:n] for t in texts for n in range(1, len(t))}  # a leaf's last token is never needed
    assert sum(forwarded) == graph.length[0] + len(inner)
    assert len(trie) < 0.7 * separate


def test_all_draws_give_every_next_token_once(table):
    graph = table.start(["p", "q"])
    born = graph.add(
        table.expand(graph, Chosen(np.array([0, 1]), np.array([ALL, ALL])), Rng(0), meter_of(graph))
    )
    assert len(born) == 2 * table.v
    assert (graph.log_inclusion[born] == 0).all()
    assert (graph.count[born] == 1).all()
    for tree in (0, 1):
        spans = [tuple(graph.span(int(i)).tolist()) for i in born if graph.root[i] == tree]
        assert sorted(spans) == [(t,) for t in range(table.v)]


def test_all_draws_and_counted_ones_go_together(table):
    graph = table.start(["p", "q"])
    both = Chosen(np.array([0, 1]), np.array([ALL, 5]))
    born = graph.add(table.expand(graph, both, Rng(0), meter_of(graph)))
    alone = table.start(["p", "q"])
    other = alone.add(table.expand(alone, one(1, 5), Rng(0), meter_of(alone)))
    assert (graph.root[born] == 0).sum() == table.v
    drawn = Counter({tuple(graph.span(int(i))): int(graph.count[i]) for i in born if graph.root[i] == 1})
    assert drawn == Counter({tuple(alone.span(int(i))): int(alone.count[i]) for i in other})


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_fresh_draws_exhaust_a_node_exactly(batch):
    lm = TableLM(vocabulary=3, length=5, seed=1, span=3)
    graph, spans, rounds = lm.start(["p"]), [], 0
    while not graph.flags[0] & Flag.EXHAUSTED:
        born = graph.add(lm.expand(graph, one(0, batch), Rng(3), meter_of(graph), draws=Draws.FRESH))
        spans += [tuple(graph.span(int(i)).tolist()) for i in born]
        rounds += 1
        assert rounds < 500
    assert len(spans) == len(set(spans)) == 3**3, "every span once, none twice"
    again = lm.expand(graph, one(0, 4), Rng(3), meter_of(graph), draws=Draws.FRESH)
    assert len(again.parent) == 0
    assert again.parent_flags.tolist() == [Flag.EXHAUSTED]


class RoundingTable(TableLM):
    """A table whose numbers come out a little different each time, as from batches of other shapes."""

    noise = np.random.default_rng(0)

    def expand(self, graph, chosen, rng, meter, draws=Draws.MULTINOMIAL):
        true = self.table
        self.table = {
            k: np.float32(v) + self.noise.normal(0, 2e-5, len(v)).astype(np.float32) for k, v in true.items()
        }
        try:
            return super().expand(graph, chosen, rng, meter, draws)
        finally:
            self.table = true


@pytest.mark.parametrize("seed", range(5))
def test_rounding_neither_repeats_a_span_nor_hides_that_a_node_is_exhausted(seed):
    lm = RoundingTable(vocabulary=3, length=5, seed=seed, span=3)
    graph, rounds = lm.start(["p"], seed), 0
    while not graph.flags[0] & Flag.EXHAUSTED:
        graph.add(lm.expand(graph, one(0, 2), Rng(seed), meter_of(graph), draws=Draws.FRESH))
        rounds += 1
        assert rounds < 500, "an exhausted node must not be expanded for ever"
    spans = [tuple(graph.span(i).tolist()) for i in graph.children(0)]
    assert len(spans) == len(set(spans)) == 3**3


def test_fresh_on_a_model_never_repeats_and_exhausts_even_when_nodes_come_back(characters):
    model = tiny_llama(characters)
    babbler = Babbler(model, characters, span=3, top_k=3, max_new_tokens=6)
    graph, other, rounds = babbler.start(["7", "3 5>8\n"]), 1, 0
    while not graph.flags[0] & Flag.EXHAUSTED:
        ids = np.array([0, other]) if rounds % 2 else np.array([0])  # batches of changing shapes
        born = babbler.expand(
            graph, Chosen(ids, np.full(len(ids), 4)), Rng(0), meter_of(graph), draws=Draws.FRESH
        )
        graph.add(born)
        babbler.release(graph, np.arange(graph.size))
        other, rounds = int(graph.frontier()[-1]), rounds + 1
        assert rounds < 300
    for node in (0, 1):
        spans = [tuple(graph.span(i).tolist()) for i in graph.children(node)]
        assert len(spans) == len(set(spans))
    assert len(graph.children(0)) == sum(1 for _ in all_spans(babbler, graph, 0))


def all_spans(babbler, graph, node, span=()):
    """Every span that q can give below a node, by enumeration."""
    if span and (len(span) == 3 or span[-1] in babbler.span.end_ids):
        yield span
        return
    logits = plain_logits(babbler.model, [*graph.path_tokens(node).tolist(), *span])[-1]
    for token in logits.topk(3).indices.tolist():
        yield from all_spans(babbler, graph, node, (*span, token))


def fits(counts, probabilities, n):
    """Whether counts may come from probabilities, outcomes that are expected less than 5 times pooled."""
    rare = probabilities * n < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(probabilities[~rare], probabilities[rare].sum()) * n
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert observed.sum() == n
    k = len(expected) - 1
    return k > 2 and ((observed - expected) ** 2 / expected).sum() < k + 2 * np.sqrt(k * X) + 2 * X


def test_draws_have_the_frequencies_of_the_model():
    lm, n = TableLM(vocabulary=3, length=3, seed=2, span=3), 20_000
    graph = lm.start(["p"])
    born = graph.add(lm.expand(graph, one(0, n), Rng(0), meter_of(graph)))
    counts = dict(zip([lm.generated(graph, int(i)) for i in born], graph.count[born], strict=True))
    observed = np.array([counts.get(t, 0) for t in lm.texts])
    p = np.exp([lm.log_p[t] for t in lm.texts])
    assert fits(observed, p, n)
    assert not fits(observed, p[::-1], n)


def test_fresh_draws_one_by_one_are_sampling_without_replacement():
    lm, n = TableLM(vocabulary=2, length=2, seed=7, span=2), 3000
    graph = lm.start(["p"] * n)  # as many trees, each with random numbers of its own
    roots = Chosen(np.arange(n), np.ones(n, np.int64))
    for _ in lm.texts:
        graph.add(lm.expand(graph, roots, Rng(0), meter_of(graph), draws=Draws.FRESH))
    orders = Counter(tuple(lm.generated(graph, c) for c in graph.children(root)) for root in range(n))
    every = list(permutations(lm.texts))
    p = np.array([np.exp(sum(without_replacement(lm, order))) for order in every])
    assert abs(p.sum() - 1) < 1e-12
    assert fits(np.array([orders[o] for o in every]), p, n)


def without_replacement(lm, order):
    """log of each text's share of what the earlier ones have left."""
    left = 1.0
    for text in order:
        q = np.exp(lm.log_p[text])
        yield np.log(q / left) if left > 1e-12 else 0.0
        left -= q


@pytest.mark.parametrize("budget", [1, 2, 7, 23])
@pytest.mark.parametrize("draws", [Draws.MULTINOMIAL, Draws.FRESH])
def test_a_budget_is_never_exceeded_and_what_it_cut_is_marked(budget, draws):
    lm = TableLM(vocabulary=3, length=6, seed=3, span=4)
    graph = lm.start(["p", "q"])
    meter = meter_of(graph, budget)
    for _ in range(4):
        ids = np.arange(graph.trees)
        graph.add(lm.expand(graph, Chosen(ids, np.array([5, 9])), Rng(0), meter, draws=draws))
        assert (meter.counts["sampled"] <= budget).all()
    assert (meter.counts["sampled"] == budget).all()
    cut = np.flatnonzero((graph.flags & Flag.CUT) > 0)
    assert len(cut)
    children = cut[cut >= graph.trees]
    assert (graph.status[children] == Status.FRONTIER).all()
    assert (graph.length[children] - 1 < 4).all()


def test_a_cut_span_is_a_prefix_of_what_was_going_to_be_drawn():
    lm = TableLM(vocabulary=3, length=6, seed=3, span=4)
    whole, cut = lm.start(["p"]), lm.start(["p"])
    whole.add(lm.expand(whole, one(0, 6), Rng(0), meter_of(whole)))
    cut.add(lm.expand(cut, one(0, 6), Rng(0), meter_of(cut, 7)))
    full = {tuple(whole.span(c).tolist()) for c in whole.children(0)}
    for c in cut.children(0):
        span = tuple(cut.span(c).tolist())
        assert any(s[: len(span)] == span for s in full)
        assert bool(cut.flags[c] & Flag.CUT) == (span not in full)
    assert cut.count[cut.children(0)].sum() <= 6


def test_the_counts_of_a_budgeted_expansion_never_pass_the_draws(llama, characters):
    babbler = Babbler(llama, characters, span=6, max_new_tokens=12)
    for budget in (3, 10, 31):
        graph = babbler.start(PROMPTS)
        meter = meter_of(graph, budget)
        graph.add(babbler.expand(graph, Chosen(np.arange(3), np.full(3, 8)), Rng(0), meter))
        assert (np.bincount(graph.root, graph.count)[:3] - 1 <= 8).all()
        assert meter.counts["sampled"].max() <= budget
        trie = {(r, *p[:n]) for r, p in paths(graph) for n in range(graph.length[r] + 1, len(p) + 1)}
        assert len(trie) == meter.read().sampled


def paths(graph):
    return [(int(graph.root[i]), tuple(graph.path_tokens(i).tolist())) for i in range(graph.size)]


def forest(lm, prompts, order=1, draws=Draws.MULTINOMIAL):
    graph = lm.start(prompts, seed=11)
    for _ in range(4):
        ids = graph.frontier()[::order]
        if not len(ids):
            break
        chosen = Chosen(ids, np.full(len(ids), 3))
        graph.add(lm.expand(graph, chosen, Rng(11), meter_of(graph), draws=draws))
    return graph


@pytest.mark.parametrize("span", [1, 2, None])
def test_a_prompt_alone_and_among_others_has_the_same_tokens(span):
    lm = TableLM(vocabulary=3, length=5, seed=9, span=span)
    together = forest(lm, ["a", "b", "c"], order=-1)
    for tree, prompt in enumerate("abc"):
        alone = forest(lm, [prompt])
        mine = Counter((lm.generated(alone, i), int(alone.count[i])) for i in range(alone.size))
        theirs = np.flatnonzero(together.root == tree)
        assert mine == Counter((lm.generated(together, i), int(together.count[i])) for i in theirs)


def test_the_same_seed_gives_the_same_graph_bit_for_bit(llama, characters):
    babbler = Babbler(llama, characters, span=3, stop=" ", max_new_tokens=16, temperature=1.3, top_p=0.95)
    one_, two = (forest(babbler, PROMPTS, draws=Draws.FRESH) for _ in range(2))
    for name in one_._columns:
        assert np.array_equal(getattr(one_, name), getattr(two, name), equal_nan=True), name
    assert np.array_equal(one_.tokens, two.tokens)
    assert np.array_equal(one_.token_log_q, two.token_log_q)


def test_another_seed_gives_another_graph(table):
    assert len({tuple(forest_of(table, seed).tokens.tolist()) for seed in range(8)}) > 4


def forest_of(lm, seed):
    graph = lm.start(["p"], seed)
    graph.add(lm.expand(graph, one(0, 3), Rng(seed), meter_of(graph)))
    ids = graph.frontier()
    graph.add(lm.expand(graph, Chosen(ids, np.full(len(ids), 3)), Rng(seed), meter_of(graph)))
    return graph
