"""Token beam: the likeliest few texts, token by token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import ALL, Chosen, Strategy
from babblegraph.prune import keep_best_of
from babblegraph.randomness import Rng
from babblegraph.strategies.common import first_of_each, need_whole, nothing, room_left


def token_beam(*, width: int = 4, length_power: float = 0.0, threshold: float | None = None) -> Strategy:
    """Beam search as everybody knows it: every next token of `width` texts, and the `width` likeliest of them go on.

    Nothing is drawn: the answer is the same for every seed. Finished texts are kept if they are among the `width`
    likeliest of their step, and leave the beam. A node is a single token here. Every next token that the generator
    offers becomes a node, so with a large vocabulary give it `top_k`: `top_k = width` changes nothing in the result.

    Aim `solve`; weights are biased (hard top-k). Complexity: O(width · k) nodes a token, k the tokens offered.
    Good for: short texts with one right wording (translation, transcription); poor where texts are meant to differ.
    Source: Graves, "Sequence transduction with recurrent neural networks", 2012.

    Args:
        width: texts that go on; 1 is greedy decoding.
        length_power: log-probabilities are divided by (generated tokens)^this before they are compared.
        threshold: stop a prompt's search at the first leaf that reaches it.

    Raises:
        BadInput: a width that is not above zero.
    """
    need_whole("width", width)

    def select(graph: BabbleGraph, meter: Meter) -> Chosen:
        live = graph.frontier()
        live = live[room_left(graph, meter, threshold)[graph.root[live]] > 0]
        return Chosen(live, np.full(len(live), ALL)) if len(live) else nothing()

    def prune(graph: BabbleGraph, rng: Rng) -> NDArray[np.intp]:
        live = graph.frontier()
        new = np.r_[live, np.flatnonzero(graph.is_leaf() & (graph.born == graph.round))]
        tokens = graph.length[new] - graph.length[graph.root[new]]
        rank = graph.log_p_g[new] / np.maximum(tokens, 1) ** length_power
        best = new[first_of_each((new, -rank), graph.root[new], np.full(graph.trees, width))]
        late = np.setdiff1d(new[len(live) :], best)  # ended, but not among the best
        keep_best_of(graph, late, late, np.zeros(len(late)), 0)
        return np.r_[late, keep_best_of(graph, live, graph.root[live], rank[: len(live)], width)]

    return Strategy("token-beam", select, prune, "solve")
