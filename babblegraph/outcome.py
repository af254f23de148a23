"""What a search answers to each prompt: the best leaf, or the winner of a vote; and how many answers are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import THEIRS, BadInput
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.intervals import wilson
from babblegraph.protocols import Task, verifies
from babblegraph.status import Status
from babblegraph.votes import votes


class Tally(NamedTuple):
    """How many of some prompts came out well, with Wilson's 95 % interval of the share."""

    hits: int
    of: int
    share: float
    low: float
    high: float


def elect(graph: BabbleGraph, answer: Callable[[str], str | None], *, weighted: bool = False) -> None:
    """Lets the finished texts of each prompt vote; from then on the winner's best text is the prompt's answer.

    Args:
        graph: of any search; it remembers the votes.
        answer: what of a text is compared; None abstains.
        weighted: whether a vote counts as much as its leaf's score. See `votes`.

    >>> from babblegraph.born import Born
    >>> graph = BabbleGraph(["?"], [[0]], {0: b"?", 1: b"a", 2: b"b"})
    >>> ids = graph.add(Born.of_spans([0] * 3, [[1], [2], [1, 2]], [-1.0, -1.0, -2.0], Status.LEAF_END))
    >>> graph.score[ids] = [0.9, 0.3, 0.3]
    >>> graph.text(chosen(graph, 0))
    'a'
    >>> elect(graph, lambda text: text[-1])
    >>> graph.text(chosen(graph, 0)), round(graph.meta["vote"]["share"][0], 2)
    ('b', 0.67)
    """
    ranked = [votes(graph, answer, tree=tree, weighted=weighted) for tree in range(graph.trees)]
    leaders = [found[0] if found else None for found in ranked]
    graph.meta["vote"] = {
        "answer": [None if first is None else first.answer for first in leaders],
        "share": [None if first is None else first.share for first in leaders],
        "node": [None if first is None else int(first.node) for first in leaders],
        "weighted": weighted,
    }


def mark(
    graph: BabbleGraph,
    task: Task,
    *,
    threshold: float = 1.0,
    failed: Callable[[int, BaseException], None] | None = None,
) -> Tally | None:
    """Asks a task's verifier whether each prompt's answer is right; where there is no answer, it is not.

    Args:
        graph: of any search; it remembers the marks, None for prompts that were not begun.
        task: with a verifier.
        threshold: the score from which on an answer is right.
        failed: told the node and what its verifier raised; the answer then is not right. None: that is raised.

    Returns:
        How many are right of those that were begun; None where none was.

    Raises:
        BadInput: the task has no verifier, or it raises.
    """
    if not verifies(task):
        raise BadInput(f"marks need a task with a verifier, got {type(task).__name__}: pass the task itself")
    graph.meta["right"] = [
        _is_right(graph, tree, task, threshold, failed) if on else None
        for tree, on in enumerate(begun(graph).tolist())
    ]
    return settled(graph)[1]


def chosen(graph: BabbleGraph, tree: int) -> int | None:
    """The leaf that answers a prompt: the best text of the vote's winner, without a vote the best leaf.

    The best leaf is found as by `graph.best`, without sorting: views ask in every frame.
    """
    vote: dict[str, Any] | None = graph.meta.get("vote")
    if vote is not None and (node := vote["node"][tree]) is not None and node < graph.size:
        return int(node)
    leaf = graph.is_leaf() & (graph.root == tree) & (graph.status != Status.LEAF_DEAD)
    ids = np.flatnonzero(leaf & ~np.isnan(graph.score))
    if not len(ids):
        return None
    ids = ids[graph.score[ids] == graph.score[ids].max()]
    return int(ids[np.argmax(graph.log_p_g[ids])])


def settled(graph: BabbleGraph) -> tuple[str, Tally | None]:
    """How many prompts came out well, and what that means: "right" answers where they were marked, else "passed".

    Only prompts that were begun count. None where neither marks nor a threshold say what is well.
    """
    if (right := graph.meta.get("right")) is not None:
        return "right", _tally([hit for hit in right if hit is not None])
    threshold = graph.meta.get("threshold")
    if threshold is None:
        return "passed", None
    hits = graph.is_leaf() & (graph.status != Status.LEAF_DEAD) & graph.reaches(threshold)
    return "passed", _tally((np.bincount(graph.root[hits], minlength=graph.trees) > 0)[begun(graph)].tolist())


def failed(graph: BabbleGraph) -> str | None:
    """How often the value or the task's functions failed, and how at first, in one line; None where none did.

    >>> graph = BabbleGraph(["?"], [[0]], {0: b"?"})
    >>> graph.failures.append({"node": 0, "error": "verify raised ValueError: no number", "text": ""})
    >>> failed(graph)
    'the value or the task failed 1 time, first on node 0: verify raised ValueError: no number'
    """
    if not graph.failures:
        return None
    n, first = int(graph.meta.get("scorer_failures", len(graph.failures))), graph.failures[0]
    line = (
        f"the value or the task failed {n} time{'s' if n > 1 else ''}, "
        f"first on node {first.get('node', '?')}: {first.get('error', '')}"
    )
    return " ".join(line.split())


def begun(graph: BabbleGraph) -> NDArray[np.bool_]:
    """Which prompts have been expanded at all, [trees]; an interrupted search may have left some out."""
    return graph.first_child[: graph.trees] != NO_PARENT


def _tally(hits: Sequence[bool]) -> Tally | None:
    if not hits:
        return None
    low, high = wilson(sum(hits), len(hits))
    return Tally(sum(hits), len(hits), sum(hits) / len(hits), low, high)


def _is_right(
    graph: BabbleGraph,
    tree: int,
    task: Task,
    threshold: float,
    failed: Callable[[int, BaseException], None] | None,
) -> bool:
    node = chosen(graph, tree)
    if node is None:
        return False
    try:
        return bool(task.verify(graph.prompts[tree], graph.text(node)) >= threshold)
    except THEIRS as problem:
        if failed is not None:
            failed(node, problem)
            return False
        if isinstance(problem, BadInput):
            raise
        said = f"{type(problem).__name__}: {problem}"
        raise BadInput(f"a verifier must score every text, got {graph.text(node)!r:.60}: {said}") from problem
