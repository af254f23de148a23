"""Why a graph's weights allow no estimate: they are biased, or some of the weight is not on finished texts."""

from __future__ import annotations

import numpy as np

from babblegraph.graph import OPEN, BabbleGraph
from babblegraph.status import Flag, Status


def why_not(graph: BabbleGraph, under: str = "f") -> str:
    """Why a graph's weights allow no estimate, in a few words; empty when they do."""
    if graph.meta.get("aim") != "estimate":
        strategy, aim = (
            graph.meta.get(name, unknown) for name, unknown in (("strategy", "?"), ("aim", "solve"))
        )
        return f"the search had the aim {aim}, last with the strategy {strategy!r}: its weights are biased"
    if opened := graph.meta.get(OPEN):
        if opened == "weights":
            return "the search was cut off in the middle of a round that changes weights: search anew"
        return "the search was cut off before all texts had their scores: go on with the graph"
    if (graph.flags & Flag.BIASED).any():
        return "nodes were pruned by a biased gate"
    if reason := truncation(graph, under):
        return reason
    if texts := graph.meta.get("not_numbers"):
        return f"the model gave NaN for what follows {texts} texts, and their weight is lost"
    if under == "f" and (texts := graph.meta.get("base_not_numbers")):
        return f"the base gave NaN for what {texts} texts go on with"
    cut = (graph.status == Status.EXPANDED) & ((graph.flags & Flag.CUT) != 0)
    if cut.any():
        trees = f"{len(np.unique(graph.root[cut]))} of {graph.trees} trees"
        return (
            f"the budget ended in the middle of expansions of {trees}, and what they would have drawn is lost: "
            "search anew with close=True, as estimate() does, or with a larger budget"
        )
    live = (graph.status == Status.FRONTIER) | (graph.status == Status.STEM)
    if live.any():
        weight = float(np.exp(graph.log_weight(live)).sum())
        return (
            f"the search ended with a weight of {weight:.3g}, of {graph.trees} in all, on unfinished nodes: "
            "go on with the graph and close=True, or with a larger budget"
        )
    return ""


def truncation(graph: BabbleGraph, under: str) -> str:
    """Why what was sampled leaves out texts of f or g, in a few words; empty when it does not."""
    sampling = graph.meta.get("sampling", {})
    if under == "q":
        return ""
    if sampling.get("top_k") is not None or sampling.get("top_p") is not None:
        return f"top-k or top-p truncation leaves out texts that {under} can write"
    if sampling.get("truncates"):
        return f"{', '.join(sampling['processors'])} may leave out texts that {under} can write"
    return ""
