"""What is asked: the task that `--task` names, the prompts, and what `--chat` makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from babblegraph.cli.loading import Problem, Prompt, check_prompt, choose, load_name
from babblegraph.errors import THEIRS, BadInput
from babblegraph.tasks import TASKS, Answers

if TYPE_CHECKING:
    from babblegraph.cli.options import SearchOptions

ANSWERS = "answers"


def task_of(name: str | None, problems: Sequence[Problem], saved: dict[str, str] | None = None) -> Any:
    """The task of a name; None where there is none.

    Args:
        name: of a task, `answers`, or FILE.py:NAME.
        problems: with answers, for `answers`.
        saved: what a resumed graph remembers of them.

    Raises:
        BadInput: no such task, a problem without an answer, or a name of a file that is no task.
    """
    if name is None:
        return None
    if ".py:" in name or name.endswith(".py"):
        return _own(name)
    if choose(name, [*TASKS, ANSWERS], "--task") == ANSWERS:
        return Answers(saved) if saved else _answers(problems)
    return TASKS[name]()


def prompts_of(options: SearchOptions, task: Any, problems: Sequence[Problem]) -> list[Prompt]:
    """What to babble about: the file's prompts, the one that was typed, or the task's own.

    Raises:
        BadInput: there is none, or one that the task does not take.
    """
    try:
        return _prepared(options, task, problems)
    except BadInput:
        raise
    except THEIRS as problem:
        said = f"{type(problem).__name__}: {problem}"
        raise BadInput(
            f"a task must list its prompts and prepare each, got {options.task!r}: {said}"
        ) from problem


def _prepared(options: SearchOptions, task: Any, problems: Sequence[Problem]) -> list[Prompt]:
    if problems:
        found = [problem.prompt for problem in problems]
    elif options.prompt is not None:
        found = [options.prompt]
    else:
        found = list(getattr(task, "prompts", ()))
    if not found:
        raise BadInput(
            "a search needs a prompt, got none: write it after `search`, or use --prompts or --task"
        )
    for prompt in found:
        check_prompt(prompt)
        if isinstance(prompt, str) and hasattr(task, "prepare"):
            task.prepare(prompt)
    return found


def as_chats(prompts: Sequence[Prompt], task: Any, system: str | None) -> list[Prompt]:
    """Each text as what a user says in a chat, prepared by the task; chats are as they are.

    >>> as_chats(["1+1?"], None, "Be brief.")
    [[{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': '1+1?'}]]
    """
    prepare = getattr(task, "prepare", None)
    before = [] if system is None else [{"role": "system", "content": system}]
    return [
        [*before, {"role": "user", "content": p if prepare is None else prepare(p)}]
        if isinstance(p, str)
        else p
        for p in prompts
    ]


def question_of(prompt: Prompt) -> str:
    """What a prompt asks: the text, or what the user said last in a chat."""
    if isinstance(prompt, str):
        return prompt
    said = [m["content"] for m in prompt if m["role"] == "user"]
    return str(said[-1] if said else prompt[-1]["content"])


def asked_of(prompts: Sequence[Prompt], read: Sequence[str], chat: bool) -> dict[str, str]:
    """What was asked, by prompts as a model reads them, where a chat template has made these.

    Args:
        prompts: as the user gave them.
        read: the same as the model reads them.
        chat: whether texts were made into chats, too.
    """
    pairs = zip(prompts, read, strict=True)
    return {text: question_of(prompt) for prompt, text in pairs if chat or not isinstance(prompt, str)}


def _answers(problems: Sequence[Problem]) -> Answers:
    if not problems:
        raise BadInput("--task answers needs problems with answers, got none: add --prompts FILE.jsonl")
    for _, answer, where in problems:
        if answer is None or isinstance(answer, bool) or not isinstance(answer, str | int | float):
            got = "none" if answer is None else repr(answer)
            raise BadInput(f'a problem needs "answer", a text or a number, got {got:.40} at {where}: add it')
    try:
        return Answers((question_of(prompt), answer) for prompt, answer, _ in problems)
    except BadInput as wrong:
        raise BadInput(f"{problems[0].where.rpartition(':')[0]}: {wrong}") from wrong


def _own(place: str) -> Any:
    """An object with a verifier; a class is made into one, without arguments."""
    found = load_name(place, "--task", "task")
    if isinstance(found, type):
        try:
            found = found()
        except THEIRS as error:
            said = f"{type(error).__name__}: {error}"
            raise BadInput(
                f"--task must name a class that needs no arguments, got {place!r}: {said}"
            ) from error
    if not callable(getattr(found, "verify", None)):
        kind = type(found).__name__
        raise BadInput(f"a task must have verify(prompt, text), got {place!r}, which is a {kind}: add it")
    return found
