"""One level of the cross-entropy method: whom it learns from, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from babblegraph.learning.chances import Chance, chance
from babblegraph.learning.elite import Elite, elite
from babblegraph.learning.held_out import Held, Measure
from babblegraph.learning.soft import exponential, rank
from babblegraph.learning.update import Learned, Lessons
from babblegraph.randomness import Rng

if TYPE_CHECKING:
    from babblegraph.learning.grow import Grown
    from babblegraph.learning.leaves import Leaves
    from babblegraph.learning.settings import Settings

PER_PROMPT = ("passes", "best", "greedily")
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
        failures, failure: how often the verifier or the value failed in the search, and the first time in one line.
        p_f, p_g: P(S ≥ γ) on the level's prompts, under the base and under the generator that grew the trees; where
            the elite are the k best or soft, γ is the final threshold.
        learned: of the update; None where there was none.
        held: figures after the update; None without held-out prompts.
        tokens: sampled for the search; the held-out figures' tokens are in `held`.
        head_tokens: sampled for the rollouts that the value head was fitted on.
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
    failures: int = 0
    failure: str = ""
    p_f: Chance = NOTHING
    p_g: Chance = NOTHING
    learned: Learned | None = None
    held: Held | None = None
    tokens: int = 0
    head_tokens: int = 0
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
    ask: dict[str, Any] = {"threshold": threshold, "rho": settings.rho, "pooled": settings.pooled}
    return Level(
        number,
        gamma=float(gamma.mean()) if len(gamma) else None,
        elite=len(chosen.leaf),
        taught=sum(not reason for reason in chosen.skipped),
        effective=chosen.effective,
        skipped={reason: reasons.count(reason) for reason in dict.fromkeys(reasons)},
        failures=grown.failures,
        failure=grown.failure,
        p_f=_under_base(grown.leaves, settings, ask),
        p_g=chance(grown.leaves, under="g", **ask),
        tokens=grown.tokens,
    )


def _under_base(leaves: Leaves, settings: Settings, ask: dict[str, Any]) -> Chance:
    if settings.power == 0 and not leaves.of_base.any():
        return Chance(None, reason="λ = 0 does not weigh by the base")
    return chance(leaves, under="f", **ask)
