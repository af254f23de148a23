"""Which families of causal language models run on which engine, and how far off its logits are?

Every family is built small from its transformers configuration, with weights of std 0.15, so that an error in
attention shows in the logits. On each engine that passes the check at load a random forest is grown: forks, spans
that end early, nodes given up and revived, prompts of different lengths, texts longer than the sliding windows.
The error is max|difference| / max|logit| over all nodes, against plain forward passes over their whole texts, in
fp32. In bf16 the distribution after each node is compared with that of a plain bf16 pass; "rounding" is what bf16
does to the plain pass itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import claim, earlier, parser, report, write
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm.babbler import EMBEDDED
from babblegraph.protocols import Chosen, Draws
from babblegraph.randomness import Rng

ENGINES = ("cascade", "dense", "recompute")
LIMIT, KL_LIMIT, TOP1_LIMIT = 1e-4, 1e-3, 0.99
SHARED = "1 2 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8"  # two prompts begin alike: they share what they begin with
PROMPTS = ["3 5>8\n", f"{SHARED} 9>45\n", f"{SHARED} 1>37\n", "7"]
QUICK = ("llama", "gemma3_text", "gptj", "mamba", "qwen3_next", "bert")
WINDOW = 6  # tokens; most texts are longer

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 128}
HEADS = GROUPED | {"head_dim": 16}
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
ROUTED = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
OLD = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 96}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
LINEAR = {
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "llama4_text": HEADS | EXPERTS | {"intermediate_size_mlp": 64, "attention_chunk_size": 48},
    "mistral": GROUPED | {"sliding_window": WINDOW},
    "ministral": HEADS | MIXED,
    "mixtral": GROUPED | EXPERTS,
    "qwen2": GROUPED,
    "qwen2_moe": GROUPED | EXPERTS,
    "qwen3": HEADS,
    "qwen3_moe": HEADS | EXPERTS,
    "gemma": HEADS,
    "gemma2": HEADS | MIXED | {"attn_logit_softcapping": 2.0},
    "gemma3_text": HEADS | MIXED,
    "gemma3n_text": HEADS
    | MIXED
    | {
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 24,
        "laurel_rank": 8,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": HEADS | MIXED | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 24},
    "phi": {"intermediate_size": 128},
    "phi3": GROUPED,
    "phimoe": GROUPED | EXPERTS,
    "gpt2": {"n_positions": 96},
    "gpt_bigcode": OLD,
    "gpt_neo": {
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": WINDOW,
    },
    "gpt_neox": {"intermediate_size": 128},
    "gpt_oss": HEADS | MIXED | EXPERTS,
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "biogpt": {"intermediate_size": 128},
    "falcon": {},
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "olmo3": GROUPED | MIXED,
    "olmoe": GROUPED | EXPERTS,
    "starcoder2": GROUPED | {"sliding_window": WINDOW},
    "cohere": GROUPED,
    "cohere2": GROUPED | MIXED,
    "granite": GROUPED | {"attention_multiplier": 0.1},
    "granitemoe": GROUPED | EXPERTS,
    "smollm3": GROUPED,
    "ernie4_5": HEADS,
    "ernie4_5_moe": HEADS | EXPERTS | {"moe_num_experts": 4, "moe_k": 2},
    "glm": HEADS,
    "glm4": HEADS,
    "glm4_moe": HEADS | EXPERTS | ROUTED,
    "exaone4": HEADS | MIXED,
    "hunyuan_v1_dense": HEADS,
    "hunyuan_v1_moe": HEADS | EXPERTS | {"moe_topk": 2},
    "seed_oss": HEADS,
    "apertus": GROUPED,
    "arcee": GROUPED,
    "bitnet": GROUPED,
    "helium": HEADS,
    "nemotron": HEADS,
    "persimmon": {"intermediate_size": 128},
    "minimax_m2": HEADS | EXPERTS,
    "deepseek_v2": LATENT | EXPERTS | ROUTED | {"intermediate_size": 128, "head_dim": 8},
    "deepseek_v3": LATENT | EXPERTS | ROUTED | {"intermediate_size": 128},
    "stablelm": GROUPED | {"num_key_value_heads": 4},
    "diffllama": GROUPED,
    "gptj": OLD | {"rotary_dim": 8},
    "codegen": OLD | {"rotary_dim": 8},
    "bloom": {"n_layer": 4, "n_head": 4},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 96},
    "xglm": {"d_model": 64, "num_layers": 4, "attention_heads": 4, "ffn_dim": 128},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1},
    "falcon_mamba": {},
    "jamba": GROUPED | EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "bamba": GROUPED | MAMBA | {"attn_layer_indices": [1, 3]},
    "zamba2": GROUPED
    | {"num_key_value_heads": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2}
    | {"mamba_ngroups": 1, "n_mamba_heads": 8, "mamba_d_state": 16},
    "falcon_h1": HEADS | MAMBA | {"mamba_d_ssm": 128},
    "granitemoehybrid": GROUPED | EXPERTS | MAMBA | {"layer_types": ["mamba", "attention"] * 2},
    "nemotron_h": HEADS
    | {"layers_block_type": ["linear_attention", "full_attention", "mlp", "linear_attention"]}
    | {"mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 1},
    "qwen3_next": HEADS | EXPERTS | LINEAR,
    "qwen3_5_text": HEADS | LINEAR,
    "olmo_hybrid": GROUPED | LINEAR,
    "minimax": HEADS | EXPERTS | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": GROUPED | EXPERTS | {"layer_types": ["conv", "full_attention"] * 2},
    "recurrent_gemma": HEADS | {"lru_width": 64},
    "rwkv": {"attention_hidden_size": 64},
    "xlstm": {"embedding_dim": 64, "num_blocks": 4, "num_heads": 4},
    "openai-gpt": OLD,
    "bert": {"intermediate_size": 128},  # sees both ways unless it is a decoder: no engine may take it
}


class Compared(NamedTuple):
    """A forest against plain passes over its texts."""

    error: (
        float  # max|difference| / max|logit|, over all nodes, of logits and of the spans' log-probabilities
    )
    kl: float  # KL(plain, ours) of the next token's distribution, mean over nodes
    top1: float  # share of nodes after which the likeliest token is the same
    nodes: int
    longest: int  # tokens


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", help="these families")
    options.add_argument("--resume", action="store_true", help="go on with what is in the --json file")
    options.add_argument("--markdown", type=Path, help="write the table for the documentation to this file")
    given = options.parse_args()
    if unknown := [family for family in given.only or () if family not in FAMILIES]:
        options.error(f"a family must be one of {', '.join(FAMILIES)}, got {unknown[0]!r}")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    rows = earlier(given, free=("only", "markdown")) if given.resume else []
    known = {row["family"] for row in rows}
    for family in given.only or (QUICK if given.quick else FAMILIES):
        if family in known:
            continue
        rows.append(measured(family, tokenizer, seeds=range(1, 2 if given.quick else 4)))
        print(
            " ".join(f"{k}={v:.2g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()),
            flush=True,
        )
        if given.json:  # half an hour for all: a run that is cut off keeps what it has
            write(given.json, rows, claimed(rows), given)
    report("Families of causal language models", rows, claimed(rows), given)
    if given.markdown:
        given.markdown.write_text(markdown(rows), "utf-8")


def measured(family: str, tokenizer: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {"family": family, "engine": "refused", "program": None, "reach": None}
    model = built(family, tokenizer)
    for engine in ENGINES:
        try:
            babbler = bg.Babbler(model, tokenizer, engine=engine, span=4, stop=" ", max_new_tokens=20)
        except BadInput:
            row[engine] = None
            continue
        row[engine] = max(compared(babbler, seed).error for seed in seeds)
        if row["engine"] == "refused":
            row["engine"], row["program"] = engine, babbler.traced
            row["reach"] = babbler.context if babbler.context < SIZES["max_position_embeddings"] else None
    row |= in_half(model, tokenizer, row["engine"], seeds)
    return row


def in_half(model: Any, tokenizer: Any, engine: str, seeds: Sequence[int]) -> dict[str, float | None]:
    """The chosen engine in bf16 against plain bf16 passes, and what bf16 does to plain passes themselves."""
    if engine == "refused":
        return dict.fromkeys(("kl", "top1", "rounding", "rounding top1"))
    texts = [list(range(n, n + 12)) for n in range(8)]
    full = [torch.log_softmax(plain(model, [t % len(tokenizer) for t in text]), -1) for text in texts]
    model = model.to(torch.bfloat16)
    half = [torch.log_softmax(plain(model, [t % len(tokenizer) for t in text]), -1) for text in texts]
    rounding = torch.cat([(a.exp() * (a - b)).sum(-1) for a, b in zip(full, half, strict=True)])
    agree = torch.cat([a.argmax(-1) == b.argmax(-1) for a, b in zip(full, half, strict=True)])
    noise = {"rounding": float(rounding.mean()), "rounding top1": float(agree.double().mean())}
    try:
        babbler = bg.Babbler(model, tokenizer, engine=engine, span=4, stop=" ", max_new_tokens=20)
    except BadInput:
        return {"kl": None, "top1": None} | noise
    found = [compared(babbler, seed) for seed in seeds]
    nodes = sum(f.nodes for f in found)
    mean = {name: sum(getattr(f, name) * f.nodes for f in found) / nodes for name in ("kl", "top1")}
    return mean | noise


def compared(babbler: bg.Babbler, seed: int) -> Compared:
    """Grows a random forest and compares every node, also those that were given up and come back."""
    errors, kl, same, longest = [], [], [], 0
    for graph, ids, meter in forest(babbler, seed):
        ours = babbler.next_logits(graph, ids, meter).double()
        for logits, i in zip(ours, ids.tolist(), strict=True):
            path = graph.path_tokens(i)
            truth = plain(babbler.model, path).double()
            size, longest = float(truth.abs().max()), max(longest, len(path))
            errors.append(float((logits - truth[-1]).abs().max()) / size)
            log_p, log_q = torch.log_softmax(truth, -1), torch.log_softmax(logits, -1)
            kl.append(float((log_p[-1].exp() * (log_p[-1] - log_q)).sum()))
            same.append(bool(logits.argmax() == truth[-1].argmax()))
            if (p := int(graph.parent[i])) >= 0:
                at = np.arange(graph.length[p], graph.length[i])
                told = float(log_p[at - 1, path[at]].sum())
                errors.append(abs(told - (graph.log_p_f[i] - graph.log_p_f[p])) / size)
    return Compared(max(errors), float(np.mean(kl)), float(np.mean(same)), len(same), longest)


def forest(
    babbler: bg.Babbler, seed: int, rounds: int = 6
) -> Iterator[tuple[BabbleGraph, np.ndarray, Meter]]:
    """A random forest, and after each round the nodes to look at."""
    draw, rng = np.random.default_rng(seed), Rng(seed)
    graph = babbler.start(PROMPTS, seed)
    meter = Meter(Budget(tokens=10**6), graph.trees)
    for _ in range(rounds):
        fits = np.flatnonzero(~graph.is_leaf())
        ids = np.sort(draw.choice(fits, min(len(fits), int(draw.integers(1, 5))), replace=False))
        chosen = Chosen(ids, draw.choice([1, 3, 8], len(ids)))
        born = graph.add(
            babbler.expand(
                graph, chosen, rng, meter, Draws.FRESH if draw.random() < 0.6 else Draws.MULTINOMIAL
            )
        )
        yield graph, np.arange(graph.size) if draw.random() < 0.3 else born, meter
        babbler.release(graph, draw.choice(graph.size, graph.size // 3, replace=False))


@torch.no_grad()
def plain(model: Any, tokens: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Logits after each token of a text, from one plain forward pass, [L, V]."""
    ids = torch.as_tensor(np.asarray(tokens, np.int64))[None]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()


