"""Which round the explorer shows: a bar to click on, and the clock that plays the search again."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from babblegraph.view.footer import bar
from babblegraph.view.live import REDRAWS
from babblegraph.view.replay import LONGEST_STEP, SECONDS
from babblegraph.view.signs import QUIET, STRONG, TITLE

BACK, FORTH, PLAY, PAUSE = "◀", "▶", "▷", "‖"
BAR = 20  # cells


class Rounds(Static):
    """A bar of all rounds, filled up to the one that is shown.

    Args:
        last: the number of the last round.
    """

    DEFAULT_CSS = "Rounds { width: auto; height: 1; padding: 0 1; }"

    class Chosen(Message):
        """Another round is wished for, and in it a node, where it is one that is looked for."""

        def __init__(self, number: int, node: int | None = None) -> None:
            super().__init__()
            self.number, self.node = number, node

    def __init__(self, last: int) -> None:
        super().__init__(id="rounds", markup=False)
        self.last = self.number = last
        self._timer: Timer | None = None

    @property
    def plays(self) -> bool:
        """Whether the search is being played."""
        return self._timer is not None

    def on_mount(self) -> None:
        """Draws it."""
        self.show(self.last)

    def show(self, number: int) -> None:
        """Shows that a round was chosen."""
        self.number = number
        text = Text(no_wrap=True)
        text.append(f"{PAUSE if self.plays else PLAY} ", TITLE).append(f"{BACK} ", TITLE)
        text.append_text(bar(number / max(self.last, 1), BAR)).append(f" {FORTH}", TITLE)
        text.append(" round ", QUIET).append(f"{number:>{len(str(self.last))}}", STRONG)
        self.update(text.append(f" of {self.last}", QUIET))

    def go(self, number: int, node: int | None = None) -> None:
        """Wishes for a round, the nearest there is, and for a node in it; what plays is paused."""
        self.pause()
        self._wish(number, node)

    def play(self) -> None:
        """Plays from the round that is shown, from the first one at the end; pauses what plays."""
        if self.plays:
            self.go(self.number)
            return
        if self.number == self.last:
            self._wish(0)
        step = SECONDS / max(self.last, 1)
        self._stride = max(round(1 / REDRAWS / step), 1)
        self._timer = self.set_interval(min(max(step, 1 / REDRAWS), LONGEST_STEP), self._turn)
        self.show(self.number)

    def pause(self) -> None:
        """Stops what plays."""
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def on_click(self, event: events.Click) -> None:
        """Plays, steps, or goes to the place on the bar."""
        x = event.x - self.styles.padding.left
        if x < 2:
            self.play()
        elif x < 4:
            self.go(self.number - 1)
        elif x < 4 + BAR:
            self.go(round((x - 4) / (BAR - 1) * self.last))
        elif x < 7 + BAR:
            self.go(self.number + 1)

    def _turn(self) -> None:
        self._wish(self.number + self._stride)

    def _wish(self, number: int, node: int | None = None) -> None:
        number = min(max(number, 0), self.last)
        if number == self.last:
            self.pause()
        self.show(number)
        self.post_message(self.Chosen(number, node))
