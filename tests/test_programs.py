"""Whole programs of operations: their sums over leaves against full enumeration, and every planted mistake caught.

z-tests: every scheme × 3 tables × 3 seeds (each with its own table, random numbers and priorities) × 3 functions.
`Z` is where Student's t with 149 degrees leaves 1e-6 for all of them together (Bonferroni).
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from enumerator import Enumerator, TooMany
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow_but
from mistakes import MISTAKES
from schemes import SCHEMES, Forest, code_of, grown, pruned, rare_event, to_the_end
from table_lm import TableLM
from test_prune import edges_of
from test_stem import grow

from babblegraph.intervals import t_quantile
from babblegraph.ordering import by_state
from babblegraph.protocols import ALL, Draws
from babblegraph.prune import FLOOR, _same_state, merge_by_weight, resample_frontier, roulette
from babblegraph.resample import fearnhead_clifford, systematic
from babblegraph.status import Status
from babblegraph.stem import hold_back

SIZES = [(3, 4), (4, 5), (2, 8)]
SEEDS, FUNCTIONS, TREES = 3, 3, 150
FALSE_ALARM = 1e-6
Z = t_quantile(1 - FALSE_ALARM / (2 * len(SCHEMES) * len(SIZES) * SEEDS * FUNCTIONS), TREES - 1)


def forest_of(name, size, seed=0, trees=TREES):
    scheme, options = SCHEMES[name]
    table = {"span": options.get("span", 1), "mixture": options.get("mixture")}
    lm = TableLM(*size, seed=11 + seed, moved=5 + seed if options.get("moved") else None, **table)
    how = {name: options[name] for name in ("temperature", "draws") if name in options}
    return scheme, Forest(lm, trees, seed, **how)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"V={s[0]} L={s[1]}")
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("seed", slow_but([0], range(SEEDS)))
def test_every_scheme_is_unbiased(name, size, seed):
    scheme, forest = forest_of(name, size, seed=sum(map(ord, name)) % 97 + 100 * seed)
    scheme(forest)
    assert not len(forest.live(Status.FRONTIER, Status.STEM))
    worst = {h: z for h, z in forest.z().items() if abs(z) >= Z}
    assert not worst


@pytest.mark.parametrize("name", MISTAKES)
def test_every_planted_mistake_is_caught(name):
    """The same z-scores that no right scheme reaches: a mistake must go beyond on some table."""
    mistake, options = MISTAKES[name]
    worst = 0.0
    for size in SIZES:
        lm = TableLM(
            *size, seed=11, moved=5 if options.get("moved") else None, mixture=options.get("mixture")
        )
        forest = Forest(lm, options.get("trees", TREES), 5, options.get("temperature", 1.0))
        extra = mistake(forest)
        worst = max(worst, *map(abs, forest.z(0.0 if extra is None else extra).values()))
        if worst > Z:
            return
    raise AssertionError(f"not caught: |z| is only {worst:.1f}")


def test_there_are_as_many_schemes_and_functions_as_the_bound_says():
    assert len(SCHEMES) >= 10
    assert len(Forest(TableLM(2, 2), 2, 0).h) == FUNCTIONS
    assert 6 < Z < 7


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"V={s[0]} L={s[1]}")
def test_merges_make_a_directed_acyclic_graph_that_keeps_all_weight(size):
    lm = TableLM(*size, seed=3)
    forest = Forest(lm, 20, 3)
    graph = forest.graph
    while len(forest.live()):
        forest.grow(forest.live(), ALL)
        before, known = np.exp(graph.log_weight(forest.live())), len(graph.merges)
        live = forest.live()
        merge_by_weight(graph, forest.rng)
        new = graph.merges[known:]
        for loser, winner in new:
            assert graph.status[loser] == Status.MERGED
            assert graph.status[winner] != Status.MERGED
            assert graph.root[loser] == graph.root[winner]
            assert graph.state_key[loser] == graph.state_key[winner]
        for winner in {w for _, w in new}:  # it has its own weight and that of all that it stands for
            group = [winner, *(a for a, b in new if b == winner)]
            assert np.exp(graph.log_weight(winner)) == pytest.approx(
                before[np.isin(live, group)].sum(), rel=1e-12
            )
    assert len({a for a, _ in graph.merges}) == len(graph.merges) > 0
    made = graph.to_networkx()
    kinds = nx.get_edge_attributes(made, "kind")
    assert sum(kind != "child" for kind in kinds.values()) == len(graph.merges)
    assert nx.is_directed_acyclic_graph(made)


def test_a_rare_event_costs_less_than_a_fifteenth_of_independent_sampling():
    """P ≈ 1e-2, variance × next-token distributions, the guess √V · exp(0.7 z) + 0.05; measured about 1/40."""
    gains = []
    for seed in (3, 4, 5):
        lm = TableLM(3, 4, seed=seed)
        forest = Forest(lm, 300, seed)
        value = rare_event(lm, 0.012)
        noise = np.exp(0.7 * np.random.default_rng(seed).normal(size=len(value)))
        forest.h, forest.truth = {"rare": np.zeros(len(forest.guess))}, {"rare": value[()]}
        for (text, v), error in zip(value.items(), noise, strict=True):
            forest.guess[code_of(text, lm.v)] = np.log(np.sqrt(v) * error + 0.05)
            forest.h["rare"][code_of(text, lm.v)] = v if len(text) == lm.length else 0.0
        to_the_end(grown(ALL, pruned(6)))(forest)
        sums = forest.sums()["rare"]
        assert abs(forest.z()["rare"]) < Z
        independent = value[()] * (1 - value[()]) * lm.length  # of one text
        gains.append(independent / (sums.var() * lm.calls / forest.graph.trees))
    assert np.exp(np.mean(np.log(gains))) > 15


class Program:
    """Operations on one tree of a tiny table. What each does may depend on the tree that it finds.

    The measure of a tree is Σ w E[h | node] over all that is not stopped: its mean must never move.
    """

    def __init__(self, operations, seed):
        self.operations, self.lm = operations, TableLM(2, 3, seed=seed)
        draw = np.random.default_rng(seed)
        lm, self.h = self.lm, {}
        self.guess = {}
        for n in range(lm.length, -1, -1):
            for text in [t[:n] for t in lm.texts]:
                below = [(*text, a) for a in range(lm.v)]
                if n == lm.length:
                    self.h[text] = np.array([1.0, lm.score[text] > 0.6, text[0] * draw.normal()])
                else:
                    self.h[text] = sum(np.exp(lm.table[text][a]) * self.h[b] for a, b in enumerate(below))
                self.guess[text] = draw.choice([0.0, 0.1, 0.5, 1.0])  # zeros among them

    def run(self, rng):
        self.graph, self.rng, self.texts = self.lm.start(["p"]), rng, [()]
        for name, *arguments in self.operations:
            self.read_texts()
            self.graph.round += 1
            getattr(self, name)(*arguments)
        self.read_texts()
        return self.measure()

    def read_texts(self):
        graph, known = self.graph, len(self.texts)
        for i in range(known, graph.size):
            self.texts.append((*self.texts[graph.parent[i]], *graph.span(i).tolist()))
        self.rng.nodes = dict(zip(graph.key.tolist(), self.texts, strict=True))

    def measure(self):
        graph = self.graph
        ids = np.flatnonzero(graph.is_leaf() | np.isin(graph.status, (Status.FRONTIER, Status.STEM)))
        w = np.exp(graph.log_weight(ids))
        return sum((w_i * self.h[self.texts[i]] for w_i, i in zip(w, ids, strict=True)), np.zeros(3))

    def live(self, *status):
        return np.flatnonzero(np.isin(self.graph.status, status))

    def expand(self, which, m, way=Draws.MULTINOMIAL):
        ids = self.live(Status.FRONTIER, Status.STEM)
        self._grow(ids[[which % len(ids)]] if len(ids) else ids, m, way)

    def expand_all(self, m, way=Draws.MULTINOMIAL):
        self._grow(self.live(Status.FRONTIER), m, way)

    def _grow(self, ids, m, way):
        graph = self.graph
        if way is Draws.SYSTEMATIC and m > 1:  # one uniform a node; a single draw is like any other
            self.rng.expect(np.cumsum(np.exp(self.lm.table[self.texts[i]])) * m % 1.0 for i in ids)
        for i in grow(self.lm, graph, ids, m, self.rng, way) if len(ids) else ():
            if graph.status[i] == Status.FRONTIER:  # a state that forgets the order of tokens
                graph.state_key[i] = int("1" + "".join(map(str, sorted(self.lm.generated(graph, i)))))

    def prune(self, k, scheme, order=None):
        graph, ids = self.graph, self.live(Status.FRONTIER)
        if order is not None:
            ids = ids[np.argsort(order(graph, ids), kind="stable")]
        guess = np.array([self.guess[self.texts[i]] for i in range(graph.size)])
        if len(ids) > k:
            floor = FLOOR * (guess[ids].max() or 1 / FLOOR)
            sizes = np.exp(graph.log_weight(ids)) * np.maximum(guess[ids], floor)
            self.rng.expect([edges_of(scheme, sizes, k)])
        with np.errstate(divide="ignore"):
            resample_frontier(graph, np.log(guess), k, self.rng, scheme=scheme, order=order)

    def spin(self, most):
        ids = self.live(Status.FRONTIER, Status.STEM)[:most]
        survival = [0.2 + 0.6 * self.guess[self.texts[i]] for i in ids]
        self.rng.expect([np.array([s]) for s in survival])
        roulette(self.graph, ids, survival, self.rng)

    def merge(self):
        graph = self.graph
        ids, members = _same_state(graph, self.live(Status.FRONTIER))
        for group in np.split(ids, np.cumsum(members)[:-1]) if len(ids) else []:
            w = np.exp(graph.log_weight(group))
            self.rng.expect([np.cumsum(w) / w.sum()])
        merge_by_weight(graph, self.rng)

    def hold(self, which, share):
        ids = self.live(Status.FRONTIER, Status.STEM)
        if len(ids):
            hold_back(self.graph, ids[[which % len(ids)]], share)


def backwards(graph, ids):
    return -ids


# without replacement weights are continuous in the uniforms: exact in test_draws.py, and by z-scores above
WAYS = st.sampled_from([Draws.MULTINOMIAL, Draws.SYSTEMATIC])
OPERATION = st.one_of(
    st.tuples(st.just("expand"), st.integers(0, 5), st.integers(0, 2), WAYS),
    st.tuples(st.just("expand_all"), st.integers(0, 3), WAYS),
    st.tuples(
        st.just("prune"),
        st.integers(1, 3),
        st.sampled_from([fearnhead_clifford, systematic]),
        st.sampled_from([None, by_state, backwards]),
    ),
    st.tuples(st.just("spin"), st.integers(1, 3)),
    st.tuples(st.just("merge")),
    st.tuples(st.just("hold"), st.integers(0, 5), st.sampled_from([0.2, 0.5])),
)

WHOLE = ("expand_all", 0)
BEGINNINGS = [[WHOLE], [WHOLE, WHOLE], [WHOLE, WHOLE, ("merge",)], [WHOLE, ("hold", 0, 0.5), WHOLE]]


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(OPERATION, min_size=2, max_size=8), st.sampled_from(BEGINNINGS), st.integers(0, 20))
def test_any_program_of_operations_keeps_the_mean_exactly(operations, beginning, seed):
    """All outcomes of a random program and of all its beginnings, until there are too many."""
    operations = [*beginning, *operations]
    for length in range(1, len(operations) + 1):
        program = Program(operations[:length], seed)
        try:
            found, _ = Enumerator(program.lm, 60).expectation(program.run)
        except TooMany:
            return
        assert np.abs(found - program.h[()]).max() < 1e-12


def test_the_enumeration_itself_would_notice_a_bias():
    """Hard pruning in the place of the unbiased one moves the exact mean."""
    program = Program([("expand_all", 0), ("expand_all", 0), ("cut",)], 3)
    program.cut = lambda: program.graph.stop_nodes(program.live(Status.FRONTIER)[2:], Status.PRUNED)
    found, outcomes = Enumerator(program.lm, 150).expectation(program.run)
    assert outcomes == 1
    assert np.abs(found - program.h[()]).max() > 1e-3
