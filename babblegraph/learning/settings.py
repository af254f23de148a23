"""What a run of the cross-entropy method is told: plain numbers, so that a run remembers them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from babblegraph.errors import BadInput
from babblegraph.learning.elite import check as check_elite
from babblegraph.learning.held_out import UNBOUNDED

SAMPLERS = ("independent", "frontier", "babble")
MODES = ("full", "lora")
COUNTS = (
    "levels", "prompts", "draws", "more", "trees", "keep", "tokens", "top", "cap", "rank", "lora_rank", "epochs",
    "steps", "batch", "held_draws",
)  # fmt: skip
TREE_TOKENS = 4000  # sampled for a tree where nothing else is said
EPSILON = 0.1  # the default share of trees that grow from the base, where λ > 0


@dataclass(frozen=True)
class Settings:
    """How each level searches, chooses, learns and is guarded.

    Args:
        levels: searches and updates.
        prompts: of each level; None for all of them.
        sampler: "independent" samples (best-of-N, counted by unique tokens), pruned trees with unbiased weights
            ("frontier"), or "babble", the default search, whose leaves have no weights.
        draws: independent samples of a prompt; of a frontier, draws below a node.
        more: samples of a prompt of which none of these passes, besides them; with independent samples and λ = 0.
        trees: independent repetitions of each prompt.
        keep: nodes of a frontier's tree that go on.
        tokens: sampled tokens for each tree, at most; None: 4,000, and independent samples end by themselves. Where
            these are cut off, the short ones are those that end, so that the generator learns to be short.
        power: λ; the target is f^λ g^(1−λ) 1[S ≥ γ]. 1 is the cross-entropy method, 0 expert iteration.
        base_share: ε, the least share of each prompt's trees or samples that grow from the base, and the greatest
            weight is 1/ε; None for 0.1 where λ > 0.
        rho, top, pooled, cap: the elite; see `learning.elite`. With neither ρ nor top it is whatever passes the
            threshold.
        rank: N of the soft elite F̂(S)^{N−1}.
        beta: β of the soft elite exp(S/β).
        value_head: whether a value head is fitted anew at each level and guides the next search; None: where there
            is a verifier and no other value, and the sampler looks at values ("frontier", "babble").
        mode: "full" changes all weights, "lora" adapters, so that one set of weights is generator and base.
        lora_rank: of the adapters.
        learning_rate, epochs, batch: of the update.
        steps: of the optimiser in each update, in place of `epochs`: equal work, whatever the elite's size.
        kl_previous, kl_base: α and β of the KL to the generator before and to the base.
        restart: learn from the base at each level, from all levels' elites.
        replay: levels before whose elites are learned once more.
        average: share of the previous generator's weights in the new one; with `restart` of the base's. Of adapters
            the factors are averaged, which is the same with `restart`, and to first order without.
        held_draws: samples of each held-out prompt, and k of its pass@k.
        entropy_drop: share of the base's entropy whose loss raises the alarm.
    """

    levels: int = 3
    prompts: int | None = 512
    sampler: str = "independent"
    draws: int = 16
    more: int | None = None
    trees: int = 1
    keep: int = 16
    tokens: int | None = None
    power: float = 0.0
    base_share: float | None = None
    rho: float | None = None
    top: int | None = None
    pooled: bool = False
    cap: int | None = None
    rank: int | None = None
    beta: float | None = None
    value_head: bool | None = None
    mode: str = "full"
    lora_rank: int = 16
    learning_rate: float = 3e-4
    epochs: int = 3
    steps: int | None = None
    batch: int = 64
    kl_previous: float = 0.0
    kl_base: float = 0.0
    restart: bool = False
    replay: int = 0
    average: float = 0.0
    held_draws: int = 64
    entropy_drop: float = 0.5

    def __post_init__(self) -> None:
        for name in COUNTS:
            number = getattr(self, name)
            if number is not None and not (isinstance(number, int) and number > 0):
                raise BadInput(f"{name} must be a whole number above zero, got {number!r}: give one")
        check_elite(self.power, self.rho, self.top, self.cap, None)
        for name, known in (("sampler", SAMPLERS), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise BadInput(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}: choose one"
                )
        if not 0 < self.learning_rate < math.inf:
            raise BadInput(f"learning_rate must be above zero, got {self.learning_rate:g}: 3e-4 is a start")
        if not isinstance(self.replay, int):
            raise BadInput(f"replay must be a whole number, got {self.replay!r}: 0 leaves it out")
        for name in ("kl_previous", "kl_base", "replay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(f"{name} must not be negative, got {getattr(self, name):g}: 0 leaves it out")
        for name in ("average", "entropy_drop", "base_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise BadInput(f"{name} must be at least 0 and below 1, got {share:g}: it is a share")
        if self.power > 0 and self.sampler == "babble":
            raise BadInput(
                f"λ above 0 needs unbiased weights, got λ = {self.power:g} and sampler 'babble': take frontier"
            )
        if self.more is not None and (self.power > 0 or self.sampler != "independent"):
            raise BadInput(
                f"more must be of independent samples with λ = 0, got {self.more} with {self.sampler}, "
                f"λ = {self.power:g}: leave it out"
            )
        if self.beta is not None and not self.beta > 0:
            raise BadInput(f"beta must be above 0, got {self.beta:g}: small ones choose the best only")
        if self.rank is not None and self.beta is not None:
            raise BadInput(
                f"a soft elite is of ranks or of scores, got rank {self.rank} and beta {self.beta:g}: drop one"
            )
        if self.rank is not None and self.rank < 2:
            raise BadInput(f"rank must be at least 2, got {self.rank}: it is N of the best of N")

        each = "draws" if self.sampler == "independent" else "trees"
        if self.epsilon > 0 and getattr(self, each) < 2:
            raise BadInput(
                f"{each} must be at least 2 where a share ε of them grows from the base, got {getattr(self, each)} "
                f"and ε = {self.epsilon:g}: raise it, or leave the base out (ε = 0)"
            )

    @property
    def most_tokens(self) -> int:
        """Sampled for a tree, at most."""
        if self.tokens is None:
            return UNBOUNDED if self.sampler == "independent" else TREE_TOKENS
        return self.tokens

    @property
    def epsilon(self) -> float:
        """The share of trees from the base."""
        if self.base_share is None:
            return EPSILON if self.power > 0 else 0.0
        return self.base_share

    def to_json(self) -> dict[str, Any]:
        """All fields, plain."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Settings:
        """What `to_json` gave.

        Raises:
            BadInput: a field that there is none of.
        """
        if unknown := set(saved) - {f.name for f in fields(cls)}:
            raise BadInput(f"settings must be those of this version, got {sorted(unknown)[0]!r}: begin anew")
        return cls(**saved)


