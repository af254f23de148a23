"""Does the default strategy beat best-of-N at equal sampled tokens?

Held-out Countdown-4 puzzles, the embedded generator at T = 1, one draw at a time within a prompt, all prompts
side by side. A row is a strategy; a cell is the percentage of puzzles solved within that many sampled tokens
(unique tokens of the trie, dead ends included). Left out: temperature tuning, other peers, other tasks.
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

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report

BUDGETS = (100, 200, 400, 800, 1600)


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
        chosen.puzzles, chosen.seeds = 20, 1
    torch.set_num_threads(1)  # the model is small
    babbler = bg.Babbler.embedded()
    judge = JudgeValue(babbler)
    ways = {
        "best-of-n": (best_of_n, {"width": 1}, NoEarlyKill(), None),
        "best-of-n, early kill": (best_of_n, {"width": 1}, bg.Countdown(), None),
        "babble, constant value": (babble, {"width": 1}, bg.Countdown(), None),
        "babble, own verdict as value": (babble, {"width": 1}, bg.Countdown(), judge),
        "babble, own verdict, width 8": (babble, {"width": 8}, bg.Countdown(), judge),
    }
    prompts = list(bg.tasks.puzzles(chosen.split, chosen.puzzles, seed=1, numbers=4))
    solved = {name: solve(babbler, prompts, *way, seeds=chosen.seeds) for name, way in ways.items()}
    rows = []
    for name, (needed, seconds) in solved.items():
        cells = {f"{b} tokens": float(100 * (needed <= b).mean()) for b in BUDGETS}
        rows.append({"strategy": name, **cells, "seconds": seconds})
    claims = []
    for other in ("best-of-n", "best-of-n, early kill"):
        for b in (400, 800):
            gain = (solved["babble, own verdict as value"][0] <= b).mean(0) - (solved[other][0] <= b).mean(0)
            low, high = bootstrap(100 * gain)
            claims.append(
                claim(
                    f"babble − {other} at {b} tokens, points", 100 * gain.mean(), "> 0", low > 0, (low, high)
                )
            )
    report(f"{chosen.puzzles} held-out puzzles × {chosen.seeds} seeds, % solved", rows, claims, chosen)


def solve(babbler, prompts, strategy, strategy_options, task, value, *, seeds):
    """Sampled tokens until each puzzle was solved, infinite where it was not, [seeds, puzzles]; and seconds."""
    start, needed = time.perf_counter(), np.full((seeds, len(prompts)), np.inf)
    for seed in range(seeds):
        way = strategy(threshold=1.0, **strategy_options)
        result = bg.babble(
            babbler, prompts, task=task, value=value, strategy=way, budget=BUDGETS[-1], seed=seed
        )
        tokens = np.array(result.graph.meta["spent"]["counts"]["sampled"])
        needed[seed] = np.where(result.passed, tokens, np.inf)
    return needed, time.perf_counter() - start


if __name__ == "__main__":
    main()
