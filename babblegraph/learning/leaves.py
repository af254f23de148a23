"""The finished leaves of one level, from whichever generator they grew, and what each weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.why_not import truncation, why_not

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Leaves:
    """M finished leaves of T trees of P prompts; dead ones among them, since their weight counts.

    Args:
        prompts: the texts of the prompts, P.
        prompt: which of them each leaf belongs to, [M].
        tree: and which tree, [M].
        trees: the prompt of each tree, [T].
        share: of each tree in its prompt's trees or samples, [T].
        of_base: whether a tree grew from the base, [T].
        text: what was generated, M.
        tokens: whole paths of token ids, prompt included, M arrays.
        start: how many of these are the prompt's, [M].
        score: NaN where the verifier failed, [M].
        log_f, log_g: of what was generated, under the base and under the current generator, [M].
        log_share: log of (the probability by which it grew / its inclusion × the share of its tree), [M]: what counts
            and pruning made of it. Those of a prompt's leaves sum to 1 on average.
        biased: why these weights are worth nothing, and every leaf just counts its draws; empty where they are.
    """

    prompts: tuple[str, ...]
    prompt: Ints
    tree: Ints
    trees: Ints
    share: Floats
    of_base: NDArray[np.bool_]
    text: tuple[str, ...]
    tokens: tuple[NDArray[np.int32], ...]
    start: Ints
    score: Floats
    log_f: Floats
    log_g: Floats
    log_share: Floats
    biased: str = ""

    def __len__(self) -> int:
        return len(self.text)

    @property
    def unbiased(self) -> bool:
        """Whether the weights can be trusted."""
        return not self.biased

    @property
    def from_base(self) -> Floats:
        """The share of each prompt's trees or samples that grew from the base, [P]."""
        share = np.bincount(self.trees, self.share * self.of_base, len(self.prompts))
        return share.astype(np.float64)

    def of_prompts(self) -> list[NDArray[np.intp]]:
        """The places of each prompt's leaves, P arrays."""
        order = np.argsort(self.prompt, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.prompt, minlength=len(self.prompts)))[:-1])


def gather(
    grown: BabbleGraph, from_base: BabbleGraph | None = None, *, samples: Sequence[int] | None = None
) -> Leaves:
    """The leaves of a graph that grew from the current generator, and of one that grew from the base.

    A leaf's probability under the generator that it did not grow from is not known yet and taken to be the same:
    right for a generator that has not moved; `dataclasses.replace` fills in the truth.

    Args:
        grown: trees of the current generator.
        from_base: trees of the base, of the same prompts.
        samples: how many independent samples each tree of either graph was to hold, where that is what they are.
    """
    graphs = [grown] if from_base is None else [grown, from_base]
    wanted = [None] * len(graphs) if samples is None else samples
    biased = next(filter(None, (why_biased(graph, n) for graph, n in zip(graphs, wanted, strict=True))), "")
    prompts = tuple(dict.fromkeys(p for graph in graphs for p in graph.prompts))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    trees = np.array([place[p] for graph in graphs for p in graph.prompts], np.int64)
    size = np.repeat([n or 1 for n in wanted], [graph.trees for graph in graphs])
    share = size / np.bincount(trees, size)[trees]
    first = (0, grown.trees)
    parts = [_leaves_of(graph, at, not biased) for graph, at in zip(graphs, first, strict=False)]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    arrays["log_share"] += np.log(share)[arrays["tree"]]
    return Leaves(
        prompts=prompts,
        prompt=trees[arrays["tree"]],
        trees=trees,
        share=share,
        of_base=np.repeat([False, True][: len(graphs)], [graph.trees for graph in graphs]),
        text=tuple(graph.text(i) for graph in graphs for i in _ids(graph)),
        tokens=tuple(graph.path_tokens(i) for graph in graphs for i in _ids(graph)),
        biased=biased,
        **arrays,
    )


