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
    compared: int  # rows whose logits are compared
    decoders: tuple[str, ...] = ("babblegraph", "generate", "generate+cache")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options = parser(__doc__).parse_args(arguments)
    warnings.simplefilter("ignore")  # of other libraries
    # ours: with one of them the figures are of something else
    warnings.filterwarnings("always", "no memory|the model cannot be captured")
    sizes: dict[str, Any]
    if torch.cuda.is_available():
        options.gpu = torch.cuda.get_device_name()
        equal = {"Qwen3 22M": SMOLLM, "Qwen3 0.6B": QWEN_0_6B}
        fast = {"Qwen3 0.6B": QWEN_0_6B} | ({} if options.quick else {"Qwen3 8B": QWEN_8B})
        sizes = {"rows": (256, 64), "prompt": 512, "span": FORKED_SPAN, "words": WORDS, "compared": 64}
        kit = Kit("cuda", equal, fast, repeats=3, **sizes)
        kit = kit._replace(decoders=("babblegraph", "babblegraph, compiled", *kit.decoders[1:]))
    else:
        options.gpu = "none: the same checks on the CPU, with tiny shapes"
        tiny = {"tiny Qwen3": TINY | {"tie_word_embeddings": True}}
        sizes = {"rows": (8,), "prompt": 24, "span": 4, "words": TINY["vocab_size"], "compared": 8}
        kit = Kit("cpu", tiny, tiny, repeats=1, **sizes)
    print(f"GPU: {options.gpu}", flush=True)
    rows: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    for name, shape in kit.equal.items():
        claims += equality(name, shape, kit)
        print(claims, file=sys.stderr, flush=True)
    for name, shape in kit.fast.items():
        for row in throughput(name, shape, kit):
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
        work = Work(words(setting.tokenizer, kit.prompt)[1], kit.compared, kit.span, LEVELS)
        (ours, plain, graph), (_, _, again) = searched(setting, work), searched(setting, work)
        named = f"{name} {str(dtype).removeprefix('torch.')}"
        if dtype == torch.float32:
            error = float((ours - plain).abs().max() / plain.abs().max())
            found.append(claim(f"{named}: logit error against plain forward", error, "< 1e-4", error < 1e-4))
        else:
            found += rounded(named, ours, plain, exactly(model.float(), graph))
        equal = all(
            np.array_equal(getattr(graph, c), getattr(again, c)) for c in ("tokens", "parent", "log_q")
        )
        found.append(claim(f"{named}: a second search gives the same graph", equal, "= 1", equal))
    return found


def rounded(named: str, ours: torch.Tensor, plain: torch.Tensor, exact: torch.Tensor) -> list[dict[str, Any]]:
    """In bf16: how far ours is from plain forward passes, and whether further from fp32 than these, [N, V] each."""
    apart = kl(plain, ours)
    mean, worst = float(apart.mean()), float(apart.max())
    same = float((plain.argmax(-1) == ours.argmax(-1)).double().mean())
    further = float(kl(exact, ours).mean() / kl(exact, plain).mean().clamp_min(1e-12))
    return [
        claim(f"{named}: KL(plain ‖ ours), mean of {len(ours)} nodes", mean, "< 1e-3", mean < 1e-3),
        claim(f"{named}: KL(plain ‖ ours), worst node", worst, "< 1e-3", worst < 1e-3),
        claim(f"{named}: the same likeliest token", same, "≥ 0.99", same >= 0.99),
        claim(f"{named}: KL(fp32 ‖ ours) ÷ KL(fp32 ‖ plain), means", further, "≤ 1.25", further <= 1.25),
    ]


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) of next tokens by their logits, in nats, [N]."""
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@torch.no_grad()
def searched(setting: Setting, work: Work) -> tuple[torch.Tensor, torch.Tensor, bg.BabbleGraph]:
    """Logits after every live node of every round, ours and of plain forward passes, [N, V], and the graph."""
    babbler = bg.Babbler(setting.model, setting.tokenizer, span=work.span)
    budget, ours, texts = bg.Budget(tokens=work.tokens), [], []
    graph = babbler.start([setting.tokenizer.decode(work.prompt)], 1)
    rounds = bg.search(
        babbler,
        graph=graph,
        score=lambda graph, ids, meter: None,
        strategy=fixed_tree(work),
        budget=budget,
    )
    for each in rounds:
        live = each.graph.frontier()
        ours.append(babbler.next_logits(each.graph, live, Meter(budget, 1)).float())
        texts += live.tolist()
    graph.meta["compared"] = texts
    return torch.cat(ours), exactly(setting.model, graph), graph


@torch.no_grad()
def exactly(model: Any, graph: bg.BabbleGraph) -> torch.Tensor:
    """Logits after the compared nodes by a plain forward pass each, [N, V]."""
    texts = [graph.path_tokens(i).astype(np.int64) for i in graph.meta["compared"]]
    tokens = (torch.as_tensor(text, device=model.device)[None] for text in texts)
    return torch.stack([model(ids, use_cache=False).logits[0, -1] for ids in tokens]).float()


def throughput(name: str, sizes: dict[str, Any], kit: Kit) -> Iterator[dict[str, Any]]:
    """The table of one shape."""
    setting = setting_of(qwen(sizes, kit.device, torch.bfloat16), kit)
    if kit.device == "cuda":
        machine = measure(kit.device, torch.bfloat16, megabytes=4096)
    else:  # where bf16 may be emulated, and nothing is claimed
        machine = measure(kit.device, torch.float32, megabytes=64)
    peers = {p: load(p, setting) for p in kit.decoders}
    sweep = Sweep(setting, lambda: machine, 4.0, kit.repeats)
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
