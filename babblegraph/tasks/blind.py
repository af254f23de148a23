"""A task whose verifier has no say in the search, so that it can mark the answers fairly afterwards."""

from __future__ import annotations

from typing import Any


class Blind:
    """What a task knows but for its verifier: where steps end, when a text is over, what is dead, what is equal.

    A verifier that is asked during a search ends it at the first answer that passes; then the share of prompts that
    pass says what can be solved by somebody who knows the answers. With a blind task a value or a vote chooses, and
    `outcome.mark` says how many of the chosen answers are right.

    Args:
        task: with all its other methods.

    >>> from babblegraph.tasks import Answers
    >>> task = Blind(Answers({"6 * 7?": "42"}))
    >>> task.name, task.verify, task.done("6 * 7?", "#### 41\\n")
    ('answers', None, True)
    """

    verify = None

    def __init__(self, task: Any) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # not there yet, as in a copy that is being made
            raise AttributeError(name)
        return getattr(self.task, name)
