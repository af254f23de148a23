"""TableLM: a language model that is a table, small enough to enumerate every text it can write."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from babblegraph.graph import BabbleGraph
from babblegraph.lm.expand import Rules, expand
from babblegraph.lm.mixture import Both
from babblegraph.lm.spans import SpanRule
from babblegraph.protocols import Draws


class TableLM:
    """V tokens, texts of exactly L of them; every prefix has its own random next-token distribution.

    It is a `Generator` on the same expansion code as `Babbler`: only the logits come from a table. With `moved`, the
    seed of a second table, texts are sampled from that one (g), alone or in a mixture with the first (f).
    """

    def __init__(
        self,
        vocabulary: int = 3,
        length: int = 4,
        seed: int = 0,
        span: int | None = 1,
        moved: int | None = None,
        mixture: float | None = None,
    ) -> None:
        self.moved = None if moved is None else TableLM(vocabulary, length, moved, span)
        self.mixture = mixture
        draw = np.random.default_rng(seed)
        self.v, self.length = vocabulary, length
        self.vocabulary = {i: bytes([97 + i]) for i in range(vocabulary)}
        self.rule = SpanRule(tokens=span)
        self.table = {
            prefix: np.log(draw.dirichlet(np.full(vocabulary, 0.8)) * 0.97 + 0.03 / vocabulary)
            for n in range(length)
            for prefix in product(range(vocabulary), repeat=n)
        }
        self.texts = list(product(range(vocabulary), repeat=length))
        self.log_p = {t: sum(self.table[t[:i]][t[i]] for i in range(length)) for t in self.texts}
        self.score = {t: float(draw.random()) for t in self.texts}
        self.calls = 0

    def probability(self, hit) -> float:
        """The exact P(hit(text)) for a predicate of token tuples."""
        return float(sum(np.exp(self.log_p[t]) for t in self.texts if hit(t)))

    def start(self, prompts, seed: int = 0) -> BabbleGraph:
        return BabbleGraph(prompts, [[0]] * len(prompts), self.vocabulary, seed, {"model": "table"})

    def expand(self, graph, chosen, rng, meter, draws=Draws.MULTINOMIAL):
        rules = self.rules(graph)
        return expand(_Rows(self), graph, chosen, rng, meter, rules, draws)

    def rules(self, graph, warp=None) -> Rules:
        """How texts of a graph grow."""
        most = np.full(graph.trees, 1 + self.length)
        return Rules(self.rule, most, self.vocabulary, warp, mixture=self.mixture)

    def release(self, graph, ids) -> None:
        pass

    def generated(self, graph: BabbleGraph, node: int) -> tuple[int, ...]:
        return tuple(graph.path_tokens(node)[1:].tolist())


class _Rows:
    """A source whose rows in flight are just their texts."""

    def __init__(self, lm: TableLM) -> None:
        self.lm, self.texts = lm, []

    def open(self, graph, ids, meter):
        self.texts = [self.lm.generated(graph, int(i)) for i in ids]
        return self._logits()

    def advance(self, rows, tokens, meter):
        self.texts = [(*self.texts[r], int(t)) for r, t in zip(rows, tokens, strict=True)]
        return self._logits()

    def keep(self, node, row) -> None:
        pass

    def close(self) -> None:
        pass

    def _logits(self):
        self.lm.calls += len(self.texts)
        f = torch.as_tensor(np.stack([self.lm.table[t] for t in self.texts]))
        if self.lm.moved is None:
            return f
        return Both(f, torch.as_tensor(np.stack([self.lm.moved.table[t] for t in self.texts])))
