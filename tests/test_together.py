"""Prompts that take turns get the same texts as side by side, and hold less memory."""

from __future__ import annotations

import numpy as np
import pytest
from marks import slow_but
from table_lm import TableLM
from test_loop import TableTask, noisy_value

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.loop import search
from babblegraph.randomness import Rng
from babblegraph.scoring import Score, novelty
from babblegraph.status import Status
from babblegraph.strategies import STRATEGIES, best_of_n, frontier, stochastic_beam, together, with_restarts
from babblegraph.strategies.stops import reached, stopping
from babblegraph.why_not import why_not

PUZZLES = ["2 3 4>24", "3 5 7>38", "2 5 6>60", "4 5 6>26", "1 2 3>6", "2 2 6>24"]


def searched(strategy, **how):
    return bg.babble(bg.Babbler.embedded(), PUZZLES, task=bg.Countdown(), strategy=strategy, seed=3, **how)


def texts(found):
    graph = found.graph
    return [
        sorted(
            graph.text(int(i)) for i in range(graph.size) if graph.is_leaf([i])[0] and graph.root[i] == tree
        )
        for tree in range(graph.trees)
    ]


@pytest.mark.parametrize("most", [1, 2, 6, 9])
def test_each_prompt_gets_the_same_texts_however_many_are_searched_at_a_time(most):
    assert texts(searched(together(best_of_n(n=6), most))) == texts(searched(best_of_n(n=6)))


def test_one_prompt_at_a_time_holds_a_fraction_of_the_keys_and_values():
    few, many = searched(together(best_of_n(n=6), 1)), searched(best_of_n(n=6))
    assert few.spent.sampled == many.spent.sampled
    assert few.spent.peak_slots < many.spent.peak_slots / 3


def test_a_prompt_begins_when_another_one_is_over_and_not_before():
    most, begun = 0, []
    asked = {"task": bg.Countdown(), "strategy": together(best_of_n(n=4, width=4), 2), "seed": 3}
    for one in bg.rounds(bg.Babbler.embedded(), PUZZLES, **asked):
        trees = set(one.graph.root[one.chosen.ids].tolist())
        most = max(most, len(trees))
        begun += sorted(trees - set(begun))
    assert most == 2
    assert begun == list(range(6))


@pytest.mark.parametrize(
    "name", slow_but(["babble", "frontier"], sorted(set(STRATEGIES) - {"greedy", "token-beam", "a-star"}))
)
def test_every_strategy_searches_all_prompts_two_at_a_time(name):
    way, task = together(STRATEGIES[name](), 2), bg.Countdown()
    graph = bg.babble(bg.Babbler.embedded(), PUZZLES[:3], task=task, strategy=way, budget=60).graph
    drawn = [int((graph.root == tree).sum()) for tree in range(graph.trees)]
    assert min(drawn) > 1
    assert (graph.status[: graph.trees] == Status.EXPANDED).all()


def test_closing_leaves_prompts_alone_that_wait_for_their_turn():
    """A prompt that is closed before its turn is only rolled out: one text."""
    lm = TableLM(3, 6, seed=1, span=2)
    options = {"score": Score(TableTask(lm), noisy_value(2)), "budget": Budget(tokens=80), "close": True}
    for strategy in (frontier(width=3, keep=4), stochastic_beam(width=6)):
        *_, last = search(lm, ["p"] * 8, strategy=together(strategy, 2), **options)
        graph = last.graph
        assert np.bincount(graph.root[graph.is_leaf()]).min() > 3
        assert why_not(graph) == ""


def test_a_search_that_took_turns_can_go_on_with_a_larger_budget():
    first = searched(together(best_of_n(), 2), budget=60)
    again = bg.babble(
        bg.Babbler.embedded(),
        None,
        task=bg.Countdown(),
        strategy=together(best_of_n(), 2),
        budget=120,
        graph=first.graph,
    )
    assert again.spent.sampled > 60 * 6


