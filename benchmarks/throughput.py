"""How fast is the tree, against every other way to decode many continuations of a prompt?

One model, the same prompts, the same number of sampled tokens. Flat work is `rows` continuations of one prompt,
64 tokens each. Forked work is three levels of 32 tokens: a quarter of the rows survives each level and has four
children, so that `generate` must start again from the survivors' tokens, or have its cache reordered.

The models: a Llama shaped like SmolLM with 22M random weights, and the generator that ships with the package with
its own short prompts; both in fp32. No token ends a text (`peers/*.py` say how for each decoder), so that all
sample the same number.

tokens/s     delivered tokens over all seconds, prefills included
÷ generate   tokens/s over those of `generate(num_return_sequences=rows)` in the same round of runs
ms a step    one token more in every row, prefills left out
r            ms a step over t*, the least that this machine's bandwidth and peak allow: the best that were measured
             beside the runs of this size, once a round
K/V, alloc.  peak bytes of keys and values in use, and allocated, over those of the unique tokens that must be there
computed     tokens that went through the model over tokens delivered, prefill and padding included
error        largest difference of logits from a plain forward pass, over the largest logit
steps        of how many tokens in a row was measured; what was cut to stay within `--cap` is projected

Every decoder gets the same warm-up; then they take turns (A B C A B C …), so that a busy machine hits all alike,
and medians are shown. Left out: scoring, quantised weights, servers. Peers are what is installed of

    pip install genlm-control its-hub llm-reasoners ctranslate2 llama-cpp-python gguf
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import earlier, parser, report, write
from peers import HOMES, load
from peers.claims import claims_of, counted_rows
from peers.machine import Machine, measure
from peers.models import TINY, embedded, smollm, words
from peers.sweep import YARDSTICK, Cell, Sweep, shown
from peers.work import Setting, Work

ROWS, PROMPTS, SPAN, FORKED_SPAN, LEVELS = (8, 32, 128), (128, 512, 2048), 64, 32, 3
NATIVE_CELLS = {
    (kind, *size)
    for kind in ("flat", "forked")
    for size in ((8, 128), (8, 512), (8, 2048), (32, 512), (128, 2048))
}
SOME = {  # decoders that are slow, or of which a few cells tell enough; `--everywhere` lifts this
    "babblegraph unpacked": {("flat", 8, 128), ("flat", 32, 512), ("flat", 128, 2048)},
    "babblegraph untraced": {("flat", 8, 128), ("flat", 32, 512), ("flat", 128, 2048)},
    "generate+beams": {("flat", 8, 128), ("flat", 32, 512)},
    "generate_batch": {("flat", 8, 128), ("flat", 32, 512)},
    "genlm-control": {("flat", 8, 128), ("flat", 32, 512)},
    "its-hub": {("forked", 8, 128), ("forked", 32, 512)},
    "llm-reasoners": {("forked", 8, 128), ("forked", 32, 512)},
    "CTranslate2": NATIVE_CELLS,
    "llama.cpp": NATIVE_CELLS,
}
PACKAGES = ("genlm-control", "its-hub", "llm-reasoners", "ctranslate2", "llama-cpp-python")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options, began = read(arguments), time.perf_counter()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # of other libraries
    rows = earlier(options, free=("models", "cells")) if options.resume else []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            setting = MODELS[model](Path(folder), options.threads)
            wanted = [c for c in cells(model, options) if not any(row["cell"] == str(c) for row in rows)]
            peers = {name: load(name, setting) for name in options.only} if wanted else {}
            probe = partial(measure, megabytes=64 if options.quick else 256)
            sweep = Sweep(setting, probe, options.cap, options.repeats)
            for cell in wanted:
                some = {name: peer for name, peer in peers.items() if takes(name, cell, options)}
                rows += sweep.measure(cell, work_of(cell, setting), some)
                print(f"{cell}: done after {time.perf_counter() - began:.0f} s", file=sys.stderr)
                if options.json:
                    write(options.json, rows, [], options, PACKAGES)
    claims = claims_of(rows) + (counted_rows() if "embedded" in options.models else [])
    tables = [(f"{machines(rows)}, fp32, {options.threads} threads", [shown(row) for row in rows])]
    report("throughput", rows, claims, options, tables=tables, packages=PACKAGES)
    return rows


def read(arguments: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--only", type=_names, help=f"some decoders: {', '.join(HOMES)}")
    made.add_argument("--models", type=_models, help=f"some of {', '.join(MODELS)}")
    made.add_argument("--cells", type=_sizes, help="some sizes, as ROWSxPROMPT: 8x128,32x512")
    made.add_argument("--everywhere", action="store_true", help="every decoder at every size")
    made.add_argument("--cap", type=float, default=4.0, help="seconds that one run should take at most")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--threads", type=int, default=os.cpu_count())
    made.add_argument("--resume", action="store_true", help="keep the cells that the JSON file already has")
    options = made.parse_args(arguments)
    here = [name for name in HOMES if "compiled" not in name]  # the others need a GPU, see `gpu_check.py`
    options.only = options.only or (["babblegraph", YARDSTICK] if options.quick else here)
    options.models = options.models or (["smollm"] if options.quick else ["smollm", "embedded"])
    if options.quick:
        options.cells = options.cells or [(8, 128)]
        options.repeats = min(options.repeats, 3)
    return options


def cells(model: str, options: argparse.Namespace) -> list[Cell]:
    if model == "embedded":  # its context is short; its prompt is a puzzle
        return [Cell(model, "flat", rows, 12) for rows in ROWS]
    sizes = options.cells or [(rows, prompt) for rows in ROWS for prompt in PROMPTS]
    return [Cell(model, kind, *size) for size in sizes for kind in ("flat", "forked")]


def work_of(cell: Cell, setting: Setting) -> Work:
    if cell.model == "embedded":
        ids = tuple(setting.tokenizer("3 5 7 11>24\n")["input_ids"])
    else:
        _, ids = words(setting.tokenizer, cell.prompt)
    forked = cell.kind == "forked"
    return Work(ids, cell.rows, FORKED_SPAN if forked else SPAN, LEVELS if forked else 1)


def takes(name: str, cell: Cell, options: argparse.Namespace) -> bool:
    """Whether a decoder is run on a cell."""
    return cell.model != "smollm" or options.everywhere or name not in SOME or cell[1:] in SOME[name]


def machines(rows: list[dict[str, Any]]) -> str:
    """What the machine could do, from cell to cell."""
    found = [row["machine"] for row in rows if row.get("machine")]
    ends = [(min(m[of] for m in found) / 1e9, max(m[of] for m in found) / 1e9) for of in Machine._fields]
    (low, high), (slow, fast) = ends
    return f"bandwidth {low:.1f} to {high:.1f} GB/s, peak {slow:.0f} to {fast:.0f} GFLOP/s"


def _names(text: str) -> list[str]:
    """Some decoders, with the yardstick among them."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in HOMES]:
        raise argparse.ArgumentTypeError(f"a decoder must be one of {', '.join(HOMES)}, got {unknown[0]!r}")
    return [name for name in HOMES if name in {*names, YARDSTICK}]


def _models(text: str) -> list[str]:
    if unknown := [name for name in text.split(",") if name not in MODELS]:
        raise argparse.ArgumentTypeError(f"a model must be one of {', '.join(MODELS)}, got {unknown[0]!r}")
    return text.split(",")


def _sizes(text: str) -> list[tuple[int, int]]:
    try:
        found = [(int(rows), int(prompt)) for rows, prompt in (size.split("x") for size in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"sizes must be ROWSxPROMPT, got {text!r}: write 8x128,32x512"
        ) from None
    if any(rows < 4 or rows % 4 or prompt < 1 for rows, prompt in found):
        raise argparse.ArgumentTypeError(f"rows must be a multiple of 4, got {text!r}: a quarter survives")
    return found


MODELS = {
    "smollm": smollm,
    "embedded": embedded,
    "tiny": lambda folder, threads: smollm(folder, threads, TINY),
}


if __name__ == "__main__":
    main()
