"""Errors that a user can mend: one line that states the rule, the value got and the fix."""

THEIRS = (Exception, SystemExit)  # what a user's function may raise: it may call exit(), which ends no search


class BadInput(ValueError):
    """Something the user gave cannot be used. The command prints it as one line and exits with status 2."""


class NoRoom(BadInput):
    """The memory does not hold the paths that are expanded together."""


class GraphFileError(BadInput):
    """A graph file is damaged, foreign or from another version."""


def first_line(problem: BaseException) -> str:
    """What an error of somebody else's says, in one line; its kind where it says nothing.

    >>> first_line(ValueError("no such file\\nhint: look again")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]


def is_lack_of_memory(problem: BaseException) -> bool:
    """Whether there is no memory for something: `NoRoom`, torch's own error, or that of a CPU's allocator.

    >>> is_lack_of_memory(RuntimeError("can't allocate memory: you tried …")), is_lack_of_memory(ValueError())
    (True, False)
    """
    name = type(problem).__name__
    return isinstance(problem, NoRoom) or name == "OutOfMemoryError" or "allocate memory" in str(problem)
