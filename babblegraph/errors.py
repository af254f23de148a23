"""Errors that a user can mend: one line that states the rule, the value got and the fix."""


class BadInput(ValueError):
    """Something the user gave cannot be used. The command prints it as one line and exits with status 2."""


class GraphFileError(BadInput):
    """A graph file is damaged, foreign or from another version."""


def first_line(problem: BaseException) -> str:
    """What an error of somebody else's says, in one line; its kind where it says nothing.

    >>> first_line(ValueError("no such file\\nhint: look again")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