HELD = {
    "restarts of a frontier": frontier(width=2, keep=2, restarts=3),
    "stems of the best connected": with_restarts(frontier(width=2, keep=3), novelty(), share=0.5),
}


@pytest.mark.parametrize("strategy", HELD.values(), ids=HELD)
def test_what_holds_weight_back_does_so_once_a_round_however_often_it_is_asked(strategy, tmp_path):
    """Where a prompt is over the strategy is asked again; after a resume, once more for those that were over."""
    lm, way = TableLM(3, 5, seed=1, span=2), together(strategy, 2)
    score, budget = Score(TableTask(lm, state=True), noisy_value(2)), Budget(tokens=40)
    options = {"score": score, "strategy": way, "budget": budget}
    *_, whole = search(lm, list("pqrst"), seed=4, **options)
    for stop in range(2, whole.graph.round, 3):
        rounds = search(lm, list("pqrst"), seed=4, **options)
        for _ in range(stop):
            graph = next(rounds).graph
        rounds.close()
        graph.save(tmp_path / "part.bg")
        *_, last = search(lm, graph=BabbleGraph.load(tmp_path / "part.bg"), **options)
        for name in ("parent", "log_q", "log_inclusion", "status"):
            np.testing.assert_array_equal(getattr(last.graph, name), getattr(whole.graph, name))


@pytest.mark.parametrize("strategy", HELD.values(), ids=HELD)
def test_a_strategy_that_is_asked_twice_answers_the_same_and_holds_back_once(strategy):
    meter, score = Meter(Budget(tokens=90), 1), Score(None, noisy_value(2))
    graph, more = TableLM(3, 5).start(["p"]), {"strategy": strategy, "budget": meter.budget}
    for _ in range(6):
        first, weights = strategy.select(graph, meter), graph.log_inclusion.copy()
        again = strategy.select(graph, meter)
        np.testing.assert_array_equal(first.ids, again.ids)
        np.testing.assert_array_equal(graph.log_inclusion, weights)
        for _ in zip(range(1), search(TableLM(3, 5), graph=graph, score=score, **more), strict=False):
            pass


def test_a_search_that_was_left_leaves_nothing_to_the_next_with_the_same_strategy():
    """It is left where a prompt was over but not yet pruned: the other graph's first prompt keeps its nodes."""
    way = together(best_of_n(), 1)
    graphs = [bg.Babbler.embedded().start([f"{p}\n" for p in PUZZLES[:2]]) for _ in range(2)]
    spent, fresh = Meter(Budget(tokens=1), 2), Meter(Budget(tokens=1), 2)
    spent.count("sampled", 0, 1)
    assert way.select(graphs[0], spent).ids.tolist() == [1]
    assert way.select(graphs[1], fresh).ids.tolist() == [0]
    assert way.prune(graphs[1], Rng(0)).tolist() == []
    assert way.prune(graphs[0], Rng(0)).tolist() == [0]


def test_none_at_a_time_is_refused():
    with pytest.raises(BadInput, match="together must be a whole number of at least 1, got 0"):
        together(best_of_n(), 0)


@pytest.mark.parametrize(
    "around", [lambda s, r: stopping(together(s, 2), r), lambda s, r: together(stopping(s, r), 2)]
)
def test_a_prompt_that_a_rule_stops_leaves_its_turn_to_the_next_however_both_are_put_together(around):
    lm, rule = TableLM(3, 4, seed=5), reached(0.3)
    options = {"score": Score(TableTask(lm)), "budget": Budget(tokens=100)}
    *_, last = search(lm, ["p"] * 7, strategy=around(best_of_n(width=1), rule), **options)
    graph = last.graph
    assert (graph.status[: graph.trees] == Status.EXPANDED).all()
    assert rule(graph, None).all()
    *_, alone = search(lm, ["p"] * 7, strategy=stopping(best_of_n(width=1), rule), **options)
    assert graph.meta["spent"]["counts"]["sampled"] == alone.graph.meta["spent"]["counts"]["sampled"]
