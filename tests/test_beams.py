"""Beams against brute force: every strategy here has a textbook answer, which plain Python computes anew."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from test_loop import TableTask, noisy_value, run

from babblegraph.budget import Budget
from babblegraph.loop import search
from babblegraph.protocols import ALL
from babblegraph.scoring import Score
from babblegraph.status import Flag, Status
from babblegraph.strategies import a_star, best_first, dvts, greedy, lookahead, step_beam, token_beam


def finished(graph, lm, tree=0):
    leaves = np.flatnonzero(graph.is_leaf() & (graph.root == tree) & (graph.status != Status.LEAF_DEAD))
    return {lm.generated(graph, i) for i in leaves.tolist()}


def exact_beam(lm, width, length_power=0.0):
    """Beam search on tuples."""
    beam = [((), 0.0)]
    for step in range(1, lm.length + 1):
        every = [((*t, a), p + lm.table[t][a]) for t, p in beam for a in range(lm.v)]
        beam = sorted(every, key=lambda x: -x[1] / step**length_power)[:width]
    return {t for t, _ in beam}


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(4))
def test_the_token_beam_is_the_exact_beam(width, seed):
    lm = TableLM(4, 5, seed=seed)
    assert finished(run(lm, ["p"], token_beam(width=width)), lm) == exact_beam(lm, width)


@pytest.mark.parametrize(
    ("budget", "nodes"),
    [
        (Budget(nodes=1), 4),  # every next token of the prompt,
        (Budget(nodes=4), 4),
        (Budget(nodes=5), 12),  # then every next token of two texts
        (Budget(nodes=12), 12),
        (Budget(tokens=5), 5),
        (Budget(nodes=12, tokens=11), 11),
    ],
)
def test_full_expansions_may_exceed_a_budget_of_nodes_by_one_round_and_none_of_tokens(budget, nodes):
    lm = TableLM(4, 5, seed=1)
    options = {"score": Score(None), "strategy": token_beam(width=2), "budget": budget}
    *_, (graph, *_) = search(lm, ["p"] * 2, **options)
    spent = graph.meta["spent"]["counts"]
    assert np.bincount(graph.root).tolist() == [nodes + 1] * 2
    assert spent["nodes"] == spent["sampled"] == [nodes] * 2


class Endless(TableLM):
    """The same, but token 0 ends a text, so that texts differ in length."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.rule = type(self.rule)(tokens=1, end_ids=frozenset({0}))


@pytest.mark.parametrize("length_power", [0.0, 1.0])
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_finished_texts_leave_the_beam_and_are_kept_if_they_are_among_the_best(width, length_power, seed):
    lm = Endless(3, 4, seed=seed)
    beam, answers = [((), 0.0)], set()
    for step in range(1, lm.length + 1):
        every = [((*t, a), p + lm.table[t][a]) for t, p in beam for a in range(lm.v)]
        every.sort(key=lambda x: -x[1] / step**length_power)
        answers |= {t for t, _ in every[:width] if t[-1] == 0 or step == lm.length}
        beam = [x for x in every if x[0][-1] != 0][:width]
    found = finished(run(lm, ["p"], token_beam(width=width, length_power=length_power)), lm)
    assert found == answers


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_likeliest_token_every_time(seed):
    lm, text = TableLM(4, 6, seed=seed), ()
    while len(text) < lm.length:
        text = (*text, int(np.argmax(lm.table[text])))
    graph = run(lm, ["p", "p"], greedy(), seed=seed)
    assert finished(graph, lm, 0) == finished(graph, lm, 1) == {text}


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_beam_with_every_child_drawn_keeps_the_best_by_value(width, seed):
    lm = TableLM(3, 5, seed=seed)
    graph = run(lm, ["p"], step_beam(width=width, children=400, restarts=0), None, noisy_value(3))
    beam = [0]
    for _ in range(lm.length - 1):
        born = [c for n in beam for c in graph.children(n) if not graph.is_leaf(c)]
        born.sort(key=lambda i: -graph.value[i])
        assert {i for i in born if graph.status[i] == Status.EXPANDED} == set(born[:width])
        beam = born[:width]
    assert {int(graph.parent[i]) for i in np.flatnonzero(graph.is_leaf())} == set(beam)


