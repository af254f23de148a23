"""Restarts by connectivity: unbiased where weights count, and where the measure says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM

from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.loop import search
from babblegraph.scoring import Score, entropy_to_go, novelty
from babblegraph.status import Status
from babblegraph.strategies import babble, frontier, stochastic_beam
from babblegraph.strategies.restarts import with_restarts


class TableTask:
    def __init__(self, lm):
        self.lm = lm

    def verify(self, prompt, text):
        return self.lm.score[tuple(ord(c) - 97 for c in text)]


def run(lm, strategy, seed=0, trees=1, budget=10**6):
    how = {"score": Score(TableTask(lm)), "strategy": strategy, "seed": seed}
    return list(search(lm, ["p"] * trees, budget=Budget(tokens=budget), **how))[-1].graph


@pytest.mark.parametrize("measure", [novelty(), entropy_to_go])
def test_estimates_with_restarts_are_unbiased(measure):
    """600 trees with and without leaves kept: |z| < 5.2, odds 2e-7 each."""
    lm = TableLM(3, 4, seed=3)
    strategy = with_restarts(frontier(width=2, keep=3), measure, share=0.5)
    graph = run(lm, strategy, trees=600)
    found = probability(graph, 0.7)
    truth = lm.probability(lambda t: lm.score[t] >= 0.7)
    assert found.value is not None
    assert not (graph.status == Status.STEM).any()  # all began in the end
    assert ((graph.start == graph.stop) & (graph.depth > 0)).sum() > 300
    assert abs(found.value - truth) < 5.2 * found.error


def test_a_solving_search_goes_back_to_the_places_that_the_measure_names():
    lm = TableLM(4, 4, seed=1)
    favourite = 1.0

    def measure(graph):
        first = np.array([int(graph.tokens[graph.start[graph.path(i)[-1]]]) for i in range(graph.size)])
        return np.where((graph.depth == 1) & (first == 0), favourite, 1e-6)

    plain, directed = (
        run(lm, s, trees=20, budget=60)
        for s in (babble(width=1), with_restarts(babble(width=1), measure, share=0.5))
    )

    def draws(graph):
        """Below a favourite, on average over the trees that have found theirs."""
        mine = (graph.depth == 1) & (graph.tokens[graph.start] == 0)
        return float(graph.draws[mine].mean())

    assert draws(directed) > draws(plain) + 0.5
    assert directed.meta["strategy"] == "babble+restarts"


def test_a_search_with_restarts_ends_and_repeats_itself():
    lm = TableLM(3, 4, seed=1)
    strategy = with_restarts(babble(width=2), novelty(), share=0.3)
    one, two = (run(lm, strategy, trees=3, budget=40) for _ in range(2))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_array_equal(one.parent, two.parent)


def test_nodes_that_compete_on_are_refused():
    with pytest.raises(BadInput, match=r"restarts need nodes that do not compete .* 'stochastic-beam'"):
        with_restarts(stochastic_beam(), novelty())


@pytest.mark.parametrize("share", [0, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(BadInput, match="share of restarts"):
        with_restarts(babble(), novelty(), share=share)
