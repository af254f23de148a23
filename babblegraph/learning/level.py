"""One level of the cross-entropy method: grow, choose, learn; and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from babblegraph.budget import Budget
from babblegraph.learning.chances import Chance, chance
from babblegraph.learning.elite import Elite, elite
from babblegraph.learning.held_out import Held, Measure, passing
from babblegraph.learning.leaves import Leaves, gather, joined
from babblegraph.learning.soft import exponential, rank
from babblegraph.learning.update import Learned, Lessons
from babblegraph.loop import Round, search
from babblegraph.randomness import Rng
from babblegraph.strategies import babble, best_of_n, frontier

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.learning.generators import Generators
    from babblegraph.learning.ranks import Ranks
    from babblegraph.learning.settings import Settings
    from babblegraph.lm import Babbler
    from babblegraph.protocols import Scorer

Say = Callable[[str, int, int], None]  # what is going on, steps done, steps in all (0: unknown)

PER_PROMPT = ("passes", "greedily")
NOTHING = Chance(None, reason="nothing was searched")


@dataclass(frozen=True)
class Level:
    """What one level did, and how good the generator is after it. Level 0 is the base, before anything.

    Args:
        number: 0, 1, …
        gamma: mean threshold of the prompts that have one; None where nothing was chosen.
        elite: texts to learn from.
        taught: prompts that have an elite.
        effective: the elite's effective sample size.
        skipped: why other prompts have none, and how many each reason holds.
        p_f, p_g: P(S ≥ γ) on the level's prompts, under the base and under the generator that grew the trees.
        learned: of the update; None where there was none.
        held: figures after the update; None without held-out prompts.
        tokens: sampled for the search; the held-out figures' tokens are in `held`.
        seconds: of all of it.
        auc: of the value head that was fitted anew, within prompts, by depth; empty where there is none.
        alarm: why the guard refuses the level; empty where it does not.
        best: the best level so far: where the next one begins after an alarm.
        next_rate: the learning rate that the next level begins with.
    """

    number: int
    gamma: float | None = None
    elite: int = 0
    taught: int = 0
    effective: float = 0.0
    skipped: dict[str, int] = field(default_factory=dict)
    p_f: Chance = NOTHING
    p_g: Chance = NOTHING
    learned: Learned | None = None
    held: Held | None = None
    tokens: int = 0
    seconds: float = 0.0
    auc: dict[str, float] = field(default_factory=dict)
    alarm: str = ""
    best: int = 0
    next_rate: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """All fields, plain."""
        found = asdict(self)
        for name in ("p_f", "p_g", "learned", "held"):
            part = getattr(self, name)
            found[name] = None if part is None else part._asdict()
        if self.held is not None:
            found["held"] |= {
                n: v._asdict() for n, v in self.held._asdict().items() if isinstance(v, Measure)
            }
            found["held"] |= {name: list(getattr(self.held, name)) for name in PER_PROMPT}
        return found

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Level:
        """What `to_json` gave."""
        saved = dict(saved)
        for name, kind in (("p_f", Chance), ("p_g", Chance), ("learned", Learned)):
            saved[name] = None if saved[name] is None else kind(**saved[name])
        if saved["held"] is not None:
            held: dict[str, Any] = {
                n: Measure(**v) if isinstance(v, dict) else v for n, v in saved["held"].items()
            }
            saved["held"] = Held(**{**held, **{name: tuple(held[name]) for name in PER_PROMPT}})
        return cls(**saved)


class Grown(NamedTuple):
    """What a level's search brought.

    Args:
        leaves: of all prompts, each searched alike: what estimates are made of.
        tokens: sampled.
        graph: of the current generator's trees.
        late: leaves of prompts that were drawn again since none of theirs had passed; None where nothing was.
    """

    leaves: Leaves
    tokens: int
    graph: BabbleGraph
    late: Leaves | None = None

    @property
    def all(self) -> Leaves:
        """What the elite is chosen from."""
        return self.leaves if self.late is None else joined([self.leaves, self.late], self.leaves.prompts)


def grow(
    generators: Generators,
    prompts: Sequence[Any],
    settings: Settings,
    *,
    score: Scorer,
    score_base: Scorer,
    threshold: float | None,
    seed: int,
    ranks: Ranks,
    say: Say,
) -> Grown:
    """Searches a batch of prompts from the current generator, and a share ε of the trees from the base.

    Prompts of which no sample passes are drawn again, more often, where the settings say so: else whoever learns from
    what passes learns from easy prompts alone.
    """
    mine = ranks.mine(prompts)
    of_base, of_current = _shares(settings)
    last = [_search(generators.current, mine, settings, of_current, score, seed, say)]
    if of_base:
        with generators.as_base():
            last.append(_search(generators.base, mine, settings, of_base, score_base, seed + 1, say))
    samples = [of_current, of_base][: len(last)] if settings.sampler == "independent" else None
    leaves = _weighed(gather(*(one.graph for one in last), samples=samples), generators, settings)
    late = None
    if settings.more is not None and (failed := _failed(last[0].graph, threshold)):
        last.append(_search(generators.current, failed, settings, settings.more, score, seed + 2, say))
        late = gather(last[-1].graph, samples=[settings.more])
    found = ranks.gathered((leaves, late, sum(one.spent.sampled for one in last)))
    in_turn = zip_longest(*(one.prompts for one, *_ in found))  # as `Ranks.mine` took them apart
    texts = [prompt for some in in_turn for prompt in some if prompt is not None]
    again = [one for _, one, _ in found if one is not None]
    return Grown(
        joined([one for one, *_ in found], texts),
        sum(n for *_, n in found),
        last[0].graph,
        joined(again, texts) if again else None,
    )


def choose(leaves: Leaves, settings: Settings, threshold: float | None, rng: Rng) -> Elite:
    """The elite of a level, as the settings say."""
    soft = None
    if settings.rank is not None:
        soft = rank(settings.rank)
    elif settings.beta is not None:
        soft = exponential(beta=settings.beta)
    return elite(
        leaves,
        power=settings.power,
        threshold=threshold if soft is None or settings.rho is not None else None,
        rho=settings.rho,
        top=settings.top,
        pooled=settings.pooled,
        soft=soft,
        flat=None if settings.power > 0 or soft is not None else True,
        cap=settings.cap,
        rng=rng,
    )


def lessons_of(leaves: Leaves, chosen: Elite) -> Lessons:
    """The texts of an elite with their weights."""
    return Lessons([leaves.tokens[i] for i in chosen.leaf], leaves.start[chosen.leaf], chosen.weight)


def together(some: Sequence[Lessons]) -> Lessons:
    """The lessons of several levels."""
    return Lessons(
        [tokens for one in some for tokens in one.tokens],
        np.concatenate([one.start for one in some]),
        np.concatenate([one.weight for one in some]),
    )


def report(number: int, grown: Grown, chosen: Elite, settings: Settings, threshold: float | None) -> Level:
    """What is known of a level before it learns."""
    gamma = chosen.gamma[np.isfinite(chosen.gamma)]
    reasons = [reason for reason in chosen.skipped if reason]
    by_quantile = settings.rho is not None
    ask = {"threshold": None if by_quantile else threshold, "rho": settings.rho}
    return Level(
        number,
        gamma=float(gamma.mean()) if len(gamma) else None,
        elite=len(chosen.leaf),
        taught=sum(not reason for reason in chosen.skipped),
        effective=chosen.effective,
        skipped={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        p_f=_under_base(grown.leaves, settings, ask),
        p_g=chance(grown.leaves, under="g", **ask),
        tokens=grown.tokens,
    )


def _shares(settings: Settings) -> tuple[int, int]:
    """Samples (of each tree) or trees that grow from the base, and from the current generator."""
    total = settings.draws if settings.sampler == "independent" else settings.trees
    of_base = 0 if settings.epsilon == 0 else min(max(1, round(settings.epsilon * total)), total - 1)
    return of_base, total - of_base


def _failed(graph: BabbleGraph, threshold: float | None) -> list[Any]:
    """Prompts without a leaf that passes."""
    leaves = np.flatnonzero(graph.is_leaf())
    passed = graph.root[leaves[passing(graph, leaves, threshold)]]
    return [graph.prompts[i] for i in np.setdiff1d(np.arange(graph.trees), passed).tolist()]


def _search(
    babbler: Babbler, prompts: Sequence[Any], settings: Settings, n: int, score: Scorer, seed: int, say: Say
) -> Round:
    copies, close = settings.trees, False
    if settings.sampler == "independent":
        strategy = best_of_n(n=n, width=n)
    elif settings.sampler == "frontier":
        strategy, copies, close = frontier(width=settings.draws, keep=settings.keep), n, True
    else:
        strategy = babble(threshold=None)
    trees = [prompt for prompt in prompts for _ in range(copies)]
    for one in search(
        babbler,
        trees,
        score=score,
        strategy=strategy,
        budget=Budget(tokens=settings.tokens),
        seed=seed,
        close=close,
    ):
        say(f"babbling: {one.spent.sampled:,} tokens", 0, 0)
    return one


def _weighed(leaves: Leaves, generators: Generators, settings: Settings) -> Leaves:
    """With both log-probabilities, where they matter."""
    if not leaves.unbiased or (settings.power == 0 and not leaves.of_base.any()):
        return leaves
    base = leaves.of_base[leaves.tree]
    log_f, log_g = leaves.log_f.copy(), leaves.log_g.copy()
    for theirs, into, ask in ((~base, log_f, generators.log_f), (base, log_g, generators.log_g)):
        ids = np.flatnonzero(theirs)
        if len(ids):
            into[ids] = ask([leaves.tokens[i] for i in ids], leaves.start[ids])
    return replace(leaves, log_f=log_f, log_g=log_g)


def _under_base(leaves: Leaves, settings: Settings, ask: dict[str, Any]) -> Chance:
    if settings.power == 0 and not leaves.of_base.any():
        return Chance(None, reason="λ = 0 does not weigh by the base")
    return chance(leaves, under="f", **ask)
