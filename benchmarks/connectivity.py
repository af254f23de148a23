"""Does connectivity tell anything that value, depth and weight do not, and does acting on it help?

Three questions, on held-out Countdown-4 puzzles and the embedded generator, each answered beside a placebo: the same
scores, permuted among the nodes of a tree.

Time: every measure on a forest of 10,000 nodes.
Prediction: does the measure foretell which live nodes are traps (`trapped.py`)?
Intervention: the same search goes back to inner nodes that the measure names, or its placebo, at equal tokens.
Left out: other tasks and models; elites beyond the first.

Every search is a piece that a process can do for itself (`--processes`), and that is kept (`--pieces`), so that a run
that was cut off goes on where it stopped.
"""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.graph import BabbleGraph
from babblegraph.scoring import NodeStates, elite_routes, entropy_to_go, novelty, pagerank
from babblegraph.status import Status
from babblegraph.strategies import babble
from babblegraph.strategies.restarts import with_restarts
from babblegraph.tasks.countdown_puzzles import puzzles

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report
from trapped import Nodes, nodes_of, permuted, tested, together

NODES, FAST, SLOW = 10_000, 0.2, 2.0
SHARE = 0.3  # of rounds that go back
NONE, TRAPPED = "no restarts but its own", "trapped"
ACTED = ("entropy to go", "elite routes", "novelty", "PageRank")  # measures that searches go back by


def main(arguments=None):
    options = parser(__doc__)
    options.add_argument("--puzzles", type=int, default=200)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--tokens", type=int, default=300)
    options.add_argument("--rollouts", type=int, default=8, help="from a node, to find out if it is a trap")
    options.add_argument("--placebos", type=int, default=20)
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--pieces", type=Path, help="a folder for finished pieces, to go on from")
    chosen = options.parse_args(arguments)
    if chosen.quick:
        chosen.puzzles, chosen.seeds, chosen.tokens, chosen.placebos = 10, 1, 150, 3
    torch.set_num_threads(1)  # the model is small
    timed, claims = timing()
    with tempfile.TemporaryDirectory() as made:
        found = finished(chosen, chosen.pieces or Path(made))
    nodes = together([Nodes(**found[TRAPPED, seed]) for seed in range(chosen.seeds)])
    predicted, more = tested(nodes, list(measures(None)), chosen.placebos)
    acted, most = intervention(found, chosen)
    tables = [("Time on 10,000 nodes", timed), ("What a measure adds to the AUC", predicted)]
    tables.append((f"% solved within {chosen.tokens} tokens, and distinct answers with twice that", acted))
    rows = [row for _, table in tables for row in table]
    report("", rows, claims + more + most, chosen, tables=tables)
    return rows


def measures(states):
    return {
        "entropy to go": entropy_to_go,
        "elite routes": elite_routes(1.0),
        "novelty": novelty(),
        "PageRank, no links": pagerank(1.0),
        "PageRank": pagerank(1.0, states=states),
    }


def timing():
    """Each measure on one forest of 10,000 nodes in four trees, the best of three."""
    draw, babbler = np.random.default_rng(0), bg.Babbler.embedded()
    graph, states = forest(draw), NodeStates(babbler)
    inner = np.flatnonzero(~graph.is_leaf())
    states.remember(graph, inner, draw.normal(size=(len(inner), 128)))
    rows, claims = [], []
    for name, measure in measures(states).items():
        seconds = min(clocked(measure, graph) for _ in range(3))
        bound = SLOW if name == "PageRank" else FAST
        rows.append({"measure": name, "ms": 1e3 * seconds})
        claims.append(claim(f"{name} of 10,000 nodes, s", seconds, f"< {bound:g}", seconds < bound))
    return rows, claims


def clocked(measure, graph):
    start = time.perf_counter()
    measure(graph)
    return time.perf_counter() - start


def forest(draw, trees=4):
    graph = BabbleGraph(["p"] * trees, [[0]] * trees, {0: b"a"})
    while graph.size < NODES:
        parent = draw.choice(np.flatnonzero(~graph.is_leaf()), size=50)
        status = draw.choice([Status.FRONTIER, Status.FRONTIER, Status.LEAF_END, Status.LEAF_DEAD], size=50)
        ids = graph.add(Born.of_spans(parent, [[0]] * 50, -draw.random(50) * 5, status))
        graph.score[ids] = draw.random(50)
        graph.state_key[ids] = draw.integers(0, 2000, 50)
    graph.score[graph.is_leaf()] *= draw.random(int(graph.is_leaf().sum())) < 0.5
    return graph


