"""The documents: their commands run, their options exist, their pictures are there and need nothing from outside."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from xml.dom import minidom

import pytest
import typer.main
from tiny_models import byte_tokenizer, tiny_llama, with_loud_weights
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaForTokenClassification

from babblegraph.cli.main import app, main
from babblegraph.view.signs import UNICODE

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def commands(page: Path) -> list[list[str]]:
    """The arguments of every command in a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return [shlex.split(line, comments=True)[1:] for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_of_the_tutorial_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands(DOCS / "tutorial.md")
    assert len(found) > 8
    monkeypatch.chdir(tmp_path)
    for arguments in found:  # in this process: loading torch a dozen times would take most of the time
        status, said = main(arguments), capsys.readouterr()
        if "--interactive" in arguments:
            assert "--interactive needs a terminal" in said.err
            continue
        nothing_passed = status == 1 and arguments[0] == "search"
        assert status == 0 or nothing_passed, (arguments, said.err)
        assert said.out or arguments[0] == "export"
    names = {"first.bg", "run", "second.bg", "second.html", "second.svg"}
    assert {f.name for f in tmp_path.iterdir()} == names


@pytest.mark.slow
def test_every_command_and_block_of_own_model_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "own-model.md").read_text("utf-8")
    rows = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    Path("problems.jsonl").write_text(rows[0], "utf-8")
    Path("held.jsonl").write_text('{"question": "What is 2 and 2?", "answer": 4}\n', "utf-8")
    quantized, answers, mine = blocks
    Path("mine.py").write_text(mine, "utf-8")
    chat_models(tmp_path)
    capsys.readouterr()
    asked = commands(DOCS / "own-model.md")
    assert (len(asked), len(rows), len(blocks)) == (9, 1, 3)
    for arguments in asked:
        short = ["--max-new-tokens", "16"]  # random weights never end a text
        short += [] if "--tokens" in arguments else ["--tokens", "256"]
        status = main([*arguments, *(short if arguments[0] == "search" else [])])
        said = capsys.readouterr()
        nothing_passed = status == 1 and not {"--vote", "--blind"} & set(arguments)
        assert status == 0 or nothing_passed, (arguments, said.err)
        assert said.out
        if arguments[0] == "search" and "--json" not in arguments and "answers" in arguments:
            assert " of 2 prompts right" in said.out
    exec(compile(answers.replace("512", "16"), "own-model.md", "exec"), {})
    assert "Tally(hits=" in capsys.readouterr().out
    if find_spec("bitsandbytes"):
        exec(compile(quantized, "own-model.md", "exec"), {})


def chat_models(folder: Path) -> None:
    """A tiny chat model and reward models of both kinds, in the folders that the page names."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<turn>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>assistant: {% endif %}"
    )
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "vocab_size": len(tokenizer)}
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(num_labels=2, max_position_embeddings=512, **sizes, **special)
    models = {
        "model": tiny_llama(tokenizer, context=256),
        "reward": with_loud_weights(LlamaForSequenceClassification(config), 3),
        "process": with_loud_weights(LlamaForTokenClassification(config), 3),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=lambda p: p.name)
def test_options_and_links_of_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    known = {o for c in typer.main.get_command(app).commands.values() for p in c.params for o in p.opts}
    ours = re.sub(r"`python [^`]*`", "", text)  # scripts have options of their own
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]*", ours)) <= known
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / link).is_file(), link
    for script in re.findall(r"python ((?:benchmarks|docs)/\w+\.py)", text):
        assert (DOCS.parent / script).is_file(), script


def test_every_command_of_the_readme_is_one_that_the_program_reads() -> None:
    parser = typer.main.get_command(app)
    asked = [a for a in commands(DOCS.parent / "README.md") if a and a[0] in parser.commands]
    assert {a[0] for a in asked} == {"search", "show", "export", "estimate", "train"}
    for name, *arguments in asked:
        with parser.commands[name].make_context(name, arguments) as context:  # unknown options raise
            assert not context.args


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
