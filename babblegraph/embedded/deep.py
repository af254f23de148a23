"""Train a small generator for a deep task: `python -m babblegraph.embedded.deep TASK --out DIR [--seed N]`.

One phase on one CPU core: the model learns to babble texts of forward play, `chain` from chains of all lengths up to
the longest, `queens` from random games that went through. It is to stay weak: few steps, no search, no solver, no
reinforcement. Prompts come from the `train` split alone.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from babblegraph.embedded.data import EOS, PAD, SPECIALS, positive, whole
from babblegraph.embedded.recipe import save, updater
from babblegraph.errors import BadInput
from babblegraph.tasks.chain import MOST_STEPS, random_chain, solution, split_of
from babblegraph.tasks.queens import SIZES, hide, random_board

LONGEST = 352
POOL = 8  # batches are drawn together and sorted by length


class Recipe(NamedTuple):
    """How one task's generator is made.

    Attributes:
        characters: Of its texts.
        draw: (rng, progress in [0, 1]) -> prompt and right text.
        steps: Optimizer steps.
        rows: Texts a step.
        width: Of the model.
        layers: Of the model.
    """

    characters: str
    draw: Callable[[random.Random, float], tuple[str, str]]
    steps: int
    rows: int
    width: int
    layers: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save the model and its tokenizer, and note how long it took in `training.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="directory for the model")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument("--steps", type=positive, help="fewer steps make a weaker model")
    parser.add_argument("--threads", type=positive, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe, start = RECIPES[options.task], time.perf_counter()
    steps = options.steps or recipe.steps
    model = train(recipe, seed=options.seed, steps=steps)
    save(model, options.out, vocabulary(recipe))
    record = {"task": options.task, "seed": options.seed, "steps": steps, "threads": options.threads}
    record["seconds"] = round(time.perf_counter() - start)
    (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def train(recipe: Recipe, *, seed: int, steps: int) -> LlamaForCausalLM:
    """Train from random weights; the loss is that of the text, not of the prompt."""
    torch.manual_seed(seed)
    rng, ids = random.Random(seed), vocabulary(recipe)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(ids),
            hidden_size=recipe.width,
            intermediate_size=3 * recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=LONGEST,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=EOS,
        )
    )
    update, clock = updater(model, steps), time.perf_counter()
    for step, (tokens, prompts) in zip(range(steps), batches(recipe, rng, steps), strict=False):
        logits = model(tokens[:, :-1]).logits  # [B, L-1, V]; padding is at the right, so causality masks it
        following = tokens[:, 1:]
        place = torch.arange(following.shape[1])
        where = (place >= prompts[:, None] - 1) & (following != PAD)
        loss = torch.nn.functional.cross_entropy(logits[where], following[where])
        update(loss)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            seconds = time.perf_counter() - clock
            print(f"step {step + 1}/{steps}  {seconds:.0f} s  loss {loss.item():.4f}", flush=True)
    return model.eval()


def batches(recipe: Recipe, rng: random.Random, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield padded token ids [B, L] and the lengths of the prompts [B], each batch of about one length."""
    ids = vocabulary(recipe)
    for pool in range(-(-steps // POOL)):
        drawn = [recipe.draw(rng, pool * POOL / steps) for _ in range(recipe.rows * POOL)]
        drawn.sort(key=lambda one: len(one[0]) + len(one[1]))
        chunks = [drawn[i : i + recipe.rows] for i in range(0, len(drawn), recipe.rows)]
        for chunk in rng.sample(chunks, len(chunks)):
            rows = [torch.tensor([*(ids[c] for c in prompt + text), EOS]) for prompt, text in chunk]
            tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
            yield tokens, torch.tensor([len(prompt) for prompt, _ in chunk])


def vocabulary(recipe: Recipe) -> dict[str, int]:
    """Number the characters, the special tokens first."""
    return {token: i for i, token in enumerate((*SPECIALS, *recipe.characters))}


def _chain(rng: random.Random, progress: float) -> tuple[str, str]:
    """Short chains first; towards the end up to the longest."""
    most = max(4, round(MOST_STEPS * min(1.0, 1.5 * progress)))
    while True:
        prompt = random_chain(rng, rng.randint(max(2, most // 4), most))
        if split_of(prompt) == "train":
            return prompt, solution(prompt)


def _queens(rng: random.Random, progress: float) -> tuple[str, str]:
    """Random games that went through, mostly on the largest board, with none to four queens given."""
    while True:
        size = rng.choice((*SIZES, *[SIZES[-1]] * 9))
        board = random_board(rng, size)
        prompt = hide(rng, board, rng.randint(0, 4))
        if split_of(prompt) == "train":
            return prompt, "".join(f"{ascii_lowercase[column]}\n" for column in board)


def recipe_of(task: str) -> Recipe:
    """Look up a recipe.

    Raises:
        BadInput: There is none for this task.
    """
    if task not in RECIPES:
        raise BadInput(f"a deep task is one of {', '.join(RECIPES)}, got {task!r}; choose one of them")
    return RECIPES[task]


RECIPES = {
    "chain": Recipe("\n0123456789+-*=" + ascii_lowercase, _chain, 1200, 32, 96, 2),
    "queens": Recipe("\n." + ascii_lowercase[: SIZES[-1]], _queens, 1500, 96, 64, 2),
}


if __name__ == "__main__":
    main()