def preset(name: str, **changed: Any) -> Settings:
    """Known ways to learn from one's own best texts.

    "cem" weighs leaves toward f (λ = 1, a tenth of the samples from the base). "expert" learns the passing texts of all
    levels as they come, each time from the base and slowly (λ = 0, expert iteration; going on from the level before,
    or three times as fast, lost more of pass@64, see docs/learning.md). "broad" is expert iteration in two levels of
    thousands of prompts, each from the base, whose weights are then averaged with the base's: it learns most and
    forgets least, for more samples. "narrow" is expert iteration for prompts of one kind, fast and each level from the
    one before: it may forget what they do not need. "raft" is best-of-N fine-tuning: the best of N samples of each
    prompt.

    Args:
        changed: other values of single settings.

    Source: Rubinstein & Kroese, "The Cross-Entropy Method"; Anthony et al., "Thinking Fast and Slow with Deep
    Learning and Tree Search"; Wortsman et al., "Robust fine-tuning of zero-shot models" (the average of weights);
    Dong et al., "RAFT: Reward rAnked FineTuning".

    >>> preset("raft").top, preset("cem", power=0.5).power
    (1, 0.5)
    """
    if name not in PRESETS:
        raise BadInput(f"a preset must be one of {', '.join(PRESETS)}, got {name!r}: choose one")
    return replace(Settings(), **(PRESETS[name] | changed))


PRESETS: dict[str, dict[str, Any]] = {
    "cem": {"power": 1.0},
    "expert": {"power": 0.0, "restart": True, "learning_rate": 1e-4, "epochs": 2},
    "broad": {
        "power": 0.0,
        "restart": True,
        "levels": 2,
        "prompts": 5120,
        "draws": 32,
        "learning_rate": 3e-4,
        "epochs": 2,
        "average": 0.1,
    },
    "narrow": {
        "power": 0.0,
        "levels": 8,
        "prompts": 1024,
        "draws": 48,
        "learning_rate": 3e-4,
        "epochs": 2,
        "entropy_drop": 0.75,  # much of the entropy was of what it no longer needs
    },
    "raft": {"power": 0.0, "top": 1},
}
