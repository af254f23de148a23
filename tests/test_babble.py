"""The default strategy's choice of actions against a slow twin that looks at one node after the other."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from table_lm import TableLM

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.graph import NO_STATE, BabbleGraph
from babblegraph.loop import search
from babblegraph.prune import merge_into_first
from babblegraph.scoring import Score
from babblegraph.status import Flag, Status
from babblegraph.strategies import babble
from babblegraph.strategies.babble import HOPE, LEAST
from babblegraph.strategies.common import FLOOR, log_priority

INNER = (Status.FRONTIER, Status.EXPANDED, Status.PRUNED)


def random_forest(seed, trees, size):
    draw = np.random.default_rng(seed)
    graph = BabbleGraph(["p"] * trees, [[0]] * trees, {0: b"a"}, seed)
    while graph.size < size:
        parents = draw.integers(0, graph.size, 8)
        spans = [[0] * n for n in draw.integers(1, 4, 8)]
        status = draw.choice(list(Status)[:8], size=8, p=[0.4, 0.1, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1])
        ids = graph.add(Born.of_spans(parents, spans, -draw.random(8), status))
        graph.value[ids] = draw.choice([0.0, 0.2, 0.5, 1.0, np.nan], 8)  # ties among them
        graph.connectivity[ids] = draw.choice([0.0, 0.3, np.nan], 8)
        graph.flags[ids] |= draw.choice([0, Flag.EXHAUSTED], 8, p=[0.9, 0.1]).astype(np.uint8)
        ended = ids[graph.is_leaf(ids)]
        graph.score[ended] = draw.choice([0.0, 0.4, 1.0, np.nan], len(ended))
    return graph


def slow_choice(graph, width, patience, steep):
    """Takes the best draw of each tree, `width` times, each draw making the next one there worth less."""
    generated = [int(graph.length[i] - graph.length[graph.root[i]]) for i in range(graph.size)]

    @cache
    def usual(tree):
        mine = [i for i in range(graph.size) if graph.root[i] == tree]
        leaves = [i for i in mine if graph.is_leaf(i)]
        return max(
            generated[i] for i in [j for j in leaves if graph.status[j] != Status.LEAF_DEAD] or leaves or mine
        )

    def number(x):
        return 0.0 if math.isnan(x) else float(x)

    @cache
    def value(i):
        """Of a root the share of its draws that came out, of a leaf its score."""
        if graph.is_leaf(i):
            return min(max(number(graph.score[i]), 0.0), 1.0)
        if i >= graph.trees:
            return LEAST + (1 - LEAST) * number(graph.value[i])
        return (sum(value(c) for c in graph.children(i)) + HOPE) / (len(graph.children(i)) + HOPE)

    @cache
    def left(i):
        return max(1 - sum(math.exp(graph.log_q[c] - graph.log_q[i]) for c in graph.children(i)), 1e-6)

    @cache
    def finish(tree, depth):
        """How values came out at this depth and deeper."""
        chance = 1.0
        for d in range(max(depth, 1), int(graph.depth.max())):
            born = [i for i in range(graph.size) if graph.root[i] == tree and graph.depth[i] == d + 1]
            promised = sum(value(graph.parent[i]) for i in born)
            chance *= (sum(map(value, born)) + 1) / (promised + 1)
        return chance

    def to_go(i):
        return max(max(usual(graph.root[i]), 1) - generated[i], 1)

    def doubt(i):
        return (generated[i] / to_go(i)) ** steep / patience if generated[i] else 0.0

    @cache
    def expected(i):
        """A node's worth, and what came of its children."""
        if graph.is_leaf(i):
            return value(i)
        worth = value(i) * finish(int(graph.root[i]), int(graph.depth[i]))
        below = sum(expected(c) for c in graph.children(i))
        return (worth + doubt(i) * below) / (1 + doubt(i) * graph.draws[i])

    known = [expected(i) for i in range(graph.size)]

    def gain(i, drawn):
        so_far = 1 + doubt(i) * graph.draws[i]
        p = known[i] * so_far / (so_far + doubt(i) * drawn)  # as if those draws had failed
        return math.log(p * left(i) / to_go(i))

    chosen: dict[int, int] = {}
    for tree in range(graph.trees):
        ids = [i for i in range(graph.size) if graph.root[i] == tree and graph.status[i] in INNER]
        ids = [i for i in ids if not graph.flags[i] & Flag.EXHAUSTED]
        for _ in range(width if ids else 0):
            best = max(ids, key=lambda i: (round(gain(i, chosen.get(i, 0)), 9), graph.length[i], -i))
            chosen[best] = chosen.get(best, 0) + 1
    return chosen


@pytest.mark.parametrize("trees", [1, 4])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [1, 5])
def test_the_chosen_actions_are_those_of_greedy_plain_python(seed, trees, width):
    graph = random_forest(seed, trees, 120)
    chosen = babble(width=width, patience=2.0, steep=1.5).select(graph, Meter(Budget(tokens=1000), trees))
    found = dict(zip(chosen.ids.tolist(), chosen.draws.tolist(), strict=True))
    assert found == slow_choice(graph, width, 2.0, 1.5)


