"""Ways to draw: systematic sampling integrated over all of its uniforms, draws without replacement against a full race.

Three facts make the weights of the race exact: it finds what the race of all spans finds (`below` and the slow twin),
that race is one of independent exponentials (its order is that of sampling without replacement, and the formula), and
`reached` is the measure of the uniforms with which a span stays. The chi-square tests bound their false alarms as in
test_rows.py: below 1e-6 each; the seeds are fixed.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product

import numpy as np
import pytest
from table_lm import TableLM
from test_rows import X, fits, forest, meter_of, one, without_replacement
from tiny_models import plain_logits

from babblegraph.lm import Babbler
from babblegraph.lm.race import GUMBEL, _exponential, below
from babblegraph.protocols import ALL, Chosen, Contest, Draws
from babblegraph.randomness import Rng, chain
from babblegraph.resample import reached
from babblegraph.status import Flag, Status

EVERY = [Draws.MULTINOMIAL, Draws.SYSTEMATIC, Draws.DISTINCT]


def lm_of(kind, v, length, span):
    """A table with random, tied, or nearly impossible next tokens."""
    lm = TableLM(v, length, seed=3, span=span)
    if kind == "ties":
        lm.table = {prefix: np.full(v, -np.log(v)) for prefix in lm.table}
    if kind == "near zero":
        p = np.r_[1 - 1e-9 * (v - 1), np.full(v - 1, 1e-9)]
        lm.table = {prefix: np.log(np.roll(p, len(prefix))) for prefix in lm.table}
    lm.log_p = {t: sum(lm.table[t[:i]][t[i]] for i in range(length)) for t in lm.texts}
    return lm


class Pieces:
    """Every outcome of the uniforms of one expansion below the root; each is one choice among the pieces of [0, 1).

    A finer cut than needed does no harm: single draws are cut at the borders of all rows, points at equal distances
    at those of all intervals.
    """

    def __init__(self, lm, m):
        inner = np.concatenate([np.cumsum(np.exp(row)) for row in lm.table.values()])
        borders = [0.0]
        for n in range(1, lm.rule.tokens + 1):
            spans = sorted({t[:n] for t in lm.texts})
            p = np.array([np.exp(sum(lm.table[s[:i]][s[i]] for i in range(n))) for s in spans])
            borders.append(np.cumsum(p))
        self.cuts = {False: inner, True: np.hstack(borders) * m % 1.0}

    def outcomes(self, run):
        """The probability of each outcome, and what `run(rng)` returns."""
        self.path = []
        while True:
            self.depth, self.odds = 0, 1.0
            result = run(self)
            yield self.odds, result
            while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
                self.path.pop()
            if not self.path:
                return
            self.path[-1][0] += 1

    def uniforms(self, keys, draws, positions):
        keys, draws, positions = np.broadcast_arrays(keys, draws, positions)
        return np.array([self._uniform(int(key) != self.node) for key in keys])

    def _uniform(self, lattice):
        cuts = np.unique(np.r_[0.0, 1.0, self.cuts[lattice]])
        real = np.flatnonzero(np.diff(cuts) > 1e-15)
        if self.depth == len(self.path):
            self.path.append([0, len(real)])
        at = real[self.path[self.depth][0]]
        self.depth, self.odds = self.depth + 1, self.odds * (cuts[at + 1] - cuts[at])
        return (cuts[at] + cuts[at + 1]) / 2


@pytest.mark.parametrize("kind", ["random", "ties", "near zero"])
@pytest.mark.parametrize(
    ("v", "span", "m"),
    [(3, 1, 1), (3, 1, 2), (4, 1, 3), (3, 1, 7), (2, 2, 2), (2, 2, 3), (2, 3, 2), (3, 2, 2), (2, 2, 6)],
)
def test_systematic_draws_keep_every_weighted_sum_exactly(kind, v, span, m):
    """All uniforms integrated, spans of several tokens too; each count is m q rounded up or down."""
    lm = lm_of(kind, v, span, span)
    h = {t: np.cos(3 * i) + 0.2 for i, t in enumerate(lm.texts)}
    truth = sum(np.exp(lm.log_p[t]) * h[t] for t in lm.texts)
    pieces = Pieces(lm, m)

    def run(rng):
        graph = lm.start(["p"])
        rng.node = int(graph.key[0])
        born = graph.add(lm.expand(graph, one(0, m), rng, meter_of(graph), Draws.SYSTEMATIC))
        assert graph.count[born].sum() == m
        counts = {lm.generated(graph, i): int(graph.count[i]) for i in born}
        for t in lm.texts:
            assert abs(counts.get(t, 0) - m * np.exp(lm.log_p[t])) < 1 + 1e-9
        w = np.exp(graph.log_weight(born))
        return np.array([w.sum(), w @ [h[lm.generated(graph, i)] for i in born]])

    odds, found = zip(*pieces.outcomes(run), strict=True)
    assert abs(sum(odds) - 1) < 1e-12
    assert np.abs(np.array(odds) @ np.array(found) - [1.0, truth]).max() < 1e-12


def test_systematic_counts_are_more_even_than_independent_ones():
    lm = TableLM(3, 3, seed=2, span=3)
    spread = {}
    for way in (Draws.MULTINOMIAL, Draws.SYSTEMATIC):
        graph = lm.start(["p"] * 400)
        roots = np.arange(graph.trees)
        born = graph.add(lm.expand(graph, Chosen(roots, np.full(400, 8)), Rng(0), meter_of(graph), way))
        top = [lm.generated(graph, i)[0] == 0 for i in born]
        spread[way] = np.bincount(graph.root[born], graph.count[born] * top, minlength=400).var()
    assert spread[Draws.SYSTEMATIC] < 0.25 + 1e-9  # of two neighbouring whole numbers
    assert spread[Draws.MULTINOMIAL] > 2 * spread[Draws.SYSTEMATIC]


def test_long_spans_have_uniforms_left_for_every_token():
    """The chance of a span of 200 bits is far below a uniform's 2^-53: bits must not run out."""
    lm, n = TableLM(2, 1, seed=0, span=None), 200
    lm.length, even = n, np.log([0.5, 0.5])
    lm.table = type("Even", (), {"__getitem__": lambda self, prefix: even})()
    graph = lm.start(["p"])
    born = graph.add(lm.expand(graph, one(0, 64), Rng(0), meter_of(graph), Draws.SYSTEMATIC))
    tokens = np.array([graph.span(i) for i in born])
    assert len(born) == 64
    late = tokens[:, 60:]
    assert abs(late.mean() - 0.5) < 0.05  # 8,960 coins: odds below e^-44 by Hoeffding's bound
    assert len({tuple(row) for row in late}) == 64


