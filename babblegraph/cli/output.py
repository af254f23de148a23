"""What a search prints when it is asked for little: one JSON object, or only the answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from babblegraph.cli.loading import Prompt
from babblegraph.graph import BabbleGraph
from babblegraph.status import Status

TOKENS = ("sampled", "forwarded", "prefilled", "scored")


def as_json(graph: BabbleGraph, prompts: Sequence[Prompt] | None, **run: Any) -> str:
    """The object that `--json` prints; see the contracts of the command line.

    Args:
        graph: what was found.
        prompts: as the user gave them; None where only the graph knows them.
        run: seconds, seed, model, strategy, engine, version.
    """
    given = graph.prompts if prompts is None else prompts
    results = [_result(graph, tree, given[tree]) for tree in range(graph.trees)]
    return json.dumps({"results": results, **run}, ensure_ascii=False, allow_nan=False)


def all_passed(graph: BabbleGraph, threshold: float | None) -> bool:
    """Whether every prompt has a leaf that passes; nothing asked is nothing failed."""
    return threshold is None or all(_passed(graph, tree, threshold) for tree in range(graph.trees))


def _result(graph: BabbleGraph, tree: int, prompt: Prompt) -> dict[str, Any]:
    best, threshold, member = graph.best(1, tree=tree), graph.meta.get("threshold"), graph.root == tree
    score = float(graph.score[best[0]]) if best else math.nan
    counts = graph.meta.get("spent", {}).get("counts", {})
    return {
        "prompt": prompt,
        "answer": graph.text(best[0]) if best else None,
        "score": score if math.isfinite(score) else None,
        "passed": None if threshold is None else _passed(graph, tree, threshold),
        "tokens": {name: int(counts[name][tree]) if name in counts else 0 for name in TOKENS},
        "nodes": int(member.sum()) - 1,
        "pruned": int((member & (graph.status == Status.PRUNED)).sum()),
    }


def _passed(graph: BabbleGraph, tree: int, threshold: float) -> bool:
    best = graph.best(1, tree=tree)
    return bool(best) and float(graph.score[best[0]]) >= threshold
