"""Does connectivity tell anything that value, depth and weight do not, and does acting on it help?

Three questions, on held-out Countdown-4 puzzles and the embedded generator, each answered beside a placebo: the same
scores, permuted among the nodes of a tree.

Time: every measure on a forest of 10,000 nodes.
Prediction: searches are stopped. A live inner node from which a solution has positive probability is
"trapped" if no rollout of a further few finds one. A logistic model of the exact value, depth and weight predicts
that; what does the measure add to its AUC on other puzzles?
Intervention: the same search goes back to inner nodes that the measure names, or its placebo, at equal tokens.
Left out: other tasks and models; elites beyond the first.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from judge import ExactValue, free

import babblegraph as bg
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import NodeStates, elite_routes, entropy_to_go, novelty, pagerank
from babblegraph.scoring.reliability import auc_by_prompt
from babblegraph.status import Status
from babblegraph.strategies import babble
from babblegraph.strategies.restarts import with_restarts
from babblegraph.tasks.countdown_puzzles import puzzles

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report

NODES, FAST, SLOW = 10_000, 0.2, 2.0
SHARE = 0.3  # of rounds that go back


def main(arguments=None):
    options = parser(__doc__)
    options.add_argument("--puzzles", type=int, default=100)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--tokens", type=int, default=300)
    options.add_argument("--rollouts", type=int, default=8, help="further expansions from a node, to its end")
    options.add_argument("--placebos", type=int, default=20)
    chosen = options.parse_args(arguments)
    if chosen.quick:
        chosen.puzzles, chosen.seeds, chosen.tokens, chosen.placebos = 10, 1, 150, 3
    torch.set_num_threads(1)  # the model is small
    prompts = list(puzzles("test", chosen.puzzles, seed=1, numbers=4))
    babbler = bg.Babbler.embedded()
    timed, claims = timing()
    predicted, more = prediction(babbler, prompts, chosen)
    acted, most = intervention(babbler, prompts, chosen)
    tables = [("Time on 10,000 nodes", timed), ("What a measure adds to the AUC", predicted)]
    tables.append((f"% solved within {chosen.tokens} tokens, and distinct answers with twice that", acted))
    rows = [row for _, table in tables for row in table]
    report("", rows, claims + more + most, chosen, tables=tables, packages=["scipy", "networkx"])
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
    from babblegraph.born import Born

    graph = BabbleGraph(["p"] * trees, [[0]] * trees, {0: b"a"})
    while graph.size < NODES:
        parent = draw.choice(np.flatnonzero(~graph.is_leaf()), size=50)
        status = draw.choice([Status.FRONTIER, Status.FRONTIER, Status.LEAF_END, Status.LEAF_DEAD], size=50)
        ids = graph.add(Born.of_spans(parent, [[0]] * 50, -draw.random(50) * 5, status))
        graph.score[ids] = draw.random(50)
        graph.state_key[ids] = draw.integers(0, 2000, 50)
    graph.score[graph.is_leaf()] *= draw.random(int(graph.is_leaf().sum())) < 0.5
    return graph


def prediction(babbler, prompts, chosen):
    """Held-out AUC of the logistic model with each measure, less that without, beside its placebo."""
    states, exact = NodeStates(babbler), ExactValue(babbler)
    # a search that goes on after its first answer, so that there are elite leaves to speak of
    how = {"task": bg.Countdown(), "value": states, "strategy": babble(width=1)}
    graph = bg.babble(babbler, prompts, budget=chosen.tokens, **how).graph
    inner = (
        (graph.status == Status.EXPANDED)
        | (graph.status == Status.FRONTIER)
        | (graph.status == Status.PRUNED)
    )
    inner[: graph.trees] = False
    ids = np.flatnonzero(inner)
    value = exact(graph, ids, free(graph))
    ids, value = ids[value > 0], value[value > 0]
    trapped = ~found_from(babbler, graph, ids, chosen.rollouts)
    root = graph.root[ids]
    base = np.c_[np.log(value), graph.depth[ids], graph.log_p_g[ids]]
    rows, claims, draw = [], [], np.random.default_rng(0)
    without = held_out(base, trapped, root)
    for name, measure in measures(states).items():
        score = measure(graph)[ids]
        with_it = held_out(np.c_[base, score], trapped, root)
        placebo = [
            held_out(np.c_[base, permuted(score, root, draw)], trapped, root) for _ in range(chosen.placebos)
        ]
        gained = with_it - without
        noise = np.array(placebo) - without
        rows.append(
            {
                "measure": name,
                "nodes": len(ids),
                "trapped": float(trapped.mean()),
                "AUC without": without,
                "gain": gained,
                "placebo, mean": float(noise.mean()),
                "placebo, most": float(noise.max()),
                "alone": held_out(score[:, None], trapped, root),
            }
        )
        met = gained > noise.max() and gained > 0.002
        claims.append(
            claim(f"{name} adds to the AUC for being trapped", gained, "> 0.002 and any placebo", met)
        )
    return rows, claims


def found_from(babbler, graph, ids, rollouts):
    """Whether one of some fresh rollouts from each node ends right, [M]."""
    task, found = bg.Countdown(), np.zeros(len(ids), bool)
    for at in range(0, len(ids), 200):
        some = ids[at : at + 200]
        ahead = babbler.start([graph.path_tokens(i).tolist() for i in some.tolist()], 7)
        going, draws, meter = np.arange(ahead.trees), np.full(ahead.trees, rollouts), free(ahead)
        for _ in range(4):
            if not len(going):
                break
            ahead.round += 1
            born = ahead.add(babbler.expand(ahead, Chosen(going, draws), Rng(7), meter, False))
            open_nodes = []
            for i in born.tolist():
                node = some[int(ahead.root[i])]
                head, text = graph.prompt(node), graph.text(node) + ahead.text(i)
                if task.verify(head, text) == 1.0:
                    found[at + int(ahead.root[i])] = True
                elif task.value(head, text) > 0 and not ahead.is_leaf([i])[0]:
                    open_nodes.append(i)
            going = np.array([i for i in open_nodes if not found[at + int(ahead.root[i])]], np.intp)
            draws = ahead.count[going].astype(np.intp)
        babbler.release(ahead, np.arange(ahead.size))
    return found


def held_out(x, y, root):
    """AUC within prompts of a logistic model on the other half of the puzzles, both halves in turn."""
    areas = []
    for half in (0, 1):
        train, test = root % 2 == half, root % 2 != half
        score = logistic(x[train], y[train])(x[test])
        areas.append(auc_by_prompt(score, y[test] * 1.0, np.ones(int(test.sum())), root[test]))
    known = np.concatenate(areas)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else 0.5


def logistic(x, y):
    """A ridge logistic model by Newton's steps; returns its log-odds."""
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    design = lambda x: np.c_[np.ones(len(x)), (x - mean) / deviation]  # noqa: E731
    a, w = design(x), np.zeros(x.shape[1] + 1)
    for _ in range(30):
        p = 1 / (1 + np.exp(-a @ w))
        hessian = a.T @ (a * (p * (1 - p))[:, None]) + 1e-2 * np.eye(len(w))
        w = w - np.linalg.solve(hessian, a.T @ (p - y) + 1e-2 * w)
    return lambda x: design(x) @ w


