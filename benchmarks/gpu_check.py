"""Does the engine do on a GPU what it does on a CPU, and how fast is it there?

Equality: logits of every live node of a forked tree against plain forward passes, in fp32 and bf16, on a small
Llama and a Qwen3-0.6B with random weights. Determinism: the same search twice gives the same graph, bit for bit.
Throughput: Qwen3-0.6B and 8B shapes in bf16, 64 and 256 rows below a prompt of 512 tokens, flat and forked, against
`generate`; the columns are those of `throughput.py`. Without a GPU it says so, and does the same on the CPU with
tiny shapes, so that the script itself is tested.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch

import babblegraph as bg
from babblegraph.budget import Meter

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report
from peers import load
from peers.machine import measure
from peers.models import QWEN, QWEN_0_6B, QWEN_8B, SMOLLM, TINY, endless, loud, qwen, word_tokenizer, words
from peers.ours import fixed_tree
from peers.work import Setting, Work
from throughput import FORKED_SPAN, LEVELS, Cell, measured, shown

TINY_QWEN = QWEN | TINY | {"tie_word_embeddings": True}
WORDS = 4096  # tokens of the tokenizer; the model may have more


class Plan(NamedTuple):
    """What is run: on a GPU the real shapes, else tiny ones."""

    device: str
    equal: dict[str, dict[str, Any]]  # shapes whose logits are compared
    fast: dict[str, dict[str, Any]]  # shapes that are timed
    rows: tuple[int, ...]
    prompt: int
    span: int
    words: int


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    options = parser(__doc__).parse_args(arguments)
    options.repeats, options.cap, options.everywhere, options.cells = 3, 20.0, True, None
    warnings.simplefilter("ignore")  # of other libraries
    if torch.cuda.is_available():
        print(f"on {torch.cuda.get_device_name()}")
        small = {"Llama 22M": SMOLLM, "Qwen3 0.6B": QWEN_0_6B}
        fast = {"Qwen3 0.6B": QWEN_0_6B} | ({} if options.quick else {"Qwen3 8B": QWEN_8B})
        plan = Plan("cuda", small, fast, (64, 256), 512, FORKED_SPAN, WORDS)
    else:
        print("no GPU here: the same checks on the CPU, with tiny shapes")
        plan = Plan(
            "cpu", {"tiny Qwen3": TINY_QWEN}, {"tiny Qwen3": TINY_QWEN}, (8,), 24, 4, TINY["vocab_size"]
        )
        options.repeats = 1
    claims = [c for name, sizes in plan.equal.items() for c in equality(name, sizes, plan)]
    rows = [row for name, sizes in plan.fast.items() for row in throughput(name, sizes, plan, options)]
    claims += speed(rows)
    report(f"on {plan.device}, bf16", rows, claims, options, shown=[shown(row) for row in rows])
    return rows


def equality(name: str, sizes: dict[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """Of one shape in both precisions, and whether a second search gives the same graph."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = qwen(sizes, plan.device, dtype)
        loud(model)
        setting = setting_of(model, plan)
        work = Work(words(setting.tokenizer, plan.prompt)[1], 8, plan.span, LEVELS)
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


def throughput(name: str, sizes: dict[str, Any], plan: Plan, options: Any) -> list[dict[str, Any]]:
    """The table of one shape."""
    setting = setting_of(qwen(sizes, plan.device, torch.bfloat16), plan)
    machine = measure(plan.device, torch.bfloat16, megabytes=4096 if plan.device == "cuda" else 64)
    peers = {p: load(p, setting) for p in ("babblegraph", "generate", "generate+cache")}
    cells = [Cell(name, kind, rows, plan.prompt) for rows in plan.rows for kind in ("flat", "forked")]
    warm: dict[Any, Any] = {}
    return [row for cell in cells for row in measured(cell, setting, peers, machine, options, warm)]


def setting_of(model: Any, plan: Plan) -> Setting:
    return endless(Setting(model, word_tokenizer(plan.words), Path(), 1))


def speed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """r of the small shape at its widest, where there is a GPU to measure it on."""
    found = []
    for row in rows:
        if (row["model"], row["rows"], row["decoder"]) == ("Qwen3 0.6B", 256, "babblegraph") and row["r"]:
            found.append(claim(f"{row['cell']}: r = t_step ÷ t*", row["r"], "≤ 2", row["r"] <= 2))
    return found


if __name__ == "__main__":
    main()
