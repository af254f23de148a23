"""What became of whole branches: dead, pruned, merged, or stopped in several ways."""

from __future__ import annotations

from enum import IntFlag
from functools import cache

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.subtrees import passing, unions
from babblegraph.view.signs import QUIET, STYLES


class Fate(IntFlag):
    """How the ends of a branch stand: a union over all of them."""

    OPEN = 1  # something is live there, or passes, or is finished where nothing was asked for
    FAILED = 2  # finished, and does not pass
    DEAD = 4
    PRUNED = 8
    MERGED = 16


WORDS = {
    Fate.DEAD: ("dead", STYLES[Status.LEAF_DEAD]),
    Fate.PRUNED: ("pruned", STYLES[Status.PRUNED]),
    Fate.FAILED: ("failed", STYLES[Status.LEAF_STOP]),
    Fate.MERGED: ("merged", STYLES[Status.MERGED]),
}


def fates(graph: BabbleGraph) -> NDArray[np.uint8]:
    """The union of the fates of all ends below each node, itself included where it is one, [N].

    Complexity: O(N log depth).
    """
    of = np.full(len(Status), Fate.OPEN, np.uint8)
    of[Status.LEAF_DEAD], of[Status.PRUNED], of[Status.MERGED] = Fate.DEAD, Fate.PRUNED, Fate.MERGED
    if graph.meta.get("threshold") is not None:
        of[[Status.LEAF_END, Status.LEAF_STOP, Status.LEAF_LENGTH]] = Fate.FAILED
    own = of[graph.status]
    own[passing(graph)] = Fate.OPEN
    inner = np.zeros(graph.size, np.bool_)
    inner[graph.parent[graph.parent != NO_PARENT]] = True
    own[inner & (graph.status == Status.EXPANDED)] = 0
    return unions(graph.parent, own)


@cache
def over(fate: int, brief: bool = False) -> tuple[str, str]:
    """Words and a style for a branch whose ends have these fates; no words where it is not over.

    >>> over(Fate.DEAD)[0], over(Fate.DEAD | Fate.PRUNED)[0], over(Fate.DEAD | Fate.OPEN)[0]
    ('all dead', 'dead, pruned', '')
    """
    if not fate or fate & Fate.OPEN:
        return "", ""
    words, styles = zip(*(WORDS[one] for one in WORDS if fate & one), strict=True)
    style = f"{QUIET} {styles[0]}"
    if brief:
        return words[0], style
    said = {1: f"all {words[0]}", 2: ", ".join(words)}.get(len(words), "all stopped")
    return said, style
