"""The guard: notices when a generator collapses, and knows which level was the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from babblegraph.learning.held_out import Held, mean_of


@dataclass
class Guard:
    """Compares each level with the base and with the best so far, on the same held-out prompts and random numbers.

    Args:
        base: the figures of the generator before any update.
        entropy_drop: the share of the base's entropy whose loss raises the alarm.
    """

    base: Held
    entropy_drop: float = 0.5

    def __post_init__(self) -> None:
        self.best, self.best_level = self.base, 0

    def judge(self, level: int, held: Held) -> str:
        """Why this level must not be gone on with; empty where it may, and then it is the best if pass@1 is.

        pass@k alarms when the whole 95 % interval of its loss against the best level, paired by prompt, is below
        zero: about one sound level in forty does so by chance. Two to four prompts that all fall alike are no proof.
        Without a threshold both are of scores.
        """
        if reason := self._collapsed(held):
            return reason
        if held.pass_at_1.value >= self.best.pass_at_1.value:
            self.best, self.best_level = held, level
        return ""

    def _collapsed(self, held: Held) -> str:
        if not np.isfinite(held.entropy):
            return "its samples have no finite log-probability"
        least = (1 - self.entropy_drop) * self.base.entropy
        if held.entropy < least:
            return f"the entropy fell to {held.entropy:.3g} nats, below {least:.3g}"
        change = mean_of(np.array(held.best) - np.array(self.best.best), least=-1.0)
        if change.high is not None and change.high < 0:
            fell, least, best = -change.value, -change.high, f"level {self.best_level}"
            if held.threshold is None:
                return f"the best of {held.k} fell by {fell:.3g}, at least {least:.3g}, below {best}"
            return f"pass@{held.k} fell by {100 * fell:.1f} points, at least {100 * least:.1f}, below {best}"
        return ""
