"""Sequential halving: its schedule by hand, and the order of its first steps against the closed form."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from table_lm import TableLM
from test_loop import noisy_value, run

from babblegraph.budget import Budget
from babblegraph.loop import search
from babblegraph.scoring import Score
from babblegraph.status import Status
from babblegraph.strategies import halving
from babblegraph.strategies.halving import _generation, _perturbed, schedule


def test_the_schedule_is_that_of_the_paper():
    """16 actions and 200 simulations: 50 in each of four phases (Danihelka et al., appendix)."""
    assert schedule(16, 200) == [(16, 3), (8, 6), (4, 12), (2, 25)]
    assert schedule(2, 10) == [(2, 5)]
    assert schedule(8, 3) == [(8, 1), (4, 1), (2, 1)]


def generations(lm, strategy, value, number):
    """The graph, and its first steps, after so many generations."""
    over = 0
    for each in search(lm, ["p"], score=Score(None, value), strategy=strategy, budget=Budget(tokens=10**4)):
        first = each.graph.children(0)
        over += bool(len(each.stopped)) and all(each.graph.status[first] > Status.EXPANDED)
        if over == number:
            return each.graph, first
    raise AssertionError("the search ended before")


def test_rollouts_are_shared_as_the_schedule_says():
    lm = TableLM(8, 3, seed=4)
    graph, first = generations(lm, halving(actions=8, rollouts=48), noisy_value(2), 1)
    assert len(first) == 8  # all there are
    by_draws = sorted((int(graph.draws[i]) for i in first), reverse=True)
    assert by_draws == [14, 14, 6, 6, 2, 2, 2, 2]  # 2, 2 + 4, 2 + 4 + 8
    for node in first:
        assert graph.status[node] == Status.PRUNED
        assert sum(graph.is_leaf(i) for i in range(graph.size) if node in graph.path(i)) <= graph.draws[node]


def test_the_better_half_goes_on():
    """Values far apart: the generator's preference cannot outweigh them."""
    lm = TableLM(8, 3, seed=4)

    def value(graph, ids, meter):
        return graph.tokens[graph.start[[graph.path(i)[1] for i in ids.tolist()]]] / 7

    graph, first = generations(lm, halving(actions=8, rollouts=48), value, 1)
    first = sorted(first, key=lambda i: graph.tokens[graph.start[i]])
    assert [int(graph.draws[i]) for i in first] == [2, 2, 2, 2, 6, 6, 14, 14]


def test_a_second_generation_has_new_first_steps_and_twice_the_rollouts():
    lm = TableLM(8, 4, seed=4)
    graph, first = generations(lm, halving(actions=4, rollouts=8), noisy_value(2), 2)
    assert len(first) == 8
    assert sorted(graph.draws[first[:4]].tolist()) == [1, 1, 3, 3]  # schedule(4, 8): 1 each, then 2
    assert sorted(graph.draws[first[4:]].tolist()) == [2, 2, 6, 6]


def test_first_steps_are_drawn_as_without_replacement():
    """3,000 trees, the order of three tokens: chi-square with 5 degrees, above 45 with the odds 2e-8."""
    lm = TableLM(3, 2, seed=9)
    graph = run(lm, ["p"] * 3000, halving(actions=3, rollouts=6), None, None, budget=3)
    q = np.exp(lm.table[()])
    orders = [tuple(int(graph.tokens[graph.start[c]]) for c in graph.children(t)) for t in range(3000)]
    chi_square = 0.0
    for order in permutations(range(3)):
        p = q[order[0]] * q[order[1]] / (1 - q[order[0]])
        chi_square += (orders.count(order) - 3000 * p) ** 2 / (3000 * p)
    assert chi_square < 45


def test_perturbed_log_probabilities_fall_in_the_order_of_the_draws():
    """The largest of all perturbed log-probabilities is Gumbel: P(G < x) = exp(−exp(−x)); |z| < 5.7 at x = 0."""
    lm = TableLM(4, 2, seed=9)
    graph = run(lm, ["p"] * 2000, halving(actions=3, rollouts=6), None, None, budget=3)
    found = np.array([_perturbed(graph, _generation(graph, t, 3)) for t in range(2000)])
    assert (np.diff(found, axis=1) < 0).all()
    share, truth = (found[:, 0] < 0).mean(), np.exp(-1.0)
    assert abs(share - truth) < 5.7 * np.sqrt(truth * (1 - truth) / 2000)
