"""The loop on TableLM: everything it says can be held against full enumeration.

The z-tests use Bonferroni over all of them: with |z| < 5.7 and fewer than 50 tests, the odds of a false alarm
are below 50 · 1.2e-8 = 6e-7, and the seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM

from babblegraph.budget import Budget
from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.graph_file import load
from babblegraph.loop import search
from babblegraph.protocols import ALL, Chosen, Strategy
from babblegraph.randomness import text_key
from babblegraph.scoring import Score
from babblegraph.status import Flag, Status
from babblegraph.strategies import adaptive, babble, best_of_n, frontier, stochastic_beam, together
from babblegraph.why_not import why_not

Z = 5.7


class TableTask:
    """Scores texts by the table; a prefix that begins with two c's is dead; order is forgotten by the state."""

    def __init__(self, lm, dead=True, state=False):
        self.lm, self.dead = lm, dead
        if state:
            self.state = lambda prompt, text: f"{len(text)}{''.join(sorted(text))}"

    def key(self, text):
        return tuple(ord(c) - 97 for c in text)

    def verify(self, prompt, text):
        return self.lm.score[self.key(text)]

    def value(self, prompt, text):
        return 0.0 if self.dead and text.startswith("cc") else 1.0


def noisy_value(seed):
    """A value that knows nothing: weights must stay right whatever it says."""

    def value(graph, ids, meter):
        return np.array([text_key(f"{seed}{graph.text(int(i))}") % 997 / 997 for i in ids])

    return value


def run(lm, prompts, strategy, task=None, value=None, budget=10**6, seed=0, threshold=None):
    score = Score(task, value, threshold=threshold)
    options = {"score": score, "strategy": strategy, "budget": Budget(tokens=budget), "seed": seed}
    *_, last = search(lm, prompts, **options)
    return last.graph


def tree_sums(graph, h):
    """Σ w h over the leaves of each tree, [trees]."""
    leaves = np.flatnonzero(graph.is_leaf())
    weights = np.exp(graph.log_weight(leaves)) * np.array([h(graph, i) for i in leaves])
    return np.bincount(graph.root[leaves], weights, minlength=graph.trees)


def z_score(sample, truth):
    return float((sample.mean() - truth) / max(sample.std(ddof=1) / np.sqrt(len(sample)), 1e-12))


@pytest.mark.parametrize(("v", "length"), [(3, 4), (4, 3), (2, 6)])
def test_everything_kept_enumerates_exactly(v, length):
    lm = TableLM(v, length, seed=v)
    graph = run(lm, ["p"], frontier(width=ALL, keep=None))
    leaves = np.flatnonzero(graph.is_leaf())
    found = {lm.generated(graph, i): graph.log_p_f[i] for i in leaves}
    assert found.keys() == set(lm.texts)
    np.testing.assert_allclose([found[t] for t in lm.texts], [lm.log_p[t] for t in lm.texts], atol=1e-12)
    assert abs(np.exp(graph.log_weight(leaves)).sum() - 1) < 1e-12
    assert (graph.status[leaves] == Status.LEAF_LENGTH).all()


@pytest.mark.parametrize("span", [1, 2])
@pytest.mark.parametrize(
    ("strategy", "state"),
    [
        (frontier(width=3, keep=4), False),
        (frontier(width=2, keep=2), False),
        (frontier(width=5, keep=3), True),
        (frontier(width=4, keep=None), False),
    ],
    ids=["keep 4", "keep 2", "merged states", "nothing pruned"],
)
def test_pruned_weights_stay_unbiased_dead_leaves_included(strategy, state, span):
    lm = TableLM(3, 4, seed=8, span=span)
    task = TableTask(lm, state=state)
    gamma = 0.7

    def elite(graph, i):
        text = lm.generated(graph, i)
        return graph.status[i] != Status.LEAF_DEAD and lm.score[text] >= gamma

    def alive(text):
        return text[:2] != (2, 2)

    graph = run(lm, ["p"] * 500, strategy, task, noisy_value(1), seed=3)
    assert why_not(graph) == ""
    assert abs(z_score(tree_sums(graph, lambda g, i: 1.0), 1.0)) < Z
    truth = lm.probability(lambda t: alive(t) and lm.score[t] >= gamma)
    assert abs(z_score(tree_sums(graph, elite), truth)) < Z
    even = lm.probability(lambda t: alive(t) and t[0] == 0)  # a function of the path
    first = tree_sums(graph, lambda g, i: lm.generated(g, i)[0] == 0 and g.status[i] != Status.LEAF_DEAD)
    assert abs(z_score(first, even)) < Z


