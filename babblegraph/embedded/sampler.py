"""Many independent attempts at many puzzles, drawn in large batches.

For training and for measuring the embedded generator only; what users search with is the Babbler.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel

from babblegraph.embedded.data import CHARACTERS, EOS, SPECIALS, VOCABULARY

ROWS_AT_ONCE = 1024


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[str],
    copies: int,
    *,
    generator: torch.Generator,
    most_tokens: int = 80,
) -> list[list[str]]:
    """Draw attempts at temperature 1 from the full distribution.

    Args:
        model: A causal LM over the embedded vocabulary.
        prompts: Prepared prompts.
        copies: Attempts a prompt.
        generator: The source of randomness.
        most_tokens: Where an attempt that does not end is cut off.

    Returns:
        For every prompt its attempts, verdict included, the end-of-text token left out.
    """
    by_length = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    attempts: list[list[str]] = [[] for _ in prompts]
    at_once = max(1, ROWS_AT_ONCE // copies)
    for indices in by_length.values():
        for first in range(0, len(indices), at_once):
            chunk = indices[first : first + at_once]
            texts = _sample_equal_lengths(model, [prompts[i] for i in chunk], copies, generator, most_tokens)
            for place, index in enumerate(chunk):
                attempts[index] = texts[place * copies : (place + 1) * copies]
    return attempts


def _sample_equal_lengths(
    model: PreTrainedModel, prompts: list[str], copies: int, generator: torch.Generator, most_tokens: int
) -> list[str]:
    """Prefill every prompt once, copy its keys and values, then draw token by token until all have ended."""
    ids = torch.tensor([[VOCABULARY[c] for c in prompt] for prompt in prompts])
    cache = DynamicCache(config=model.config)
    logits = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    cache.batch_repeat_interleave(copies)
    logits = logits.repeat_interleave(copies, 0)
    rows = torch.arange(len(prompts) * copies)  # the attempts still going, in the order of the cache
    drawn = torch.full((len(rows), most_tokens), EOS)
    for step in range(most_tokens):
        tokens = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        drawn[rows, step] = tokens[:, 0]
        going = tokens[:, 0] != EOS
        if not going.any():
            break
        if going.float().mean() < 0.9:  # shrinking copies the cache, so not at every end
            cache.batch_select_indices(going.nonzero()[:, 0])
            rows, tokens = rows[going], tokens[going]
        logits = model(tokens, past_key_values=cache, use_cache=True).logits[:, -1]
    return [_text(row) for row in drawn.tolist()]


def _text(ids: list[int]) -> str:
    """Join the characters before the end-of-text token."""
    ids = ids[: ids.index(EOS)] if EOS in ids else ids
    return "".join((*SPECIALS, *CHARACTERS)[i] for i in ids)
