"""What every strategy of the registry keeps to, and stop rules that go with any of them."""

from __future__ import annotations

from collections import Counter
from inspect import signature
from itertools import product
from math import comb

import numpy as np
import pytest
from table_lm import TableLM
from test_loop import TableTask, noisy_value, run

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.cli import output
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.loop import search
from babblegraph.randomness import Rng
from babblegraph.scoring import Score, function_value
from babblegraph.status import Status
from babblegraph.strategies import STRATEGIES, best_of_n, step_beam
from babblegraph.strategies.best_first import log_promise
from babblegraph.strategies.common import log_priority
from babblegraph.strategies.stops import converged, leads, reached, stopping
from babblegraph.votes import margins, votes
from babblegraph.why_not import why_not

COLUMNS = ("parent", "log_q", "log_inclusion", "status", "gate", "key", "count", "draws", "value")
NAMES = list(STRATEGIES)


def grown(name, prompts=("p", "q"), budget=80, seed=4, lm=None, **options):
    lm = lm or TableLM(3, 5, seed=1)
    return run(
        lm,
        list(prompts),
        STRATEGIES[name](**options),
        TableTask(lm, state=True),
        noisy_value(2),
        budget,
        seed,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_graph_bit_for_bit(name):
    one, two = grown(name), grown(name)
    assert one.size == two.size > 10
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(one, column), getattr(two, column))
    np.testing.assert_array_equal(one.tokens, two.tokens)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_alone_and_among_others_babbles_the_same(name):
    options = {"width": 2} if name == "babble" else {}  # by default it shares its width among prompts
    texts = []
    for prompts in (["q"], ["a", "q", "b"]):
        graph = grown(name, prompts, 60, **options)
        mine = np.flatnonzero(graph.root == prompts.index("q"))
        texts.append(
            [(graph.text(i), int(graph.status[i]), float(graph.log_inclusion[i])) for i in mine.tolist()]
        )
    assert sorted(texts[0]) == sorted(texts[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bound", [{"tokens": 17}, {"nodes": 9}, {"tokens": 1}])
def test_no_tree_goes_over_its_budget(name, bound):
    lm = TableLM(3, 5, seed=1, span=2)
    score = Score(TableTask(lm), noisy_value(2))
    *_, last = search(lm, ["p", "q"], score=score, strategy=STRATEGIES[name](), budget=Budget(**bound))
    counts = last.graph.meta["spent"]["counts"]
    if "tokens" in bound:
        assert max(counts["sampled"]) <= bound["tokens"]
    else:  # the expansion that reaches the bound is finished
        assert max(counts["nodes"]) <= bound["nodes"] + 16


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_search_goes_on_as_if_never_stopped(name, tmp_path):
    lm = TableLM(3, 5, seed=1)
    options = {"score": Score(TableTask(lm, state=True), noisy_value(2)), "strategy": STRATEGIES[name]()}
    rounds = search(lm, ["p", "q"], budget=Budget(tokens=80), seed=4, **options)
    for _ in range(3):
        part = next(rounds).graph
    rounds.close()
    part.save(tmp_path / "part.bg")
    loaded = BabbleGraph.load(tmp_path / "part.bg")
    loaded.vocabulary = lm.vocabulary  # a file has the words that were used; a Babbler adds the others
    *_, last = search(lm, graph=loaded, budget=Budget(tokens=80), **options)
    whole = grown(name)
    np.testing.assert_array_equal(last.graph.tokens, whole.tokens)
    np.testing.assert_array_equal(last.graph.status, whole.status)


@pytest.mark.parametrize("name", [n for n in NAMES if "threshold" in STRATEGIES[n].__kwdefaults__])
def test_it_stops_at_the_first_success_where_that_is_asked_for(name):
    lm = TableLM(3, 4, seed=2)
    options = {"again": True} if name == "particle-filter" else {}
    if name == "frontier":
        pytest.skip("its threshold ends restarts, never a tree")
    every = run(lm, ["p"] * 8, STRATEGIES[name](**options), TableTask(lm), None, 60)
    graph = run(lm, ["p"] * 8, STRATEGIES[name](threshold=0.5, **options), TableTask(lm), None, 60)
    hits = graph.is_leaf() & (graph.score >= 0.5)
    solved = np.bincount(graph.root[hits], minlength=8) > 0
    assert solved.any()
    for tree in np.flatnonzero(solved):
        first = graph.born[hits & (graph.root == tree)].min()
        assert graph.born[graph.root == tree].max() == first
    assert graph.size < every.size or name in ("greedy", "token-beam", "a-star")


@pytest.mark.parametrize(
    "name", sorted({*NAMES} - {"stochastic-beam", "greedy"})
)  # no threshold; a single text
def test_a_dead_text_never_ends_a_search_however_low_the_threshold(name):
    """A verifier may give scores below 0, where a dead text has 0: it is no answer all the same."""
    lm, task = TableLM(3, 4, seed=2), TableTask(TableLM(3, 4, seed=2))
    task.verify, task.value = lambda prompt, text: -5.0, lambda prompt, text: float(not text.startswith("a"))
    options = {"again": True} if name == "particle-filter" else {}
    graph = run(lm, ["p"] * 8, STRATEGIES[name](threshold=-4.0, **options), task, None, 60)
    every = run(lm, ["p"] * 8, STRATEGIES[name](**options), task, None, 60)
    assert (graph.status == Status.LEAF_DEAD).any()
    assert graph.size == every.size
    assert not reached(-4.0)(graph, None).any()


@pytest.mark.parametrize("name", NAMES)
def test_only_weights_that_are_unbiased_are_offered_as_estimates(name):
    lm = TableLM(3, 4, seed=2)
    graph = run(lm, ["p"] * 4, STRATEGIES[name](), TableTask(lm), None, 200)
    assert (why_not(graph) == "") == (name in ("frontier", "particle-filter", "stochastic-beam"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("step-beam", {"width": 0}),
        ("step-beam", {"children": 0}),
        ("token-beam", {"width": 0}),
        ("dvts", {"subtrees": 0}),
        ("lookahead", {"children": 1}),
        ("lookahead", {"ahead": -1}),
        ("best-first", {"children": -1}),
        ("best-first", {"keep": 0}),
        ("puct", {"exploration": 0.0}),
        ("halving", {"actions": 1}),
        ("adaptive", {"prior": 0}),
        ("particle-filter", {"particles": 0}),
        ("particle-filter", {"particles": 2.5}),
        ("stochastic-beam", {"width": 2.5}),
        ("best-of-n", {"n": 2.5}),
        ("babble", {"keep": 2.5}),
        ("step-beam", {"restarts": -1}),
        ("dvts", {"restarts": 0.5}),
        ("particle-filter", {"effective": 1.5}),
        ("particle-filter", {"entropy": -0.1}),
    ],
)
def test_numbers_that_make_no_sense_are_refused_in_one_line(name, options):
    with pytest.raises(BadInput, match="got") as error:
        STRATEGIES[name](**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_whole_number_of_a_strategy_is_checked(name):
    asked = [p.name for p in signature(STRATEGIES[name]).parameters.values() if "int" in str(p.annotation)]
    for option, wrong in product(asked, (2.5, -3)):
        with pytest.raises(BadInput, match=f"{wrong}"):
            STRATEGIES[name](**{option: wrong})


def test_what_is_too_small_is_named_as_it_was_given():
    for name, options, said in (
        ("halving", {"actions": 1}, "actions must be a whole number of at least 2, got 1: give 2 or more"),
        ("lookahead", {"ahead": -1}, "ahead must be a whole number of at least 0, got -1: give 0 or more"),
    ):
        with pytest.raises(BadInput, match=said):
            STRATEGIES[name](**options)


def test_a_node_whose_value_failed_ranks_last():
    lm = TableLM(3, 3, seed=1)
    graph = lm.start(["p"])
    graph.round = 1
    ids = graph.add(Born.of_spans([0] * 3, [[0], [1], [2]], [-1.0] * 3))

    def value(texts):
        return [{"a": 0.9, "c": 0.2}[text[-1]] for text in texts]

    Score(None, function_value(value))(graph, ids, Meter(Budget(tokens=9), 1))
    assert np.isnan(graph.value[ids[1]])
    assert np.argsort(-log_priority(graph, ids, 1.0, 0.0)[ids]).tolist() == [0, 2, 1]
    assert np.argsort(-log_promise(graph, ids, 1.0, 1.0)).tolist() == [0, 2, 1]
    assert step_beam(width=1).prune(graph, Rng(0)).tolist() == ids[1:].tolist()
    assert log_priority(graph, np.array([0]), 1.0, 1.0)[0] == pytest.approx(
        0
    )  # nobody was asked about the root


def test_a_threshold_out_of_numpy_ends_the_search_as_a_plain_one_does():
    class Same:
        def verify(self, prompt, text):
            return 0.7

    for threshold in (0.7, np.quantile([0.7, 0.7], 0.5)):
        found = bg.babble(TableLM(3, 4, seed=1), "p", task=Same(), threshold=threshold, budget=200)
        assert found.passed == [True]
        assert found.spent.sampled == 4
        assert output._result(found.graph, 0, "p")["passed"]


def test_a_stop_rule_leaves_other_prompts_searching():
    lm = TableLM(3, 4, seed=2)
    rule = reached(0.8, answers=2)
    graph = run(lm, ["p"] * 6, stopping(best_of_n(width=1), rule), TableTask(lm), None, 100)
    hits = np.bincount(graph.root[graph.is_leaf() & (graph.score >= 0.8)], minlength=6)
    spent = np.array(graph.meta["spent"]["counts"]["sampled"])
    assert ((hits == 2) | (spent >= 100)).all()
    assert hits.max() == 2
    assert len(np.unique(spent)) > 1


@pytest.mark.parametrize(("a", "b"), [(0, 0), (4, 1), (7, 7), (12, 3), (2, 9)])
def test_the_chance_to_lead_is_that_of_the_binomial_sum(a, b):
    """P(Beta(a+1, b+1) > 1/2) is the chance of at most a successes in a + b + 1 fair trials."""
    n = a + b + 1
    assert leads(a, b) == pytest.approx(sum(comb(n, i) for i in range(a + 1)) / 2**n, abs=1e-5)


def test_a_search_converges_when_one_answer_leads_for_sure():
    lm = TableLM(2, 3, seed=3)

    def first(text):
        return text[:1]

    strategy = stopping(best_of_n(width=1), converged(first, confidence=0.9, least=3))
    graph = run(lm, ["p"] * 10, strategy, TableTask(lm, dead=False), None, 300)
    lead, next_one = margins(graph, first)
    drawn = graph.draws[: graph.trees]
    assert all(leads(a, b) >= 0.9 for a, b, n in zip(lead, next_one, drawn, strict=True) if n < 300)
    assert (drawn < 300).sum() > 5
    assert (lead + next_one).min() >= 3
    assert len(set((lead + next_one).tolist())) > 1


@pytest.mark.parametrize("confidence", [0.5, 1.0, float("nan")])
def test_a_confidence_that_never_or_always_stops_is_refused(confidence):
    with pytest.raises(BadInput, match="confidence"):
        converged(str, confidence=confidence)


def test_votes_are_counted_as_plain_python_counts_them():
    lm = TableLM(3, 4, seed=6)
    graph = run(lm, ["p", "q"], best_of_n(n=40, width=40), TableTask(lm), None)
    for tree in range(2):
        leaves = np.flatnonzero((graph.root == tree) & graph.is_leaf() & (graph.status != Status.LEAF_DEAD))
        plain, heavy = Counter(), Counter()
        for i in leaves.tolist():
            plain[graph.text(i)[-1]] += int(graph.count[i])
            heavy[graph.text(i)[-1]] += int(graph.count[i]) * float(graph.score[i])
        for expected, weighted in ((plain, False), (heavy, True)):
            found = votes(graph, lambda text: text[-1], tree=tree, weighted=weighted)
            total = sum(expected.values())
            assert {v.answer: pytest.approx(v.share) for v in found} == {
                k: x / total for k, x in expected.items()
            }
            assert [v.share for v in found] == sorted((v.share for v in found), reverse=True)


def test_no_answer_wins_by_how_bad_its_texts_are():
    graph = BabbleGraph(["?"], [[0]], {0: b"?", 1: b"a", 2: b"b"})
    ids = graph.add(Born.of_spans([0, 0, 0], [[1], [2], [1, 2]], [-1.0, -2.0, -3.0], Status.LEAF_END))
    for scores, winner in (([-1, -3, -3], ("a", 0.0)), ([0.5, -3, 0.1], ("a", pytest.approx(5 / 6)))):
        graph.score[ids] = scores
        assert votes(graph, lambda text: text[-1], weighted=True)[0][:2] == winner


def test_who_abstains_and_who_is_dead_has_no_vote():
    graph = BabbleGraph(["?"], [[0]], {0: b"?", 1: b"a", 2: b"b"})
    status = [Status.LEAF_END, Status.LEAF_DEAD, Status.FRONTIER]
    graph.add(Born.of_spans([0, 0, 0], [[1], [2], [1, 2]], [-1.0, -1.0, -2.0], status))
    assert [v.answer for v in votes(graph, lambda text: text)] == ["a"]
    assert votes(graph, lambda text: None) == []