def permuted(score, root, draw):
    """The same scores among the nodes of each tree, in another order."""
    order = np.lexsort((draw.random(len(score)), root))
    back = np.argsort(root, kind="stable")
    out = np.empty_like(score)
    out[back] = score[order]
    return out


def placebo(measure, seed):
    """The measure with its scores permuted among the live inner nodes of each tree."""

    def permute(graph):
        score = np.array(measure(graph))
        live = np.flatnonzero(~graph.is_leaf())
        draw = np.random.default_rng([seed, graph.round])
        score[live] = permuted(score[live], graph.root[live], draw)
        return score

    return permute


def intervention(babbler, prompts, chosen):
    """Solve rate and distinct answers of searches that go back by a measure, or by its placebo."""
    states, rows, claims = NodeStates(babbler), [], []
    plain = solved(babbler, prompts, lambda seed: babble(width=1), None, chosen)
    rows.append(row("no restarts but the strategy's own", plain))
    for name, measure in measures(states).items():
        if name == "PageRank, no links":
            continue
        value = states if name == "PageRank" else None
        both = [
            solved(babbler, prompts, partial(restarting, how, measure), value, chosen)
            for how in ("real", "placebo")
        ]
        rows += [row(name, both[0]), row(f"{name}, placebo", both[1])]
        for what, k, unit in (("solve rate", 0, 100), ("distinct answers", 1, 1)):
            gain = unit * (both[0][k] - both[1][k]).mean(0)
            low, high = bootstrap(gain)
            claims.append(claim(f"{name} − placebo, {what}", gain.mean(), "> 0", low > 0, (low, high)))
    return rows, claims


def restarting(how, measure, seed):
    by = measure if how == "real" else placebo(measure, seed)
    return with_restarts(babble(width=1), by, share=SHARE)


def solved(babbler, prompts, make, value, chosen):
    """Whether each puzzle was solved, and how many distinct answers twice the tokens gave, [seeds, puzzles].

    A search that goes on after its first answer is, up to there, the one that would have stopped.
    """
    passed, distinct = np.zeros((2, chosen.seeds, len(prompts)))
    for seed in range(chosen.seeds):
        how = {"task": bg.Countdown(), "value": value, "seed": seed, "strategy": make(seed)}
        for one in bg.rounds(babbler, prompts, budget=2 * chosen.tokens, **how):
            spent = np.array(one.graph.meta["spent"]["counts"]["sampled"])
            new = one.born[one.graph.score[one.born] >= 1]
            roots = one.graph.root[new]
            passed[seed, roots[spent[roots] <= chosen.tokens]] = 1
            np.add.at(distinct[seed], roots, 1)
    return passed, distinct


def row(name, found):
    return {"restarts by": name, "% solved": float(100 * found[0].mean()), "answers": float(found[1].mean())}


if __name__ == "__main__":
    main()