def test_hard_pruning_would_be_noticed():
    """The negative control of the test above: the same search, weights of pruned nodes simply lost."""
    lm = TableLM(3, 4, seed=8)
    strategy = frontier(width=3, keep=2)
    graph = run(lm, ["p"] * 600, strategy, TableTask(lm), noisy_value(1), seed=3)
    pruned_factor = graph.log_inclusion - graph.log_q  # what sampling alone would not explain
    assert np.abs(pruned_factor).max() > 0.1
    leaves = np.flatnonzero(graph.is_leaf())
    lost = np.bincount(graph.root[leaves], graph.count[leaves] / 3.0**4, minlength=graph.trees)
    assert abs(z_score(lost, 1.0)) > 20


def test_the_estimate_has_the_truth_within_its_error():
    lm = TableLM(3, 4, seed=2)
    graph = run(lm, ["p"] * 400, frontier(width=3, keep=4), TableTask(lm, dead=False), threshold=0.6)
    estimate = probability(graph, 0.6)
    truth = lm.probability(lambda t: lm.score[t] >= 0.6)
    assert abs(estimate.value - truth) < Z * estimate.error
    assert estimate.error < 0.1


def test_an_open_forest_gives_no_estimate():
    lm = TableLM(3, 4, seed=2)
    graph = run(lm, ["p"] * 3, frontier(width=3), TableTask(lm), budget=5)
    estimate = probability(graph, 0.5)
    assert estimate.value is None
    assert "lost: search anew with close=True" in str(estimate)


def test_what_is_said_of_an_open_forest_helps():
    """Cut in the middle of an expansion it stays open, whatever follows; stopped between rounds it can be closed."""
    lm = TableLM(3, 4, seed=2, span=2)
    options = {"score": Score(TableTask(lm)), "strategy": frontier(width=3)}
    more = {"budget": Budget(tokens=60), "close": True, **options}
    cut, stopped = (
        next(search(lm, ["p"] * 3, budget=Budget(tokens=n), seed=1, **options)).graph for n in (4, 60)
    )
    assert "in the middle of expansions of 1 of 3 trees" in why_not(cut)
    assert "go on with the graph and close=True" in why_not(stopped)
    for graph, advised in ((cut, {"prompts": ["p"] * 3}), (stopped, {"graph": stopped})):
        *_, last = search(lm, **advised, **more)
        assert why_not(last.graph) == ""
        if graph is cut:
            *_, last = search(lm, graph=cut, **more)
            assert "search anew" in why_not(last.graph)


@pytest.mark.parametrize("span", [1, 3])
@pytest.mark.parametrize("budget", [Budget(tokens=1), Budget(tokens=9), Budget(tokens=25), Budget(nodes=12)])
def test_closing_leaves_no_weight_unfinished_and_no_bias(budget, span):
    lm = TableLM(3, 5, seed=8, span=span)
    task, strategy = TableTask(lm, state=True), frontier(width=3, keep=6)
    options = {"score": Score(task, noisy_value(1)), "strategy": strategy, "seed": 3}
    *_, last = search(lm, ["p"] * 300, budget=budget, close=True, **options)
    graph = last.graph
    assert why_not(graph) == ""
    assert abs(z_score(tree_sums(graph, lambda g, i: 1.0), 1.0)) < Z
    truth = lm.probability(lambda t: t[:2] != (2, 2) and lm.score[t] >= 0.7)
    hit = tree_sums(
        graph, lambda g, i: g.status[i] != Status.LEAF_DEAD and lm.score[lm.generated(g, i)] >= 0.7
    )
    assert abs(z_score(hit, truth)) < Z
    if budget.tokens is not None:
        over = np.array(graph.meta["spent"]["counts"]["sampled"]) - budget.tokens
        assert graph.meta["closing"]["over"] == np.maximum(over, 0).sum()
        assert over.max() <= 3 * span + lm.length  # the first draws, and one rollout


