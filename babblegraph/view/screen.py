"""The terminal's second page, where a search is watched: only what changed is written, nothing wraps or scrolls.

The first page, with all that was there, comes back at the end. What others print meanwhile, C libraries included, is
kept and printed then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.text import Text

OPEN = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"  # second page, no cursor, no wrapping, empty
CLOSE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h", "\x1b[?2026l"  # terminals that know it show what is between in one go
WHOLE_SECONDS = 5.0  # after which unchanged lines are written anew, in case something else wrote there
TICK_SECONDS = 0.25


class Screen:
    """A full screen of lines, written by whoever calls `draw`; its last line also by a clock. A context manager.

    Args:
        console: a terminal whose cursor may be moved.
        clock: makes the last line, a few times a second; None for a screen that never moves by itself.
    """

    def __init__(self, console: Console, clock: Callable[[], Text] | None = None) -> None:
        self.console, self.clock = console, clock
        self._lines: list[Text] = []
        self._shown: list[str] = []  # what the terminal shows, line by line
        self._written: dict[Any, str] = {}  # the sequences of the last frame's lines
        self._size = (0, 0)
        self._whole = 0.0  # when all lines were written
        self._busy = threading.RLock()
        self._drawing = False
        self._ended = threading.Event()
        self._out: IO[str] = console.file
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Screen:
        self._out = self._stack.enter_context(_others_kept(self.console))
        self._write(OPEN)
        if self.clock is not None:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with self._busy:
            self._write(CLOSE)
            self._stack.close()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal now; the usual ones of a terminal that does not know, which says 0."""
        try:
            width, height = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError, AttributeError):
            width = height = 0
        return width or self.console.width, height or self.console.height

    def draw(self, lines: Sequence[Text] | None = None) -> None:
        """Shows lines, the clock's below them; the same again where none are given.

        Safe in a signal handler that interrupts another call: that call shows the clock's new line.
        """
        with self._busy:
            if self._drawing or self._ended.is_set():
                return
            self._drawing = True
            try:
                self._lines = self._lines if lines is None else list(lines)
                last = [] if self.clock is None else [self.clock()]
                self._show([*self._lines, *last])
            finally:
                self._drawing = False

    def _show(self, lines: Sequence[Text]) -> None:
        width, height = size = self.size
        lines = [*lines[: height - 1], lines[-1]] if len(lines) > height else lines
        out, now = [], time.monotonic()
        if size != self._size or now - self._whole > WHOLE_SECONDS:
            if size != self._size:
                out.append("\x1b[2J")
            self._shown, self._size, self._whole = [], size, now
        before, self._written = self._written, {}
        for line in lines:
            key = (line.plain, tuple(line.spans), width)
            self._written[key] = before.get(key) or self._sequence(line, width)
        written = [self._written[line.plain, tuple(line.spans), width] for line in lines]
        for i, text in enumerate(written):
            if i >= len(self._shown) or self._shown[i] != text:
                out.append(f"\x1b[{i + 1};1H{text}")
        if len(written) < len(self._shown) or not self._shown:
            out.append(f"\x1b[{len(written) + 1};1H\x1b[J" if len(written) < height else "")
        self._shown = written
        if out:
            self._write(BEGIN + "".join(out) + END)

    def _sequence(self, line: Text, width: int) -> str:
        """What to write for a line: its characters and colours, and an end that clears what was there before."""
        with self.console.capture() as text:
            self.console.print(line, end="", no_wrap=True, overflow="crop", crop=False, soft_wrap=True)
        full = line.cell_len >= width  # the cursor stands on the last character: clearing would take it away
        return text.get() + ("\x1b[0m" if full else "\x1b[0m\x1b[K")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            if self.size != self._size:
                self.draw()
            elif self._busy.acquire(blocking=False):
                try:
                    self._turn()
                finally:
                    self._busy.release()

    def _turn(self) -> None:
        """Writes the clock's line alone."""
        if self.clock is None or not self._shown or self._drawing or self._ended.is_set():
            return
        i, text = len(self._shown) - 1, self._sequence(self.clock(), self._size[0])
        if text != self._shown[i]:
            self._shown[i] = text
            self._write(f"\x1b[{i + 1};1H{text}")


@contextlib.contextmanager
def _others_kept(console: Console) -> Iterator[IO[str]]:
    """Where the screen writes; what others write to the terminal is kept, and printed at the end.

    Where no file can be made, as on a full disk, they write between the frames: a search needs none to be watched.
    """
    with contextlib.ExitStack() as stack:
        try:
            terminals = [n for n in (1, 2) if os.isatty(n)] if console.file.fileno() == 1 else []
            kept: Any = stack.enter_context(tempfile.TemporaryFile()) if terminals else None
        except (OSError, ValueError, AttributeError):
            terminals = []
        if not terminals:
            yield console.file
            return
        sys.stdout.flush()
        real = {n: os.dup(n) for n in terminals}
        out = stack.enter_context(os.fdopen(os.dup(1), "w", encoding=console.encoding, errors="replace"))
        for n in terminals:
            os.dup2(kept.fileno(), n)
        try:
            yield out
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for n, before in real.items():
                os.dup2(before, n)
                os.close(before)
            kept.seek(0)
            os.write(2 if 2 in terminals else 1, kept.read())
