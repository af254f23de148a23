"""The one-way street between rooms: who may import whom, read from the source without running it.

A room is a module of the package or one of its folders. Every import counts, also inside functions and for
types only; `LAZY` lists the few that are allowed only inside a function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "babblegraph"
EVERYTHING = "*"

BASE = {"errors", "clean", "status", "randomness", "born", "budget", "graph", "protocols"}
ALLOWED: dict[str, set[str]] = {
    "__init__": {EVERYTHING},
    "errors": set(),
    "given": {"errors"},
    "status": set(),
    "randomness": {"errors"},
    "clean": set(),
    "born": {"status"},
    "budget": {"errors"},
    "columns": set(),
    "graph": {"born", "columns", "status", "randomness", "errors"},
    "graph_check": {"graph", "status", "errors"},
    "graph_file": {"graph", "graph_check", "status", "errors"},
    "subtrees": {"graph", "status"},
    "step_text": {"graph", "status"},
    "at_once": {"errors"},
    "side_by_side": {"at_once"},
    "processes": {"errors"},
    "history": {"graph", "status", "errors"},
    "page": {"clean", "graph", "status", "step_text", "subtrees"},
    "compare": {"graph", "subtrees", "errors"},
    "export": {"graph", "status", "errors"},
    "protocols": {"born", "budget", "errors", "graph", "randomness"},
    "loop": {"closing", "given", "protocols", "budget", "graph", "randomness", "errors", "born", "status"},
    "resample": set(),
    "prune": {"resample", "protocols", "graph", "budget", "randomness", "errors", "status"},
    "stem": {"graph", "born", "randomness", "status", "errors"},
    "closing": {"prune", "protocols", "graph", "budget", "randomness", "status"},
    "intervals": {"errors"},
    "doubts": set(),
    "why_not": {"graph", "status"},
    "ordering": {"graph", "errors"},
    "thresholds": {"estimates", "why_not", "graph", "errors"},
    "particles": {"protocols", "graph", "budget", "randomness", "errors"},
    "splitting": {
        "particles",
        "thresholds",
        "estimates",
        "intervals",
        "doubts",
        "given",
        "protocols",
        "graph",
        "errors",
    },
    "estimates": {
        "doubts",
        "why_not",
        "given",
        "intervals",
        "protocols",
        "graph",
        "budget",
        "randomness",
        "errors",
        "status",
    },
    "votes": {"graph", "status"},
    "outcome": {"errors", "graph", "intervals", "protocols", "status", "votes"},
    "gates": {"graph", "intervals", "status"},
    "passes": {"estimates", "intervals", "graph", "errors"},
    "strategies": {"loop", "given", "prune", "resample", "stem", "ordering", "votes", *BASE},
    "extract": set(),
    "tasks": {"errors", "extract", "protocols"},
    "lm": {
        "at_once",
        "given",
        "protocols",
        "graph",
        "budget",
        "born",
        "resample",
        "status",
        "errors",
        "randomness",
    },
    "scoring": {"protocols", "graph", "budget", "status", "errors", "randomness", "lm", "side_by_side"},
    "embedded": {"tasks", "lm", "errors"},
    "api": {"loop", "given", "strategies", "scoring", "tasks", "lm", "estimates", "outcome"} | BASE,
    "api_estimate": {"api", "given", "loop", "strategies", "scoring", "estimates", "splitting"} | BASE,
    "drop_in": {"given", "api", "lm", "scoring"} | BASE,
    "learning": {
        "given",
        "loop",
        "strategies",
        "scoring",
        "lm",
        "estimates",
        "why_not",
        "thresholds",
        "intervals",
        "resample",
        "at_once",
        "side_by_side",
        "processes",
    }
    | BASE,
    "api_cem": {"api", "learning", "lm"} | BASE,
    "view": {
        "loop",
        "outcome",
        "estimates",
        "why_not",
        "learning",
        "subtrees",
        "step_text",
        "history",
        "compare",
    }
    | BASE,
    "explore": {"view", "history", "subtrees", "step_text"} | BASE,
    "cli": {EVERYTHING},
    "__main__": {"cli"},
}
LAZY = {"graph": {"graph_file", "export", "page"}}

HEAVY = {
    *(
        "torch",
        "transformers",
        "tokenizers",
        "rich",
        "textual",
        "accelerate",
        "peft",
        "trl",
        "datasets",
        "scipy",
    ),
}
LIGHT = {
    "given",
    "columns",
    "processes",
    "graph_check",
    "graph_file",
    "export",
    "subtrees",
    "step_text",
    "history",
    "compare",
    "page",
    "resample",
    "prune",
    "stem",
    "closing",
    "intervals",
    "doubts",
    "why_not",
    "estimates",
    "ordering",
    "thresholds",
    "gates",
    "passes",
    "votes",
    "extract",
    "outcome",
    "particles",
    "splitting",
    "loop",
    "strategies",
    "tasks",
} | BASE


class Import(NamedTuple):
    """One imported module, by its full name, and where it stands."""

    module: str
    line: int
    lazy: bool


def test_every_room_imports_only_what_it_may() -> None:
    wrong = [f"{path.relative_to(PACKAGE)}: {what}" for path in sources() for what in wrongs(path)]
    assert not wrong, "\n".join(wrong)


def test_every_room_of_the_package_is_in_the_table() -> None:
    assert {room_of(path) for path in sources()} <= ALLOWED.keys()


def test_the_table_itself_is_a_one_way_street() -> None:
    """No circle among the rooms, so that each can be read and tested without those above it."""
    open_rooms = {room: set(allowed) - {EVERYTHING} for room, allowed in ALLOWED.items()}
    while free := {room for room, needs in open_rooms.items() if not needs & open_rooms.keys()}:
        open_rooms = {room: needs for room, needs in open_rooms.items() if room not in free}
    assert not open_rooms


def test_a_light_room_never_lets_a_heavy_one_in_by_the_back_door() -> None:
    for room in LIGHT:
        assert ALLOWED[room] | LAZY.get(room, set()) <= LIGHT


@pytest.mark.parametrize(
    ("path", "code", "found"),
    [
        ("graph.py", "import torch", "torch"),
        ("graph.py", "import torch.nn.functional as F", "torch.nn.functional"),
        ("graph.py", "def f():\n    from torch import nn", "torch"),
        ("graph_file.py", "from safetensors.torch import load", "safetensors.torch"),
        ("graph_file.py", "from safetensors import torch", "safetensors.torch"),
        ("tasks/mine.py", "import transformers", "transformers"),
        ("strategies/mine.py", "import importlib\nimportlib.import_module('rich.tree')", "rich.tree"),
        ("estimates.py", "__import__('torch')", "torch"),
        ("graph.py", "from babblegraph.loop import search", "loop"),
        ("graph.py", "from babblegraph import loop", "loop"),
        ("graph.py", "import babblegraph.loop", "loop"),
        ("graph.py", "from . import loop", "loop"),
        ("graph.py", "from .loop import search", "loop"),
        (
            "graph.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import babblegraph.loop",
            "loop",
        ),
        ("graph.py", "from babblegraph.graph_file import save", "graph_file"),
        ("graph.py", "try:\n    from babblegraph.export import to_dot\nexcept ImportError: ...", "export"),
        ("graph.py", "class A:\n    from babblegraph.export import to_dot", "export"),
        ("view/tree.py", "from babblegraph.api import Result", "api"),
        ("view/tree.py", "from ..api import Result", "api"),
        ("scoring/value.py", "def f():\n    from babblegraph.strategies.beam import beam", "strategies"),
        ("lm/babbler.py", "from babblegraph.scoring import value", "scoring"),
        ("lm/babbler.py", "import babblegraph as bg", "__init__"),
        ("lm/babbler.py", "from babblegraph import Babbler", "__init__"),
        ("attic.py", "import numpy", "attic"),
        ("attic/old.py", "", "attic"),
        ("lm/babbler.py", "from babblegraph.attic import old", "attic"),
    ],
)
def test_a_planted_bad_import_is_caught(path: str, code: str, found: str, tmp_path: Path) -> None:
    source = planted(tmp_path, path, code)
    assert found in "\n".join(wrongs(source, tmp_path)).replace("'", " ").split()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("graph.py", "import numpy as np\nfrom babblegraph.born import Born"),
        ("graph.py", "def save():\n    from babblegraph.graph_file import save"),
        ("graph_file.py", "import safetensors.numpy\nfrom safetensors import safe_open"),
        (
            "lm/babbler.py",
            "import torch\nfrom babblegraph.lm.store import Store\nfrom . import trie\nfrom .trie import a",
        ),
        ("tasks/mine.py", "# import torch\n'import torch'"),
        ("cli/main.py", "import torch\nfrom babblegraph import api, view\nimport babblegraph as bg"),
        ("__init__.py", "from babblegraph.api import babble"),
        ("lm/__init__.py", "from .babbler import Babbler\nfrom ..graph import BabbleGraph"),
    ],
)
def test_an_allowed_import_is_not_caught(path: str, code: str, tmp_path: Path) -> None:
    assert list(wrongs(planted(tmp_path, path, code), tmp_path)) == []


def wrongs(path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """Says what a file imports that its room may not."""
    room = room_of(path, package)
    if room not in ALLOWED:
        yield f"the room '{room}' is not in the table: add it to ALLOWED with what it may import"
        return
    for module, line, lazy in imports(path, package):
        top = module.split(".")[0]
        if room in LIGHT and (top in HEAVY or module.startswith("safetensors.torch")):
            yield f"line {line}: '{room}' must stay light, but imports '{module}'"
        if top == "babblegraph":
            other = module.split(".")[1] if "." in module else "__init__"
            allowed = ALLOWED[room] | {room} | (LAZY.get(room, set()) if lazy else set())
            if other not in allowed and EVERYTHING not in allowed:
                yield f"line {line}: '{room}' may not import '{other}'"


def imports(path: Path, package: Path) -> Iterator[Import]:
    """Every import of a file: statements and calls with a constant name, at any depth."""
    here = ["babblegraph", *path.relative_to(package).with_suffix("").parts]
    for node, lazy in walk(ast.parse(path.read_text("utf-8")), lazy=False):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(
                [*(here[: -node.level] if node.level else []), *([node.module] if node.module else [])]
            )
            for alias in node.names:
                yield Import(target(base, alias.name), node.lineno, lazy)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield Import(str(node.args[0].value), node.lineno, lazy)


def target(base: str, name: str) -> str:
    """`from babblegraph import graph` is from a room, `from babblegraph import Result` from the package."""
    is_room = base == "babblegraph" and name in ALLOWED
    return f"{base}.{name}" if is_room or base == "safetensors" else base


def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes below one, and whether each runs only when a function is called."""
    yield node, lazy
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from walk(child, inside)


def room_of(path: Path, package: Path = PACKAGE) -> str:
    return path.relative_to(package).with_suffix("").parts[0]


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def planted(package: Path, path: str, code: str) -> Path:
    (package / path).parent.mkdir(parents=True, exist_ok=True)
    (package / path).write_text(code, "utf-8")
    return package / path
