"""Which families of causal language models run on which engine, and how far off its logits are?

Every family is built small from its transformers configuration, with weights of std 0.15, so that an error in
attention shows in the logits. On each engine that passes the check at load a random forest is grown: forks, spans
that end early, nodes given up and revived, prompts of different lengths, texts longer than the sliding windows.
The error is max|difference| / max|logit| over all nodes, against plain forward passes over their whole texts, in
fp32. In bf16 the distribution after each node is compared with that of a plain bf16 pass; "rounding" is what bf16
does to the plain pass itself.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import claim, parser, report
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, logging

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm.babbler import EMBEDDED
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng

ENGINES = ("cascade", "dense")
LIMIT, KL_LIMIT, TOP1_LIMIT = 1e-4, 1e-3, 0.99
PROMPTS = ["3 5>8\n", "1 2 3 4 5 6 7 8 9>45\n", "7"]
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
    "kimi_linear": LATENT | EXPERTS | {"intermediate_size": 64, "layer_types": LINEAR["layer_types"]},
    "minimax": HEADS | EXPERTS | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": GROUPED | EXPERTS | {"layer_types": ["conv", "full_attention"] * 2},
    "recurrent_gemma": HEADS | {"lru_width": 64},
    "rwkv": {"attention_hidden_size": 64},
    "xlstm": {"embedding_dim": 64, "num_blocks": 4, "num_heads": 4},
    "openai-gpt": OLD,
    "bert": {"intermediate_size": 128},
}