@pytest.mark.parametrize("restarts", [0, 2])
def test_a_step_beam_begins_anew_as_often_as_it_may(restarts):
    lm = TableLM(5, 4, seed=2)
    graph = run(lm, ["p"], step_beam(width=1, children=1, restarts=restarts), None, noisy_value(3))
    assert graph.draws[0] == restarts + 1
    assert len(graph.children(0)) == restarts + 1
    assert graph.is_leaf().sum() == restarts + 1


@pytest.mark.parametrize("seed", range(3))
def test_subtrees_of_dvts_never_compete(seed):
    lm = TableLM(4, 5, seed=seed)
    graph = run(lm, ["p"], dvts(subtrees=3, children=5, restarts=0), None, noisy_value(3))
    first = graph.children(0)
    assert graph.draws[0] == 3
    assert 1 <= len(first) <= 3
    for top in first:
        beam = top
        while not graph.is_leaf(beam):
            born = graph.children(beam)
            if graph.is_leaf(born[0]):
                break
            best = max(born, key=lambda i: graph.value[i])
            assert [i for i in born if graph.status[i] == Status.EXPANDED] == [best]
            beam = best
        assert graph.depth[beam] == lm.length - 1


def test_equal_states_of_two_subtrees_of_dvts_both_go_on():
    """The state is the last letter, so that nearly every text would be another one's."""

    class Last:
        def verify(self, prompt, text):
            return 1.0

        def state(self, prompt, text):
            return f"{len(text)}{text[-1]}"

    for seed in range(5):
        lm = TableLM(4, 5, seed=seed)
        graph = run(lm, ["p"], dvts(subtrees=3, children=3, restarts=0), Last(), noisy_value(3), seed=seed)
        assert all(graph.path(loser)[1] == graph.path(winner)[1] for loser, winner in graph.merges)
        assert {graph.path(i)[1] for i in np.flatnonzero(graph.is_leaf()).tolist()} == set(graph.children(0))


def worth(graph, node):
    """The best value where what was rolled out below a node ends."""
    return max((worth(graph, c) for c in graph.children(node)), default=float(graph.value[node]))


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_lookahead_keeps_the_candidates_whose_rollouts_ended_best(ahead):
    lm, width, beam = TableLM(4, 7, seed=3), 2, [0]
    strategy = lookahead(width=width, children=3, ahead=ahead, restarts=0)
    options = {"score": Score(None, noisy_value(3)), "strategy": strategy, "budget": Budget(tokens=10**6)}
    for number, each in enumerate(search(lm, ["p"], **options), 1):
        graph, (turn, rolled) = each.graph, divmod(number, 1 + ahead)
        if turn + ahead >= lm.length:
            break
        if rolled:
            continue  # the turn is not over
        candidates = [c for n in beam for c in graph.children(n)]

        ends = [
            i for i in range(graph.size) if set(graph.path(i)) & set(candidates) and not graph.children(i)
        ]
        assert set(graph.depth[ends].tolist()) == {turn + ahead}  # all are rolled out equally far
        kept = sorted(candidates, key=lambda i, graph=graph: worth(graph, i))[-width:]
        assert {c for c in candidates if graph.status[c] <= Status.EXPANDED} == set(kept)
        live = np.flatnonzero(graph.status <= Status.EXPANDED)
        assert all(set(graph.path(i)) & set(kept) for i in live if graph.depth[i] >= turn)
        beam = kept
    assert turn > 3


