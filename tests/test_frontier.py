"""The strategy `frontier`: widths and numbers to keep by depth, floors, orders, and restarts through stems."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from test_estimate import TableTask

from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.loop import search
from babblegraph.protocols import Draws
from babblegraph.scoring import Score
from babblegraph.status import Status
from babblegraph.strategies import frontier
from babblegraph.strategies.common import log_priority
from babblegraph.why_not import why_not


def rounds_of(lm, strategy, trees=6, tokens=10**6, close=False, value=None, seed=0):
    score = Score(TableTask(lm), value)
    options = {
        "score": score,
        "strategy": strategy,
        "budget": Budget(tokens=tokens),
        "close": close,
        "seed": seed,
    }
    return search(lm, ["p"] * trees, **options)


def test_widths_and_numbers_to_keep_go_by_depth():
    lm = TableLM(4, 4, seed=1)
    strategy = frontier(width=[7, 2, 1], keep=[3, None, 2], merge=False)
    for number, each in enumerate(rounds_of(lm, strategy)):
        graph = each.graph
        assert set(each.chosen.draws.tolist()) == {[7, 2, 1, 1][number]}
        live = np.bincount(graph.root[graph.frontier()], minlength=graph.trees)
        if number < 3:
            assert (live <= [3, 10**6, 2][number]).all()
        if number == 1:
            assert (live > 3).any()
    assert why_not(graph) == ""


def test_a_lower_floor_tells_small_values_apart():
    graph = TableLM().start(["p"])
    graph.value[0] = 0.001
    assert log_priority(graph, np.array([0]), 1.0, 0.0)[0] == pytest.approx(np.log(0.05095))
    assert log_priority(graph, np.array([0]), 1.0, 0.0, 1e-3)[0] == pytest.approx(np.log(1e-3 + 0.999e-3))


def starts_of(graph):
    """How often each tree was begun: its root and the stems below it, where they were expanded."""
    empty = (graph.start == graph.stop) & (graph.status == Status.EXPANDED)
    begun = np.bincount(graph.root[empty], minlength=graph.trees)
    return begun + (graph.status[: graph.trees] == Status.EXPANDED)


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_tree_begins_anew_until_it_has_found_something(restarts):
    lm = TableLM(3, 4, seed=2)
    strategy = frontier(width=1, keep=2, restarts=restarts, threshold=0.8)
    *_, last = rounds_of(lm, strategy, trees=40)
    graph, starts = last.graph, starts_of(last.graph)
    assert why_not(graph) == ""
    weight = np.bincount(graph.root[graph.is_leaf()], np.exp(graph.log_weight(graph.is_leaf())))
    np.testing.assert_allclose(
        weight, 1.0, atol=1e-12
    )  # draws of one text from q = f: every start keeps its share
    hit = graph.is_leaf() & (graph.score >= 0.8)
    first = [
        graph.born[np.flatnonzero(hit & (graph.root == t))].min(initial=10**6) for t in range(graph.trees)
    ]
    assert starts.max() == restarts + 1
    for tree in range(graph.trees):
        if first[tree] <= 4:  # in the first start: all that waited goes in one last start
            assert starts[tree] == 2
        if first[tree] == 10**6:
            assert starts[tree] == restarts + 1


def test_without_a_threshold_all_restarts_are_taken():
    *_, last = rounds_of(TableLM(3, 4, seed=2), frontier(width=2, keep=2, restarts=2))
    assert starts_of(last.graph).tolist() == [3] * 6


def test_restarts_keep_the_estimate_unbiased():
    """1,000 trees, half of which begin anew: |z| < 5, odds 6e-7."""
    lm = TableLM(3, 4, seed=2)
    strategy = frontier(width=2, keep=2, restarts=2, threshold=0.8)
    *_, last = rounds_of(lm, strategy, trees=1000)
    found = probability(last.graph, 0.8)
    truth = lm.probability(lambda t: lm.score[t] >= 0.8)
    assert abs(found.value - truth) < 5 * found.error
    assert len(set(starts_of(last.graph).tolist())) > 1


def test_a_closed_search_rolls_out_what_waits_in_stems():
    lm = TableLM(3, 6, seed=2)
    strategy = frontier(width=3, keep=8, restarts=3, threshold=2.0)
    *_, last = rounds_of(lm, strategy, tokens=60, close=True)
    assert why_not(last.graph) == ""


@pytest.mark.parametrize(
    "options",
    [
        *({"width": -1}, {"width": [4, -1]}, {"width": []}, {"width": 2.5}, {"width": "4"}),
        *({"keep": 0}, {"keep": [3, 0]}, {"keep": []}, {"keep": 2.5}),
        *({"restarts": -1}, {"restarts": 1.5}, {"floor": 0.0}),
    ],
)
def test_numbers_that_are_too_small_or_not_whole_are_refused_in_one_line(options):
    with pytest.raises(BadInput, match=f"{next(iter(options))} must .* got") as error:
        frontier(**options)
    assert "\n" not in str(error.value)


def test_whole_numbers_of_any_type_are_widths():
    lm, counts = TableLM(3, 4, seed=2), []
    for way in (
        {"width": 3, "keep": 2},
        {"width": np.int64(3), "keep": np.int32(2)},
        {"width": np.array([3])},
    ):
        *_, last = rounds_of(lm, frontier(**{"keep": 2} | way))
        counts.append(last.graph.size)
    assert len(set(counts)) == 1


@pytest.mark.parametrize("draws", ["systematic", Draws.DISTINCT])
def test_draws_are_named_or_given(draws):
    assert frontier(draws=draws).draws is Draws.named(draws)
    *_, last = rounds_of(TableLM(3, 4, seed=2), frontier(width=9, keep=None, draws=draws))
    assert why_not(last.graph) == ""


def test_biased_and_unknown_draws_are_refused():
    for draws, said in (("fresh", "unbiased draws"), ("systemic", "must be one of")):
        with pytest.raises(BadInput, match=said) as error:
            frontier(draws=draws)
        assert "\n" not in str(error.value)
