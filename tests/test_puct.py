"""PUCT and adaptive branching against plain Python that keeps its own statistics, visit by visit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from table_lm import TableLM
from test_loop import TableTask, noisy_value

from babblegraph.budget import Budget
from babblegraph.loop import search
from babblegraph.scoring import Score
from babblegraph.status import Flag, Status
from babblegraph.strategies import adaptive, puct


class Plain:
    """A textbook tree: nodes are dictionaries, every evaluation is backed up along its path at once."""

    def __init__(self):
        self.nodes = {
            0: {"up": None, "down": [], "n": 0, "w": 0.0, "p": 1.0, "open": True, "inner": True, "value": 0}
        }

    def add(self, graph, born):
        for i in born:
            up = int(graph.parent[i])
            self.nodes[up]["down"].append(i)
            self.nodes[up]["open"] = False
            going = graph.status[i] == Status.FRONTIER
            p = math.exp(graph.log_q[i] - graph.log_q[up])
            self.nodes[i] = {"up": up, "down": [], "n": 0, "w": 0.0, "p": p, "open": going}
            self.nodes[i] |= {"inner": going, "value": float(graph.value[i])}
            self.back_up(i, float(graph.value[i]))

    def back_up(self, node, value):
        while node is not None:
            self.nodes[node]["n"] += 1
            self.nodes[node]["w"] += value
            node = self.nodes[node]["up"]

    def alive(self, node):
        mine = self.nodes[node]
        return mine["open"] or any(self.alive(c) for c in mine["down"])

    def choose(self, c, exhausted):
        node = 0
        if not self.alive(0):  # begin anew near the root
            depth = {0: 0}
            for i in list(self.nodes)[1:]:
                depth[i] = depth[self.nodes[i]["up"]] + 1
            left = [i for i in self.nodes if self.nodes[i]["inner"] and i not in exhausted]
            return min(left, key=lambda i: (depth[i], -self.nodes[i]["value"], i))
        while not self.nodes[node]["open"]:
            mine = self.nodes[node]
            mass = sum(self.nodes[i]["p"] for i in mine["down"])

            def upper(i, above=mine["n"], mass=mass):
                it = self.nodes[i]
                return it["w"] / it["n"] + c * it["p"] / mass * math.sqrt(above) / (1 + it["n"])

            node = max((i for i in mine["down"] if self.alive(i)), key=upper)
        return node


@pytest.mark.parametrize("exploration", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_walk_ends_where_the_plain_one_does(seed, exploration):
    lm, plain, rounds, exhausted = TableLM(3, 5, seed=seed), Plain(), 0, set()
    score = Score(TableTask(lm), noisy_value(seed))
    strategy = puct(children=2, exploration=exploration)
    for each in search(lm, ["p"], score=score, strategy=strategy, budget=Budget(tokens=150), seed=seed):
        flags = each.graph.flags  # those that this round has given come later
        assert each.chosen.ids.tolist() == [plain.choose(exploration, exhausted)]
        exhausted = set(np.flatnonzero(flags & Flag.EXHAUSTED).tolist())
        plain.add(each.graph, each.born.tolist())
        rounds += 1
    assert rounds > 40
    assert exhausted


def test_walks_of_one_round_go_apart_and_cost_no_more_than_they_may():
    lm = TableLM(3, 6, seed=1)
    options = {"score": Score(None, noisy_value(1)), "budget": Budget(tokens=200)}
    widths = [len(r.chosen) for r in search(lm, ["p"], strategy=puct(children=2, width=4), **options)]
    assert widths[0] == 1
    assert max(widths) == 4


def test_more_exploration_spreads_the_visits():
    lm, spread = TableLM(6, 6, seed=2), []
    for exploration in (0.01, 20.0):
        options = {"score": Score(None, noisy_value(5)), "budget": Budget(tokens=120)}
        *_, last = search(lm, ["p"], strategy=puct(exploration=exploration), **options)
        graph = last.graph
        below = np.bincount([graph.path(i)[1] for i in range(1, graph.size)], minlength=7)
        spread.append(below.max() / below.sum())
    assert spread[0] > spread[1] + 0.1


def slow_walk(graph, prior, draw):
    """Adaptive branching, one node after the other."""

    def can_grow(i):
        inner = graph.status[i] <= Status.EXPANDED and not graph.flags[i] & Flag.EXHAUSTED
        return inner or any(can_grow(c) for c in graph.children(i))

    def values(i):
        own = [] if i == 0 or graph.status[i] == Status.MERGED else [float(np.nan_to_num(graph.value[i]))]
        return own + [v for c in graph.children(i) for v in values(c)]

    node = 0
    while True:
        wider = graph.status[node] <= Status.EXPANDED and not graph.flags[node] & Flag.EXHAUSTED
        deeper = [c for c in graph.children(node) if can_grow(c)]
        if not deeper:
            return node
        born = [
            float(np.nan_to_num(graph.value[c]))
            for c in graph.children(node)
            if graph.status[c] != Status.MERGED
        ]
        arms = ([born] if wider else []) + [values(c) for c in deeper]
        won = np.array([sum(a) for a in arms])
        lost = np.array([len(a) for a in arms]) - won
        best = int(np.argmax(draw.beta(prior + won, prior + np.maximum(lost, 0))))
        if wider and best == 0:
            return node
        node = deeper[best - wider]


@pytest.mark.parametrize("seed", range(3))
def test_adaptive_branching_walks_as_plain_python_does(seed):
    from babblegraph.randomness import Rng

    lm = TableLM(3, 5, seed=seed)
    score, strategy = Score(TableTask(lm, state=True), noisy_value(seed)), adaptive(prior=0.5)
    graph, expected, places = lm.start(["p"], seed), 0, set()
    for each in search(lm, graph=graph, score=score, strategy=strategy, budget=Budget(tokens=80)):
        assert each.chosen.ids.tolist() == [expected]
        places.add(expected)
        draw = Rng(seed).generator(int(graph.key[0]), graph.round)
        expected = slow_walk(graph, 0.5, draw)
    assert len(places) > 10
    assert max(graph.draws) > 2


def test_a_value_that_grows_with_depth_draws_adaptive_branching_down():
    """The same budget, a value that says "deeper is better" and one that says the contrary."""
    lm, depth = TableLM(4, 8, seed=1), []

    def value(sign):
        return lambda graph, ids, meter: np.where(graph.depth[ids] > 1, 0.5 + sign * 0.45, 0.5 - sign * 0.45)

    for sign in (1, -1):
        options = {"score": Score(None, value(sign)), "budget": Budget(tokens=60)}
        *_, last = search(lm, ["p"] * 20, strategy=adaptive(), **options)
        depth.append(float(last.graph.depth.mean()))
    assert depth[0] > 1.15 * depth[1]