def built(family: str, tokenizer: Any) -> Any:
    """A small random model of a family, with weights of std 0.15 (sinks of std 1)."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(tokenizer)} | SIZES | FAMILIES[family]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks") or weight.dim() >= 2:
                weight.normal_(std=1.0 if name.endswith("sinks") else 0.15, generator=draw)
    return model.eval().float()


def claimed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the table says, as figures."""
    served = [row for row in rows if row["engine"] != "refused"]
    errors = [row[engine] for row in rows for engine in ENGINES if row[engine] is not None]
    worst = max(errors, default=0.0)  # a family that is refused has none
    cascade = sum(row["cascade"] is not None and row["cascade"] < LIMIT for row in rows)
    kl = np.array([row["kl"] for row in served if row["kl"] is not None])
    top1 = np.array([row["top1"] for row in served if row["top1"] is not None])
    near, agreed = kl < KL_LIMIT, top1 >= TOP1_LIMIT
    return [
        claim("families that run on some engine", len(served), f"of {len(rows)}", True),
        claim("families on cascade within 1e-4", cascade, ">= 18", cascade >= 18),
        claim(
            "families on cascade whose steps are a program",
            sum(bool(row["program"]) for row in rows),
            f"of {sum(row['engine'] == 'cascade' for row in rows)}",
            True,
        ),
        claim("worst error of any engine in fp32", worst, f"< {LIMIT:g}", worst < LIMIT),
        claim("families with KL below 1e-3 in bf16", near.sum(), f"all {len(near)}", near.all()),
        claim(
            "families whose top-1 agrees for 99 % in bf16", agreed.sum(), f"all {len(agreed)}", agreed.all()
        ),
    ]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for the documentation."""

    def cell(x: float | None, form: str = ".0e") -> str:
        return "–" if x is None else format(x, form)

    lines = [
        "# Families of causal language models",
        "",
        HEADER.format(
            transformers=version("transformers"), torch=version("torch"), date=date.today().isoformat()
        ),
        "",
        "| family | engine | program | cascade | dense | recompute | KL bf16 | top-1 bf16 | KL rounding "
        "| top-1 rounding |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        errors = " | ".join(cell(row[engine]) for engine in ENGINES)
        half = (
            cell(row["kl"]),
            cell(row["top1"], ".1%"),
            cell(row["rounding"]),
            cell(row["rounding top1"], ".1%"),
        )
        note = f" up to {row['reach']} tokens" if row["reach"] else ""
        program = {None: "–", True: "yes", False: "no"}[row["program"]]
        lines.append(
            f"| {row['family']} | {row['engine']}{note} | {program} | {errors} | {' | '.join(half)} |"
        )
    return "\n".join([*lines, "", FOOTER, ""])


HEADER = """\
Which engine runs a family (`babbler.engine`), and how far off its logits are from plain forward passes, as
`python benchmarks/families.py --markdown docs/families.md` found it with transformers {transformers} and torch
{torch} on {date}. Every family is built small from its configuration, with weights of std 0.15; every node of
random forests (forks, early ends, nodes given up and revived, texts beyond the sliding windows) is compared.

