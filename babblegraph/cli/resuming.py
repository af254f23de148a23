"""A search that goes on with a saved graph: why nothing was added, and whether the model is the same."""

from __future__ import annotations

from typing import Any

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph

MORE = "--tokens, --nodes or --seconds"


def why_idle(graph: BabbleGraph, budget: Budget, file: str) -> str:
    """Why nothing was added to a graph, in one line with the fix.

    Args:
        graph: as it was saved, with what it has spent.
        budget: what it may spend in all, earlier sittings included.
        file: where it is saved.
    """
    nothing = f"nothing was added to {file}"
    meter = Meter.resumed(budget, graph.trees, graph.meta["spent"]) if "spent" in graph.meta else None
    spent = 0 if meter is None else int((meter.tokens_left() == 0).sum())
    if meter is None or not spent:
        return f"{nothing}, no prompt has anything left to try: --all goes on after an answer"
    if spent < graph.trees:
        return (
            f"{nothing}, {spent} of {graph.trees} prompts have spent their budget and the others have nothing left "
            f"to try: give more {MORE}, or --all"
        )
    used = {"tokens": meter.counts["sampled"].min(), "nodes": meter.counts["nodes"].min()}
    bounds = {name: bound for name in ("tokens", "nodes") if (bound := getattr(budget, name)) is not None}
    got = [f"{used[name]:,} of {bound:,} {name}" for name, bound in bounds.items() if used[name] >= bound]
    if budget.seconds is not None and meter.seconds >= budget.seconds:
        got.append(f"{meter.seconds:,.4g} of {budget.seconds:,.4g} seconds")
    said = " and ".join(got) or "a part by each bound"  # some prompts have used up one of them, some another
    return f"{nothing}, its budget is spent, {said}: give more {MORE}"


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
