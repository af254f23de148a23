"""Whole sampling schemes on a table language model, made of the real operations, and the mistakes to be caught.

Every scheme grows a forest of independent trees to the end; `TableLM` says what the sums over leaves must be.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from table_lm import TableLM, _Rows

from babblegraph import resample
from babblegraph.budget import Budget, Meter
from babblegraph.lm.expand import expand
from babblegraph.loop import search
from babblegraph.ordering import by_state, by_value
from babblegraph.protocols import ALL, Chosen, Draws
from babblegraph.prune import merge_by_weight, resample_frontier, roulette
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.stem import hold_back
from babblegraph.strategies import frontier, stochastic_beam


class Forest:
    """Trees of one table. A text is a number: a leading 1, then its tokens as digits to the base V."""

    def __init__(
        self, lm: TableLM, trees: int, seed: int, temperature: float = 1.0, draws: Draws = Draws.MULTINOMIAL
    ) -> None:
        self.lm, self.rng, self.temperature, self.draws = lm, Rng(seed), temperature, draws
        self.graph = lm.start(["p"] * trees, seed)
        self.graph.meta |= {"aim": "estimate"}
        self.meter = Meter(Budget(seconds=1e9), trees)
        draw = np.random.default_rng(seed)
        self.code = np.ones(trees, np.int64)
        top = lm.v ** (lm.length + 1) * 2
        self.guess = np.log(0.05 + draw.random(top) * np.exp(0.7 * draw.normal(size=top)))  # knows nothing
        score, log_p, first = np.full(top, -1.0), np.full(top, -np.inf), np.zeros(top)
        for text in lm.texts:
            at = code_of(text, lm.v)
            score[at], log_p[at], first[at] = lm.score[text], lm.log_p[text], text[0] % 2 == 0
        gamma = np.sort(list(lm.score.values()))[-max(len(lm.texts) // 10, 2)]
        elite = score >= gamma
        self.h = {"one": np.ones(top), "elite": elite.astype(float), "path": elite * first + 0.1 * first}
        p = np.exp(log_p)
        self.truth = {name: float(p[p > 0] @ h[p > 0]) for name, h in self.h.items()}
        self.state = state_of(lm, top)

    def live(self, *status: Status):
        return np.flatnonzero(np.isin(self.graph.status, status or (Status.FRONTIER,)))

    def grow(self, ids, draws):
        """Expands nodes; draws is one number for all or one each."""
        graph, lm = self.graph, self.lm
        if not len(ids):
            return np.zeros(0, np.int32)
        draws = np.broadcast_to(np.asarray(draws, np.intp), np.shape(ids)).copy()
        graph.round += 1
        warp = None if self.temperature == 1 else lambda log_f: log_f / self.temperature
        rules = lm.rules(graph, warp)
        chosen = Chosen(np.asarray(ids, np.intp), draws)
        born = graph.add(expand(_Rows(lm), graph, chosen, self.rng, self.meter, rules, self.draws))
        self.read_codes()
        graph.state_key[born] = self.state[self.code[born]]
        return born

    def read_codes(self):
        """The numbers of all new texts."""
        graph = self.graph
        old = len(self.code)
        self.code = np.r_[self.code, np.zeros(graph.size - old, np.int64)]
        for i in range(old, graph.size):
            code = int(self.code[graph.parent[i]])
            for token in graph.span(i).tolist():
                code = code * self.lm.v + token
            self.code[i] = code

    def hold(self, ids, share):
        stems = hold_back(self.graph, ids, share)
        self.read_codes()
        return stems

    def priority(self):
        return self.guess[self.code]

    def sums(self, extra=0.0):
        """Σ w h over the leaves of each tree, by function; extra: a mistake to add to log w."""
        leaves = np.flatnonzero(self.graph.is_leaf())
        w = np.exp(self.graph.log_weight(leaves) + (extra[leaves] if np.ndim(extra) else extra))
        root, trees = self.graph.root[leaves], self.graph.trees
        return {n: np.bincount(root, w * h[self.code[leaves]], minlength=trees) for n, h in self.h.items()}

    def z(self, extra=0.0):
        """How many standard errors each mean over trees is from the truth."""
        found = {}
        for name, sums in self.sums(extra).items():
            off, error = sums.mean() - self.truth[name], sums.std(ddof=1) / np.sqrt(len(sums))
            found[name] = 0.0 if abs(off) < 1e-12 else float(off / max(error, 1e-15))
        return found


def code_of(text, v):
    code = 1
    for token in text:
        code = code * v + token
    return code


def state_of(lm, top):
    """A state that forgets the order of tokens, by code."""
    state = np.full(top, -1, np.int64)
    for n in range(1, lm.length):
        for text in product(range(lm.v), repeat=n):
            state[code_of(text, lm.v)] = code_of(sorted(text), lm.v)
    return state


def rare_event(lm, mass):
    """P(event | prefix) of every prefix, for high scores of improbable texts that have at most this mass."""
    value, total = dict.fromkeys(lm.texts, 0.0), 0.0
    for text in sorted(lm.texts, key=lambda t: 0.35 * lm.log_p[t] - lm.score[t]):
        total += np.exp(lm.log_p[text])
        if total > mass:
            break
        value[text] = 1.0
    for n in range(lm.length - 1, -1, -1):
        for text in dict.fromkeys(t[:n] for t in lm.texts):
            value[text] = sum(np.exp(lm.table[text][a]) * value[(*text, a)] for a in range(lm.v))
    return value


def to_the_end(step: Callable[[Forest], None]) -> Callable[[Forest], None]:
    def scheme(forest: Forest) -> None:
        while len(forest.live()):
            step(forest)

    return scheme


def grown(draws, *after):
    """A step: expands the whole frontier, then does what else is to be done."""

    def step(forest: Forest) -> None:
        forest.grow(forest.live(), draws)
        for each in after:
            each(forest)

    return step


def pruned(k, guided=True, scheme=resample.fearnhead_clifford, order=None):
    def run(forest: Forest) -> None:
        priority = forest.priority() if guided else np.zeros(forest.graph.size)
        resample_frontier(forest.graph, priority, k, forest.rng, scheme=scheme, order=order)

    return run


def by_key(graph, ids):
    """An order that means nothing."""
    return graph.key[ids]


def thinned(target):
    """Roulette with a survival in proportion to the guess."""

    def run(forest: Forest) -> None:
        ids = forest.live()
        size = np.exp(forest.graph.log_weight(ids) + forest.priority()[ids])
        total = np.bincount(forest.graph.root[ids], size, minlength=forest.graph.trees)
        roulette(
            forest.graph, ids, np.clip(target * size / total[forest.graph.root[ids]], 0.1, 1), forest.rng
        )

    return run


def merged(forest: Forest) -> None:
    merge_by_weight(forest.graph, forest.rng)


def rollouts(m):
    """m draws from every root, one from every node below: independent samples."""

    def scheme(forest: Forest) -> None:
        forest.grow(forest.live(), m)
        to_the_end(grown(1))(forest)

    return scheme


def has_hit(forest: Forest):
    """Which trees have an elite leaf, [trees]."""
    leaves = np.flatnonzero(forest.graph.is_leaf())
    hit = forest.h["elite"][forest.code[leaves]] > 0
    return np.bincount(forest.graph.root[leaves], hit, minlength=forest.graph.trees) > 0


def restarts(forest: Forest) -> None:
    """Stems of roots are taken up again, with more draws, while nothing is found; the rest goes by roulette."""
    graph, roots = forest.graph, np.arange(forest.graph.trees)
    stems, now = forest.hold(roots, 0.5), roots
    for m in (1, 2, 3):
        forest.grow(now, m)
        to_the_end(grown(1))(forest)
        missed = ~has_hit(forest)[graph.root[stems]] & (graph.status[stems] == Status.STEM)
        now = stems[missed]
        stems = np.r_[stems[~missed], forest.hold(now, 0.5)] if m < 3 else stems
    rest = forest.live(Status.STEM)
    roulette(graph, rest, np.where(has_hit(forest)[graph.root[rest]], 0.3, 0.9), forest.rng)
    forest.grow(forest.live(Status.STEM), 1)
    to_the_end(grown(1))(forest)


def adaptive(forest: Forest) -> None:
    """More draws where the guess is high, fewer once something was found."""

    def step(forest: Forest) -> None:
        ids = forest.live()
        keen = forest.priority()[ids] > np.log(0.3)
        forest.grow(ids, 1 + keen + 2 * (keen & ~has_hit(forest)[forest.graph.root[ids]]))
        pruned(4)(forest)

    to_the_end(step)(forest)


def searched(forest: Forest) -> None:
    """The real loop with a budget that ends too early, closed."""

    def score(graph, ids, meter):
        forest.read_codes()
        graph.value[ids] = np.exp(forest.guess[forest.code[ids]]).clip(0, 1)
        graph.state_key[ids] = forest.state[forest.code[ids]]

    strategy = frontier(width=3, keep=4)
    for _ in search(
        forest.lm, graph=forest.graph, score=score, strategy=strategy, budget=Budget(tokens=14), close=True
    ):
        pass


def begun_anew(forest: Forest) -> None:
    """The real loop whose trees begin anew from stems of their roots until they have found an elite text."""

    def score(graph, ids, meter):
        forest.read_codes()
        graph.value[ids] = np.exp(forest.guess[forest.code[ids]]).clip(0, 1)
        graph.state_key[ids] = forest.state[forest.code[ids]]
        graph.score[ids] = np.where(graph.is_leaf(ids), forest.h["elite"][forest.code[ids]], np.nan)

    strategy = frontier(
        width=[3, 2], keep=[2, 3], floor=1e-3, order=by_value, restarts=2, threshold=1.0, merge=False
    )
    for _ in search(
        forest.lm, graph=forest.graph, score=score, strategy=strategy, budget=Budget(tokens=40), close=True
    ):
        pass
    assert len(set(np.bincount(forest.graph.root[forest.graph.start == forest.graph.stop]).tolist())) > 1


def beam(width, tokens=10**6, fixed=False):
    """The real loop with a stochastic beam; fixed: the mistake that roots are worth 0."""

    def scheme(forest: Forest) -> None:
        strategy = stochastic_beam(width=width)

        def select(graph, meter):
            chosen = strategy.select(graph, meter)
            if fixed and chosen.contest is not None:
                chosen.contest.perturbed[np.isnan(chosen.contest.perturbed)] = 0.0
            return chosen

        def score(graph, ids, meter):
            pass

        how = {"strategy": strategy._replace(select=select), "budget": Budget(tokens=tokens)}
        for _ in search(forest.lm, graph=forest.graph, score=score, close=True, **how):
            pass
        forest.read_codes()

    return scheme


SCHEMES: dict[str, tuple[Callable[[Forest], None], dict]] = {
    "four independent samples": (rollouts(4), {}),
    "full expansion, pruned by weight": (to_the_end(grown(ALL, pruned(5, guided=False))), {}),
    "full expansion, pruned by guess": (to_the_end(grown(ALL, pruned(5))), {}),
    "three draws, pruned by guess": (to_the_end(grown(3, pruned(3))), {}),
    "three draws, systematic": (to_the_end(grown(3, pruned(4, scheme=resample.systematic))), {}),
    "three draws, roulette": (to_the_end(grown(3, thinned(4))), {}),
    "equal states merged, pruned": (to_the_end(grown(ALL, merged, pruned(3))), {}),
    "pruned in the order of states": (to_the_end(grown(ALL, pruned(3, order=by_state))), {}),
    "pruned in a random order": (to_the_end(grown(3, pruned(3, order=by_key))), {}),
    "adaptive restarts with stems": (restarts, {}),
    "adaptive numbers of draws": (adaptive, {}),
    "spans of two tokens": (to_the_end(grown(4, pruned(3))), {"span": 2}),
    "hot sampling, pruned": (to_the_end(grown(3, pruned(3))), {"temperature": 2.0}),
    "cold sampling, roulette": (to_the_end(grown(4, thinned(4))), {"temperature": 0.7}),
    "points at equal distances": (to_the_end(grown(3, pruned(3))), {"draws": Draws.SYSTEMATIC}),
    "points at equal distances, spans of two": (
        to_the_end(grown(5, pruned(3))),
        {"draws": Draws.SYSTEMATIC, "span": 2, "temperature": 1.5},
    ),
    "without replacement": (to_the_end(grown(2, pruned(4))), {"draws": Draws.DISTINCT}),
    "without replacement, spans of two": (
        to_the_end(grown(4, pruned(3))),
        {"draws": Draws.DISTINCT, "span": 2, "temperature": 1.5},
    ),
    "without replacement, whole texts": (to_the_end(grown(6)), {"draws": Draws.DISTINCT, "span": None}),
    "moved g": (to_the_end(grown(4, pruned(4))), {"moved": True}),
    "moved g, cold, without replacement": (
        to_the_end(grown(4, pruned(4))),
        {"moved": True, "temperature": 0.8, "draws": Draws.DISTINCT},
    ),
    "mixture": (to_the_end(grown(4, pruned(4))), {"moved": True, "mixture": 0.2}),
    "mixture, points at equal distances": (
        to_the_end(grown(5, thinned(4))),
        {"moved": True, "mixture": 0.05, "span": 2, "draws": Draws.SYSTEMATIC},
    ),
    "mixture, stochastic beam": (beam(5), {"moved": True, "mixture": 0.3}),
    "stochastic beam": (beam(6), {}),
    "stochastic beam, spans of three": (beam(4), {"span": 3}),
    "stochastic beam, closed": (beam(6, tokens=14), {}),
    "the loop, closed": (searched, {}),
    "the loop, begun anew": (begun_anew, {}),
}