def test_closing_full_expansions_stays_near_the_budget():
    lm = TableLM(4, 6, seed=8)
    options = {"score": Score(TableTask(lm)), "strategy": frontier(width=ALL, keep=20)}
    *_, last = search(lm, ["p"] * 50, budget=Budget(tokens=60), close=True, **options)
    assert why_not(last.graph) == ""
    assert max(last.graph.meta["spent"]["counts"]["sampled"]) <= 60 + 4 + lm.length


def test_closing_ends_a_search_by_the_clock_too():
    lm = TableLM(3, 5, seed=8)
    options = {"score": Score(TableTask(lm)), "strategy": frontier(width=8, keep=None)}
    *_, last = search(lm, ["p"] * 20, budget=Budget(seconds=0.05), close=True, **options)
    assert why_not(last.graph) == ""


def test_an_interrupted_search_can_be_closed_later():
    lm = TableLM(3, 5, seed=8)
    options = {"score": Score(TableTask(lm)), "strategy": frontier(width=3), "budget": Budget(tokens=90)}
    part = next(search(lm, ["p"] * 30, **options)).graph
    assert "unfinished" in why_not(part)
    *_, last = search(lm, graph=part, close=True, **options)
    assert why_not(last.graph) == ""


def test_the_counts_of_closing_go_on_after_a_resume(tmp_path):
    lm = TableLM(3, 6, seed=8)
    options = {"score": Score(TableTask(lm)), "strategy": frontier(width=3), "close": True}
    more = {"budget": Budget(tokens=40), **options}
    one = next(r for r in search(lm, ["p"] * 30, **more) if r.graph.meta["closing"]["tokens"] > 40)
    one.graph.save(tmp_path / "part.bg")
    before = one.graph.meta["closing"]
    *_, last = search(lm, graph=load(tmp_path / "part.bg"), **more)
    assert why_not(last.graph) == ""
    closing, left = last.graph.meta["closing"], last.spent.sampled - one.spent.sampled
    assert closing["trees"] >= before["trees"]
    assert before["tokens"] < closing["tokens"] <= before["tokens"] + left
    assert (np.array(closing["by_tree"]) >= before["by_tree"]).all()
    assert closing["tokens"] == np.maximum(closing["by_tree"], 0).sum()


def test_only_estimates_can_be_closed():
    lm = TableLM()
    options = {"score": Score(), "strategy": babble(), "budget": Budget(tokens=5)}
    with pytest.raises(BadInput, match="closed"):
        next(search(lm, ["p"], close=True, **options))


def test_a_biased_strategy_gives_no_estimate():
    lm = TableLM(3, 4, seed=2)
    graph = run(lm, ["p"], babble(), TableTask(lm), budget=30)
    assert "aim solve" in str(probability(graph, 0.5))


@pytest.mark.parametrize("strategy", [babble(), best_of_n(), adaptive()])
def test_what_was_searched_to_solve_is_never_an_estimate_whatever_goes_on_with_it(strategy):
    lm = TableLM(3, 4, seed=1)
    graph = run(lm, ["p"], strategy, TableTask(lm), budget=10)
    score, more = Score(TableTask(lm)), {"strategy": frontier(), "budget": Budget(tokens=900)}
    for _ in search(lm, graph=graph, score=score, close=True, **more):
        pass
    assert graph.meta["strategy"] == "frontier"
    assert "the search had the aim solve, last with the strategy 'frontier'" in why_not(graph)


@pytest.mark.parametrize("strategy", [babble(width=2), frontier(width=2, keep=3), best_of_n(n=9)])
def test_another_seed_gives_another_graph(strategy):
    lm = TableLM(3, 5, seed=1)
    one, other = (
        run(lm, ["p", "q"], strategy, TableTask(lm, state=True), budget=60, seed=seed) for seed in (4, 5)
    )
    assert other.size != one.size or (other.tokens != one.tokens).any()


def test_best_of_n_draws_n_samples_of_the_model():
    lm = TableLM(3, 4, seed=6)
    graph = run(lm, ["p"] * 40, best_of_n(n=50, width=50), seed=1)
    leaves = np.flatnonzero(graph.is_leaf())
    assert graph.count[leaves].sum() == 40 * 50
    counts = np.zeros(len(lm.texts))
    for i in leaves:
        counts[lm.texts.index(lm.generated(graph, i))] += graph.count[i]
    expected = 2000 * np.exp([lm.log_p[t] for t in lm.texts])
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 160  # 80 degrees of freedom: odds of a false alarm below 1e-6


