"""Where text goes: a rich console that takes generated text literally."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


class PlainConsole(Console):
    """A console without markup, emoji codes or highlighting, that raises when its pipe is closed.

    Args:
        stderr: write to standard error.
        width: in cells where the output is no terminal; rich's default otherwise.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if width is not None and not self.is_terminal:
            self.width = width

    def on_broken_pipe(self) -> NoReturn:
        """rich would exit with status 1, which here means that no answer passes."""
        raise BrokenPipeError
