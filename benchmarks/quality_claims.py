"""What `quality.py` makes of its rows: tables, claims with intervals, and bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import bootstrap, claim
from peers import quality as peers
from rich.console import Console

BUDGETS = (100, 200, 400, 800, 1600, 3200, 6400)
WORK = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # billions of parameters × tokens, judges included
PLAIN, COUNTED = "best-of-n, separate", "best-of-n"
OURS, CONSTANT, VERDICT = "babble", "babble, constant value", "babble, own verdict"

Row = dict[str, Any]


def claims_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What the project says of its default strategy, from the rows of the test split."""
    by = {(r["task"], r["method"]): r for r in rows}
    return gain_claims(by) + deep_claims(by) + monotone_claims(by)


def gain_claims(by: dict[tuple[str, str], Row]) -> list[dict[str, Any]]:
    """Points gained over others, paired by puzzle."""
    asked = [("countdown", PLAIN, b, 5 if b == 400 else 0) for b in (200, 400, 800)]
    asked += [("countdown", COUNTED, b, 0) for b in (200, 400, 800)]
    asked += [("countdown", CONSTANT, b, 3 if b == 400 else 0) for b in (200, 400, 800)]
    asked += [("countdown-hard", PLAIN, 800, 8), ("countdown-hard", COUNTED, 800, 0)]
    asked += [("game24", p, b, 0) for p in (PLAIN, COUNTED) for b in (400, 800)]
    asked += [(t, p, b, 0) for t in ("countdown", "game24") for p in peers.NAMES for b in (400, 800, 1600)]
    found = []
    for task, other, budget, bound in asked:
        if (task, OURS) not in by or (task, other) not in by or by[task, OURS]["most"] < budget:
            continue
        theirs = solved(by[task, other], budget)
        gain = 100 * (solved(by[task, OURS], budget)[: len(theirs)] - theirs[: len(by[task, OURS]["needed"])])
        low, high = bootstrap(gain)
        name = f"{task}: {OURS} − {other} at {budget} tokens, points"
        met = low > 0 and gain.mean() >= bound
        found.append(claim(name, gain.mean(), f">= {bound}, above 0 with 95 %", met, (low, high)))
    return found


def deep_claims(by: dict[tuple[str, str], Row]) -> list[dict[str, Any]]:
    """On deep tasks: the share of best-of-N's tokens with which `babble` has solved as much as it in the end."""
    found = []
    for task in ("chain", "queens"):
        if (task, OURS) not in by or (task, COUNTED) not in by:
            continue
        ours, theirs = by[task, OURS]["needed"], by[task, COUNTED]["needed"]
        both = min(len(ours), len(theirs))  # the first puzzles are the same
        tokens, spent = (sorted(x for x in row[:both] if x is not None) for row in (ours, theirs))
        goal = len(spent)
        enough = tokens[goal - 1] if 0 < goal <= len(tokens) else np.inf
        share = enough / spent[-1] if spent else 0.0
        name = f"{task}: tokens for the rate of {COUNTED}, as a share of its"
        found.append(claim(name, share, "<= 1/3", share <= 1 / 3))
        if "spent" not in by[task, COUNTED]:
            continue
        third = max(by[task, COUNTED]["spent"]) / 3
        gain = 100 * (solved(by[task, OURS], third)[:both].mean() - goal / both)
        name = f"{task}: {OURS} with a third of the tokens − {COUNTED} with all that it spent, points"
        found.append(claim(name, gain, ">= 0", gain >= 0))
    return found


def monotone_claims(by: dict[tuple[str, str], Row]) -> list[dict[str, Any]]:
    """More tokens must not make it worse."""
    found = []
    for (task, method), row in by.items():
        if method == OURS and row["most"] >= 6400:
            gain = 100 * (solved(row, 6400).mean() - solved(row, 1600).mean())
            found.append(claim(f"{task}: {OURS} at 6,400 − at 1,600 tokens, points", gain, ">= 0", gain >= 0))
    return found


def solved(row: Row, budget: float, axis: str = "needed") -> np.ndarray:
    """Which puzzles were solved within a budget, [puzzles]."""
    return np.array([x is not None and x <= budget for x in row[axis]], float)


def reached(row: Row, budget: float, axis: str) -> bool:
    """Whether what a method has not solved was searched with all of a budget, where that is known."""
    if axis == "work":  # searches are cut off by sampled tokens, each at some work of its own
        return budget <= min((x for x in row.get("cut", ()) if x is not None), default=np.inf)
    ended = [n for n, x in zip(row.get("spent", ()), row["needed"], strict=False) if x is None]
    return budget <= min([row["most"], *ended])


def area(needed: Sequence[int | None], most: int) -> float:
    """The mean solve rate over the budgets: what a temperature is chosen by."""
    return float(np.mean([np.mean([x is not None and x <= b for x in needed]) for b in BUDGETS if b <= most]))


def tables(rows: Sequence[Row], tasks: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """Two tables of each task: by sampled tokens and by work."""
    found = []
    for task in tasks:
        mine = [r for r in rows if r["task"] == task]
        test = [r for r in mine if r["split"] == "test"]
        many = {r["method"]: float(np.mean(r["answers"])) for r in mine if r["split"] == "answers"}
        if not test:
            continue
        shown = [_by_tokens(row, many.get(row["method"])) for row in test]
        found.append((f"{task}: % solved within sampled tokens", shown))
        within = [
            {"method": r["method"], **_within(r, "work", [w * 1e9 for w in WORK], WORK)}
            for r in test
            if "work" in r
        ]
        found.append((f"{task}: % solved within work, billions of parameters × tokens", within))
    return found


def _by_tokens(row: Row, answers: float | None) -> Row:
    first = {"method": row["method"], "T": row["temperature"], "puzzles": row["puzzles"]}
    last = {"different right answers": answers, "seconds": row["seconds"]}
    return first | _within(row, "needed", BUDGETS, BUDGETS) | last


def _within(row: Row, axis: str, bounds: Sequence[float], names: Sequence[float]) -> Row:
    """Percentages; none beyond what a method was given."""
    cells: Row = {}
    for bound, name in zip(bounds, names, strict=True):
        known = reached(row, bound, axis)
        cells[f"{name:,}"] = float(100 * solved(row, bound, axis).mean()) if known else None
    return cells


def plot(rows: Sequence[Row], tasks: Sequence[str]) -> None:
    """Solve rates as bars, a line for each method, a block for each budget."""
    console, blocks = Console(), " ▁▂▃▄▅▆▇█"
    for task in tasks:
        mine = [r for r in rows if r["task"] == task]
        if not mine:
            continue
        most = min(r["most"] for r in mine)
        budgets = [b for b in BUDGETS if b <= most]
        console.print(f"\n{task}, each bar a budget of {', '.join(map(str, budgets))}")
        for row in sorted(mine, key=lambda r: -area(r["needed"], most)):
            bars = "".join(blocks[round(8 * solved(row, b).mean())] * 4 + " " for b in budgets)
            mean = f"{100 * area(row['needed'], most):5.1f} %"
            console.print(f"{row['method']:26}{bars}{mean}", highlight=False)
