"""Does the default strategy beat best-of-N at equal sampled tokens?

Held-out Countdown-4 puzzles, the embedded generator at T = 1, all prompts side by side. A row is a way to search;
a cell is the percentage of puzzles solved within that many sampled tokens. The unit is the unique token of the
trie, dead ends included; the first two rows also pay for what their samples share, as separate samples would.
Left out: tuning of the temperature, other libraries, other tasks.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

import babblegraph as bg
from babblegraph.scoring import JudgeValue
from babblegraph.strategies import babble, best_of_n
from babblegraph.tasks.countdown_puzzles import puzzles

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report

BUDGETS = (100, 200, 400, 800, 1600)
OURS, SEPARATE, SHARED = "babble, own verdict", "best-of-n, separate, early kill", "best-of-n, early kill"


class NoEarlyKill(bg.Countdown):
    """Countdown without its partial check: a false line is found out only at the end of the text."""

    value = None


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--puzzles", type=int, default=200)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--split", default="test", choices=["validation", "test"])
    chosen = options.parse_args()
    if chosen.quick:
        chosen.puzzles, chosen.seeds = 4, 1
    torch.set_num_threads(1)  # the model is small
    prompts = list(puzzles(chosen.split, chosen.puzzles, seed=1, numbers=4))
    solved = ways(bg.Babbler.embedded(), prompts, chosen.seeds)
    rows = []
    for name, (needed, seconds) in solved.items():
        cells = {f"{b} tokens": float(100 * (needed <= b).mean()) for b in BUDGETS}
        rows.append({"way": name, **cells, "seconds": seconds})
    claims = [
        compare(solved[OURS][0], solved[other][0], other, b)
        for other in (SEPARATE, SHARED)
        for b in (200, 400, 800)
    ]
    report(f"{chosen.puzzles} held-out puzzles × {chosen.seeds} seeds, % solved", rows, claims, chosen)


def ways(babbler, prompts, seeds):
    """For each way: tokens until each puzzle was solved, [seeds, puzzles], and the seconds it took."""
    task, judge = bg.Countdown(), JudgeValue(babbler)
    samples, search = best_of_n(width=1, threshold=1.0), babble(width=1, threshold=1.0)
    wide, default = babble(width=8, threshold=1.0), babble(threshold=1.0)
    listed = {
        "best-of-n, separate": (samples, NoEarlyKill(), None, separate_tokens),
        SEPARATE: (samples, task, None, separate_tokens),
        SHARED: (samples, task, None, unique_tokens),
        "babble, constant value": (search, task, None, unique_tokens),
        OURS: (search, task, judge, unique_tokens),
        f"{OURS}, width 8": (wide, task, judge, unique_tokens),
        f"{OURS}, default width": (default, task, judge, unique_tokens),
    }
    return {name: solve(babbler, prompts, seeds, *way) for name, way in listed.items()}


def unique_tokens(graph):
    """Unique tokens of each tree's trie, [trees]."""
    return np.array(graph.meta["spent"]["counts"]["sampled"])


def separate_tokens(graph):
    """What the same samples cost without sharing, [trees]: every draw pays for all its tokens."""
    inner = np.arange(graph.trees, graph.size)
    paid = (graph.stop[inner] - graph.start[inner]) * graph.count[inner]
    return np.bincount(graph.root[inner], paid, minlength=graph.trees)


def solve(babbler, prompts, seeds, strategy, task, value, tokens):
    """Sampled tokens until each puzzle was solved, infinite where it was not, [seeds, puzzles]; and seconds."""
    start, needed = time.perf_counter(), np.full((seeds, len(prompts)), np.inf)
    for seed in range(seeds):
        found = bg.babble(
            babbler, prompts, task=task, value=value, strategy=strategy, budget=BUDGETS[-1], seed=seed
        )
        needed[seed] = np.where(found.passed, tokens(found.graph), np.inf)
    return needed, time.perf_counter() - start


def compare(ours, theirs, other, budget):
    """The gain in percentage points, paired by puzzle, with a bootstrap interval over puzzles."""
    gain = 100 * ((ours <= budget).mean(0) - (theirs <= budget).mean(0))
    low, high = bootstrap(gain)
    return claim(f"{OURS} − {other} at {budget} tokens, points", gain.mean(), "> 0", low > 0, (low, high))


if __name__ == "__main__":
    main()
