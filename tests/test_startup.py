"""What is loaded when: modules are counted, not seconds, so that a busy machine does not matter.

`benchmarks/startup.py` has the seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "rich",
    "textual",
    "accelerate",
    "peft",
    "networkx",
    "pandas",
    "scipy",
)
LIGHT = [
    "import babblegraph",
    "from babblegraph import BabbleGraph, BadInput, Budget",
    "from babblegraph import babble, rounds, search, Countdown",
    "from babblegraph.scoring import Score, likelihood, entropy_to_go",
    "from babblegraph.strategies import babble, best_of_n, frontier",
    "from babblegraph import estimate, prune, stem, loop, graph_file",
    "import babblegraph.cli.main",
]


def loaded_after(*statements: str) -> list[list[str]]:
    """The modules that are there after each of some statements, in one new process."""
    code = "import json, sys\n" + "\n".join(
        f"{s}\nprint(json.dumps(sorted(sys.modules)))" for s in statements
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("statement", LIGHT)
def test_nothing_heavy_is_loaded_before_a_model_is_asked_for(statement: str) -> None:
    (found,) = loaded_after(statement)
    assert not {m.split(".")[0] for m in found} & set(HEAVY)


def test_the_package_alone_loads_next_to_nothing() -> None:
    nothing, package = loaded_after("pass", "import babblegraph")
    found = set(package) - set(nothing)
    assert {m for m in found if m.startswith("babblegraph")} == {"babblegraph"}
    assert "numpy" not in found


@pytest.mark.slow
def test_a_model_loads_nothing_that_transformers_would_not_load() -> None:
    theirs = (
        "from transformers import AutoTokenizer, LlamaForCausalLM, AttentionInterface, AutoModelForCausalLM"
    )
    plain, ours = loaded_after(theirs, "from babblegraph import Babbler")
    extra = set(ours) - set(plain)
    rooms = {m.split(".")[0] for m in extra} - {
        "babblegraph",
        "safetensors",
        "numpy",
        *sys.stdlib_module_names,
    }
    assert rooms <= {"transformers", "torch"}
    assert len([m for m in extra if not m.startswith("babblegraph")]) <= 25
