"""Options that several commands have, declared once: their types, names and help."""

from __future__ import annotations

from typing import Annotated

import typer

from babblegraph.cli.options import BUDGET, FILES, HOW, WHAT, WORTH

Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="countdown …, answers (with --prompts), or FILE.py:NAME.", rich_help_panel=WHAT
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help='One a line, or JSON Lines with "prompt" and maybe "answer".',
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="A folder or hub name of a causal language model.", rich_help_panel=WHAT),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, …", rich_help_panel=WHAT)]
TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Let code from the models' folders run.", rich_help_panel=WHAT),
]
RewardModel = Annotated[str | None, typer.Option(help="A sequence classifier.", rich_help_panel=WORTH)]
Good = Annotated[
    list[str] | None,
    typer.Option(metavar="WORDS", help="Its good verdicts, with commas.", rich_help_panel=WORTH),
]
Bad = Annotated[
    list[str] | None, typer.Option(metavar="WORDS", help="Its bad verdicts.", rich_help_panel=WORTH)
]
Threshold = Annotated[
    float | None,
    typer.Option(help="What a score has to reach; 1 with a task.", rich_help_panel=WORTH),
]
Seconds = Annotated[float | None, typer.Option(help="Wall time in all.", rich_help_panel=BUDGET)]
Span = Annotated[int | None, typer.Option(help="Tokens of a node, at most.", rich_help_panel=HOW)]
MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens of an answer, at most.", rich_help_panel=HOW)]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same graph.", rich_help_panel=HOW)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object only.", rich_help_panel=FILES)]
ValueFunction = Annotated[
    str | None,
    typer.Option(metavar="FILE.py:NAME", help="A Python function of texts.", rich_help_panel=WORTH),
]
Chat = Annotated[
    bool, typer.Option("--chat", help="Prompts are what a user says in a chat.", rich_help_panel=WHAT)
]
System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the system says first.", rich_help_panel=WHAT)
]
ProcessModel = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="A token classifier that scores steps.", rich_help_panel=WORTH),
]
Separator = Annotated[
    str | None,
    typer.Option(help="What it reads behind each step; a line end by default.", rich_help_panel=WORTH),
]
Aggregate = Annotated[
    str | None, typer.Option(help="Of its steps: min, product, mean or last.", rich_help_panel=WORTH)
]
Vote = Annotated[
    str | None,
    typer.Option(
        metavar="BY",
        help="Texts vote by their answer, boxed, last-line, last-number, or FILE.py:NAME.",
        rich_help_panel=WORTH,
    ),
]
Blind = Annotated[
    bool, typer.Option("--blind", help="The verifier only marks the answers.", rich_help_panel=WORTH)
]
Together = Annotated[
    int | None, typer.Option(help="Prompts searched side by side; 32 by default.", rich_help_panel=HOW)
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(metavar="GB", help="Of keys and values, at most.", rich_help_panel=BUDGET),
]
