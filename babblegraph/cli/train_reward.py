"""`babblegraph train-reward`: a reward model from comparisons."""

from __future__ import annotations

from typing import Annotated

import typer

from babblegraph.cli.bounds import check_positive, check_seed
from babblegraph.cli.declared import Device, Json, TrustRemoteCode
from babblegraph.cli.lines import one_line
from babblegraph.cli.loading import check_folder
from babblegraph.cli.options import FILES, HOW, WHAT


def train_reward(
    comparisons: Annotated[
        str, typer.Argument(metavar="FILE", help='JSON Lines with "prompt", "chosen" and "rejected".')
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The language model that it begins as, a folder or hub name.", rich_help_panel=WHAT
        ),
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the model goes.", rich_help_panel=FILES)],
    template: Annotated[
        str,
        typer.Option(help="How a prompt and a text are laid out; chat for a chat's.", rich_help_panel=HOW),
    ] = "{prompt}{text}",
    epochs: Annotated[float, typer.Option(help="Passes over the comparisons.", rich_help_panel=HOW)] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Comparisons a step.", rich_help_panel=HOW)] = 8,
    rate: Annotated[float, typer.Option(help="Learning rate.", rich_help_panel=HOW)] = 1e-5,
    held_out: Annotated[
        float, typer.Option(help="Share of prompts that only measure.", rich_help_panel=HOW)
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of split, head and order.", rich_help_panel=HOW)] = 0,
    device: Device = None,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
) -> int:
    """Train a reward model from comparisons; `babblegraph search --reward-model DIR` then searches with it."""
    for name, number in (("--epochs", epochs), ("--batch-size", batch_size), ("--rate", rate)):
        check_positive(name, number)
    check_seed(seed)
    check_folder(out, "--out")
    from transformers.utils import logging

    from babblegraph.cli.output import aside
    from babblegraph.scoring import train_reward as room

    logging.disable_progress_bar()
    pairs = room.read_comparisons(comparisons)
    with aside(json):  # the trainer prints its figures
        found = room.train_reward(
            pairs,
            model,
            out,
            template=template,
            held_out=held_out,
            epochs=epochs,
            batch_size=batch_size,
            rate=rate,
            seed=seed,
            device=device,
            trust_remote_code=trust_remote_code,
        )
    if json:
        print(one_line({"folder": out, "template": template, **found._asdict()}))
        return 0
    right = (
        "" if found.accuracy is None else f", {found.accuracy:.1%} of {found.held_out} held-out ones right"
    )
    print(f"trained on {found.comparisons} comparisons{right}; saved in {out}")
    return 0
