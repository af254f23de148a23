"""A search that goes on with a saved graph: whether anything was left to spend, and whether the model is the same."""

from __future__ import annotations

from typing import Any

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph


def spent(graph: BabbleGraph, budget: Budget, file: str) -> str | None:
    """That a graph has used up a budget already, in one line with the fix; None where something is left.

    Args:
        graph: as it was saved, with what it has spent.
        budget: what it may spend in all, earlier sittings included.
        file: where it is saved.
    """
    meter = Meter.resumed(budget, graph.trees, graph.meta["spent"]) if "spent" in graph.meta else None
    if meter is None or meter.tokens_left().any():
        return None
    used = {"tokens": meter.counts["sampled"].min(), "nodes": meter.counts["nodes"].min()}
    bounds = {name: bound for name in ("tokens", "nodes") if (bound := getattr(budget, name)) is not None}
    got = [f"{used[name]:,} of {bound:,} {name}" for name, bound in bounds.items() if used[name] >= bound]
    if budget.seconds is not None and meter.seconds >= budget.seconds:
        got.append(f"{meter.seconds:,.4g} of {budget.seconds:,.4g} seconds")
    said = " and ".join(got) or "a part by each bound"  # some prompts have used up one of them, some another
    return (
        f"nothing was added to {file}, its budget is spent, {said}: give more --tokens, --nodes or --seconds"
    )


def check_model(graph: BabbleGraph, generator: Any) -> None:
    """Looks whether a graph goes on with the model that grew it, also where nothing is left to draw.

    Raises:
        BadInput: another model, or other weights.
    """
    if graph.meta.get("fingerprint") != getattr(generator, "fingerprint", None):
        raise BadInput(
            f"a graph must go on with the model that began it, {graph.meta.get('model')!r}, got another one or "
            "other weights: leave --model out, or name that one"
        )
