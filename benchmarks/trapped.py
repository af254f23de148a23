"""Does a connectivity measure foretell traps beyond value, depth and weight? The data and the test.

A live inner node of a stopped search, from which a solution has positive probability, is "trapped" if none of a few
fresh rollouts finds one. A logistic model of the exact value, depth and weight is fitted on one half of the puzzles and
ranks the nodes of the other, both halves in turn; what does it gain within a puzzle when the measure is added, and what
with the same scores permuted among the nodes of a tree?
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from common import bootstrap, claim
from judge import ExactValue, free

import babblegraph as bg
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import NodeStates
from babblegraph.scoring.reliability import auc_by_prompt
from babblegraph.status import Status
from babblegraph.strategies import babble


class Nodes(NamedTuple):
    """Live inner nodes of searches."""

    base: np.ndarray  # [M, 3] log of the exact value, depth, log-probability
    score: np.ndarray  # [M, measures]
    trapped: np.ndarray  # [M] bool
    root: np.ndarray  # [M] which tree
    puzzle: np.ndarray  # [M] which puzzle: several trees of one differ by their seed


def nodes_of(babbler, prompts, measures, seed, tokens, rollouts):
    """The nodes of one search for each prompt, which goes on after its first answer so that there are elites.

    Args:
        measures: a function of `NodeStates` to named measures.
        rollouts: from each node, to their ends.
    """
    states, exact = NodeStates(babbler), ExactValue(babbler)
    how = {"task": bg.Countdown(), "value": states, "strategy": babble(width=1), "seed": seed}
    graph = bg.babble(babbler, prompts, budget=tokens, **how).graph
    inner = np.isin(graph.status, (Status.EXPANDED, Status.FRONTIER, Status.PRUNED))
    inner[: graph.trees] = False
    ids = np.flatnonzero(inner)
    value = exact(graph, ids, free(graph))
    ids, value = ids[value > 0], value[value > 0]
    return Nodes(
        base=np.c_[np.log(value), graph.depth[ids], graph.log_p_g[ids]],
        score=np.stack([measure(graph)[ids] for measure in measures(states).values()], 1),
        trapped=~found_from(babbler, graph, ids, rollouts, seed),
        root=graph.root[ids].astype(np.intp),
        puzzle=graph.root[ids].astype(np.intp),
    )


def together(parts):
    """The nodes of several seeds, whose trees are numbered on."""
    trees = np.cumsum([0, *(int(part.puzzle.max(initial=-1)) + 1 for part in parts)])[:-1]
    parts = [part._replace(root=part.root + first) for part, first in zip(parts, trees, strict=True)]
    return Nodes(*map(np.concatenate, zip(*parts, strict=True)))


def found_from(babbler, graph, ids, rollouts, seed):
    """Whether one of some fresh rollouts from each node ends right, [M]."""
    task, found = bg.Countdown(), np.zeros(len(ids), bool)
    for at in range(0, len(ids), 200):
        some = ids[at : at + 200]
        ahead = babbler.start([graph.path_tokens(i).tolist() for i in some.tolist()], 1000 + seed)
        going, draws, meter = np.arange(ahead.trees), np.full(ahead.trees, rollouts), free(ahead)
        for _ in range(4):
            if not len(going):
                break
            ahead.round += 1
            born = ahead.add(babbler.expand(ahead, Chosen(going, draws), Rng(1000 + seed), meter))
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


def tested(nodes, names, placebos):
    """A row and a claim for each measure: its gain in AUC less that of its placebos, with an interval over puzzles."""
    draw, rows, claims = np.random.default_rng(0), [], []
    without = areas(nodes, None)
    of_puzzle = puzzles_of(nodes)
    for k, name in enumerate(names):
        gain = areas(nodes, nodes.score[:, k]) - without
        noise = np.stack(
            [areas(nodes, permuted(nodes.score[:, k], nodes.root, draw)) - without for _ in range(placebos)]
        )
        low, high = bootstrap(by_puzzle(gain, of_puzzle))
        over = by_puzzle(gain - noise.mean(0), of_puzzle)
        rows.append(
            {
                "measure": name,
                "nodes": len(nodes.root),
                "trapped": float(nodes.trapped.mean()),
                "puzzles": len(over),
                "AUC without": middle(without),
                "gain": middle(gain),
                "low": low,
                "high": high,
                "placebo, mean": middle(noise),
                "placebo, most": max(map(middle, noise)),
            }
        )
        low, high = bootstrap(over)
        name = f"{name} − placebo, AUC for being trapped"
        claims.append(claim(name, over.mean(), "> 0", low > 0, (low, high)))
    return rows, claims


def areas(nodes, score):
    """AUC within each tree of the logistic model with a score, or without any, on the half not fitted on, [trees]."""
    x = nodes.base if score is None else np.c_[nodes.base, score]
    found = np.full(int(nodes.root.max(initial=-1)) + 1, np.nan)
    for half in (0, 1):
        fitted_on, test = nodes.puzzle % 2 == half, nodes.puzzle % 2 != half
        if not 0 < nodes.trapped[fitted_on].sum() < fitted_on.sum():
            continue  # one outcome alone teaches nothing
        rank = logistic(x[fitted_on], nodes.trapped[fitted_on])(x[test])
        one = np.ones(int(test.sum()))
        some = auc_by_prompt(rank, nodes.trapped[test] * 1.0, one, nodes.root[test])
        known = np.flatnonzero(~np.isnan(some))
        found[known] = some[known]
    return found


def middle(x):
    """The mean of what is known; 0 where nothing is."""
    known = x[~np.isnan(x)]
    return float(known.mean()) if len(known) else 0.0


def puzzles_of(nodes):
    """The puzzle of each tree, [trees]; −1 where a tree has no node."""
    found = np.full(int(nodes.root.max(initial=-1)) + 1, -1)
    found[nodes.root] = nodes.puzzle
    return found


def by_puzzle(gain, puzzle):
    """Means over the trees of each puzzle that have an AUC, [puzzles]: the independent units."""
    known = ~np.isnan(gain)
    total, many = np.bincount(puzzle[known], gain[known]), np.bincount(puzzle[known])
    return total[many > 0] / many[many > 0] if many.any() else np.zeros(1)


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
