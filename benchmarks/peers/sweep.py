"""Measures decoders side by side: a warm-up that also plans, then rounds in which they take turns."""

from __future__ import annotations

import gc
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from . import HOMES
from .machine import Machine, Shape, best_step
from .work import Peer, Run, Setting, Work, failure

YARDSTICK = "generate"
FIGURES = ("tokens/s", "÷ generate", "ms a step", "r", "K/V", "allocated", "computed", "error")
WARM = 6  # new tokens of a warm-up


class Cell(NamedTuple):
    """One line of the sweep."""

    model: str
    kind: str  # flat or forked
    rows: int
    prompt: int

    def __str__(self) -> str:
        return f"{self.model} {self.kind} {self.rows}×{self.prompt}"


class Plan(NamedTuple):
    """What one decoder does of a cell's work."""

    work: Work  # as much of it as fits under the cap
    warm: Run  # the warm-up, in which logits were compared
    runs: list[Run]


class Sweep:
    """All cells of one model.

    Args:
        setting: the model.
        probe: measures what it runs on, once a round: others may have the machine, too.
        cap: seconds that one run should take at most; what does not fit is cut, and projected.
        repeats: rounds; a decoder sits out when its runs would take twice as many caps.
    """

    def __init__(self, setting: Setting, probe: Callable[[], Machine], cap: float, repeats: int) -> None:
        self.probe, self.cap, self.repeats = probe, cap, repeats
        self.shape, self.folder = Shape.of(setting.model), setting.folder
        self.warm: dict[tuple[str, Work], Run] = {}  # flat and forked work of one size share a warm-up

    def measure(self, cell: Cell, work: Work, peers: dict[str, Peer | str]) -> list[dict[str, Any]]:
        """One row for every decoder, in the order of `HOMES`; a note instead of figures where there are none."""
        rows: dict[str, dict[str, Any]] = {}
        plans: dict[str, Plan] = {}
        machines: list[Machine] = []
        for turn in range(-1, self.repeats):  # the first is the warm-up
            machines += [self.probe()] if turn >= 0 else []
            for name, peer in peers.items():
                if isinstance(peer, str):
                    rows[name] = blank(cell, name, peer)
                elif (work.levels == 1 or peer.forks) and name not in rows:
                    try:
                        if turn < 0:
                            plans[name] = self._plan(name, peer, work)
                        else:
                            self._run(peer, plans[name])
                    except Exception as problem:  # one that fails must not end the others
                        rows[name] = blank(cell, name, failure(problem, self.folder, 80))
                    gc.collect()
        best = Machine(*map(max, zip(*machines, strict=True)))
        rows |= {n: self._row(cell, n, work, plan, best) for n, plan in plans.items() if n not in rows}
        base = rows.get(YARDSTICK, {}).get("tokens/s")
        for row in rows.values():
            row["÷ generate"] = row["tokens/s"] / base if row["tokens/s"] and base else None
        return [rows[name] for name in HOMES if name in rows]

    def _plan(self, name: str, peer: Peer, work: Work) -> Plan:
        """The warm-up tells how much fits; where its prefill alone does not, it is all that is measured."""
        short = work.with_span(min(WARM, work.span), levels=1)
        if (name, short) not in self.warm:
            self.warm[name, short] = peer.run(short, check=True)
        run = self.warm[name, short]
        if not peer.even or run.seconds_for(work, short) <= self.cap:
            return Plan(work, run, [])
        if run.prefill > self.cap:
            return Plan(short, run, [run])
        levels = 1 if run.restarts and run.prefill * work.levels > self.cap else work.levels
        prefill = run.prefill * (levels if run.restarts else 1)
        span = int((self.cap - prefill) / run.step / levels)
        return Plan(work.with_span(min(max(span, short.span), work.span), levels), run, [])

    def _run(self, peer: Peer, plan: Plan) -> None:
        spent = sum(run.seconds for run in plan.runs)
        if not plan.runs or spent + plan.runs[-1].seconds <= 2 * self.repeats * self.cap:
            plan.runs.append(peer.run(plan.work, check=False))

    def _row(self, cell: Cell, name: str, work: Work, plan: Plan, machine: Machine) -> dict[str, Any]:
        needed = plan.work.unique_tokens() * self.shape.kv_bytes
        step, last = median(run.step for run in plan.runs), plan.runs[-1]
        computed = last.computed_for(work, plan.work)
        delivered = work.tokens * last.sampled / plan.work.tokens
        return blank(cell, name, "") | {
            "tokens/s": delivered / median(run.seconds_for(work, plan.work) for run in plan.runs),
            "ms a step": 1000 * step,
            "r": step / best_step(machine, self.shape, plan.work),
            "K/V": last.kv_bytes and last.kv_bytes / needed,
            "allocated": last.kv_allocated and last.kv_allocated / needed,
            "computed": computed and computed / delivered,
            "error": plan.warm.error,
            "prefill seconds": median(run.prefill for run in plan.runs),
            "measured": [plan.work.levels, plan.work.span],
            "asked": [work.levels, work.span],
            "seconds": [run.seconds for run in plan.runs],
            "machine": machine._asdict(),
        }


def blank(cell: Cell, name: str, note: str) -> dict[str, Any]:
    """A row without figures."""
    return {"cell": str(cell), **cell._asdict(), "decoder": name, "note": note} | dict.fromkeys(FIGURES)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the table has it."""
    part = {"work": row["cell"], "decoder": row["decoder"]} | {figure: row[figure] for figure in FIGURES}
    if row["note"]:
        return part | {"steps": row["note"], "runs": 0}
    measured, asked = ("·".join(map(str, row[k])) for k in ("measured", "asked"))
    steps = measured if measured == asked else f"{measured} of {asked}"
    return part | {"steps": steps, "runs": len(row["seconds"])}