def finished(chosen, folder):
    """All pieces by kind and seed, each as arrays; those that lie in the folder are not made again.

    Pieces of other sizes lie in folders of their own.
    """
    folder /= f"{chosen.puzzles}x{chosen.tokens}x{chosen.rollouts}"
    folder.mkdir(parents=True, exist_ok=True)
    arms = [NONE, *(arm for name in ACTED for arm in (name, f"{name}, placebo"))]
    wanted = [(kind, seed) for seed in range(chosen.seeds) for kind in (TRAPPED, *arms)]
    path = {
        piece: folder / f"{piece[0].replace(', ', '-').replace(' ', '-')}-{piece[1]}.npz" for piece in wanted
    }
    left = [piece for piece in wanted if not path[piece].is_file()]
    if chosen.processes == 1:
        for piece in left:
            make(*piece, chosen, path[piece])
    else:
        with ProcessPoolExecutor(chosen.processes, get_context("spawn")) as pool:
            for one in as_completed([pool.submit(make, *piece, chosen, path[piece]) for piece in left]):
                one.result()
    return {piece: dict(np.load(path[piece])) for piece in wanted}


def make(kind, seed, chosen, path):
    """One piece, written when it is whole."""
    torch.set_num_threads(1)
    prompts = list(puzzles("test", chosen.puzzles, seed=1, numbers=4))
    babbler = bg.Babbler.embedded()
    if kind == TRAPPED:
        arrays = nodes_of(babbler, prompts, measures, seed, chosen.tokens, chosen.rollouts)._asdict()
    else:
        arrays = solved(babbler, prompts, kind, seed, chosen.tokens)
    beside = path.with_suffix(".part.npz")
    np.savez(beside, **arrays)
    beside.replace(path)


def solved(babbler, prompts, arm, seed, tokens):
    """Whether each puzzle was solved, and how many distinct answers twice the tokens gave, [puzzles].

    A search that goes on after its first answer is, up to there, the one that would have stopped.
    """
    states, name = NodeStates(babbler), arm.removesuffix(", placebo")
    strategy = babble(width=1)
    if arm != NONE:
        measure = measures(states)[name]
        strategy = with_restarts(
            strategy, placebo(measure, seed) if arm.endswith("placebo") else measure, share=SHARE
        )
    passed, distinct = np.zeros((2, len(prompts)))
    how = {"task": bg.Countdown(), "value": states if name == "PageRank" else None, "strategy": strategy}
    for one in bg.rounds(babbler, prompts, budget=2 * tokens, seed=seed, **how):
        spent = np.array(one.graph.meta["spent"]["counts"]["sampled"])
        new = one.born[one.graph.score[one.born] >= 1]
        roots = one.graph.root[new]
        passed[roots[spent[roots] <= tokens]] = 1
        np.add.at(distinct, roots, 1)
    return {"passed": passed, "distinct": distinct}


def placebo(measure, seed):
    """The measure with its scores permuted among the live inner nodes of each tree."""
    return partial(_permute, measure, seed)


def _permute(measure, seed, graph):
    score = np.array(measure(graph))
    live = np.flatnonzero(~graph.is_leaf())
    draw = np.random.default_rng([seed, graph.round])
    score[live] = permuted(score[live], graph.root[live], draw)
    return score


def intervention(found, chosen):
    """Solve rate and distinct answers of searches that go back by a measure, beside its placebo and beside none."""

    def of(arm, what):
        return np.mean([found[arm, seed][what] for seed in range(chosen.seeds)], 0)  # [puzzles]

    rows, claims = [row(NONE, of(NONE, "passed"), of(NONE, "distinct"))], []
    for name in ACTED:
        for arm in (name, f"{name}, placebo"):
            rows.append(row(arm, of(arm, "passed"), of(arm, "distinct")))
        for other in (f"{name}, placebo", NONE):
            for what, column, unit in (
                ("solved, points", "passed", 100),
                ("distinct answers", "distinct", 1),
            ):
                gain = unit * (of(name, column) - of(other, column))
                low, high = bootstrap(gain)
                against = "placebo" if other != NONE else "none"
                claims.append(claim(f"{name} − {against}, {what}", gain.mean(), "> 0", low > 0, (low, high)))
    return rows, claims


def row(name, passed, distinct):
    return {"restarts by": name, "% solved": float(100 * passed.mean()), "answers": float(distinct.mean())}


if __name__ == "__main__":
    main()
