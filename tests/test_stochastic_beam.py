"""Stochastic beam search against the race of all texts, and that it goes on, closes and refuses as it should."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from test_estimate import TableTask

from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.graph import BabbleGraph
from babblegraph.lm.race import GUMBEL, _exponential, below
from babblegraph.loop import search
from babblegraph.protocols import Draws
from babblegraph.randomness import Rng, chain
from babblegraph.resample import reached
from babblegraph.scoring import Score
from babblegraph.status import Gate, Status
from babblegraph.strategies import best_of_n, stochastic_beam
from babblegraph.strategies.stops import stopping
from babblegraph.why_not import why_not


def rounds_of(lm, width, prompts=("p",), tokens=10**6, close=False, seed=0, graph=None):
    score, strategy = Score(TableTask(lm)), stochastic_beam(width=width)
    prompts = None if graph is not None else list(prompts)
    options = {"strategy": strategy, "budget": Budget(tokens=tokens), "close": close, "seed": seed}
    return search(lm, prompts, score=score, graph=graph, **options)


def race_of_texts(lm, graph, tree):
    """The slow twin: the perturbed log-probability of every text of a tree, with the same uniforms."""
    key = graph.key[[tree]]
    largest = float(-np.log(_exponential(Rng(0).uniforms(chain(key, GUMBEL), 0, 0)))[0])
    rows = {(): (key, largest, 0.0)}
    for at in range(lm.length):
        longer = {}
        for text, (key, value, log_q) in rows.items():
            log_rate = log_q + lm.table[text]
            keys = np.repeat(chain(chain(key, GUMBEL), 0), lm.v)
            u = Rng(0).uniforms(keys, np.arange(lm.v), at % lm.rule.tokens)
            values = below(np.array([value]), log_rate[None], u[None])[0]
            for a in range(lm.v):
                longer[(*text, a)] = (chain(key, [a]), values[a], log_rate[a])
        rows = longer
    return {text: (value, log_q) for text, (_, value, log_q) in rows.items()}


@pytest.mark.parametrize("span", [1, 2, 3])
@pytest.mark.parametrize("width", [2, 5, 16, 100])
def test_the_beam_ends_with_the_best_of_the_race_of_all_texts_and_their_weights(span, width):
    for seed in range(6):
        lm = TableLM(3, 4, seed=seed, span=span)
        *_, last = rounds_of(lm, width, ["p", "q"], seed=seed)
        graph = last.graph
        for tree in range(2):
            everything = race_of_texts(lm, graph, tree)
            falling = sorted(everything, key=lambda text: -everything[text][0])
            leaves = np.flatnonzero(graph.is_leaf() & (graph.root == tree))
            assert {lm.generated(graph, i) for i in leaves} == set(falling[:width])
            kappa = everything[falling[width]][0] if width < len(falling) else -np.inf
            log_q = np.array([everything[lm.generated(graph, i)][1] for i in leaves])
            np.testing.assert_allclose(graph.log_inclusion[leaves], reached(log_q, kappa), atol=1e-9)
        assert why_not(graph) == ""
        stopped = np.flatnonzero(graph.status == Status.PRUNED)
        assert not (graph.flags[stopped] & 1).any(), "what the race stops is not stopped with bias"


def test_a_beam_as_wide_as_the_language_is_the_language():
    lm = TableLM(3, 4, seed=2)
    *_, last = rounds_of(lm, 81)
    found = probability(last.graph, 0.6)
    assert found.value == pytest.approx(lm.probability(lambda t: lm.score[t] >= 0.6), abs=1e-12)
    assert last.graph.is_leaf().sum() == 81


def test_finished_texts_compete_on_and_may_be_lost():
    """Texts that end early meet those that go on: their nodes are pruned when better ones come."""
    lost = 0
    for seed in range(30):
        lm = TableLM(3, 6, seed=seed, span=4)
        lm.rule = type(lm.rule)(tokens=4, end_ids={0})
        *_, last = rounds_of(lm, 3, seed=seed)
        graph = last.graph
        assert graph.is_leaf().sum() == 3
        ended = [i for i in np.flatnonzero(graph.status == Status.PRUNED) if graph.span(i)[-1] == 0]
        lost += len(ended)
    assert lost > 0


def test_a_saved_beam_goes_on_as_if_it_had_never_stopped(tmp_path):
    lm = TableLM(3, 6, seed=4)
    *_, whole = rounds_of(lm, 5, ["p", "q"])
    part = rounds_of(lm, 5, ["p", "q"])
    for _ in range(3):
        graph = next(part).graph
    graph.save(tmp_path / "beam.bg")
    *_, resumed = rounds_of(lm, 5, graph=BabbleGraph.load(tmp_path / "beam.bg"))
    for name in whole.graph._columns:
        np.testing.assert_array_equal(getattr(resumed.graph, name), getattr(whole.graph, name), err_msg=name)
    assert resumed.graph.meta["beam"] == whole.graph.meta["beam"]


def test_a_prompt_alone_and_among_others_has_the_same_beam():
    lm = TableLM(3, 5, seed=3, span=2)
    *_, together = rounds_of(lm, 4, "abc")
    for tree, prompt in enumerate("abc"):
        *_, alone = rounds_of(lm, 4, [prompt])
        mine, theirs = (
            {lm.generated(g, i): g.log_inclusion[i] for i in np.flatnonzero(g.is_leaf() & (g.root == t))}
            for g, t in ((alone.graph, 0), (together.graph, tree))
        )
        assert mine == theirs


@pytest.mark.slow
def test_the_weights_are_right_in_every_round():
    """Σ w over beams has the mean 1 at every depth; 1,500 trees, |z| < 5.7 in 6 rounds: odds below 1e-7."""
    lm = TableLM(3, 6, seed=4)
    for each in rounds_of(lm, 4, ["p"] * 1500):
        graph = each.graph
        live = np.flatnonzero((graph.status == Status.FRONTIER) | graph.is_leaf())
        sums = np.bincount(graph.root[live], np.exp(graph.log_weight(live)), minlength=graph.trees)
        assert abs(sums.mean() - 1) < 5.7 * sums.std(ddof=1) / np.sqrt(len(sums)) + 1e-12


def test_a_budget_that_ends_too_early_is_closed():
    lm = TableLM(3, 6, seed=4)
    *_, last = rounds_of(lm, 6, ["p"] * 40, tokens=20, close=True)
    assert last.graph.meta["closing"]["trees"] > 0
    assert probability(last.graph, 0.6).value is not None
    *_, cut = rounds_of(lm, 6, ["p"] * 40, tokens=20)
    assert "search anew with close=True" in why_not(cut.graph)


def test_what_the_race_stops_remembers_gate_and_round_and_is_told_of():
    stopped, scored = [], []

    def score(graph, ids, meter):
        scored.extend(ids.tolist())

    lm = TableLM(3, 8, seed=1, span=6)
    lm.rule = type(lm.rule)(tokens=6, end_ids={0})  # spans end at different places
    how = {"strategy": stochastic_beam(width=4), "budget": Budget(tokens=10**6)}
    for each in search(lm, list("pqrstu"), score=score, **how):
        graph = each.graph
        stopped += each.stopped.tolist()
        assert (graph.died[each.stopped] == graph.round).all()
    pruned = np.flatnonzero(graph.status == Status.PRUNED)
    assert sorted(stopped) == pruned.tolist()
    assert (graph.gate[pruned] == Gate.NODE).all()
    at_birth = pruned[graph.died[pruned] == graph.born[pruned]]
    assert set(at_birth) - set(scored), "what is lost inside an expansion costs no judge anything"


def test_a_rule_that_stops_one_prompt_lets_the_beams_of_others_go_on():
    lm = TableLM(3, 5, seed=1)

    def second_is_done(graph, meter):
        return np.arange(graph.trees) == 1

    options = {"score": Score(TableTask(lm)), "budget": Budget(tokens=10**6)}
    *_, stopped = search(lm, "ab", strategy=stopping(stochastic_beam(width=4), second_is_done), **options)
    *_, alone = search(lm, "a", strategy=stochastic_beam(width=4), **options)
    graph = stopped.graph
    leaves = np.flatnonzero(graph.is_leaf())
    assert (graph.root[leaves] == 0).all()
    assert len(leaves) == 4
    theirs = np.flatnonzero(alone.graph.is_leaf())
    np.testing.assert_array_equal(graph.log_inclusion[leaves], alone.graph.log_inclusion[theirs])


class Deaf(TableLM):
    """A generator that draws with replacement whatever it is asked."""

    def expand(self, graph, chosen, rng, meter, draws):
        return super().expand(graph, chosen, rng, meter, Draws.MULTINOMIAL)


def test_what_a_beam_cannot_do_is_refused():
    with pytest.raises(BadInput, match="at least 2"):
        stochastic_beam(width=1)
    lm = TableLM(3, 5, seed=1)
    graph = next(rounds_of(lm, 3)).graph
    with pytest.raises(BadInput, match="keep its width"):
        next(rounds_of(lm, 4, graph=graph))
    other = next(
        search(lm, ["p"], score=Score(TableTask(lm)), strategy=best_of_n(), budget=Budget(tokens=9))
    ).graph
    with pytest.raises(BadInput, match="another strategy"):
        next(rounds_of(lm, 4, graph=other))
    with pytest.raises(BadInput, match="without replacement"):
        next(rounds_of(Deaf(3, 5, seed=1), 4))
