"""How many steps rows go by themselves: no longer than Ctrl-C may wait, and only where they get anywhere."""

from __future__ import annotations

PATIENCE = 0.1  # seconds that Ctrl-C may wait
LEAST_STEPS = 2  # fewer are not worth it; and all that are taken before it is known how long one takes
FEW = 4  # rows that always try; the more there are, the likelier is something to look at
MOST_WAITS = 15  # steps at the host, where more have not got anywhere
AGAIN = 100  # steps at the host, where they took too long: it may have been the machine


class Pace:
    """What was seen of the last tries."""

    def __init__(self) -> None:
        self._seconds, self._rows = 0.0, 0  # of a step, and of how many rows
        self._wait = self._waits = 0  # steps until the next try; and how many it was the last time

    def steps(self, wanted: int, rows: int) -> int:
        """How many steps to try now, of so many; 0 for none."""
        self._wait -= 1
        if self._wait >= 0:
            return 0
        if 2 * rows <= self._rows:
            self._seconds = 0.0  # fewer rows take less: nobody knows how much
        most = LEAST_STEPS if not self._seconds else int(PATIENCE / self._seconds)
        if most < LEAST_STEPS:
            self._wait, self._seconds = AGAIN, 0.0
        return min(wanted, most) if min(wanted, most) >= LEAST_STEPS else 0

    def note(self, steps: int, rows: int, seconds: float) -> None:
        """So many steps were made in a try."""
        self._waits = 0 if steps or rows < FEW else min(2 * self._waits + 1, MOST_WAITS)
        self._wait = self._waits
        if steps:
            self._seconds, self._rows = seconds / steps, rows
