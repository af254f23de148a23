"""From what a user writes on the command line to prompts, functions and paths."""

from __future__ import annotations

import difflib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from babblegraph.cli.bounds import check_named
from babblegraph.errors import THEIRS, BadInput
from babblegraph.given import is_message

Prompt = str | list[dict[str, str]]  # a text, or the messages of a chat


class Problem(NamedTuple):
    """A prompt, the answer that its line gives (None where it gives none), and where that line is."""

    prompt: Prompt
    answer: Any
    where: str


def read_problems(file: str) -> list[Problem]:
    """What a file asks: prompts one a line, or JSON Lines with "prompt" (or "question") and maybe "answer".

    Args:
        file: its path; `-` is standard input. It is read as JSON Lines if it is named so or begins with `{`. There
            a prompt is a text or a list of chat messages.

    Raises:
        BadInput: no such file, no prompt in it, a table or a list, whose lines are no prompts, or a line that is none.
    """
    try:
        text = _bytes_of(file).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise BadInput(f"--prompts must be a file, got {file!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"a prompts file must be UTF-8, got {file!r}: {error.reason}") from error
    lines = [(f"{file}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise BadInput(f"a prompts file needs a prompt, got none in {file!r}: write one a line")
    if form := _no_lines(file, text):
        raise BadInput(
            f"a prompts file has a prompt a line, or JSON Lines, got {form} in {file!r}: write it as JSON Lines"
        )
    if file.endswith((".jsonl", ".ndjson")) or lines[0][1].lstrip().startswith("{"):
        return [_json_problem(line, where) for where, line in lines]
    return [Problem(line, None, where) for where, line in lines]


def _bytes_of(file: str) -> bytes:
    """What is in a file; of standard input too the bytes, whatever encoding a terminal has."""
    if file != "-":
        return Path(file).read_bytes()
    if sys.stdin is None:
        raise BadInput("--prompts - reads standard input, got it closed: name a file")
    return sys.stdin.buffer.read()


def _no_lines(file: str, text: str) -> str:
    """What else a file holds whose lines are no prompts, though each could be taken for one; empty where they are."""
    if file.lower().endswith((".csv", ".tsv")):
        return "a table"
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            items = json.loads(text)
            if file.lower().endswith(".json") or all(isinstance(item, dict) for item in items):
                return "one JSON list"
    return ""


def check_prompt(prompt: Prompt, where: str = "the prompt") -> Prompt:
    """The prompt itself, if it is one.

    Raises:
        BadInput: an empty text, one that is not Unicode, or a list that is no chat.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise BadInput(f"a prompt must not be empty, got {prompt!r} as {where}: give it some text")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise BadInput(f"a prompt must be UTF-8, got {prompt!r} as {where}: mend its encoding") from None
        return prompt
    if not (isinstance(prompt, list) and prompt and all(map(is_message, prompt))):
        raise BadInput(
            f"a prompt must be a text or a list of messages with role and content, got {where}: mend it"
        )
    return prompt


def load_function(place: str, option: str = "--value") -> Callable[..., Any]:
    """The function that `FILE.py:NAME` names; the file is run, as Python would run it.

    Raises:
        BadInput: no such file, it cannot be run, or it has no such function.
    """
    found = load_name(place, option, "function")
    if not callable(found):
        name = place.rpartition(":")[2]
        raise BadInput(
            f"{option} must name a function, got {name!r}, which is a {type(found).__name__}: name another"
        )
    return found


def load_name(place: str, option: str, kind: str) -> Any:
    """What `FILE.py:NAME` names, such as a function or a task.

    Raises:
        BadInput: no such file, it cannot be run, or it has no such name.
    """
    file, colon, name = place.rpartition(":")
    if not colon or not file or not name:
        raise BadInput(f"{option} must be FILE.py:NAME, got {place!r}: name the file and its {kind}")
    path = Path(file)
    if not path.is_file():
        raise BadInput(f"{option} must name a Python file, got {file!r}: no such file")
    spec = importlib.util.spec_from_file_location(f"babblegraph_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{option} must name a Python file, got {file!r}: let its name end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # so that it can import its neighbours
    try:
        spec.loader.exec_module(module)
    except THEIRS as error:
        said = f"{type(error).__name__}: {error}"
        raise BadInput(f"{option} must name a file that runs, got {file!r}: {said}") from error
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        guess = nearest(name, (n for n in vars(module) if not n.startswith("_")))
        raise BadInput(
            f"{option} must name a {kind} of {file!r}, got {name!r}: {guess or 'it has no such name'}"
        )
    return getattr(module, name)


def check_writable(file: str, option: str, *, whole: bool = True) -> None:
    """Tries, before anything is computed, whether a file can be written.

    Args:
        file: its path.
        option: that names it.
        whole: it is to be written whole or not at all, which pipes and devices cannot be.
    Raises:
        BadInput: it cannot.
    """
    check_named(option, file)
    path = Path(file)
    if path.is_dir():
        raise BadInput(f"{option} must be a file, got the folder {file!r}: add a file name")
    if path.exists() and not path.is_file():
        if whole:
            raise BadInput(f"{option} must be a file, got the pipe or device {file!r}: name a file")
        return
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
        if path.exists():
            path.open("ab").close()
    except OSError as error:
        raise BadInput(
            f"{option} must be a file that can be written, got {file!r}: {error.strerror}"
        ) from error


def check_folder(folder: str, option: str) -> None:
    """Makes a folder where there is none, and tries, before anything is computed, whether it can be written to.

    Raises:
        BadInput: it cannot.
    """
    check_named(option, folder)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"{option} must be a folder that can be written to, got {folder!r} ({error.strerror}): name another"
        ) from error


def from_anywhere(place: str) -> str:
    """A path, or FILE.py:NAME, as it is found from any directory; as it was where it names nothing here.

    >>> from_anywhere("organisation/model-of-a-hub")
    'organisation/model-of-a-hub'
    """
    file, colon, name = place.rpartition(":")
    if colon and Path(file).is_file():
        return f"{Path(file).absolute()}:{name}"
    return str(Path(place).absolute()) if Path(place).exists() else place


def choose(name: str, known: Iterable[str], what: str) -> str:
    """The name itself, if it is known.

    Raises:
        BadInput: it is not; with the nearest that is.
    """
    known = sorted(known)
    if name not in known:
        guess = nearest(name, known) or "choose one of these"
        raise BadInput(f"{what} must be one of {', '.join(known)}, got {name!r}: {guess}")
    return name


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A question about the name that the user may have meant.

    >>> nearest("serch", ["search", "show"])
    "did you mean 'search'?"
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {found[0]!r}?" if found else None


def unescaped(text: str) -> str:
    r"""A text with the escapes that a shell leaves alone: `\n`, `\t`, `\\`.

    >>> unescaped(r"a\nb\\n")
    'a\nb\\n'
    """
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in parts)


def _json_problem(line: str, where: str) -> Problem:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:  # which counts lines from this one
        problem = f"{where} column {error.colno} ({error.msg})"
        raise BadInput(f"a line of JSON Lines must be JSON, got {problem}: mend it") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too many brackets
        raise BadInput(f"a line of JSON Lines must be JSON, got {where} ({error}): mend it") from error
    if not isinstance(found, dict) or not {"prompt", "question"} & set(found):
        got = f" with {', '.join(map(repr, found))}" if isinstance(found, dict) else ""
        raise BadInput(
            f'a line of JSON Lines must be an object with "prompt" or "question", got {where}{got}: add it'
        )
    prompt = found["prompt"] if "prompt" in found else found["question"]
    return Problem(check_prompt(prompt, where), found.get("answer"), where)


def words(given: list[str] | None, option: str) -> tuple[str, ...]:
    """Words of one or more options, each with commas in between.

    Raises:
        BadInput: an option without any.
    """
    found = [[word for word in words.split(",") if word] for words in given or ()]
    if not all(found):
        raise BadInput(f"{option} must be words with commas in between, got none: give one, or leave it out")
    return tuple(word for words in found for word in words)