@pytest.mark.parametrize("way", [Draws.MULTINOMIAL, Draws.SYSTEMATIC])
def test_one_of_many_counted_draws_is_distributed_as_a_separate_sample(way):
    """Chi-square of two samples: a draw at random from each tree's eight, and trees of one draw each."""
    lm, n = TableLM(3, 3, seed=2, span=3), 4000
    together, alone = (
        _one_each(lm, n, m, seed, w) for m, seed, w in ((8, 1, way), (1, 2, Draws.MULTINOMIAL))
    )
    assert agree(together, alone)
    assert not agree(together, np.roll(alone, 1))
    assert fits(together, np.exp([lm.log_p[t] for t in lm.texts]), n)


@pytest.mark.parametrize("way", [Draws.MULTINOMIAL, Draws.SYSTEMATIC])
def test_counted_draws_of_a_model_are_distributed_as_separate_samples(way, llama, characters):
    babbler, n = Babbler(llama, characters, span=3, top_k=4, max_new_tokens=3), 2000
    found = []
    for m, seed in ((10, 1), (1, 2)):
        graph = babbler.start(["3 5>8\n"] * (n // m), seed)
        roots = np.arange(graph.trees)
        meter = meter_of(graph)
        born = graph.add(
            babbler.expand(
                graph,
                Chosen(roots, np.full(len(roots), m)),
                Rng(0),
                meter,
                way if m > 1 else Draws.MULTINOMIAL,
            )
        )
        counts = Counter()
        for i in born:
            counts[graph.text(int(i))] += int(graph.count[i])
        found.append(counts)
    texts = sorted(set(found[0]) | set(found[1]))
    together, alone = (np.array([c[t] for t in texts]) for c in found)
    assert together.sum() == alone.sum() == n
    assert agree(together, alone)  # systematic counts spread less than independent ones
    assert not agree(together, alone[::-1])


def _one_each(lm, n, m, seed, way):
    """How often each text is found by one draw, taken at random, of each of n trees with m draws."""
    graph = lm.start(["p"] * n, seed)
    roots = np.arange(n)
    graph.add(lm.expand(graph, Chosen(roots, np.full(n, m)), Rng(seed), meter_of(graph), way))
    pick, found = np.random.default_rng(seed), Counter()
    for root in roots:
        children = np.array(graph.children(root))
        found[lm.generated(graph, pick.choice(children, p=graph.count[children] / m))] += 1
    return np.array([found[t] for t in lm.texts])


def agree(first, second):
    """Whether two samples of one size may come from one distribution, outcomes seen less than 10 times pooled."""
    rare = first + second < 10
    a, b = (np.append(x[~rare], x[rare].sum()) for x in (first, second))
    a, b = a[a + b > 0], b[a + b > 0]
    k = len(a) - 1
    return k > 2 and ((a - b) ** 2 / (a + b)).sum() < k + 2 * np.sqrt(k * X) + 2 * X


def full_race(lm, graph, node):
    """The slow twin: the perturbed log-probability of every span below a node, with the same uniforms."""
    key, first = graph.key[[node]], int(graph.draws[node])
    u = Rng(0).uniforms(chain(key, GUMBEL), first, 0)
    rows = {(): (key, float(-np.log(_exponential(u))[0]), 0.0)}
    start = lm.generated(graph, node)
    for at in range(min(lm.rule.tokens, lm.length - len(start))):
        longer = {}
        for span, (key, largest, log_q) in rows.items():
            log_rate = log_q + np.log(np.exp(lm.table[start + span]))
            u = Rng(0).uniforms(np.repeat(chain(chain(key, GUMBEL), first), lm.v), np.arange(lm.v), at)
            values = below(np.array([largest]), log_rate[None], u[None])[0]
            for a in range(lm.v):
                longer[(*span, a)] = (chain(key, [a]), values[a], log_rate[a])
        rows = longer
    return {span: (value, log_q) for span, (_, value, log_q) in rows.items()}


@pytest.mark.parametrize("kind", ["random", "ties", "near zero"])
@pytest.mark.parametrize("m", [1, 2, 3, 7, 27, 40])
def test_a_search_without_replacement_finds_the_best_of_the_race_of_all_spans(kind, m):
    for seed in range(8):
        lm = lm_of(kind, 3, 4, 3)
        graph = lm.start(["p"], seed)
        everything = full_race(lm, graph, 0)
        born = graph.add(lm.expand(graph, one(0, m), Rng(0), meter_of(graph), Draws.DISTINCT))
        live = born[graph.status[born] == Status.FRONTIER]
        falling = sorted(everything, key=lambda span: -everything[span][0])
        assert {lm.generated(graph, i) for i in live} == set(falling[:m])
        kappa = everything[falling[m]][0] if m < len(falling) else -np.inf
        log_q = np.array([everything[lm.generated(graph, i)][1] for i in live])
        expected = reached(log_q, kappa) if m > 1 else log_q
        np.testing.assert_allclose(graph.log_inclusion[live], expected, atol=1e-12)
        if m >= len(falling):
            assert (graph.log_inclusion[live] == 0).all(), (
                "where every span is there, none was left to chance"
            )
            np.testing.assert_allclose(np.exp(graph.log_weight(live)).sum(), 1, atol=1e-12)
        lost = born[graph.status[born] == Status.PRUNED]
        assert not {lm.generated(graph, i) for i in lost} & set(falling[:m])


def test_children_arrive_after_their_row_as_independent_exponentials_do(rng):
    """T = exp(−G) is a time: each child's is the row's plus what it would have taken more than the first one."""
    log_rate = np.log(rng.dirichlet(np.full(6, 0.5), 50))
    log_rate[:, 2] = -np.inf
    largest, u = rng.normal(size=50), rng.random((50, 6))
    values = below(largest, log_rate, u)
    with np.errstate(divide="ignore"):
        alone = -np.log1p(-u) / np.exp(log_rate)
    times = np.exp(-largest)[:, None] + alone - alone.min(1, keepdims=True)
    np.testing.assert_allclose(np.exp(-values), times, rtol=1e-9)
    assert (values.max(1) == largest).all()
    assert np.isneginf(values[:, 2]).all()


def test_times_far_below_a_floats_range_keep_their_order():
    log_rate = np.log([[0.7, 0.2, 0.1]]) - 49_000.0
    values = below(np.array([-49_003.0]), log_rate, np.array([[0.3, 0.9, 0.5]]))
    near = below(np.array([-3.0]), log_rate + 49_000.0, np.array([[0.3, 0.9, 0.5]]))
    np.testing.assert_allclose(values + 49_000.0, near, atol=1e-9)


@pytest.mark.parametrize("log_q", [0.0, -0.7, -3.0, -20.0, -40.0])
@pytest.mark.parametrize("above", [-5.0, -1.0, 0.0, 2.0, 10.0, 40.0])
def test_a_span_is_reached_with_the_measure_of_the_uniforms_that_reach_it(log_q, above):
    """The edge in u of G(u) > κ, found by halving; the integral of [G > κ] / π over u is then 1."""
    kappa = log_q + above
    low, high = 0.0, 1.0
    for _ in range(200):
        u = (low + high) / 2
        low, high = (u, high) if u < 1 and log_q - np.log(-np.log1p(-u)) > kappa else (low, u)
    assert abs(low - np.exp(reached(log_q, kappa))) < 1e-12
    exact = np.exp(-above) if above > 30 else -np.expm1(-np.exp(-above))
    assert np.exp(reached(log_q, kappa)) == pytest.approx(exact, rel=1e-12)


def test_inclusion_does_not_overflow_for_paths_of_4096_tokens():
    assert reached(-49_152.0, -np.inf) == 0.0
    assert reached(-49_152.0, -3.0) == pytest.approx(-49_149.0, abs=1e-9)
    assert reached(-3.0, -49_152.0) == 0.0


def test_the_order_of_the_race_is_that_of_sampling_without_replacement():
    lm, n = TableLM(vocabulary=2, length=2, seed=7, span=2), 3000
    graph = lm.start(["p"] * n)
    contest = Contest(np.full(n, np.nan), np.ones(n, np.bool_), np.full(n, -np.inf))
    chosen = Chosen(np.arange(n), np.full(n, 4), contest)
    born = graph.add(lm.expand(graph, chosen, Rng(0), meter_of(graph), Draws.DISTINCT))
    worth = dict(zip(born.tolist(), contest.born, strict=True))
    orders = Counter(
        tuple(lm.generated(graph, c) for c in sorted(graph.children(root), key=lambda c: -worth[c]))
        for root in range(n)
    )
    every = list(permutations(lm.texts))
    p = np.array([np.exp(sum(without_replacement(lm, order))) for order in every])
    assert fits(np.array([orders[o] for o in every]), p, n)
    assert np.isneginf(contest.bound).all(), "nothing was lost"


def test_one_draw_without_replacement_is_one_sample():
    lm, n = TableLM(3, 2, seed=1, span=2), 5000
    graph = lm.start(["p"] * n)
    born = graph.add(
        lm.expand(graph, Chosen(np.arange(n), np.ones(n, int)), Rng(0), meter_of(graph), Draws.DISTINCT)
    )
    live = born[graph.status[born] != Status.PRUNED]
    np.testing.assert_allclose(graph.log_inclusion[live], graph.log_q[live], atol=1e-12)
    counts = Counter(lm.generated(graph, i) for i in live)
    assert fits(np.array([counts[t] for t in lm.texts]), np.exp([lm.log_p[t] for t in lm.texts]), n)


def test_draws_without_replacement_cost_the_tokens_that_were_in_the_running():
    lm = TableLM(3, 6, seed=4, span=6)
    graph = lm.start(["p"])
    meter = meter_of(graph)
    born = graph.add(lm.expand(graph, one(0, 5), Rng(0), meter, Draws.DISTINCT))
    live = born[graph.is_leaf(born)]
    trie = {lm.generated(graph, i)[:n] for i in live for n in range(1, 7)}
    assert len(live) == 5
    assert len(trie) <= meter.read().sampled <= 5 * 6


@pytest.mark.parametrize("way", EVERY)
def test_a_prompt_alone_and_among_others_has_the_same_tokens_however_they_are_drawn(way):
    for span in (1, 3):
        lm = TableLM(vocabulary=3, length=5, seed=9, span=span)
        together = forest(lm, ["a", "b", "c"], order=-1, draws=way)
        for tree, prompt in enumerate("abc"):
            alone = forest(lm, [prompt], draws=way)
            theirs = np.flatnonzero(together.root == tree)
            mine, others = (
                Counter(
                    (lm.generated(g, i), int(g.count[i]), int(g.status[i]), float(g.log_inclusion[i]))
                    for i in ids
                )
                for g, ids in ((alone, np.arange(alone.size)), (together, theirs))
            )
            assert mine == others


@pytest.mark.parametrize("way", EVERY)
def test_expanding_a_node_again_draws_with_new_numbers(way):
    lm = TableLM(3, 6, seed=2, span=6)
    graph = lm.start(["p"])
    first = graph.add(lm.expand(graph, one(0, 6), Rng(0), meter_of(graph), way))
    second = graph.add(lm.expand(graph, one(0, 6), Rng(0), meter_of(graph), way))
    assert graph.draws[0] == 12
    assert len(second), "some spans are new"
    spans = [lm.generated(graph, i) for i in (*first, *second)]
    assert len(spans) == len(set(spans))


@pytest.mark.parametrize("way", [Draws.SYSTEMATIC, Draws.DISTINCT])
@pytest.mark.parametrize("budget", [1, 2, 7, 23])
def test_a_budget_cuts_every_way_to_draw(way, budget):
    lm = TableLM(vocabulary=3, length=6, seed=3, span=4)
    graph = lm.start(["p", "q"])
    meter = meter_of(graph, budget)
    graph.add(lm.expand(graph, Chosen(np.arange(2), np.array([15, 20])), Rng(0), meter, way))
    assert (meter.counts["sampled"] == budget).all()
    assert (graph.flags[:2] & Flag.CUT > 0).all()


@pytest.mark.parametrize("way", EVERY)
def test_all_next_tokens_and_draws_of_any_way_go_together(way):
    lm = TableLM(3, 4, seed=1, span=2)
    graph = lm.start(["p", "q"])
    born = graph.add(
        lm.expand(graph, Chosen(np.array([0, 1]), np.array([ALL, 5])), Rng(0), meter_of(graph), way)
    )
    alone = lm.start(["p", "q"])
    other = alone.add(lm.expand(alone, one(1, 5), Rng(0), meter_of(alone), way))
    whole = born[graph.root[born] == 0]
    assert sorted(lm.generated(graph, i) for i in whole) == [(t,) for t in range(lm.v)]
    assert (graph.log_inclusion[whole] == 0).all()
    mine, theirs = (
        {lm.generated(g, i): (int(g.status[i]), float(g.log_inclusion[i])) for i in ids}
        for g, ids in ((graph, born[graph.root[born] == 1]), (alone, other))
    )
    assert mine == theirs


def test_a_model_without_replacement_gives_different_spans_with_their_own_probabilities(llama, characters):
    babbler = Babbler(llama, characters, span=2, stop=" ", max_new_tokens=8, temperature=0.8)
    graph = babbler.start(["3 5>8\n", "7"])
    born = graph.add(
        babbler.expand(graph, Chosen(np.arange(2), np.array([6, 3])), Rng(0), meter_of(graph), Draws.DISTINCT)
    )
    live = born[graph.status[born] != Status.PRUNED]
    assert np.bincount(graph.root[live]).tolist() == [6, 3]
    assert len({(graph.root[i], *graph.span(int(i)).tolist()) for i in live}) == 9
    assert (graph.log_inclusion[live] < 0).all()
    for i in live:
        path, n = graph.path_tokens(int(i)), len(graph.span(int(i)))
        log_p = plain_logits(llama, path).double().log_softmax(-1)
        told = sum(float(log_p[len(path) - n - 1 + j, t]) for j, t in enumerate(path[-n:]))
        assert graph.log_p_f[i] == pytest.approx(told, abs=1e-4)


def test_every_span_of_the_tables_is_enumerated_by_the_twin():
    lm = TableLM(3, 4, seed=3, span=2)
    found = full_race(lm, lm.start(["p"]), 0)
    assert set(found) == set(product(range(3), repeat=2))
    assert sum(np.exp(log_q) for _, log_q in found.values()) == pytest.approx(1)
