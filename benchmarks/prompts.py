"""What do many prompts cost that begin alike, with examples or instructions, and a judge that reads texts anew?

Prompts are E tokens of examples that all share and 32 of their own; each is continued by a few samples. Ours computes
and stores what they share once. "Apart" is the same with nothing shared between prompts; `generate` continues all of
them in one batch. The judge puts words before every text, so that it cannot use the keys and values of the search:
what it reads is a trie of its own, which the next round's texts go on in.

A Llama shaped like SmolLM with 22M random weights, fp32. Decoders take turns, medians are shown; no token ends a text.
Left out: GPUs, prompts that share less than `paths.ALIKE` tokens, which are computed apart.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import babblegraph as bg
from babblegraph.budget import Meter
from babblegraph.lm import paths
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import JudgeValue

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report
from peers.models import TINY, smollm, words
from peers.work import Setting

OWN, DRAWS, SPAN = 32, 4, 32  # tokens of a prompt's own, samples below each, tokens of a sample
ROUNDS, KEPT = 4, 16  # that a judge looks at, and the texts that go on after each


def main(arguments: list[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--repeats", type=int, default=3)
    options = made.parse_args(arguments)
    torch.set_num_threads(options.threads)
    sizes = [(4, 64)] if options.quick else [(16, 128), (16, 512)]
    with tempfile.TemporaryDirectory() as folder:
        setting = smollm(Path(folder), options.threads, *([TINY] if options.quick else []))
        rows = [row for size in sizes for row in forest(setting, *size, options.repeats)]
        judged = [judge(setting, prompts, examples) for prompts, examples in sizes]
    claims = [
        claim(f"{r['prompts']}: tokens/s ÷ apart", r["÷ apart"], "> 1", r["÷ apart"] > 1)
        for r in rows
        if r["decoder"] == "babblegraph"
    ]
    for r in judged:
        share = r["tokens read"] / r["tokens of texts"]
        claims.append(
            claim(f"{r['prompts']}: tokens that the judge reads ÷ all", share, "< 0.5", share < 0.5)
        )
    tables = [("prompts that begin alike", rows), ("a judge with words before the text", judged)]
    report("prompts", rows + judged, claims, options, tables=tables)


def forest(setting: Setting, prompts: int, examples: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of each decoder for the same prompts and as many samples."""
    texts = prompts_of(setting, prompts, examples)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "babblegraph": lambda: ours(setting, texts, paths.ALIKE),
        "babblegraph, apart": lambda: ours(setting, texts, sys.maxsize),
        "generate": lambda: theirs(setting, texts),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            run = way() | {"seconds": time.perf_counter() - start}
            if turn:
                found[name].append(run)
    middle = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    return [
        {
            "prompts": f"{prompts} of {examples} + {OWN} tokens",
            "decoder": name,
            "prefilled": runs[0]["prefilled"],
            "K/V tokens": runs[0]["kept"],
            "seconds": middle[name],
            "÷ apart": middle["babblegraph, apart"] / middle[name],
            "÷ generate": middle["generate"] / middle[name],
        }
        for name, runs in found.items()
    ]


def ours(setting: Setting, texts: list[str], alike: int) -> dict[str, Any]:
    """Prefill and samples by babblegraph."""
    kept, paths.ALIKE = paths.ALIKE, alike
    try:
        babbler = bg.Babbler(setting.model, setting.tokenizer, span=SPAN, max_new_tokens=SPAN)
        graph = babbler.start(texts)
        meter = Meter(bg.Budget(tokens=10**9), graph.trees)
        ids = np.arange(graph.trees)
        graph.add(babbler.expand(graph, Chosen(ids, np.full(graph.trees, DRAWS)), Rng(0), meter))
    finally:
        paths.ALIKE = kept
    return {"prefilled": meter.read().prefilled, "kept": meter.peak_slots}


def theirs(setting: Setting, texts: list[str]) -> dict[str, Any]:
    """The same by `generate`, all prompts in one batch; they are equally long."""
    ids = torch.tensor([setting.tokenizer(text)["input_ids"] for text in texts])
    with torch.no_grad():
        setting.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            max_new_tokens=SPAN,
            num_return_sequences=DRAWS,
        )
    rows = len(texts) * DRAWS
    return {"prefilled": rows * ids.shape[1], "kept": rows * (ids.shape[1] + SPAN - 1)}


def judge(setting: Setting, prompts: int, examples: int) -> dict[str, Any]:
    """What a judge reads of texts that grow by a span a round, and how long the texts are."""
    babbler = bg.Babbler(setting.model, setting.tokenizer, span=SPAN, max_new_tokens=ROUNDS * SPAN)
    good, bad = words(setting.tokenizer, 2, seed=3)[0].split()
    before = words(setting.tokenizer, 16, seed=1)[0]
    value = JudgeValue(babbler, f"{before}{{text}} {good}", good, bad)
    graph = babbler.start(prompts_of(setting, prompts, examples))
    meter, whole = Meter(bg.Budget(tokens=10**9), graph.trees), 0
    ids = np.arange(graph.trees)[:KEPT]
    for _ in range(ROUNDS):
        chosen = Chosen(ids, np.full(len(ids), DRAWS))
        born = graph.add(babbler.expand(graph, chosen, Rng(0), meter))
        value(graph, born, meter)
        whole += int(graph.length[born].sum()) + len(born) * (len(value.before) + len(value.after))
        ids = born[:: max(1, len(born) // KEPT)][:KEPT]
    name = f"{prompts} of {examples} + {OWN} tokens"
    return {"prompts": name, "tokens of texts": whole, "tokens read": meter.read().scored}


def prompts_of(setting: Setting, prompts: int, examples: int) -> list[str]:
    """Prompts of the same examples and a question each."""
    shared = words(setting.tokenizer, examples)[0]
    return [shared + words(setting.tokenizer, OWN, seed=7 + i)[0] for i in range(prompts)]


if __name__ == "__main__":
    main()