def test_babble_draws_every_text_once_and_then_stops():
    lm = TableLM(3, 3, seed=3)
    graph = run(lm, ["p"], babble(width=1), TableTask(lm, dead=False))
    leaves = np.flatnonzero(graph.is_leaf())
    assert sorted(lm.generated(graph, i) for i in leaves) == lm.texts
    assert (graph.flags[0] & Flag.EXHAUSTED) != 0


def test_babble_stops_at_the_first_success():
    lm = TableLM(3, 4, seed=2)
    gamma = max(lm.score.values())
    graph = run(lm, ["p"], babble(width=1, threshold=gamma), TableTask(lm, dead=False), threshold=gamma)
    best = graph.best(1)[0]
    assert graph.score[best] == np.float32(gamma)
    assert graph.born[best] == graph.round


def test_babble_goes_where_the_value_is():
    lm = TableLM(3, 6, seed=2)

    def value(graph, ids, meter):
        return np.array([graph.text(int(i)).count("b") / 6 for i in ids])

    with_value = run(lm, ["p"] * 20, babble(width=1), None, value, budget=60)
    without = run(lm, ["p"] * 20, babble(width=1), None, None, budget=60)

    def most(graph):
        return np.mean(
            [max(graph.text(i).count("b") for i in np.flatnonzero(graph.root == t)) for t in range(20)]
        )

    assert most(with_value) > most(without)


def test_a_bounded_frontier_is_bounded_and_pruned_nodes_may_be_revived():
    lm = TableLM(3, 6, seed=2)
    most = 0
    score, strategy = Score(TableTask(lm, dead=False)), babble(width=4, keep=3)
    revived = 0
    for each in search(lm, ["p"], score=score, strategy=strategy, budget=Budget(tokens=500)):
        live = np.flatnonzero(each.graph.status <= Status.EXPANDED)
        most = max(most, len(live[live > 0]))
        revived += int(((each.graph.flags[each.chosen.ids] & Flag.BIASED) != 0).sum())
    assert most <= 3
    assert revived > 0


def test_equal_states_are_merged_into_the_first():
    lm = TableLM(3, 4, seed=2)
    graph = run(lm, ["p"], babble(width=4), TableTask(lm, state=True), budget=60)
    assert graph.merges
    for loser, winner in graph.merges:
        assert winner < loser
        assert sorted(graph.text(loser)) == sorted(graph.text(winner))
        assert graph.status[loser] == Status.MERGED
        assert not graph.children(loser)


def test_a_stopped_search_leaves_a_valid_prefix_of_the_whole_one():
    lm = TableLM(3, 5, seed=1)
    options = {"score": Score(TableTask(lm)), "strategy": babble(width=2), "budget": Budget(tokens=80)}
    rounds = search(lm, ["p"], **options)
    for _ in range(5):
        part = next(rounds).graph
    rounds.close()
    whole = run(lm, ["p"], babble(width=2), TableTask(lm), budget=80)
    np.testing.assert_array_equal(part.tokens, whole.tokens[: len(part.tokens)])
    assert part.best(1) is not None


def test_a_resumed_search_goes_on_as_if_never_stopped():
    lm = TableLM(3, 5, seed=1)
    options = {"score": Score(TableTask(lm)), "strategy": babble(width=2), "budget": Budget(tokens=80)}
    rounds = search(lm, ["p", "q"], seed=9, **options)
    for _ in range(7):
        part = next(rounds).graph
    rounds.close()
    *_, last = search(lm, graph=part, **options)
    whole = run(lm, ["p", "q"], babble(width=2), TableTask(lm), budget=80, seed=9)
    np.testing.assert_array_equal(last.graph.tokens, whole.tokens)
    np.testing.assert_array_equal(last.graph.status, whole.status)
    assert last.spent.sampled == sum(whole.meta["spent"]["counts"]["sampled"])


