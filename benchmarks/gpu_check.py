"""Does the engine do on a GPU what it does on a CPU, and how fast is it there?

Equality: logits of every live node of a forked tree against plain forward passes, in fp32 and bf16, on Qwen3
shapes of 22M and 0.6B random weights. Determinism: the same search twice gives the same graph, bit for bit.
Throughput: Qwen3-0.6B and 8B shapes in bf16, 64 and 256 rows below a prompt of 512 tokens, flat and forked, against
`generate`; the columns are those of `throughput.py`. Without a GPU it says so, and does the same on the CPU with
tiny shapes, so that the script itself is tested.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch

import babblegraph as bg
from babblegraph.budget import Meter

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report, write
from peers import load
from peers.machine import measure
from peers.models import QWEN_0_6B, QWEN_8B, SMOLLM, TINY, endless, loud, qwen, word_tokenizer, words
from peers.ours import fixed_tree
from peers.sweep import Cell, Sweep, shown
from peers.work import Setting, Work
from throughput import FORKED_SPAN, LEVELS, work_of

WORDS = 4096  # tokens of the tokenizer; the model may have more


class Kit(NamedTuple):
    """What is run: on a GPU the real shapes, else tiny ones."""

    device: str
    equal: dict[str, dict[str, Any]]  # shapes whose logits are compared
    fast: dict[str, dict[str, Any]]  # shapes that are timed
    rows: tuple[int, ...]
    prompt: int
    span: int
    words: int
    repeats: int
    decoders: tuple[str, ...] = ("babblegraph", "generate", "generate+cache")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options = parser(__doc__).parse_args(arguments)
    warnings.simplefilter("ignore")  # of other libraries
    warnings.filterwarnings(
        "always", "no memory|the model cannot be captured"
    )  # ours: it would be another figure
    if torch.cuda.is_available():
        options.gpu = torch.cuda.get_device_name()
        equal = {"Qwen3 22M": SMOLLM, "Qwen3 0.6B": QWEN_0_6B}
        fast = {"Qwen3 0.6B": QWEN_0_6B} | ({} if options.quick else {"Qwen3 8B": QWEN_8B})
        kit = Kit("cuda", equal, fast, rows=(256, 64), prompt=512, span=FORKED_SPAN, words=WORDS, repeats=3)
        kit = kit._replace(decoders=("babblegraph", "babblegraph, compiled", *kit.decoders[1:]))
    else:
        options.gpu = "none: the same checks on the CPU, with tiny shapes"
        tiny = {"tiny Qwen3": TINY | {"tie_word_embeddings": True}}
        kit = Kit("cpu", tiny, tiny, rows=(8,), prompt=24, span=4, words=TINY["vocab_size"], repeats=1)
    print(f"GPU: {options.gpu}", flush=True)
    rows: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    for name, sizes in kit.equal.items():
        claims += equality(name, sizes, kit)
        print(claims[-4:], file=sys.stderr, flush=True)
    for name, sizes in kit.fast.items():
        for row in throughput(name, sizes, kit):
            rows.append(row)
            print({k: v for k, v in shown(row).items() if v is not None}, file=sys.stderr, flush=True)
            if options.json:
                write(options.json, rows, claims, options)
    claims += speed(rows)
    title = f"on {kit.device}, bf16"
    report(title, rows, claims, options, tables=[(title, [shown(row) for row in rows])])
    return rows


def equality(name: str, sizes: dict[str, Any], kit: Kit) -> list[dict[str, Any]]:
    """Of one shape in both precisions, and whether a second search gives the same graph."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = qwen(sizes, kit.device, dtype)
        loud(model)
        setting = setting_of(model, kit)
        work = Work(words(setting.tokenizer, kit.prompt)[1], 8, kit.span, LEVELS)
        (ours, plain, graph), (_, _, again) = searched(setting, work), searched(setting, work)
        named = f"{name} {str(dtype).removeprefix('torch.')}"
        if dtype == torch.float32:
            error = float((ours - plain).abs().max() / plain.abs().max())
            found.append(claim(f"{named}: logit error against plain forward", error, "< 1e-4", error < 1e-4))
        else:
            log_p, log_q = plain.log_softmax(-1), ours.log_softmax(-1)
            worst = float((log_p.exp() * (log_p - log_q)).sum(-1).max())
            found.append(claim(f"{named}: KL(plain ‖ ours), worst node", worst, "< 1e-3", worst < 1e-3))
            same = float((plain.argmax(-1) == ours.argmax(-1)).double().mean())
            found.append(claim(f"{named}: the same likeliest token", same, "≥ 0.99", same >= 0.99))
        equal = all(
            np.array_equal(getattr(graph, c), getattr(again, c)) for c in ("tokens", "parent", "log_q")
        )
        found.append(claim(f"{named}: a second search gives the same graph", equal, "= 1", equal))
    return found


@torch.no_grad()
def searched(setting: Setting, work: Work) -> tuple[torch.Tensor, torch.Tensor, bg.BabbleGraph]:
    """Logits after every live node of every round, ours and of plain forward passes, [N, V], and the graph."""
    babbler = bg.Babbler(setting.model, setting.tokenizer, span=work.span)
    budget, ours, texts = bg.Budget(tokens=work.tokens), [], []
    rounds = bg.search(
        babbler,
        [setting.tokenizer.decode(work.prompt)],
        score=lambda graph, ids, meter: None,
        strategy=fixed_tree(work),
        budget=budget,
        seed=1,
    )
    for each in rounds:
        live = each.graph.frontier()
        ours.append(babbler.next_logits(each.graph, live, Meter(budget, 1)).float())
        texts += [each.graph.path_tokens(int(i)).astype(np.int64) for i in live]
    plain = [
        setting.model(torch.as_tensor(text, device=setting.model.device)[None], use_cache=False).logits[0, -1]
        for text in texts
    ]
    return torch.cat(ours), torch.stack(plain).float(), each.graph


def throughput(name: str, sizes: dict[str, Any], kit: Kit) -> Iterator[dict[str, Any]]:
    """The table of one shape."""
    setting = setting_of(qwen(sizes, kit.device, torch.bfloat16), kit)
    machine = measure(kit.device, torch.bfloat16, megabytes=4096 if kit.device == "cuda" else 64)
    peers = {p: load(p, setting) for p in kit.decoders}
    sweep = Sweep(setting, machine, 4.0, kit.repeats)
    for rows in kit.rows:
        for kind in ("flat", "forked"):
            cell = Cell(name, kind, rows, kit.prompt)
            yield from sweep.measure(cell, work_of(cell, setting), peers)


def setting_of(model: Any, kit: Kit) -> Setting:
    return endless(Setting(model, word_tokenizer(kit.words), Path(), 1))


def speed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """r at the widest, where there is a GPU to measure it on."""
    found = []
    for row in rows:
        if row["decoder"].startswith("babble") and row["rows"] == 256 and row["r"]:
            named = f"{row['cell']}, {row['decoder']}: r = t_step ÷ t*"
            found.append(claim(named, row["r"], "≤ 2", row["r"] <= 2))
    return found


if __name__ == "__main__":
    main()
