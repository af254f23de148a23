"""Unpruned rollouts of a generator, with what it had in mind at every node: the data of a learned value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring.examples import examples
from babblegraph.side_by_side import SideBySide

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.babbler import Babbler
    from babblegraph.protocols import Scorer

LARGEST = torch.finfo(torch.float16).max


class Collected(NamedTuple):
    """Examples with their features. Row i may be the parent of later rows of its prompt."""

    features: torch.Tensor  # [M, D] float16; see `features_of`
    label: NDArray[np.float64]  # [M] share of the rollouts through the node that passed
    weight: NDArray[np.float64]  # [M] how many rollouts those were
    prompt: NDArray[np.intp]  # [M] which prompt, from 0 on
    depth: NDArray[np.intp]  # [M] 1 is a child of the root
    parent: NDArray[np.intp]  # [M] the parent's row, −1 below a root
    share: NDArray[np.float64]  # [M] w(node) / w(parent)
    settled: NDArray[np.float64]  # [M] share of the node's weight on children that are leaves and passed
    rollouts: int
    tokens: int  # sampled


def collect(
    babbler: Babbler,
    prompts: Sequence[Any],
    score: Scorer,
    *,
    layers: Sequence[int],
    copies: int = 8,
    threshold: float = 1.0,
    seed: int = 0,
    together: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Collected:
    """Draws complete texts and keeps the features and the fate of every node on the way.

    Nothing is pruned and nothing computed twice: draws that agree are one node, and hidden states come from the
    forward passes that the rollouts need anyway.

    Args:
        babbler: the generator.
        prompts: training prompts, ready for the model.
        score: of leaves; a verifier, and whatever marks dead nodes and finished ones.
        layers: whose hidden states are features, 0 being the embedding.
        copies: rollouts of each prompt.
        threshold: what a leaf's score must reach.
        seed: of the rollouts.
        together: prompts in one forest, whose keys and values are there at once; fewer where memory lacks.
        progress: told how many prompts are done.

    Raises:
        BadInput: no rollouts, none that lives on after its first span, or a layer that the model does not have.
    """
    if not len(prompts) or copies < 1:
        raise BadInput(f"a value needs rollouts, got {len(prompts)} prompts × {copies} copies: give some")
    babbler.record(layers)
    parts = []

    def rolled(some: slice) -> Collected:
        return _rolled(babbler, prompts[some], score, layers, copies, threshold, seed, some.start)

    for part, some in SideBySide(together).parts(rolled, len(prompts)):
        parts.append(part)
        if progress is not None:
            progress(some.stop)
    if not any(len(part.label) for part in parts):
        raise BadInput(
            "a value is learned at nodes that live on, got only leaves: the texts end or die at their first span"
        )
    return _joined(parts)


def features_of(
    babbler: Babbler, graph: BabbleGraph, ids: NDArray[Any], layers: Sequence[int], meter: Meter
) -> torch.Tensor:
    """What a value is read from, [F, D].

    Hidden states of some layers after a node's last token, their means over its span, those after its prompt, its
    depth, and the log-probability of its span. All are cut where half precision ends: some models have a few numbers
    beyond it, which would be infinite as they are kept, and make a head of NaN.
    """
    states = babbler.hidden(graph, ids, layers, meter)
    log_q = graph.log_q[ids] - graph.log_q[np.maximum(graph.parent[ids], 0)]
    numbers = np.stack([graph.depth[ids], log_q], 1).astype(np.float32)
    parts = [*(part.flatten(1) for part in states), torch.as_tensor(numbers, device=states.last.device)]
    return torch.cat(parts, 1).clamp(-LARGEST, LARGEST)


def _rolled(
    babbler: Babbler,
    prompts: Sequence[Any],
    score: Scorer,
    layers: Sequence[int],
    copies: int,
    threshold: float,
    seed: int,
    first: int,
) -> Collected:
    """One forest, drawn span by span to its leaves."""
    graph = babbler.start(prompts, seed)
    meter, rng = Meter(Budget(seconds=np.inf), graph.trees), Rng(seed)
    ids, draws = np.arange(graph.trees), np.full(graph.trees, copies)
    seen, states = [], []
    try:
        while len(ids):
            graph.round += 1
            born = graph.add(babbler.expand(graph, Chosen(ids, draws), rng, meter))
            score(graph, born, meter)
            babbler.release(graph, np.r_[ids, born[graph.is_leaf(born)]])
            ids = born[~graph.is_leaf(born)].astype(np.intp)
            draws = graph.count[ids].astype(np.intp)
            if len(ids):
                seen.append(ids)
                states.append(features_of(babbler, graph, ids, layers, meter).half().cpu())
    finally:
        babbler.release(graph, np.arange(graph.size))
    nodes = np.concatenate([*seen, np.zeros(0, np.intp)])  # [M] in the order of their ids
    found = examples(graph, threshold)
    row = np.full(graph.size, -1)
    row[nodes] = np.arange(len(nodes))
    place = row[found.node]
    label, weight = np.zeros(len(nodes)), np.zeros(len(nodes))
    label[place], weight[place] = found.label, found.weight
    ratio = np.exp(graph.log_weight() - graph.log_weight(np.maximum(graph.parent, 0)))
    leaf = np.flatnonzero(graph.is_leaf())
    good = leaf[graph.reaches(threshold, leaf)]
    settled = np.bincount(graph.parent[good], ratio[good], minlength=graph.size)
    return Collected(
        features=torch.cat(states) if states else torch.zeros(0, 0),
        label=label,
        weight=weight,
        prompt=graph.root[nodes].astype(np.intp) + first,
        depth=graph.depth[nodes].astype(np.intp),
        parent=row[graph.parent[nodes]],
        share=ratio[nodes],
        settled=settled[nodes],
        rollouts=copies * len(prompts),
        tokens=int(meter.counts["sampled"].sum()),
    )


def _joined(parts: list[Collected]) -> Collected:
    sizes = np.array([len(part.label) for part in parts])
    start = np.repeat(np.cumsum(sizes) - sizes, sizes)
    columns: Iterator[Any] = zip(*(part[1:-2] for part in parts), strict=True)
    joined = dict(zip(Collected._fields[1:-2], map(np.concatenate, columns), strict=True))
    joined["parent"] = np.where(joined["parent"] < 0, -1, joined["parent"] + start)
    features = torch.cat([part.features for part in parts if len(part.label)])
    rollouts, tokens = (sum(getattr(part, name) for part in parts) for name in ("rollouts", "tokens"))
    return Collected(features=features, rollouts=rollouts, tokens=tokens, **joined)
