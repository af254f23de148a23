"""The command `babblegraph`: finds the command, runs it, and turns every error into one line.

Nothing here or in the modules that this one imports loads torch: help and errors come at once.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer
import typer.main

from babblegraph import __version__
from babblegraph.cli.estimate import estimate
from babblegraph.cli.export import export
from babblegraph.cli.interrupt import as_ctrl_c, status_of
from babblegraph.cli.lines import complain
from babblegraph.cli.loading import nearest
from babblegraph.cli.search import search
from babblegraph.cli.show import show
from babblegraph.cli.train import train
from babblegraph.cli.train_reward import train_reward
from babblegraph.cli.train_value import train_value
from babblegraph.errors import BadInput

DONE, BAD_INPUT, BROKEN_PIPE, BUG = 0, 2, 141, 70  # exit statuses; 1 is "no answer"
COMMANDS: dict[str, Callable[..., Any]] = {
    "search": search,
    "estimate": estimate,
    "show": show,
    "export": export,
    "train": train,
    "train-value": train_value,
    "train-reward": train_reward,
}

EXTRA = re.compile(r"unexpected extra argument.* \((.*)\)$")  # as click says it

app = typer.Typer(
    name="babblegraph",
    help="Tree-search decoding of language models: babble a lot, prune hard, and look at the graph.",
    add_completion=False,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: the arguments after the command's name; those of the process by default.
    Returns:
        The exit status: 0 done, 1 a prompt has no answer (that passes), 2 bad input, 70 a bug, 130 interrupted
        (143 by SIGTERM, 129 by hangup), 141 a closed pipe.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: what would go there is for nobody
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    try:
        with as_ctrl_c():
            status = _run([a for a in arguments if a != "--debug"])
            sys.stdout.flush()
            return status
    except KeyboardInterrupt as stopped:
        return _complain("interrupted", status_of(stopped))
    except BrokenPipeError:  # whoever read our output has enough; Python would complain once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except typer.Exit as done:
        return int(done.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _complain(*_in_one_line(error, arguments))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; works after a command too.")
    ] = False,
) -> None:
    if show_version:
        print(f"babblegraph {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def _run(arguments: list[str]) -> int:
    command = next((a for a in arguments if not a.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        raise BadInput(_no_such_command(command))
    parser: Any = typer.main.get_command(app)
    with parser.make_context("babblegraph", arguments) as context:
        status = parser.invoke(context)
    return DONE if status is None else int(status)


def _no_such_command(name: str) -> str:
    guess = nearest(name, COMMANDS) or f"for a search write babblegraph search {name!r}"
    return f"a command must be one of {', '.join(COMMANDS)}, got {name!r}: {guess}"


def _in_one_line(error: Exception, arguments: Sequence[str]) -> tuple[str, int]:
    """What went wrong, and the exit status."""
    if isinstance(error, BadInput):
        return str(error), BAD_INPUT
    if isinstance(error, typer.BadParameter.__mro__[1]):  # click's UsageError, wherever typer keeps it
        return _usage(error, arguments), BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        name = f" {error.filename!r}" if error.filename else ""
        return f"a file must be readable or writable, got{name}: {error.strerror}", BAD_INPUT
    hint = "" if "--debug" in arguments else "; --debug shows where"
    return f"internal error: {type(error).__name__}: {error}{hint}", BUG


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """click's message with the value that it complains of; for an unknown option the nearest that there is."""
    message, context = str(error.format_message()).rstrip("."), error.ctx
    path = " ".join(["babblegraph", *[a for a in arguments if a in COMMANDS][:1]])
    parameter = getattr(error, "param", None)
    if type(error).__name__ == "NoSuchOption" and context is not None:
        known = [o for p in context.command.params for o in p.opts if o.startswith("-")]
        guess = nearest(error.option_name, known) or f"{path} --help lists them"
        return f"an option must be one of those of {path}, got {error.option_name!r}: {guess}"
    if type(error).__name__ == "MissingParameter" and parameter is not None:
        name = next(
            (o for o in parameter.opts if o.startswith("--")), (parameter.metavar or parameter.name).upper()
        )
        return f"{name} must be given, got none: {path} --help says what it is"
    names = () if parameter is None else parameter.opts
    split = [a.partition("=")[::2] for a in arguments if a.partition("=")[0] in names and "=" in a]
    if given := [value for option, value in pairwise(arguments) if option in names] or [v for _, v in split]:
        return f"{message}, got {given[-1]!r:.80}"  # of several the last one counts
    if found := EXTRA.search(message):
        if not any(p.param_type_name == "argument" for p in context.command.params):
            return f"{path} takes options only, got {found[1]!r:.80}: {path} --help lists them"
        return f"a prompt or file must be one word, got more ({found[1]}): put quotes around all of it"
    return f"{message}: {path} --help says what it takes"


def _complain(message: str, status: int) -> int:
    complain(message)
    return status
