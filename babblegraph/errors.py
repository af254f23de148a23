"""Errors that a user can mend: one line that states the rule, the value got and the fix."""


class BadInput(ValueError):
    """Something the user gave cannot be used. The command prints it as one line and exits with status 2."""


class GraphFileError(BadInput):
    """A graph file is damaged, foreign or from another version."""
