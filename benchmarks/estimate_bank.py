"""Exact truths and stored trees for `estimate.py`: what a puzzle's estimates are, tree by tree, and what they cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

import babblegraph as bg
from babblegraph.estimates import probability
from babblegraph.protocols import Chosen, Strategy
from babblegraph.scoring import JudgeValue, likelihood
from babblegraph.status import Gate, Status
from babblegraph.strategies import best_of_n, frontier, stochastic_beam
from babblegraph.strategies.common import log_priority, nothing
from babblegraph.tasks.countdown import parse
from babblegraph.tasks.countdown_solver import solve

sys.path.insert(0, str(Path(__file__).parent))
from search import NoEarlyKill

TOGETHER = 64  # samples on one trie
VALUED = {"value_power": 1.0, "floor": 1e-3}
PRUNED = {"width": [256, 16, 4], "keep": [32, 32]} | VALUED  # draws and kept nodes after each line
HARDLY = {"width": [256, 16, 4], "keep": [None, 64]} | VALUED
FULL, KILLED, SHARED = (
    "independent samples",
    "the same, dead lines not continued",
    f"the same, {TOGETHER} on one trie",
)
SMC = "SMC, 32 particles, multinomial resampling, verdict"
NARROW = "ours, 4 draws and 16 kept, verdict"
WEIGHT, TASK, VERDICT = (
    f"ours, 256 draws and 32 kept, {value}" for value in ("likelihood", "task value", "verdict")
)
WIDEST = "ours, 256 draws and 64 kept, verdict"
EVEN = "ours, 256 systematic draws and 32 kept, verdict"
DIFFERENT = "ours, 128 draws without replacement and 32 kept, verdict"
BEAM = "ours, stochastic beam of 64, no value"
CHEAP = {FULL: 64, KILLED: 64, SHARED: 2, SMC: 24, NARROW: 40, EVEN: 8, BEAM: 6}
TREES = CHEAP | {WEIGHT: 5, TASK: 5, VERDICT: 5, WIDEST: 5, DIFFERENT: 3}  # of each puzzle
EXACT = (FULL, KILLED, SHARED)  # their variance is P (1 − P), over the samples of a tree


def exact_probability(babbler, puzzle):
    """P(the generator solves the puzzle), exactly: the sum over all texts that the verifier lets pass.

    A text ends where its last number stands alone, so these are the solver's solutions, and there is one way to
    write each in tokens.
    """
    prompt = bg.Countdown().prepare(puzzle)
    numbers, target = parse(prompt)
    texts = sorted(solve(numbers, target), key=len)
    return sum(float(log_p.exp().sum()) for log_p in _log_p(babbler, prompt, texts))


@torch.inference_mode()
def _log_p(babbler, prompt, texts, rows=256):
    """log p of texts after a prompt, by plain forward passes, in batches."""
    first = len(babbler.tokenizer(prompt)["input_ids"])
    ids = [babbler.tokenizer(prompt + text)["input_ids"] for text in texts]
    for at in range(0, len(ids), rows):
        some = ids[at : at + rows]
        padded = torch.zeros(len(some), max(map(len, some)), dtype=torch.long)
        for row, tokens in enumerate(some):
            padded[row, : len(tokens)] = torch.tensor(tokens)
        log_p = babbler.model(padded).logits.double().log_softmax(-1)
        log_p = log_p[:, :-1].gather(2, padded[:, 1:, None])[..., 0]
        place, lengths = torch.arange(1, padded.shape[1]), torch.tensor([len(t) for t in some])[:, None]
        yield torch.where((place >= first) & (place < lengths), log_p, 0.0).sum(1)


class Bank:
    """Trees of puzzles, drawn once and kept in a file, so that a run that was stopped goes on."""

    def __init__(self, path: Path | None, babbler) -> None:
        self.path, self.babbler, self.judge = path, babbler, JudgeValue(babbler)
        self.kept = json.loads(path.read_text()) if path is not None and path.exists() else {}

    def truth(self, puzzle):
        return self._once(f"{puzzle} truth", lambda: float(f"{exact_probability(self.babbler, puzzle):.9g}"))

    def trees(self, puzzle, way, n):
        """The estimate of each of n trees, and its sampled tokens, [n, 2]."""
        found = self._once(f"{puzzle} {way} {n}", lambda: self._grow(puzzle, way, n))
        return np.array(found)

    def save(self):
        if self.path is not None:
            self.path.write_text(json.dumps(self.kept) + "\n")

    def _once(self, key, make):
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def _grow(self, puzzle, way, n):
        task, value, strategy = self._ways()[way]
        prompts = [puzzle] * n
        graph = bg.babble(
            self.babbler,
            prompts,
            task=task,
            value=value,
            strategy=strategy,
            budget=10**6,
            threshold=1.0,
            seed=1,
        ).graph
        tokens = np.array(graph.meta["spent"]["counts"]["sampled"])
        if way in EXACT:  # only their cost has to be measured
            return [[0.0, int(t)] for t in tokens]
        return [
            [float(f"{x:.6g}"), int(t)] for x, t in zip(probability(graph, 1.0).per_tree, tokens, strict=True)
        ]

    def _ways(self):
        task, judge = bg.Countdown(), self.judge
        return {
            FULL: (NoEarlyKill(), None, frontier(width=1, keep=None, merge=False)),
            KILLED: (task, None, frontier(width=1, keep=None, merge=False)),
            SHARED: (task, None, best_of_n(n=TOGETHER, width=TOGETHER)),
            SMC: (task, judge, smc(32)),
            NARROW: (task, judge, frontier(width=4, keep=16)),
            WEIGHT: (task, likelihood, frontier(**PRUNED)),
            TASK: (task, None, frontier(**PRUNED)),
            VERDICT: (task, judge, frontier(**PRUNED)),
            WIDEST: (task, judge, frontier(**HARDLY)),
            EVEN: (task, judge, frontier(**PRUNED, draws="systematic")),
            DIFFERENT: (task, judge, frontier(**PRUNED | {"width": [128, 16, 4]}, draws="distinct")),
            BEAM: (task, None, stochastic_beam(width=64)),
        }


def smc(particles, *, value_power=1.0, floor=1e-3):
    """Sequential Monte Carlo: after every line as many particles as before, drawn with replacement by w · V^a."""
    copies = {}

    def select(graph, meter):
        ids = graph.frontier()
        if not len(ids):
            return nothing()
        return Chosen(ids, np.array([copies.get(int(i), particles) for i in ids]))

    def prune(graph, rng):
        ids = graph.frontier()
        size = np.exp(graph.log_weight(ids) + log_priority(graph, ids, value_power, 0.0, floor)[ids])
        lost = []
        for tree in np.unique(graph.root[ids]):
            mine = ids[graph.root[ids] == tree]
            p = size[graph.root[ids] == tree]
            p /= p.sum()
            drawn = rng.generator(graph.round, tree).multinomial(particles, p)
            kept = drawn > 0
            graph.log_inclusion[mine[kept]] += np.log(particles * p[kept]) - np.log(drawn[kept])
            copies.update(zip(mine[kept].tolist(), drawn[kept].tolist(), strict=True))
            lost.append(mine[~kept])
        stopped = np.concatenate([*lost, np.zeros(0, np.intp)])
        graph.stop_nodes(stopped, Status.PRUNED, Gate.NODE)
        return stopped

    return Strategy("smc", select, prune, "estimate")
