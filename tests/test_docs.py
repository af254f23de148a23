"""The documents: their commands run, their options exist, their pictures are there and need nothing from outside."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.dom import minidom

import pytest
import typer.main

from babblegraph.cli.main import app, main
from babblegraph.view.signs import UNICODE

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def commands(page: Path) -> list[list[str]]:
    """The arguments of every command in a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_of_the_tutorial_runs_in_order(tmp_path: Path, monkeypatch, capsys) -> None:
    """In this process, which has loaded torch already."""
    found = commands(DOCS / "tutorial.md")
    assert len(found) > 8
    monkeypatch.chdir(tmp_path)
    for arguments in found:
        status = main(arguments)
        said = capsys.readouterr().err
        if "--interactive" in arguments:
            assert "--interactive needs a terminal" in said
            continue
        nothing_passed = status == 1 and arguments[0] == "search"
        assert status == 0 or nothing_passed, said
    names = {"first.bg", "run", "second.bg", "second.html", "second.svg"}
    assert {f.name for f in tmp_path.iterdir()} == names


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_options_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    known = {o for c in typer.main.get_command(app).commands.values() for p in c.params for o in p.opts}
    ours = re.sub(r"`python [^`]*`", "", text)  # scripts have options of their own
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]*", ours)) <= known
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (DOCS / link).is_file(), link


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.svg")), ids=lambda p: p.name)
def test_a_picture_is_whole_is_used_and_asks_nobody(picture: Path) -> None:
    text = picture.read_text("utf-8")
    minidom.parseString(text)
    assert "url(http" not in text
    assert "@import" not in text
    assert "href" not in text
    pages = [*PAGES, DOCS.parent / "README.md"]
    assert picture.name == "search-narrow.svg" or any(picture.name in p.read_text("utf-8") for p in pages)


def test_the_guide_explains_every_sign() -> None:
    guide = (DOCS / "guide.md").read_text("utf-8")
    signs = {*UNICODE.status.values(), UNICODE.passed, UNICODE.again, *UNICODE.controls.values()}
    assert all(sign in guide for sign in signs)