def joined(some: Sequence[Leaves], prompts: Sequence[str]) -> Leaves:
    """The leaves of several forests that share no prompt as those of one, such as what the processes of a run found.

    Args:
        some: one or more.
        prompts: all of them, in the order in which they are to count.
    """
    place = {prompt: i for i, prompt in enumerate(prompts)}
    own = [np.array([place[p] for p in one.prompts], np.int64) for one in some]
    trees = np.cumsum([0, *(len(one.trees) for one in some)])
    same = ("share", "of_base", "start", "score", "log_f", "log_g", "log_share")
    return Leaves(
        prompts=tuple(prompts),
        prompt=np.concatenate([own[i][one.prompt] for i, one in enumerate(some)]),
        tree=np.concatenate([trees[i] + one.tree for i, one in enumerate(some)]),
        trees=np.concatenate([own[i][one.trees] for i, one in enumerate(some)]),
        text=tuple(t for one in some for t in one.text),
        tokens=tuple(t for one in some for t in one.tokens),
        biased=next((one.biased for one in some if one.biased), ""),
        **{name: np.concatenate([getattr(one, name) for one in some]) for name in same},
    )


def why_biased(graph: BabbleGraph, samples: int | None = None) -> str:
    """Why the leaves of a graph weigh nothing that can be trusted; empty where they do.

    A forest with the aim `estimate` must be closed. Independent samples are as good once all have ended, whatever
    their scores are: a dead leaf stands for all its continuations.
    """
    if samples is None or graph.meta.get("aim") == "estimate":
        return why_not(graph, "g")
    ids = _ids(graph)
    if (np.bincount(graph.root[ids], graph.count[ids], minlength=graph.trees) < samples).any():
        return "the budget ended before all samples did"
    return truncation(graph, "g")


def log_weights(leaves: Leaves, power: float) -> Floats:
    """log of each leaf's weight for the target f^λ g^(1−λ), [M].

    A leaf that may have grown from either generator is weighted by what both together would give it (the
    balance heuristic), so that f over the mixture is at most 1 / ε. Of leaves without unbiased weights each
    draw counts the same.

    Args:
        leaves: with both log-probabilities.
        power: λ.

    Raises:
        BadInput: λ above 0 for leaves without unbiased weights.

    Source: design/statistics.md, "Bounded weights, simple default" (the balance heuristic of Veach & Guibas, 1995).
    """
    if not leaves.unbiased:
        if power > 0:
            raise BadInput(f"λ above 0 needs unbiased weights, got λ = {power:g} and none: {leaves.biased}")
        return leaves.log_share
    target = _times(power, leaves.log_f) + _times(1 - power, leaves.log_g)
    with np.errstate(divide="ignore"):
        of_base, of_current = (np.log(x)[leaves.prompt] for x in (leaves.from_base, 1 - leaves.from_base))
    source = np.logaddexp(of_base + leaves.log_f, of_current + leaves.log_g)
    return target - source + leaves.log_share


def _ids(graph: BabbleGraph) -> list[int]:
    return np.flatnonzero(graph.is_leaf()).tolist()


def _leaves_of(graph: BabbleGraph, first_tree: int, unbiased: bool) -> dict[str, NDArray[Any]]:
    ids = _ids(graph)
    tree = graph.root[ids].astype(np.int64)
    if unbiased and graph.meta.get("aim") == "estimate":
        log_share = graph.log_p_g[ids] - graph.log_inclusion[ids]
    else:  # c of N samples of q
        log_share = np.log(graph.count[ids] / np.maximum(graph.draws[tree], 1))
        log_share += (graph.log_p_g[ids] - graph.log_q[ids]) if unbiased else 0.0
    return {
        "tree": tree + first_tree,
        "start": graph.length[tree].astype(np.int64),
        "score": graph.score[ids].astype(np.float64),
        "log_f": graph.log_p_g[ids],  # of the generator that it grew from
        "log_g": graph.log_p_g[ids],
        "log_share": log_share,
    }


def _times(power: float, log_p: Floats) -> Floats:
    """power · log_p, with 0 · (−∞) = 0."""
    return np.zeros_like(log_p) if power == 0 else power * log_p