@pytest.mark.parametrize("seed", range(6))
def test_uniform_cost_search_finds_the_likeliest_text_before_any_other(seed):
    lm = TableLM(3, 5, seed=seed)
    best = max(lm.log_p, key=lm.log_p.get)
    graph = run(lm, ["p"], a_star())
    leaf = max(np.flatnonzero(graph.is_leaf()), key=lambda i: graph.log_p_g[i])
    assert lm.generated(graph, leaf) == best
    assert graph.size < 3**5  # and it did not look at everything
    open_nodes = np.flatnonzero(graph.status == Status.FRONTIER)
    assert (graph.log_p_g[open_nodes] <= graph.log_p_g[leaf]).all()


@pytest.mark.parametrize("seed", [3, 14, 23])
def test_of_two_ways_to_a_state_the_likelier_goes_on_be_it_the_younger(seed):
    """The same search where order is forgotten: there, the oldest way missed the likeliest text for 14 and 23."""
    lm = TableLM(3, 4, seed=seed)
    graph = run(lm, ["p"], a_star(), TableTask(lm, dead=False, state=True))
    leaf = max(np.flatnonzero(graph.is_leaf()), key=lambda i: graph.log_p_g[i])
    assert graph.merges
    assert lm.generated(graph, leaf) == max(lm.log_p, key=lm.log_p.get)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_values_that_do_not_count_do_not_end_an_a_star(seed):
    """With V to the power of 0 it finds the likeliest text, also where values are 0."""
    lm = TableLM(3, 4, seed=seed)
    score = Score(TableTask(lm, dead=False), lambda graph, ids, meter: np.zeros(len(ids)))
    options = {"score": score, "budget": Budget(tokens=10**6)}
    *_, last = search(lm, ["p"], strategy=a_star(value_power=0.0), **options)
    graph = last.graph
    ended = np.flatnonzero(graph.is_leaf())
    likeliest = max(lm.texts, key=lm.log_p.get)
    assert lm.generated(graph, int(ended[graph.log_p_g[ended].argmax()])) == likeliest


def test_where_all_values_are_0_a_star_ends_with_its_first_text():
    lm = TableLM(3, 4, seed=1)
    graph = run(lm, ["p"], a_star(), None, lambda graph, ids, meter: np.zeros(len(ids)))
    assert graph.is_leaf().any()
    assert graph.size < 3**4


@pytest.mark.parametrize("seed", range(6))
def test_an_admissible_heuristic_finds_the_optimum_with_fewer_nodes(seed):
    """V is the largest score of any text that begins like this, and the score itself at its end."""
    lm = TableLM(3, 5, seed=seed)

    def value(graph, ids, meter):
        texts = [lm.generated(graph, i) for i in ids.tolist()]
        return [max(s for t, s in lm.score.items() if t[: len(x)] == x) for x in texts]

    best = max(lm.texts, key=lambda t: lm.log_p[t] + np.log(lm.score[t]))
    graph = run(lm, ["p"], a_star(), TableTask(lm, dead=False), value)
    leaves = np.flatnonzero(graph.is_leaf())
    found = max(leaves, key=lambda i: graph.log_p_g[i] + np.log(graph.score[i]))
    assert lm.generated(graph, found) == best
    assert graph.size < run(lm, ["p"], best_first(children=ALL), TableTask(lm, dead=False)).size


@pytest.mark.parametrize("keep", [2, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_best_first_always_expands_the_best_open_node_whether_pruned_or_not(seed, keep):
    lm, best = TableLM(3, 5, seed=seed), []
    score = Score(None, noisy_value(seed))
    options = {"score": score, "strategy": best_first(children=2, keep=keep), "budget": Budget(tokens=60)}
    heap: dict[int, float] = {0: 1.0}
    for each in search(lm, ["p"], **options):
        graph, (chosen,) = each.graph, each.chosen.ids.tolist()
        if heap:
            best.append(heap[chosen] == max(heap.values()))
            del heap[chosen]
        else:
            assert chosen == 0 or graph.flags[0] & Flag.EXHAUSTED  # nothing is open: new first steps
        inner = [i for i in each.born.tolist() if not graph.is_leaf(i)]
        heap |= {i: float(graph.value[i]) for i in inner}
    assert len(best) > 10
    assert all(best)
