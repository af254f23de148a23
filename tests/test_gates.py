"""Gates: quantiles with a floor, probes with the right weight, and the share of wrong kills."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from test_restarts import run

from babblegraph import gates
from babblegraph.born import Born
from babblegraph.errors import BadInput
from babblegraph.estimates import probability
from babblegraph.graph import BabbleGraph
from babblegraph.graph_file import load, save
from babblegraph.protocols import Strategy
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Gate, Status
from babblegraph.strategies import babble, frontier, stochastic_beam
from babblegraph.strategies.gated import Stage, by_connectivity, by_value, gated

NEVER = Strategy("none", lambda graph, meter: None, lambda graph, rng: np.zeros(0, np.intp))


def first_letter(graph):
    """A bad measure: the first generated token, so that kills can be wrong."""
    return np.array(
        [float(graph.tokens[graph.start[graph.path(i)[min(1, graph.depth[i])]]]) for i in range(graph.size)]
    )


def fan(values):
    """A root with one new child for each value."""
    graph = BabbleGraph(["p"], [[0]], {0: b"a"})
    graph.round = 1
    ids = graph.add(Born.of_spans([0] * len(values), [[0]] * len(values), [-1.0] * len(values)))
    graph.value[ids] = values
    return graph, ids


def test_a_gate_lets_through_the_best_share_and_remembers_whom_it_stopped():
    graph, ids = fan(np.linspace(0, 1, 20))
    stopped = gated(NEVER, [Stage("value", by_value, 0.25)], probe=0.0).prune(graph, Rng(0))
    assert sorted(stopped.tolist()) == ids[:14].tolist()  # the root is another node, of another depth
    assert (graph.gate[stopped] == Gate.NODE).all()
    assert (graph.flags[stopped] & Flag.BIASED).all()
    assert graph.meta["gates"]["value"] == {"entered": 20, "rejected": 14, "probes": []}


def test_a_floor_of_survivors_holds_whatever_the_scores_are():
    graph, ids = fan(np.zeros(3))
    graph.value[ids] = [0.3, 0.1, 0.2]
    gated(NEVER, [Stage("value", by_value, 0.01, floor=3)], probe=0.0).prune(graph, Rng(0))
    assert (graph.status[ids] == Status.FRONTIER).all()
    graph.round = 2
    late = graph.add(Born.of_spans([0] * 4, [[0]] * 4, [-1.0] * 4))
    graph.value[late] = [0.0, 0.5, 0.05, 0.2]
    gated(NEVER, [Stage("value", by_value, 0.01, floor=3)], probe=0.0).prune(graph, Rng(0))
    assert graph.status[late].tolist() == [Status.PRUNED, Status.FRONTIER, Status.PRUNED, Status.PRUNED]


def test_later_gates_see_only_what_earlier_ones_let_through():
    graph, ids = fan(np.linspace(0, 1, 40))
    graph.connectivity[ids] = np.linspace(1, 0, 40)
    stages = [Stage("value", by_value, 0.5), Stage("connectivity", by_connectivity, 0.75)]
    gated(NEVER, stages, probe=0.0).prune(graph, Rng(0))
    noted = graph.meta["gates"]
    assert noted["value"]["entered"] == 40
    assert noted["connectivity"]["entered"] == 40 - noted["value"]["rejected"]
    alive = ids[graph.status[ids] == Status.FRONTIER]
    assert (graph.value[alive] >= 0.47).all()
    assert (graph.connectivity[alive] >= 0.22).all()


@pytest.mark.slow
@pytest.mark.parametrize("probe", [0.1, 0.5, 1.0])
def test_estimates_behind_gates_are_unbiased_however_bad_the_gate(probe):
    """1,500 trees each, |z| < 5.3: odds 1.2e-7 each."""
    lm = TableLM(3, 4, seed=4)
    stages = [
        Stage("letter", first_letter, 0.4, floor=1),
        Stage("again", lambda g: -first_letter(g), 0.6, floor=1),
    ]
    graph = run(lm, gated(frontier(width=3, keep=None, merge=False), stages, probe=probe), trees=1500)
    found = probability(graph, 0.6)
    truth = lm.probability(lambda t: lm.score[t] >= 0.6)
    assert found.value is not None
    assert abs(found.value - truth) < 5.3 * found.error
    assert graph.meta["gates"]["letter"]["rejected"] > 500


def test_the_share_of_wrong_kills_is_that_of_the_killed():
    """A gate that kills by the first letter: every elite leaf tells which probe it is below."""
    lm = TableLM(3, 3, seed=5)
    stage = Stage("letter", first_letter, 0.3, floor=1)
    graph = run(lm, gated(frontier(width=4, keep=None, merge=False), [stage], probe=0.5), trees=800)
    (row,) = gates.table(graph, 0.6)
    assert row.entered == row.passed + graph.meta["gates"]["letter"]["rejected"]
    assert row.probes == ((graph.flags & Flag.PROBE) != 0).sum()
    probes = set(graph.meta["gates"]["letter"]["probes"])
    found, mass = set(), 0.0
    elite = [i for i in np.flatnonzero(graph.is_leaf()) if graph.score[i] >= 0.6]
    for leaf in elite:
        above = [i for i in reversed(graph.path(leaf)) if i in probes]
        found |= set(above[:1])
        mass += np.exp(graph.log_weight([leaf])[0]) if above else 0.0
    assert row.wrong == pytest.approx(len(found) / len(probes))
    assert row.mass == pytest.approx(mass / np.exp(graph.log_weight(elite)).sum())
    assert row.low < row.wrong < row.high
    assert 0 < row.mass < 1


def test_a_perfect_gate_kills_nothing_that_was_worth_it():
    lm = TableLM(3, 3, seed=6)
    good = {t[:n] for t in lm.texts if lm.score[t] >= 0.6 for n in range(1, 4)}

    def exact(graph):
        return np.array([float(lm.generated(graph, i) in good) for i in range(graph.size)])

    graph = run(
        lm, gated(frontier(width=4, keep=None), [Stage("exact", exact, 0.2, floor=1)], probe=0.3), trees=300
    )
    (row,) = gates.table(graph, 0.6)
    if row.probes:
        assert row.wrong == 0
        assert row.mass == 0


def test_a_solving_search_goes_on_behind_gates_and_its_file_remembers_them(tmp_path):
    lm = TableLM(4, 4, seed=1)
    graph = run(lm, gated(babble(width=4), [Stage("value", by_value, 0.5)], probe=0.2), budget=80, trees=2)
    save(graph, tmp_path / "graph.bg")
    again = load(tmp_path / "graph.bg")
    assert gates.table(again, 0.9) == gates.table(graph, 0.9)
    assert gates.table(again, 0.9)[0].mass is None


@pytest.mark.parametrize(
    ("stages", "probe", "rule"),
    [
        ([], 0.1, "at least one gate"),
        ([Stage("a", by_value, 0.5), Stage("a", by_value, 0.5)], 0.1, "different names"),
        ([Stage("a", by_value, 0.0)], 0.1, "share must be above 0"),
        ([Stage("a", by_value, 0.5, floor=0)], 0.1, "floor"),
        ([Stage("a", by_value, 0.5)], 1.1, "probability"),
        ([Stage("a", by_value, 0.5)], 0.0, "biased"),
    ],
)
def test_wrong_gates_are_refused_in_one_line(stages, probe, rule):
    with pytest.raises(BadInput, match=rule) as error:
        gated(frontier(), stages, probe=probe)
    assert "\n" not in str(error.value)


def test_nodes_that_compete_on_are_refused():
    """A beam sets the weights of all that are in it anew in each round: what a probe did to one would be lost."""
    with pytest.raises(BadInput, match=r"do not compete .* 'stochastic-beam': take frontier"):
        gated(stochastic_beam(), [Stage("a", by_value, 0.5)])
