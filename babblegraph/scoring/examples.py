"""What a learned value is fitted on: nodes, and what became of the texts below them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.status import Status

CLIP = 0.999  # quantile of the weights of (ancestor, leaf) pairs above which they are cut


class Examples(NamedTuple):
    """Inner nodes with the weighted share of the leaves below them that passed."""

    node: NDArray[np.intp]  # [M]
    label: NDArray[np.float64]  # [M] in [0, 1]
    weight: NDArray[np.float64]  # [M] draws that the label stands for


def examples(graph: BabbleGraph, threshold: float, *, clip: float = CLIP) -> Examples:
    """Training rows from a closed forest, pruned or not.

    Each pair of a node a and a leaf l below it is a row with the label 1[S(l) ≥ γ] and the weight w(l) / w(a), cut
    at a quantile of all such weights; pairs of one node are put together, which leaves any weighted mean loss as
    it is. In unpruned rollouts a node's weights sum to 1, so that its rows then count as one; they are multiplied
    by the draws that went through the node. Dead leaves count as failures; dead nodes and leaves are no examples.

    Args:
        graph: without weight on unfinished nodes.
        threshold: γ.
        clip: the quantile, above 0 and at most 1.

    Raises:
        BadInput: another quantile, or a forest in which some text is unfinished.

    Source: design/scoring.md, "Value", 4.
    """
    if not 0 < clip <= 1:
        raise BadInput(f"a quantile must be above 0 and at most 1, got {clip:g}: 1 cuts nothing")
    if len(open_nodes := graph.frontier()):
        raise BadInput(
            f"values are learned from finished texts, got {len(open_nodes)} unfinished ones: close the search"
        )
    leaf = np.flatnonzero(graph.is_leaf())
    passed = graph.reaches(threshold, leaf)
    passed &= graph.status[leaf] != Status.LEAF_DEAD
    ancestor, which = _pairs(graph, leaf)
    log_weight = graph.log_weight()
    weight = np.exp(np.minimum(log_weight[leaf[which]] - log_weight[ancestor], 700.0))
    if len(weight):
        weight = np.minimum(weight, np.quantile(weight, clip))
    total = np.bincount(ancestor, weight, minlength=graph.size)
    good = np.bincount(ancestor, weight * passed[which], minlength=graph.size)
    node = np.flatnonzero(total > 0)
    return Examples(node, good[node] / total[node], total[node] * graph.count[node])


def _pairs(graph: BabbleGraph, leaf: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Every (ancestor, leaf) pair, roots and leaves themselves left out: node ids, and places in `leaf`."""
    up, which = graph.parent[leaf].astype(np.intp), np.arange(len(leaf))
    ancestors, leaves = [], []
    while len(up := up[(inner := up >= graph.trees)]):
        which = which[inner]
        ancestors.append(up)
        leaves.append(which)
        up = graph.parent[up].astype(np.intp)
    nothing = np.zeros(0, np.intp)
    return np.concatenate([*ancestors, nothing]), np.concatenate([*leaves, nothing])
