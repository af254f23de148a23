"""Which strategy solves most within a budget, with the same generator, the same values and its own best temperature?

A row is a strategy on a task; a cell the percentage of held-out puzzles solved within that many sampled tokens (unique
tokens of the trie, pruned and dead ones included), or within that much work (parameters × tokens that went through
the model, prompts, revived texts and the judge included). Values are legality and, on Countdown, the generator's own
verdict; never a solver. Every method has the temperature that was best for it on validation puzzles, and settings
were chosen there too. Peers are other libraries on the same generator; they run where they are installed (see
peers/requirements.txt). Left out: seeds (one), GPUs, settings tuned for single budgets.

`--json FILE --resume` goes on where a run was stopped; nothing is measured twice.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console

import babblegraph as bg
from babblegraph.protocols import Strategy
from babblegraph.scoring import JudgeValue
from babblegraph.strategies import STRATEGIES
from babblegraph.tasks.chain import chains
from babblegraph.tasks.countdown_puzzles import hard_puzzles, puzzles
from babblegraph.tasks.game24_puzzles import game24_puzzles
from babblegraph.tasks.queens import boards

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report, write
from peers import quality as peers

BUDGETS = (100, 200, 400, 800, 1600, 3200, 6400)
TEMPERATURES = (0.6, 0.8, 1.0)
TUNED_AT = (
    400  # sampled tokens a validation puzzle, at most: temperatures matter most where budgets are small
)
OURS, COUNTED, PLAIN, CONSTANT = "babble", "best-of-n", "best-of-n, separate", "babble, constant value"
PEER_PUZZLES = 200  # at most


class Method(NamedTuple):
    """A strategy with its settings, and what of the common knowledge it uses."""

    strategy: str
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    verdict: bool = True  # the generator's own, where it has one
    separate: bool = False  # pay for what samples share

    def make(self) -> Strategy:
        return STRATEGIES[self.strategy](**self.options, threshold=1.0)


METHODS = {
    PLAIN: Method("best-of-n", {"width": 1}, verdict=False, separate=True),
    COUNTED: Method("best-of-n", {"width": 1}, verdict=False),
    CONSTANT: Method("babble", {"width": 1}, verdict=False),
    OURS: Method("babble", {"width": 1}),
    "best-first": Method("best-first", {"children": 2}),
    "puct": Method("puct", {"children": 2}),
    "adaptive": Method("adaptive"),
    "halving": Method("halving", {"actions": 4, "rollouts": 8}),
    "step-beam": Method("step-beam", {"width": 2, "children": 2}),
    "dvts": Method("dvts", {"subtrees": 2, "children": 2}),
    "lookahead": Method("lookahead", {"width": 2, "children": 2}),
    "particle-filter": Method("particle-filter", {"particles": 4, "again": True}),
}


class Setting(NamedTuple):
    """A task with the generator that knows it, and held-out prompts of both splits."""

    task: Any
    model: str
    prompts: Callable[[str, int], list[str]]
    judged: bool


SETTINGS = {
    "countdown": Setting(bg.Countdown(), "countdown", lambda s, n: list(puzzles(s, n, seed=1)), True),
    "countdown-hard": Setting(bg.Countdown(), "countdown", lambda s, n: hard_puzzles(s)[:n], True),
    "game24": Setting(bg.Game24(), "countdown", lambda s, n: hands(s, n), True),
    "chain": Setting(bg.tasks.Chain(), "chain", lambda s, n: list(chains(s, n, seed=1, steps=8)), False),
    "queens": Setting(bg.tasks.Queens(), "queens", lambda s, n: list(boards(s, n, seed=1, size=8)), False),
}


def hands(split: str, n: int) -> list[str]:
    """Hands evenly over all ranks of difficulty; those of one split are between those of the other."""
    ranked = [p.prompt for p in game24_puzzles()]
    places = np.linspace(1, len(ranked) - 2, n).astype(int) + (split == "test")
    return [ranked[i] for i in places.tolist()]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    options = read(arguments)
    torch.set_num_threads(1)  # the models are small
    bench = Bench(options)
    for name in options.tasks:
        for method in options.only:
            bench.measure(name, method)
    rows = [r for r in bench.rows if r["split"] == "test"]
    tables = [(f"{t}: % solved within sampled tokens", shown(rows, t, options.most)) for t in options.tasks]
    report("quality", rows, claims_of(rows), options, tables=tables)
    if options.json:  # validation rows too, so that a resumed run need not choose again
        write(options.json, bench.rows, claims_of(rows), options, peers.PACKAGES)
    plot(rows, options.tasks, options.most)
    return bench.rows


class Bench:
    """Measures what is not measured yet, and saves after each."""

    def __init__(self, options: Namespace) -> None:
        self.options, self.rows = options, []
        self.babblers: dict[tuple[str, float], bg.Babbler] = {}
        if options.resume and options.json and options.json.exists():
            self.rows = json.loads(options.json.read_text("utf-8"))["rows"]

    def measure(self, task: str, method: str) -> None:
        """Chooses the temperature on validation puzzles, then runs the test puzzles."""
        most = min(TUNED_AT, self.options.most)
        tuned = [
            self.run(task, method, t, "validation", self.options.validation, most)
            for t in self.options.temperatures
        ]
        if any(row is None for row in tuned):
            return
        best = max(tuned, key=lambda row: area(row["needed"], most))
        self.run(task, method, best["temperature"], "test", self.options.puzzles, self.options.most)

    def run(
        self, task: str, method: str, temperature: float, split: str, n: int, most: int
    ) -> dict[str, Any] | None:
        """One row, measured now or before; None where a peer is not installed."""
        what = {"task": task, "method": method, "temperature": temperature, "split": split, "puzzles": n}
        for row in self.rows:
            if what.items() <= row.items() and row["most"] == most:
                return row
        start, setting, babbler = time.perf_counter(), SETTINGS[task], self.babbler(task, temperature)
        prompts = setting.prompts(split, n)
        if method in METHODS:
            found = search(babbler, setting, prompts, METHODS[method], most)
        else:
            found = peers.solve(method, babbler, setting.task, prompts[:PEER_PUZZLES], most)
        if found is None:
            print(f"{method} is not installed: left out", file=sys.stderr)
            return None
        row = what | {"most": most, "seconds": round(time.perf_counter() - start, 1)} | found
        self.rows.append(row)
        solved = np.mean([x is not None for x in row["needed"]])
        print(
            f"{task:15}{method:24}T={temperature:<4} {split:11}{100 * solved:5.1f} %  {row['seconds']:6.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if self.options.json:
            write(self.options.json, self.rows, [], self.options)
        return row

    def babbler(self, task: str, temperature: float) -> bg.Babbler:
        key = (SETTINGS[task].model, temperature)
        if key not in self.babblers:
            self.babblers[key] = bg.Babbler.embedded(task=key[0], temperature=temperature)
        return self.babblers[key]


def search(
    babbler: bg.Babbler, setting: Setting, prompts: list[str], method: Method, most: int
) -> dict[str, Any]:
    """Sampled tokens and work until each puzzle was solved, None where it was not."""
    value = JudgeValue(babbler) if method.verdict and setting.judged else None
    found = bg.babble(babbler, prompts, task=setting.task, value=value, strategy=method.make(), budget=most)
    counts = {k: np.array(v) for k, v in found.graph.meta["spent"]["counts"].items()}
    tokens = separate(found.graph) if method.separate else counts["sampled"]
    through = counts["forwarded"] + counts["prefilled"] + counts["scored"]
    size = sum(p.numel() for p in babbler.model.parameters())
    passed = np.array(found.passed) & (tokens <= most)
    return {
        "needed": [int(t) if ok else None for t, ok in zip(tokens, passed, strict=True)],
        "work": [int(w) * size if ok else None for w, ok in zip(through, passed, strict=True)],
        "peak_slots": found.spent.peak_slots,
    }


def separate(graph: bg.BabbleGraph) -> np.ndarray:
    """What the same samples cost without sharing, [trees]: every draw pays for all its tokens."""
    inner = np.arange(graph.trees, graph.size)
    paid = (graph.stop[inner] - graph.start[inner]) * graph.count[inner]
    return np.bincount(graph.root[inner], paid, minlength=graph.trees)


def solved(row: dict[str, Any], budget: float, axis: str = "needed") -> np.ndarray:
    """Which puzzles were solved within a budget, [puzzles]."""
    return np.array([x is not None and x <= budget for x in row[axis]], float)


def area(needed: list[int | None], most: int) -> float:
    """The mean solve rate over the budgets: what a temperature is chosen by."""
    return float(np.mean([np.mean([x is not None and x <= b for x in needed]) for b in BUDGETS if b <= most]))


def shown(rows: list[dict[str, Any]], task: str, most: int) -> list[dict[str, Any]]:
    """The table of one task."""
    table = []
    for row in (r for r in rows if r["task"] == task):
        cells = {f"{b}": float(100 * solved(row, b).mean()) for b in BUDGETS if b <= most}
        work = [w for w in row["work"] if w is not None]
        half = float(np.median(work)) / 1e9 if len(work) * 2 > len(row["work"]) else None
        table.append(
            {
                "method": row["method"],
                "T": row["temperature"],
                **cells,
                "median work of the solved (G)": half,
                "seconds": row["seconds"],
            }
        )
    return table


def claims_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the project says of its default strategy, from the rows: points gained, paired by puzzle."""
    by = {(r["task"], r["method"]): r for r in rows}
    asked = [("countdown", COUNTED, b, 0) for b in (200, 400, 800)]
    asked += [("countdown", PLAIN, b, 5 if b == 400 else 0) for b in (200, 400, 800)]
    asked += [
        ("countdown", CONSTANT, 400, 3),
        ("countdown-hard", PLAIN, 800, 8),
        ("countdown-hard", COUNTED, 800, 0),
    ]
    asked += [(t, p, b, 0) for t in ("countdown", "game24") for p in peers.NAMES for b in (400, 800, 1600)]
    found = []
    for task, other, budget, bound in asked:
        if (task, OURS) not in by or (task, other) not in by or by[task, OURS]["most"] < budget:
            continue
        theirs = solved(by[task, other], budget)
        gain = 100 * (solved(by[task, OURS], budget)[: len(theirs)] - theirs)
        low, high = bootstrap(gain)
        name = f"{task}: {OURS} − {other} at {budget} tokens, points"
        met = low > 0 and gain.mean() >= bound
        found.append(claim(name, gain.mean(), f">= {bound}, above 0 with 95 %", met, (low, high)))
    return found + deep_claims(by) + monotone_claims(by)


