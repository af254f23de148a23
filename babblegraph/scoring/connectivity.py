"""Connectivity: how many ways still lead on from here?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import BabbleGraph


def entropy_to_go(graph: BabbleGraph) -> NDArray[np.float32]:
    """The entropy of what follows each node, estimated from the draws already made, and scaled to [0, 1].

    H(n) is the mean over n's drawn children c of −log q(c | n) + H(c); finished leaves have H = 0. A node
    without draws gets the mean of its depth, and 1 where no node of its depth has any. The scale is
    H / (H + H(root)): one half for a node with as many ways on as the root itself.

    Returns:
        [N].
    Complexity: O(N) a call, vectorised by depth.
    """
    n, parent, depth = graph.size, graph.parent, graph.depth
    entropy = np.zeros(n)
    leaf = graph.is_leaf()
    total, weight = np.zeros(n), np.zeros(n)
    order = np.argsort(depth, kind="stable")
    first = np.searchsorted(depth[order], np.arange(int(depth.max(initial=0)) + 2))
    for level in range(len(first) - 2, -1, -1):
        ids = order[first[level] : first[level + 1]]
        drawn = ids[weight[ids] > 0]
        entropy[drawn] = total[drawn] / weight[drawn]
        entropy[ids[~leaf[ids] & (weight[ids] == 0)]] = entropy[drawn].mean() if len(drawn) else np.nan
        if level:
            counted = ids[~np.isnan(entropy[ids])]
            up, count = parent[counted], graph.count[counted]
            surprise = graph.log_q[up] - graph.log_q[counted] + entropy[counted]
            np.add.at(total, up, count * surprise)
            np.add.at(weight, up, count)
    root = np.maximum(entropy[graph.root], 1e-9)
    return np.where(np.isnan(entropy), 1.0, entropy / (entropy + root)).astype(np.float32)
