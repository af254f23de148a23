"""The tutorial's commands do what it says, in its order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from babblegraph.cli.main import main

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


@pytest.mark.slow
def test_the_tutorials_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text("utf-8"), flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 8
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "babblegraph"
        status = main(arguments)
        said = capsys.readouterr()
        learned = "run/levels" in command  # what has just begun to learn may fail to solve
        assert status == 0 or (learned and status == 1), f"{command}: {said.err}"
    assert (tmp_path / "first.html").stat().st_size > 10_000
