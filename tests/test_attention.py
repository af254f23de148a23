"""Keys and values stored once against the oracle: every path of a random forest through a plain forward pass.

Weights are drawn with std 0.15, so that an error in attention shows in the logits; the control below leaves the
prompt's keys out and is far off.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, family_model, plain_logits, tiny_llama, tiny_model

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler
from babblegraph.lm.attention import NAME, Plan
from babblegraph.protocols import ALL, Chosen
from babblegraph.randomness import Rng
from babblegraph.status import Status

LIMIT = 1e-4  # max|difference| / max|reference|, fp32
PROMPTS = ["3 5>8\n", "1 2 3 4 5 6 7 8 9>45\n", "7"]


def grown(babbler, seed, rounds=7, prompts=PROMPTS, watch=None):
    """A random forest: forks, spans that end early, releases, revived nodes, re-expansion with and without fresh.

    `watch` is called after each round with the graph and the ids of all nodes to look at.
    """
    draw = np.random.default_rng(seed)
    graph, rng = babbler.start(prompts, seed), Rng(seed)
    meter = Meter(Budget(tokens=10**6), graph.trees)
    for _ in range(rounds):
        fits = np.flatnonzero(~graph.is_leaf())
        ids = np.sort(draw.choice(fits, min(len(fits), int(draw.integers(1, 5))), replace=False))
        draws = draw.choice([1, 3, 8], len(ids))
        born = graph.add(
            babbler.expand(graph, Chosen(ids, draws), rng, meter, fresh=bool(draw.random() < 0.6))
        )
        if watch:
            watch(graph, np.arange(graph.size) if draw.random() < 0.3 else born, meter)
        babbler.release(graph, draw.choice(graph.size, graph.size // 3, replace=False))
    return graph, meter


def worst_error(babbler, seed):
    """The largest error over all nodes: logits after each node, and the stored log-probabilities of its span."""
    errors = []

    def watch(graph, ids, meter):
        ours = babbler.next_logits(graph, ids, meter)
        for logits, i in zip(ours, ids.tolist(), strict=True):
            path = graph.path_tokens(i)
            plain = plain_logits(babbler.model, path)
            errors.append(float((logits - plain[-1]).abs().max() / plain.abs().max()))
            if (p := int(graph.parent[i])) >= 0:
                at = np.arange(graph.length[p], graph.length[i])
                told = torch.log_softmax(plain.double(), -1)[at - 1, path[at]].sum()
                errors.append(
                    abs(float(told) - (graph.log_p_f[i] - graph.log_p_f[p])) / float(plain.abs().max())
                )

    graph, _ = grown(babbler, seed, watch=watch)
    assert len(np.unique(graph.length)) > 6, "the forest must have nodes at many depths"
    return max(errors)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forest_equals_plain_forward_on_every_node(family, characters):
    babbler = Babbler(family_model(family, characters), characters, span=4, stop=" ", max_new_tokens=20)
    assert worst_error(babbler, seed=1) < LIMIT
