"""A model, its tokenizer and prompts, made on the spot: nothing is fetched."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from babblegraph.lm.babbler import EMBEDDED

from .work import Setting

END = "<end>"  # some decoders need a token that ends texts; it is never one that ends ours
SMOLLM = {  # as SmolLM-135M, thinner: grouped queries, tied embeddings
    "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 64, "intermediate_size": 1024, "vocab_size": 8192, "max_position_embeddings": 4096,
}  # fmt: skip
TINY = SMOLLM | {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 32, "intermediate_size": 128, "vocab_size": 512,
}  # fmt: skip
QWEN = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "max_position_embeddings": 8192}
NO_ENDS = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": 0}
QWEN_0_6B = QWEN | {
    "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 3072,
    "tie_word_embeddings": True,
}  # fmt: skip
QWEN_8B = QWEN | {
    "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 12_288,
    "tie_word_embeddings": False,
}  # fmt: skip


def smollm(folder: Path, threads: int, sizes: dict[str, int] = SMOLLM) -> Setting:
    """A Llama shaped like SmolLM with random weights in fp32, and a byte-level BPE over made-up words."""
    tokenizer = word_tokenizer(sizes["vocab_size"])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True, **NO_ENDS))
    loud(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return endless(Setting(model.eval(), tokenizer, folder, threads))


def embedded(folder: Path, threads: int) -> Setting:
    """The generator that ships with the package; its end of text is one token among others here."""
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return endless(Setting(model.eval(), tokenizer, folder, threads))


def qwen(sizes: dict[str, Any], device: str, dtype: torch.dtype) -> Any:
    """A Qwen3 with random weights, made on its device."""
    with torch.device(device):
        torch.manual_seed(0)
        config = Qwen3Config(**sizes, **NO_ENDS)
        kept = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            model = AutoModelForCausalLM.from_config(config)
        finally:
            torch.set_default_dtype(kept)
    return model.eval()


def words(tokenizer: Any, tokens: int, seed: int = 0) -> tuple[str, tuple[int, ...]]:
    """A text of exactly so many tokens, and their ids."""
    single = [w for w in _vocabulary(2000) if len(tokenizer(f" {w}")["input_ids"]) == 1]
    text = "".join(f" {w}" for w in np.random.default_rng(seed).choice(single, tokens))
    ids = tuple(tokenizer(text)["input_ids"])
    if len(ids) != tokens:
        raise RuntimeError(f"a prompt of {tokens} tokens was wanted, {len(ids)} were made")
    return text, ids


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on generated text, filled up to `size` tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = _vocabulary(2 * size)
    draw = np.random.default_rng(1)
    lines = [" " + " ".join(draw.choice(names, 200)) for _ in range(200)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>", END], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(lines, trainer)
    core.add_tokens([f"<unused{i}>" for i in range(size - core.get_vocab_size())])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token=END)


def loud(model: torch.nn.Module, std: float = 0.06) -> None:
    """Weights large enough that attention is not uniform and an error in it shows in the logits."""
    draw = torch.Generator(next(model.parameters()).device).manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(std=std, generator=draw)


def endless(setting: Setting) -> Setting:
    """No token ends a text, so that all decoders sample the same number; what is saved keeps its end."""
    for config in (setting.model.generation_config, setting.model.config):
        config.eos_token_id = config.bos_token_id = None
        config.pad_token_id = 0
    setting.tokenizer.eos_token = None
    return setting


@cache
def _vocabulary(n: int) -> list[str]:
    """Made-up words of two or three syllables, the same at every call."""
    draw = np.random.default_rng(0)
    syllables = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u", "an", "er")]
    made = {"".join(draw.choice(syllables, draw.integers(2, 4))) for _ in range(3 * n)}
    return sorted(made)[:n]