def cut_off(strategy, *, at, stage):
    """A closed search that Ctrl-C hits in the middle of a round, where it scores or where it prunes."""
    lm, calls = TableLM(3, 5, seed=1), []

    def interrupted(call):
        def wrapped(*given):
            calls.append(stage)
            if len(calls) == at:
                raise KeyboardInterrupt
            return call(*given)

        return wrapped

    task = TableTask(lm)
    if stage == "score":
        task.verify = interrupted(task.verify)
    else:
        strategy = strategy._replace(prune=interrupted(strategy.prune))
    graph = lm.start(["p"] * 20, seed=3)
    options = {"score": Score(task), "strategy": strategy, "budget": Budget(tokens=60), "close": True}
    with pytest.raises(KeyboardInterrupt):
        for _ in search(lm, graph=graph, **options):
            pass
    return lm, graph, options


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_search_that_was_cut_off_while_it_scored_goes_on_as_if_it_never_was(in_turn, tmp_path):
    strategies = [frontier(width=3, keep=4) for _ in range(3)]
    begun, later, never = [together(s, 7) for s in strategies] if in_turn else strategies
    lm, graph, options = cut_off(begun, at=9, stage="score")
    assert np.isnan(graph.score[graph.is_leaf()]).any()
    assert "cut off before all texts had their scores" in why_not(graph)
    spent = sum(graph.meta["spent"]["counts"]["sampled"])
    assert spent == int((graph.stop - graph.start)[graph.trees :].sum())
    graph.save(tmp_path / "graph.bg")
    graph = load(tmp_path / "graph.bg")
    for _ in search(lm, graph=graph, **options | {"strategy": later}):
        pass
    *_, whole = search(lm, ["p"] * 20, seed=3, **options | {"strategy": never})
    for name in ("status", "score", "log_inclusion"):
        np.testing.assert_array_equal(getattr(graph, name), getattr(whole.graph, name))
    assert graph.meta["spent"]["counts"] == whole.graph.meta["spent"]["counts"]
    assert why_not(graph) == ""
    assert probability(graph, 0.5).value == probability(whole.graph, 0.5).value


@pytest.mark.parametrize(
    ("strategy", "stage"), [(frontier(width=3, keep=4), "prune"), (stochastic_beam(width=5), "score")]
)
def test_a_round_that_was_cut_off_and_cannot_be_finished_leaves_no_estimate(strategy, stage):
    """Where some weights may be changed, others not; and in a contest, whose numbers are nowhere but in the round."""
    lm, graph, options = cut_off(strategy, at=3, stage=stage)
    assert "in the middle of a round that changes weights" in why_not(graph)
    for _ in search(lm, graph=graph, **options):
        pass
    assert "biased" in why_not(graph)
    assert not np.isnan(graph.score[graph.is_leaf()]).any()


@pytest.mark.parametrize(
    "choice",
    [
        [0],
        Chosen(np.array([0, 7]), np.array([1, 1])),
        Chosen(np.array([0]), np.array([-1])),
        Chosen([0], [1, 2]),
    ],
)
def test_what_a_strategy_may_not_choose_is_refused_in_one_line(choice):
    mine = Strategy("mine", lambda graph, meter: choice, lambda graph, rng: np.zeros(0, np.int64))
    with pytest.raises(BadInput, match="a strategy must choose") as error:
        next(search(TableLM(), ["p"], score=Score(), strategy=mine, budget=Budget(tokens=5)))
    assert "\n" not in str(error.value)


def test_a_search_with_an_endless_bound_can_be_saved(tmp_path):
    lm = TableLM()
    options = {"score": Score(TableTask(lm)), "strategy": babble()}
    *_, last = search(lm, ["p"], budget=Budget(tokens=20, seconds=float("inf")), **options)
    last.graph.save(tmp_path / "graph.bg")
    assert load(tmp_path / "graph.bg").meta["budget"] == {"tokens": 20, "nodes": None, "seconds": None}


def test_bad_arguments_are_refused_in_one_line():
    lm = TableLM()
    options = {"score": Score(), "strategy": babble(), "budget": Budget(tokens=5)}
    for arguments in ({}, {"prompts": ["p"], "seed": -1}):
        with pytest.raises(BadInput) as error:
            next(search(lm, **arguments, **options))
        assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match=r"generator must be a Babbler.*got 'gpt2'"):
        next(search("gpt2", prompts=["p"], **options))
    wrong = {
        "budget": (100, "needs a Budget"),
        "strategy": ("babble", "strategies, got 'babble'"),
        "score": (None, "a scorer"),
    }
    for name, (given, said) in wrong.items():
        with pytest.raises(BadInput, match=said) as error:
            next(search(lm, ["p"], **options | {name: given}))
        assert "\n" not in str(error.value)
    with pytest.raises(BadInput):
        babble(width=0)
    with pytest.raises(BadInput):
        frontier(keep=0)
