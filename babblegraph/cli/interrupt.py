"""Ctrl-C between two rounds, where the graph is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Interruptible:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop, and the second into a KeyboardInterrupt.

    A context manager; outside the main thread it does nothing.

    Args:
        say: called once, with what to tell the user.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.say = say
        self.signal: int | None = None
        self.waiting = False  # for a round to end; before the first one Ctrl-C stops at once
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def status(self) -> int | None:
        """The exit status by the custom of shells, None when nobody interrupted."""
        return None if self.signal is None else 128 + self.signal

    def until_stopped(self, items: Iterable[T]) -> Iterator[T]:
        """Passes items on until someone wishes to stop."""
        for item in items:
            self.waiting = True
            yield item
            if self.signal is not None:
                return

    def _caught(self, number: int, frame: FrameType | None) -> None:
        again, self.signal = self.signal is not None, number
        if again or not self.waiting:
            raise KeyboardInterrupt
        self.say("stopping after this round; Ctrl-C again stops at once")
