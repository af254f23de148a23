"""The value head of a level: fitted anew, since a generator that has moved has other things in mind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from babblegraph.errors import BadInput
from babblegraph.scoring import Score
from babblegraph.scoring.collect import collect
from babblegraph.scoring.fit import fit
from babblegraph.scoring.learned import LearnedValue, save, usual_layers

if TYPE_CHECKING:
    from pathlib import Path

    from babblegraph.learning.grow import Say
    from babblegraph.learning.ranks import Ranks
    from babblegraph.learning.settings import Settings
    from babblegraph.lm import Babbler
    from babblegraph.protocols import Scorer
    from babblegraph.scoring.fit import Fitted

COPIES = 8  # rollouts of each prompt
GUIDED = ("frontier", "babble")  # samplers that look at values


class Refitted(NamedTuple):
    """A value head for the generator of one level; or the reason why there is none.

    Args:
        fitted: the head and how good it is on prompts that it was not fitted on.
        layers: whose hidden states it reads.
        rollouts: that it was fitted on.
        tokens: sampled for these.
        reason: why there is no head; empty where there is one.
    """

    fitted: Fitted | None
    layers: tuple[int, ...] = ()
    rollouts: int = 0
    tokens: int = 0
    reason: str = ""

    @property
    def auc(self) -> dict[str, float]:
        """Within prompts, by depth: what the head knows of who passes."""
        if self.fitted is None:
            return {}
        return {str(depth): round(found.auc, 4) for depth, found in self.fitted.held_out.items()}

    def guiding(self, babbler: Babbler, score: Scorer) -> Scorer:
        """The same scores, with this value for nodes that are still open."""
        if self.fitted is None or not isinstance(score, Score):
            return score
        value = LearnedValue(babbler, self.fitted.head, self.layers)
        return Score(score.task, value, score.connectivity, score.threshold)

    def save(self, folder: Path, fingerprint: str) -> None:
        """Beside the weights, where `babblegraph search` finds it.

        Args:
            folder: of the level.
            fingerprint: of the generator as it is written there.
        """
        if self.fitted is not None:
            save(folder, fingerprint, self.fitted, self.layers, rollouts=self.rollouts)


class Heads:
    """The value heads of a run, each fitted when it is first asked for.

    A head is a function of its level's weights, the prompts and the seed, so that a run that was resumed has the same.

    Args:
        score: what texts are scored by.
        settings: see `Settings.value_head`.
        threshold: what a score has to reach.
        ranks: the first process fits, the others are told.
        say: told what is going on.

    Raises:
        BadInput: see `refits`.
    """

    def __init__(
        self, score: Scorer, settings: Settings, threshold: float | None, ranks: Ranks, say: Say
    ) -> None:
        self.wanted = refits(score, settings.sampler, settings.value_head)
        self.score: Any = score
        self.threshold = 1.0 if threshold is None else threshold
        self.ranks, self.say = ranks, say
        self.known: dict[int, Refitted] = {}

    def of(self, number: int, babbler: Babbler, prompts: Sequence[Any], seed: int) -> Refitted | None:
        """The head of a level, whose generator this is; None where the run fits none."""
        if not self.wanted:
            return None
        if number not in self.known:
            self.say("fitting the value", 0, 0)
            found = None
            if self.ranks.first:
                found = refit(babbler, prompts, self.score, threshold=self.threshold, seed=seed)
            self.known[number] = self.ranks.gathered(found)[0]
        return self.known[number]

    def forget_all_but(self, *numbers: int) -> None:
        """Heads of levels that no search begins from any more."""
        self.known = {n: head for n, head in self.known.items() if n in numbers}


def refits(score: Scorer, sampler: str, wanted: bool | None) -> bool:
    """Whether a run fits a value head at each level: where its searches use one, and the user gave none.

    Args:
        wanted: the user's word; None: where the sampler looks at values.

    Raises:
        BadInput: a head that cannot be fitted, or that would stand beside a value of the user's own.
    """
    could = isinstance(score, Score) and score.task is not None and score.value is None
    if wanted and not could:
        raise BadInput(
            "a value head is learned from a verifier's verdicts, got no task or a value of your own: drop value_head"
        )
    return could and (sampler in GUIDED if wanted is None else wanted)


def refit(babbler: Babbler, prompts: Sequence[Any], score: Score, *, threshold: float, seed: int) -> Refitted:
    """Fits a head on rollouts of the generator as it is now.

    Args:
        babbler: the generator.
        prompts: that it has not learned on since, so that rollouts are what they will be on others.
        score: whose task says which texts pass.
        threshold: what they have to reach.
        seed: of rollouts and fit.

    Source: design/scoring.md, "Value", 4.
    """
    layers, tokens = usual_layers(babbler), 0
    try:
        data = collect(
            *(babbler, prompts, Score(score.task)),
            layers=layers,
            copies=COPIES,
            threshold=threshold,
            seed=seed,
        )
        tokens = data.tokens
        fitted = fit(data, seed=seed)
    except BadInput as reason:  # too few prompts, or one outcome only: the search goes on without
        return Refitted(None, tokens=tokens, reason=str(reason))
    fitted.head.members.half().float()  # as it is saved, so that a run that is resumed searches the same
    return Refitted(fitted, layers, data.rollouts, tokens)
