"""A time limit for functions that other people wrote."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from babblegraph.errors import BadInput

SECONDS = 30.0  # that a call of a user's function may take, where nothing else is said

T = TypeVar("T")


class TimeUp(Exception):
    """A function took longer than it may."""


class _Stop(BaseException):
    """Raised inside a function whose time is up; no `except Exception` of its own catches it."""


class TimeLimit:
    """Calls functions in a worker thread and waits so long for each.

    A call that takes longer is left behind: an exception is raised inside it, which ends Python code at its next
    step. What is stuck outside of Python (a long sleep, a foreign library) cannot be ended; it goes on in a thread
    that the process does not wait for at its end. Later calls get a new thread.

    Args:
        seconds: that one call may take.

    >>> TimeLimit(5.0)(sum, [1, 2])
    3
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._worker: _Worker | None = None

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)`; what it raises is raised here.

        Raises:
            TimeUp: it took too long.
        """
        if self._worker is None:
            self._worker = _Worker()
        worker = self._worker
        worker.jobs.put((function, arguments))
        try:
            result, problem = worker.results.get(timeout=self.seconds)
        except BaseException as interruption:  # the time is up, or Ctrl-C: the call is left behind either way
            self._worker = None
            worker.end()
            if isinstance(interruption, Empty):
                raise TimeUp(f"no answer within {self.seconds:g} s") from None
            raise
        if problem is not None:
            raise problem
        return result

    def __del__(self) -> None:
        if self._worker is not None:
            self._worker.jobs.put((_leave, ()))  # the thread ends with its limit


class NoLimit:
    """Calls functions where they are, without a thread, and waits for ever."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)`."""
        return function(*arguments)


def limited(seconds: float | None) -> TimeLimit | NoLimit:
    """How to call a function that may take so many seconds; None for no limit.

    Raises:
        BadInput: a time that is not above zero.
    """
    if seconds is not None and not seconds > 0:
        raise BadInput(f"a time limit must be above zero, got {seconds:g} s: None is no limit")
    return NoLimit() if seconds is None else TimeLimit(seconds)


class _Worker:
    """One thread that runs job after job."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self.results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="babblegraph value function", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Raises `_Stop` in the thread, at the next step of its Python code."""
        self.jobs.put((_leave, ()))  # in case it has just finished
        ident = ctypes.c_ulong(self.thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(_Stop))

    def _run(self) -> None:
        try:
            while True:
                function, arguments = self.jobs.get()
                try:
                    self.results.put((function(*arguments), None))
                except _Stop:
                    raise
                except BaseException as problem:  # also exit(), which would end this thread without a word
                    self.results.put((None, problem))
        except _Stop:
            return


def _leave() -> None:
    raise _Stop