- **cascade**: one trie of keys and values that all texts share; every family whose attention goes through
  transformers' attention interface. **dense**: a cache of the model's own for every text; recurrent and hybrid
  families, and attention that goes another way. **recompute**: no cache, every text anew for every token.
- The first that passes a check at load is taken; the other columns show what the next ones would give (– where
  the check refuses). Errors are max|difference| / max|logit| over all nodes in fp32.
- **program**: whether a step of one token a row is one TorchScript program (`babbler.traced`), on a CPU.
- bf16: KL of the next token's distribution, and how often the likeliest token agrees, both against plain bf16
  passes. "Rounding" is what bf16 does to plain passes themselves (against fp32): weights this loud make it large."""

FOOTER = """\
`refused`: no engine gives what plain passes give, and `Babbler` says so in one line. "Up to n tokens": some layers
see less than the whole text without telling the attention function, so texts end before it would matter.

What was asked for and is missed. In fp32 below 1e-4: zamba2 and nemotron_h on the dense engine, whose models' own
caches differ from their plain passes (transformers' cached decoding alone by up to 6e-3 and 2e-4 on random texts of
60 tokens); no family on the cascade. In bf16 a KL below 1e-3 and the same likeliest token in 99 %: see the rows. With
so few and loud weights rounding alone moves the plain pass as much, as the last two columns say (of mixtures of experts
above all: where two are nearly even it takes the other), but for the KL of gpt_oss and mamba, which is larger.

Where attention's special cases are covered: sliding windows by mistral, ministral, starcoder2, gemma2, gemma3_text,
olmo3, cohere2, exaone4, gpt_oss; sinks by gpt_oss; capped scores by gemma2; scaled scores by granite; grouped heads
by most; latent attention by deepseek_v2 and deepseek_v3; partial rotary by phi, glm, glm4, gpt_neox, nemotron,
persimmon, stablelm; layers without positions by smollm3, llama4_text, cohere2, exaone4; tied embeddings by gpt2,
gemma, cohere, smollm3; learned positions by gpt2, opt, biogpt; ALiBi by bloom, mpt."""


if __name__ == "__main__":
    main()
