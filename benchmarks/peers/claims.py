"""Every ratio that is promised, computed from the rows of one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from common import claim

import babblegraph as bg
from babblegraph.budget import Meter
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.tasks.countdown_puzzles import puzzles

Row = dict[str, Any]
OURS, GENERATE, NATIVE = "babblegraph", ("generate", "generate+cache"), ("CTranslate2", "llama.cpp")


def claims_of(rows: list[Row]) -> list[dict[str, Any]]:
    """Those for which the run has rows."""
    at = {(r["model"], r["kind"], r["rows"], r["prompt"], r["decoder"]): r for r in rows if not r["note"]}
    return [*_speed(at), *_native(at), *_engine(at)]


def _speed(at: dict[tuple, Row]) -> Iterator[dict[str, Any]]:
    """tokens/s and steps ÷ those of other decoders: at least."""
    for (model, kind, rows, prompt, decoder), ours in at.items():
        if decoder != OURS:
            continue
        bounds = {(32, 512): 2.0, (128, 2048): 4.0} if kind == "flat" else {(32, 512): 3.0, (128, 2048): 8.0}
        least = bounds.get((rows, prompt), 1.0)
        named = f"{model} {kind} {rows}×{prompt}"
        for other in GENERATE if kind == "forked" else GENERATE[:1]:
            if theirs := at.get((model, kind, rows, prompt, other)):
                yield _least(f"{named}: tokens/s ÷ {other}", ours["tokens/s"] / theirs["tokens/s"], least)
                steps = theirs["ms a step"] / ours["ms a step"]
                yield _least(f"{named}: steps/s ÷ {other}, prefills left out", steps, 1.0)
    for kind, decoder, least in (
        ("forked", "its-hub", 5.0),
        ("forked", "llm-reasoners", 5.0),
        ("flat", "genlm-control", 15.0),
    ):
        ours, theirs = (at.get(("smollm", kind, 32, 512, name)) for name in (OURS, decoder))
        if ours and theirs:
            ratio = ours["tokens/s"] / theirs["tokens/s"]
            yield _least(f"smollm {kind} 32×512: tokens/s ÷ {decoder}", ratio, least)


def _native(at: dict[tuple, Row]) -> Iterator[dict[str, Any]]:
    """Per-token cost ÷ that of the best native engine: at most 2 with up to 8 rows, below 1 at (128, 2048)."""
    for (model, kind, rows, prompt, decoder), ours in at.items():
        theirs = [at[key] for name in NATIVE if (key := (model, kind, rows, prompt, name)) in at]
        if decoder == OURS and model == "smollm" and theirs and (rows <= 8 or (rows, prompt) == (128, 2048)):
            cost = ours["ms a step"] / min(row["ms a step"] for row in theirs)
            best = min(theirs, key=lambda row: row["ms a step"])["decoder"]
            name = f"{model} {kind} {rows}×{prompt}: ms a step ÷ {best}, the best native engine"
            yield _most(name, cost, 2.0 if rows <= 8 else 1.0)


def _engine(at: dict[tuple, Row]) -> Iterator[dict[str, Any]]:
    """What the engine promises of itself."""
    ours = [row for key, row in at.items() if key[-1] == OURS]
    real = [row for row in ours if row["model"] == "smollm"]
    for row in real:
        if row["rows"] >= 128 and row["prompt"] >= 1024:
            yield _most(f"{row['cell']}: r = t_step ÷ t*", row["r"], 1.5)
    if real:
        yield _most("peak K/V in use ÷ unique live tokens, worst cell", max(r["K/V"] for r in real), 1.05)
        yield _most("K/V allocated ÷ needed, worst cell", max(r["allocated"] for r in real), 1.5)
    if ours:
        worst = max(row["error"] for row in ours)
        yield claim("logit error against plain forward, worst cell", worst, "< 1e-4", worst < 1e-4)


def counted_rows(count: int = 10) -> list[dict[str, Any]]:
    """On the embedded generator at T = 1: tokens that best-of-N pushes through the model ÷ those of N samples."""
    babbler = bg.Babbler.embedded(stop=(), span=200)
    prompts = [bg.Countdown().prepare(p) for p in puzzles("validation", count, seed=1, numbers=4)]
    found = []
    for draws, most in ((64, 0.70), (128, 0.60)):
        graph, meter = babbler.start(prompts, 1), Meter(bg.Budget(tokens=10**9), count)
        chosen = Chosen(np.arange(count), np.full(count, draws))
        graph.add(babbler.expand(graph, chosen, Rng(1), meter))
        inner = np.arange(count, graph.size)
        drawn = int(((graph.stop[inner] - graph.start[inner]) * graph.count[inner]).sum())
        pushed = int(meter.counts["forwarded"].sum()) / (drawn - draws * count)  # the last is never pushed
        found.append(_most(f"embedded: tokens that best-of-{draws} pushes ÷ separate samples", pushed, most))
    return found


def _least(name: str, value: float, bound: float) -> dict[str, Any]:
    return claim(name, value, f"≥ {bound:g}", value >= bound)


def _most(name: str, value: float, bound: float) -> dict[str, Any]:
    return claim(name, value, f"≤ {bound:g}", value <= bound)