def deep_claims(by: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """On deep tasks: the share of best-of-N's tokens with which `babble` has solved as much as it in the end."""
    found = []
    for task in ("chain", "queens"):
        if (task, OURS) not in by or (task, COUNTED) not in by:
            continue
        ours, theirs = by[task, OURS], by[task, COUNTED]
        goal = solved(theirs, theirs["most"]).sum()
        tokens = sorted(x for x in ours["needed"] if x is not None)
        enough = tokens[int(goal) - 1] if 0 < goal <= len(tokens) else np.inf
        spent = sorted(x for x in theirs["needed"] if x is not None)
        share = enough / spent[-1] if spent else 0.0
        found.append(
            claim(
                f"{task}: tokens for the rate of {COUNTED}, as a share of its",
                share,
                "<= 1/3",
                share <= 1 / 3,
            )
        )
    return found


def monotone_claims(by: dict[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """More tokens must not make it worse."""
    found = []
    for (task, method), row in by.items():
        if method == OURS and row["most"] >= 6400:
            gain = 100 * (solved(row, 6400).mean() - solved(row, 1600).mean())
            found.append(claim(f"{task}: {OURS} at 6,400 − at 1,600 tokens, points", gain, ">= 0", gain >= 0))
    return found


def plot(rows: list[dict[str, Any]], tasks: Sequence[str], most: int) -> None:
    """Solve rates as bars, a line for each method, a block for each budget."""
    console, blocks = Console(), " ▁▂▃▄▅▆▇█"
    for task in tasks:
        mine = [r for r in rows if r["task"] == task]
        if not mine:
            continue
        console.print(f"\n{task}, each bar a budget of {', '.join(str(b) for b in BUDGETS if b <= most)}")
        for row in sorted(mine, key=lambda r: -area(r["needed"], most)):
            bars = "".join(blocks[round(8 * solved(row, b).mean())] * 4 + " " for b in BUDGETS if b <= most)
            console.print(
                f"{row['method']:26}{bars}{100 * area(row['needed'], most):5.1f} %", highlight=False
            )


def read(arguments: Sequence[str] | None) -> Namespace:
    made = parser(__doc__)
    made.add_argument("--tasks", type=listed(SETTINGS), default=list(SETTINGS))
    made.add_argument("--only", type=listed([*METHODS, *peers.NAMES]), default=[*METHODS, *peers.NAMES])
    made.add_argument("--puzzles", type=int, default=1000, help="of the test split")
    made.add_argument("--validation", type=int, default=100, help="puzzles to choose temperatures on")
    made.add_argument(
        "--temperatures", type=lambda t: [float(x) for x in t.split(",")], default=list(TEMPERATURES)
    )
    made.add_argument("--most", type=int, default=BUDGETS[-1], help="sampled tokens for each puzzle")
    made.add_argument("--resume", action="store_true", help="go on with the rows of the JSON file")
    options = made.parse_args(arguments)
    if options.quick:
        options.puzzles, options.validation, options.most = 12, 6, 400
        options.temperatures = [1.0]
    return options


def listed(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(";") if ";" in text else text.split(",") if text not in known else [text]
        for name in found:
            if name not in known:
                raise SystemExit(f"a name is one of {'; '.join(known)}, got {name!r}: choose among them")
        return found

    return names


if __name__ == "__main__":
    main()
