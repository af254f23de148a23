"""How long do whole searches take, from the prompt to the last round, and what of that do programs save?

The default search of the shipped generator on Countdown puzzles, one and eight side by side, with 1,000 sampled tokens
for each at most, and best of 16; with decoding steps as programs (`lm.traced`) and with the model's modules. Both arms
find the same graph, bit for bit; that is checked. Arms take turns, each pair with puzzles of its own, so that a busy
machine hits both alike.

ms a token   wall time over sampled tokens, scores and pruning included, median of the pairs
÷ modules    the same over that of the modules, median of the pairs' ratios, and a 95 % interval of their mean

Left out: loading the generator, and the first searches of each arm, in which a program is made.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

import babblegraph as bg
from babblegraph.strategies import babble, best_of_n
from babblegraph.tasks.countdown_puzzles import puzzles

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report

BUDGET = 1000  # sampled tokens for each puzzle, as far as they are needed
ARMS = {"programs": True, "modules": False}
STRATEGIES = {"babble": babble, "best of 16": lambda: best_of_n(n=16)}


class Run(NamedTuple):
    """One search."""

    seconds: float
    graph: bg.BabbleGraph

    @property
    def token(self) -> float:
        """Seconds for each sampled token."""
        graph = self.graph
        return self.seconds / int((graph.count * (graph.stop - graph.start))[graph.trees :].sum())


def main(arguments: list[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--threads", type=int, default=os.cpu_count())
    made.add_argument("--pairs", type=int, default=12)
    options = made.parse_args(arguments)
    pairs = 1 if options.quick else options.pairs
    torch.set_num_threads(options.threads)
    babblers = {arm: bg.Babbler.embedded(trace=trace) for arm, trace in ARMS.items()}
    rows = [
        row
        for name in STRATEGIES
        for side_by_side in ((1,) if options.quick else (1, 8))
        for row in compared(babblers, name, side_by_side, pairs)
    ]
    claims = [
        claim(f"{r['search']}, {r['prompts']} at once: ms a token ÷ modules", r["÷ modules"], "< 1", r["÷ modules"] < 1)
        for r in rows
        if r["steps"] == "programs"
    ]  # fmt: skip
    report("whole searches", rows, claims, options)


def compared(babblers: dict[str, bg.Babbler], name: str, prompts: int, pairs: int) -> list[dict[str, Any]]:
    """A row for each arm."""
    asked = list(puzzles("validation", (pairs + 1) * prompts, seed=1, numbers=4))
    runs: dict[str, list[Run]] = {arm: [] for arm in babblers}
    for pair in range(pairs + 1):
        some = asked[pair * prompts : (pair + 1) * prompts]
        turns = list(babblers) if pair % 2 else list(babblers)[::-1]
        found = {arm: searched(babblers[arm], name, some, seed=pair) for arm in turns}
        one, other = (run.graph for run in found.values())
        if not (np.array_equal(one.tokens, other.tokens) and np.array_equal(one.log_q, other.log_q)):
            raise RuntimeError("both arms must find the same graph")
        for arm, run in found.items():
            runs[arm] += [run] if pair else []  # the first is a warm-up
    ratio = np.array([a.token / b.token for a, b in zip(*runs.values(), strict=True)])
    low, high = bootstrap(ratio)
    return [
        {
            "search": name,
            "prompts": prompts,
            "steps": arm,
            "ms a token": 1000 * median(run.token for run in runs[arm]),
            "seconds": median(run.seconds for run in runs[arm]),
            "÷ modules": float(np.median(ratio)) if arm == "programs" else 1.0,
            "interval": f"{low:.2f} to {high:.2f}" if arm == "programs" else "",
            "pairs": pairs,
        }
        for arm in runs
    ]


def searched(babbler: bg.Babbler, name: str, prompts: list[str], seed: int) -> Run:
    """One search."""
    start = time.perf_counter()
    found = bg.babble(
        babbler, prompts, task=bg.Countdown(), strategy=STRATEGIES[name](), budget=BUDGET, seed=seed
    )
    return Run(time.perf_counter() - start, found.graph)


if __name__ == "__main__":
    main()
