"""Particles: finished texts of a tree that can be copied, and cut and written anew without leaving the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Chosen, Draws, Generator, Scorer
from babblegraph.randomness import Rng, chain

COPY, CUT, DEAL = 1 << 44, 1 << 45, 1 << 46  # words of random keys, beyond every token id

Ids = NDArray[np.intp]


class Particles:
    """Particles of independent trees of one prompt, and what is done to them. Where they are is [trees, particles].

    Args:
        generator: what babbles, at temperature 1, without truncation and without logits processors.
        prompt: of every tree.
        score: fills in the scores of finished texts.
        trees: independent repetitions.
        seed: of everything random.

    Raises:
        BadInput: a generator with another temperature, truncation, or logits processors; later, one that gives NaN.
    """

    def __init__(self, generator: Generator, prompt: Any, score: Scorer, trees: int, seed: int) -> None:
        self.generator, self.score, self.rng = generator, score, Rng(seed)
        self.graph = generator.start([prompt] * trees, seed)
        sampling = self.graph.meta.get("sampling", {})
        changed = any(sampling.get(name) is not None for name in ("top_k", "base", "processors"))
        if changed or any(sampling.get(name) not in (None, 1.0) for name in ("temperature", "top_p")):
            raise BadInput(
                f"splitting needs texts of the generator itself, got {sampling}: take temperature 1, no top-k or "
                "top-p, no logits processors and no base"
            )
        self.graph.meta |= {"aim": "levels", "strategy": "multilevel"}
        self.meter = Meter(Budget(seconds=np.inf), trees)

    @property
    def tokens(self) -> int:
        """Sampled so far."""
        return int(self.meter.counts["sampled"].sum())

    def texts(self, particles: int) -> Ids:
        """Independent texts, [trees, particles]."""
        graph = self.graph
        at = self._finished(np.repeat(np.arange(graph.trees), particles))
        self.mean_length = float((graph.length[at] - graph.length[graph.root[at]]).mean())
        return at.reshape(-1, particles)

    def scores(self, at: Ids) -> NDArray[np.float64]:
        """Of leaves; those that have none never pass."""
        return np.nan_to_num(self.graph.score[at].astype(np.float64), nan=-np.inf, neginf=-np.inf)

    def copied(self, at: Ids, passed: NDArray[np.bool_], number: int) -> Ids:
        """As many particles as before, copies of those that passed: each as often as any other, give or take one."""
        trees, n = self.graph.root[at[:, 0]], at.shape[1]
        u = self.rng.uniforms(chain(self.graph.key[trees], COPY), number, 0)
        many = passed.sum(1)
        place = np.floor((np.arange(n) + u[:, None]) * many[:, None] / n).astype(
            np.intp
        )  # among the survivors
        order = np.argsort(~passed, axis=1, kind="stable")  # survivors first
        return np.take_along_axis(at, np.take_along_axis(order, place, 1), 1)

    def moved(self, at: Ids, gamma: float, turn: int) -> Ids:
        """Each particle cut at a random node of its path and written anew from there, if the new text passes.

        Where n nodes could have been cut before and n' can now, the way back is n / n' times as likely: a longer
        text is taken with that probability (Metropolis–Hastings), for which only scores count otherwise.
        """
        flat = at.reshape(-1)
        key, which = (
            chain(self.graph.key[self.graph.root[flat]], CUT),
            np.tile(np.arange(at.shape[1]), len(at)),
        )
        place, luck = (self.rng.uniforms(key, which, 2 * turn + i) for i in (0, 1))
        length = _length(self.graph, flat)
        new = self._finished(_above(self.graph, flat, length - np.floor(place * length).astype(np.intp)))
        taken = (self.scores(new) >= gamma) & _way_back(luck, length, _length(self.graph, new))
        return np.where(taken, new, flat).reshape(at.shape)

    def release(self, at: Ids) -> None:
        """Gives up the keys and values of all that no particle needs."""
        needed, up = np.zeros(self.graph.size, np.bool_), np.unique(at)
        while len(up):
            needed[up] = True
            up = np.unique(self.graph.parent[up])
            up = up[up >= 0]
        self.generator.release(self.graph, np.flatnonzero(~needed))

    def _finished(self, nodes: Ids) -> Ids:
        """One text below each node, independent whether nodes are equal or not; returns its leaf, [P]."""
        graph, at = self.graph, nodes.astype(np.intp)
        going = np.arange(len(at))
        while len(going):
            graph.round += 1
            ids, draws = np.unique(at[going], return_counts=True)
            born = self.generator.expand(graph, Chosen(ids, draws), self.rng, self.meter, Draws.MULTINOMIAL)
            new = graph.add(born)
            self.meter.count("nodes", graph.root[new])
            self.score(graph, new, self.meter)
            children = np.repeat(
                np.r_[new, born.repeats[:, 0]], np.r_[born.count, born.repeats[:, 1]].astype(np.intp)
            )
            children = self._shuffled(children[np.argsort(graph.parent[children], kind="stable")])
            if len(children) < len(going):
                raise BadInput(
                    f"splitting needs what follows every text, got no number for {len(going) - len(children)} of "
                    f"{len(going)}: load the model in float32 or bfloat16"
                )
            going = going[np.argsort(at[going], kind="stable")]
            at[going] = children  # dealt out at random among the particles of one node
            going = np.sort(going[~graph.is_leaf(at[going])])
        return at

    def _shuffled(self, children: Ids) -> Ids:
        """Siblings in a random order; they stand together."""
        parent = self.graph.parent[children]
        key, rank = (
            chain(self.graph.key[parent], DEAL),
            np.arange(len(parent)) - np.searchsorted(parent, parent),
        )
        return children[np.lexsort((self.rng.uniforms(key, rank, self.graph.round), parent))]


def _way_back(luck: NDArray[np.float64], before: Ids, after: Ids) -> NDArray[np.bool_]:
    """True with probability min(1, before / after)."""
    return luck * after < before


def _length(graph: BabbleGraph, nodes: Ids) -> Ids:
    """How many nodes are above each, [P]."""
    length, up = np.zeros(len(nodes), np.intp), nodes.astype(np.intp)
    while (inner := graph.parent[up] >= 0).any():
        length += inner
        up = np.where(inner, graph.parent[up], up)
    return length


def _above(graph: BabbleGraph, nodes: Ids, steps: Ids) -> Ids:
    """The node so many steps above each, [P]."""
    at = nodes.astype(np.intp)
    for step in range(int(steps.max(initial=0))):
        at = np.where(step < steps, graph.parent[at], at)
    return at