def test_where_the_generator_was_sure_nothing_is_tried_again():
    """Two expanded nodes, alike but for the probability of the child that each has."""
    graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    first = graph.add(Born.of_spans([0, 0], [[0], [0]], np.log([0.3, 0.3])))
    graph.add(Born.of_spans(first, [[0], [0]], np.log([0.99, 0.2]), Status.LEAF_DEAD))
    graph.value[1:] = 0.5
    graph.flags[0] |= np.uint8(Flag.EXHAUSTED)
    assert babble(width=1).select(graph, Meter(Budget(tokens=9), 1)).ids.tolist() == [first[1]]


def test_that_a_prompt_is_hard_is_no_reason_to_stay_away_from_its_root():
    """A root and two places below it, with failures everywhere: the root only falls by what was drawn of it."""
    graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    first = graph.add(Born.of_spans([0, 0], [[0, 0], [0, 0]], np.log([0.01, 0.01])))
    for _ in range(30):
        graph.draws[0] += 1
        graph.add(Born.of_spans(first, [[0], [0]], np.log([0.01, 0.01]), Status.LEAF_DEAD))
    graph.value[1:3], graph.score[3:], graph.value[3:] = 1.0, 0.0, 0.0
    meter = Meter(Budget(tokens=9), 1)
    assert babble(width=1).select(graph, meter).ids.tolist() == [0]


def test_where_deaths_come_early_the_search_goes_down():
    """Two forests alike but for the depth at which texts die: where it is the first, who got through is precious."""
    chosen = []
    for deaths in (0, 8):
        graph = BabbleGraph(["p"], [[0]], {0: b"a"})
        middle = graph.add(Born.of_spans([0], [[0]], np.log([0.01])))
        dead = graph.add(
            Born.of_spans([0] * deaths, [[0]] * deaths, np.log([0.01] * deaths), Status.LEAF_DEAD)
        )
        below = graph.add(Born.of_spans(middle, [[0]], np.log([0.01]), Status.LEAF_STOP))
        graph.value[middle], graph.score[dead], graph.score[below] = 1.0, 0.0, 0.0
        graph.value[dead] = graph.value[below] = np.nan
        chosen += babble(width=1, steep=4.0).select(graph, Meter(Budget(tokens=9), 1)).ids.tolist()
    assert chosen == [0, int(middle[0])]


def test_a_larger_budget_goes_the_same_way_further():
    lm = TableLM(3, 6, seed=2)
    graphs = []
    for budget in (40, 160):
        *_, last = search(
            lm, ["p"] * 3, score=Score(), strategy=babble(width=1), budget=Budget(tokens=budget)
        )
        graphs.append(last.graph)
    for tree in range(3):
        texts = [
            [g.text(i) for i in range(3, g.size) if g.root[i] == tree and not g.flags[i] & Flag.CUT]
            for g in graphs
        ]
        assert len(texts[0]) > 10
        assert texts[0] == texts[1][: len(texts[0])]


def test_checked_steps_are_followed_down_and_not_begun_anew():
    """A chain in which a draw is right with probability 0.4, and a wrong one is dead at once: the case for depth."""
    lm = TableLM(2, 12, seed=1)
    lm.table |= {t: np.log([0.4, 0.6]) for t in lm.table}

    class OnlyA:
        def verify(self, prompt, text):
            return float(text == "a" * 12)

        def value(self, prompt, text):
            return float("b" not in text)

    options = {"score": Score(OnlyA()), "budget": Budget(tokens=60)}
    *_, last = search(lm, ["p"] * 20, strategy=babble(width=1, threshold=1.0), **options)
    solved = np.bincount(last.graph.root[last.graph.score == 1], minlength=20)
    assert solved.all()


def test_priorities_are_those_of_the_formula_for_the_nodes_asked_for():
    graph = random_forest(3, 2, 60)
    ids = np.flatnonzero(graph.status == Status.FRONTIER)
    found = log_priority(graph, ids, 0.5, 2.0)
    for i in range(graph.size):
        v, c = (1.0 if math.isnan(x[i]) else float(x[i]) for x in (graph.value, graph.connectivity))
        expected = 0.5 * math.log(FLOOR + (1 - FLOOR) * v) + 2 * math.log(FLOOR + (1 - FLOOR) * c)
        assert found[i] == pytest.approx(expected if i in ids else 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_equal_states_are_merged_as_plain_python_merges_them(seed):
    """Keys that agree in their low bits alone are among them."""
    graph, draw = random_forest(seed, 3, 200), np.random.default_rng(seed)
    few = draw.integers(0, 20, graph.size) + (draw.integers(0, 2, graph.size) << 40)
    graph.state_key[:] = np.where(draw.random(graph.size) < 0.2, NO_STATE, few)
    oldest, expected = {}, {}
    for i in range(graph.size):
        place = (int(graph.root[i]), int(graph.state_key[i]))
        if graph.status[i] not in INNER or graph.state_key[i] == NO_STATE:
            continue
        if graph.status[i] == Status.FRONTIER and place in oldest:
            expected[i] = oldest[place]
        oldest.setdefault(place, i)
    before = graph.status.copy()
    assert sorted(merge_into_first(graph).tolist()) == sorted(expected)
    assert dict(graph.merges) == expected
    before[list(expected)] = Status.MERGED
    np.testing.assert_array_equal(graph.status, before)
    assert (graph.flags[list(expected.values())] & Flag.BIASED).all()
