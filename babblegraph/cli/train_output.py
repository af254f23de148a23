"""What `babblegraph train` prints and writes: a live table, lines for a pipe, JSON, TensorBoard's events."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from babblegraph.cli.lines import one_line
from babblegraph.errors import BadInput
from babblegraph.processes import place


class Output:
    """What is printed and written, one level after the other; of many processes by the first.

    Raises:
        BadInput: TensorBoard is asked for and not installed.
    """

    def __init__(self, json: bool, quiet: bool, tensorboard: bool) -> None:
        from rich.live import Live

        from babblegraph.view.console import PlainConsole
        from babblegraph.view.live import can_move
        from babblegraph.view.signs import signs_of

        first = place().first
        self.first, self.json, self.quiet = first, json and first, quiet or json or not first
        self.writes = _events() if tensorboard and first else None
        self.out = sys.stdout  # as it is now: later it may be turned aside
        self.console, self.errors = PlainConsole(), PlainConsole(stderr=True)
        self.signs = signs_of(self.console.encoding)
        self.levels: list[Any] = []
        self.now, self.through = "", (0, 0)
        self.writer: Any = None
        self.live: Any = None
        if not self.quiet and can_move(self.console):
            self.live = Live(console=self.console, refresh_per_second=4, get_renderable=self._picture)

    def __enter__(self) -> Output:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.now = ""
        if self.live is not None:
            self.live.stop()
        elif not self.quiet and self.levels:
            self.console.print(self._picture())
        if self.writer is not None:
            self.writer.close()

    def say(self, what: str, done: int, of: int) -> None:
        """What is going on."""
        kind = f"level {len(self.levels)}: {what.split(':')[0]}"
        if self.live is None and not self.quiet and not self.now.startswith(kind):
            self.tell(kind)
        self.now, self.through = f"level {len(self.levels)}: {what}", (done, of)

    def tell(self, line: str) -> None:
        """One line beside what is printed."""
        if self.first:
            self.errors.print(f"babblegraph: {line}", soft_wrap=True)

    def done(self, level: Any, directory: Path) -> None:
        """A level is done."""
        from babblegraph.view.levels import level_line

        self.levels.append(level)
        if self.json:
            print(one_line(level.to_json()), file=self.out, flush=True)
        elif self.live is None and not self.quiet:
            self.tell(level_line(level))
        if self.writes is not None:
            self._write(level, directory)

    def _picture(self) -> Any:
        from babblegraph.view.levels import levels_report

        return levels_report(
            self.levels, width=self.console.width, signs=self.signs, now=self.now, through=self.through
        )

    def _write(self, level: Any, directory: Path) -> None:
        if self.writer is None and self.writes is not None:
            self.writer = self.writes(str(directory / "tensorboard"))
        held, learned = level.held, level.learned
        figures = {
            "elite": level.elite,
            "effective": level.effective,
            "gamma": level.gamma,
            "p_g": level.p_g.value,
        }
        if held is not None:
            figures |= {
                name: getattr(held, name).value for name in ("pass_at_1", "pass_at_k", "greedy", "score")
            }
            figures |= {"entropy": held.entropy, "divergence": held.divergence}
        if learned is not None:
            figures |= {"loss": learned.after, "rate": learned.rate}
        for name, number in figures.items():
            if number is not None:
                self.writer.add_scalar(name, number, level.number)


def _events() -> Any:
    """What writes TensorBoard's events; found before the run begins, so that it does not fail after a level."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as missing:
        raise BadInput(
            "--tensorboard needs the tensorboard package, got none: pip install tensorboard"
        ) from missing
    return SummaryWriter
