"""Ctrl-C and its kin: a search stops between two rounds, where the graph is whole; anything else stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]


class Interruptible:
    """Turns the first Ctrl-C (SIGTERM, hangup) into a wish to stop, and the second into a KeyboardInterrupt.

    A context manager; outside the main thread it does nothing.

    Args:
        say: called once, with what to tell the user.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.say = say
        self.signal: int | None = None
        self.waiting = False  # for a round to end; before the first one Ctrl-C stops at once
        self._handled = _handled(self._caught, signal.SIGINT)

    def __enter__(self) -> Interruptible:
        self._handled.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handled.__exit__(None, None, None)

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
            _stop(number, frame)
        with suppress(OSError):  # the terminal may be what has gone
            self.say("stopping after this round; Ctrl-C again stops at once")


@contextmanager
def as_ctrl_c() -> Iterator[None]:
    """SIGTERM and hangup meanwhile do what Ctrl-C does, so that what a command has changed is put back.

    Otherwise they end the process where it is, and its terminal has no cursor any more.
    """
    with _handled(_stop):
        yield


def status_of(stopped: KeyboardInterrupt) -> int:
    """The exit status by the custom of shells of a command that was stopped.

    >>> status_of(KeyboardInterrupt()), status_of(KeyboardInterrupt(signal.SIGTERM))
    (130, 143)
    """
    return 128 + int(stopped.args[0] if stopped.args else signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


@contextmanager
def _handled(handler: Handler, *more: int) -> Iterator[None]:
    """Has SIGTERM, hangup and more signals handled meanwhile; a hangup that nohup ignores stays ignored."""
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)  # Windows has none
    ignored = signal.getsignal(hangup) is signal.SIG_IGN
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in {*more, signal.SIGTERM} | (set() if ignored else {hangup}):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
