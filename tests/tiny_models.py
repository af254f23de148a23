"""Small models and tokenizers made on the spot; no test needs a hub."""

from __future__ import annotations

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


def tiny_llama(tokenizer: PreTrainedTokenizerFast, seed: int = 0, context: int = 128) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=3,
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
