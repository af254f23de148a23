"""Small models and tokenizers made on the spot; no test needs a hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

CHARACTERS = "0123456789 +-*/=:>\nyn"
STORIES = [
    "Once upon a time there was a good little robot. It was very good at sums.",
    "This is a bad story. This is a good story, and the café was naïve: 日本語 🙂.",
    "The numbers are 1 2 3 4 5 6 7 8 9 10.\nThis is the next line.\n\nThe end.",
]


WINDOW = 6  # tokens; small, so that a forest of short texts outgrows it
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 128}
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "llama": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "mistral": GROUPED | {"sliding_window": WINDOW},
    "gemma3_text": GROUPED | MIXED | {"head_dim": 16},
    "gpt_neox": {"intermediate_size": 128},
    "gemma2": GROUPED | MIXED | {"head_dim": 16, "attn_logit_softcapping": 2.0},
    "gpt_oss": GROUPED | MIXED | EXPERTS | {"head_dim": 16},
    "phi3": GROUPED,
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "olmo3": GROUPED | MIXED,
    "granite": GROUPED | {"attention_multiplier": 0.1},
    "starcoder2": GROUPED | {"sliding_window": WINDOW},
}

HYBRID = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
OLD = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 96}
OTHERS: dict[str, dict[str, object]] = {  # families that cannot attend along a trie
    "gptj": OLD | {"rotary_dim": 8},
    "bloom": {"n_layer": 4, "n_head": 4},
    "gpt_neo": {
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": WINDOW,
    },
    "mamba": {},
    "jamba": GROUPED | EXPERTS | {"attn_layer_period": 2, "attn_layer_offset": 1},
    "qwen3_next": GROUPED
    | EXPERTS
    | HYBRID
    | {"head_dim": 16, "moe_intermediate_size": 32, "num_experts": 4},
    "minimax": GROUPED
    | EXPERTS
    | {"head_dim": 16, "layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention"] * 2},
    "rwkv": {"attention_hidden_size": 64},
    "recurrent_gemma": GROUPED | {"head_dim": 16, "lru_width": 64},
    "bert": {"intermediate_size": 128},
}


def character_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {c: i for i, c in enumerate([*CHARACTERS, "<pad>", "<eos>"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def byte_tokenizer(size: int = 300) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<eos>", "<turn>"]
    core.train_from_iterator(
        STORIES, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", additional_special_tokens=["<turn>"]
    )


def tiny_llama(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0, context: int = 128, layers: int = 3
) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=context,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return with_loud_weights(LlamaForCausalLM(config), seed)


def tiny_model(family: str, seed: int = 0, **sizes: object) -> torch.nn.Module:
    """A small random model of any causal family, by its configuration's name."""
    config = AutoConfig.for_model(family, **sizes)
    return with_loud_weights(AutoModelForCausalLM.from_config(config), seed)


def family_model(family: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> torch.nn.Module:
    """One of `FAMILIES` or `OTHERS`, over a tokenizer's vocabulary."""
    sizes = FAMILIES[family] if family in FAMILIES else OTHERS[family]
    return tiny_model(family, seed, vocab_size=len(tokenizer), **(SIZES | sizes))


def plain_logits(model: torch.nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """The oracle: one plain forward pass over one text, without a cache, [L, V]."""
    with torch.no_grad():
        ids = torch.as_tensor(np.asarray(tokens, np.int64), device=model.device)
        return model(input_ids=ids[None], use_cache=False).logits[0]


class PlainLogits:
    """The same of many texts, which a causal model reads once where one is the beginning of another."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def of(self, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The oracle for each text, [L, V]."""
        keys = [tuple(np.asarray(text).tolist()) for text in texts]
        for key in sorted(keys, key=len, reverse=True):
            if key not in self._known:
                logits = plain_logits(self.model, key)
                self._known |= {key[:n]: logits[:n] for n in range(1, len(key) + 1)}
        return [self._known[key] for key in keys]


@contextmanager
def counting_real_tokens(model: torch.nn.Module) -> Iterator[list[int]]:
    """A list to which every forward pass inside a search adds its number of tokens, padding left out."""
    seen: list[int] = []
    plain = model.forward

    def forward(*args: object, **named: object) -> object:
        seen.append(int((named["tree"].slots > 0).sum()))
        return plain(*args, **named)

    model.forward = forward
    try:
        yield seen
    finally:
        model.forward = plain


def with_loud_weights(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Weights of std 0.15 (sinks of std 1), so that an error in attention shows in the logits."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                weight.normal_(std=1.0, generator=draw)
            elif weight.dim() >= 2:
                weight.normal_(std=0.15, generator=draw)
    return model.eval().float()
