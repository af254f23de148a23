"""The prompts of a run: which of them each level learns on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from babblegraph.errors import BadInput
from babblegraph.randomness import Rng
from babblegraph.why_not import truncation

if TYPE_CHECKING:
    from babblegraph.lm import Babbler

BATCH = 3  # word of random keys, beside those of `learning.run`


def told_apart(prompts: Sequence[Any]) -> str:
    """How many prompts, and a hash of them all.

    >>> told_apart(["a", "b"]), told_apart(["a", "c"])
    ('2, 2e54e3', '2, b18197')
    """
    digest = hashlib.blake2b(json.dumps([str(one) for one in prompts]).encode(), digest_size=3)
    return f"{len(prompts)}, {digest.hexdigest()}"


def check(base: Babbler, prompts: Sequence[Any], power: float) -> None:
    """Refuses what a search would refuse only when its level comes, and again each time the run is resumed.

    Args:
        base: the generator.
        prompts: all that it is to learn on or to be measured on.
        power: λ.

    Raises:
        BadInput: a prompt that is empty or leaves no room in the context, or λ above 0 with truncation.
    """
    reason = truncation(base.start(prompts), "g")
    if power > 0 and reason:
        raise BadInput(f"λ above 0 needs unbiased weights, got λ = {power:g} and none: {reason}")


class Prompts:
    """Prompts to learn on, each once, and others that are held out.

    Args:
        learn: ready for the model.
        held_out: never learned on.
        size: of a level; None for all of them.
        rng: of their order.

    Raises:
        BadInput: none to learn on, or one that is both learned on and held out.

    >>> some = Prompts(["a", "b", "c", "b"], ["z"], 2, Rng(0))
    >>> sorted({*some.of(1), *some.of(2)})
    ['a', 'b', 'c']
    """

    def __init__(self, learn: Sequence[Any], held_out: Sequence[Any], size: int | None, rng: Rng) -> None:
        self.learn, self.held_out = list(dict.fromkeys(learn)), list(dict.fromkeys(held_out))
        self.rng = rng
        if not self.learn:
            raise BadInput("a run needs prompts to learn on, got none: pass some")
        if both := set(self.learn) & set(self.held_out):
            raise BadInput(
                f"held-out prompts must not be learned on, got {sorted(both)[0]!r} in both: drop it from one"
            )
        self.size = min(size or len(self.learn), len(self.learn))

    def of(self, level: int) -> list[Any]:
        """Those of a level, from 1 on: all are used once before any is used again."""
        n = len(self.learn)
        places = np.arange((level - 1) * self.size, level * self.size)
        order = {e: self.rng.generator(BATCH, e).permutation(n) for e in np.unique(places // n).tolist()}
        return list(dict.fromkeys(self.learn[order[p // n][p % n]] for p in places.tolist()))
