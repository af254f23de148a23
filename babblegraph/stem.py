"""Stems: shares of a node's weight that are held back, so that the place can be expanded again without bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from babblegraph.born import Born
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.randomness import chain
from babblegraph.status import Status

STEM = 1 << 43  # a word of random keys, beyond every token id


def hold_back(graph: BabbleGraph, ids: ArrayLike, share: float = 0.5) -> NDArray[np.int32]:
    """Splits nodes before they are expanded: a stem takes a share of the weight, the node keeps the rest.

    A stem is a child without tokens: the same text with other random numbers. It may be chosen like a node of the
    frontier, at any time and for any reason (a restart where nothing was found), held back itself before that,
    or stopped by roulette. To draw more below an expanded node after seeing what it brought, and then to average
    all, would be biased.

    Args:
        graph: gets one node more for each id.
        ids: distinct nodes of the frontier, or stems, [M].
        share: of the weight that is held back, above 0 and below 1.

    Returns:
        The ids of the stems, [M].

    Raises:
        BadInput: another share, a node twice, or one that is expanded or stopped already.

    Source: design/statistics.md, "One bookkeeping for every operation".

    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b"})
    >>> stems = hold_back(graph, [0], share=0.25)
    >>> np.exp(graph.log_weight([0, *stems])).round(6).tolist(), graph.path_tokens(stems[0]).tolist()
    ([0.75, 0.25], [0, 1])
    """
    nodes = np.asarray(ids, np.int32)
    _check(graph, nodes, share)
    m, zeros = len(nodes), np.zeros(len(nodes))
    stems = graph.add(
        Born(
            parent=nodes,
            tokens=np.zeros(0, np.int32),
            lengths=np.zeros(m, np.int32),
            token_log_q=np.zeros(0, np.float32),
            log_p_f=zeros,
            log_p_g=zeros,
            log_q=zeros,
            log_inclusion=np.full(m, -np.log(share)),
            count=np.ones(m, np.int32),
            status=np.full(m, Status.STEM, np.uint8),
            flags=np.zeros(m, np.uint8),
            key=chain(graph.key[nodes], STEM + stems_below(graph)[nodes]),
            expanded=np.zeros(0, np.int32),  # the nodes themselves go on as they are
            draws=np.zeros(0, np.int32),
            parent_flags=np.zeros(0, np.uint8),
        )
    )
    graph.log_inclusion[nodes] -= np.log1p(-share)
    graph.stop[stems] = graph.stop[nodes]  # so that the token before a stem's end is its parent's last
    graph.start[stems] = graph.stop[nodes]
    for name in ("value", "connectivity", "state_key"):
        getattr(graph, name)[stems] = getattr(graph, name)[nodes]
    return stems


def stems_below(graph: BabbleGraph) -> NDArray[np.int64]:
    """How many stems each node has, [N]: the next one needs another random key."""
    empty = graph.start == graph.stop
    empty[: graph.trees] = False
    return np.bincount(graph.parent[empty], minlength=graph.size)


def _check(graph: BabbleGraph, nodes: NDArray[np.int32], share: float) -> None:
    if not 0 < share < 1:
        raise BadInput(f"a stem's share must be above 0 and below 1, got {share:g}: 0.5 is a half")
    if len(np.unique(nodes)) != len(nodes):
        raise BadInput(
            "a node can be held back once in one call, got one twice: call again for a second stem"
        )
    ready = (graph.status[nodes] == Status.FRONTIER) | (graph.status[nodes] == Status.STEM)
    if not ready.all():
        worst = int(nodes[~ready][0])
        raise BadInput(
            f"only a node that was never expanded can be held back, got node {worst}"
            f" ({Status(graph.status[worst]).name.lower()}): hold back before you expand"
        )
