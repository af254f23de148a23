"""Train the embedded generator from nothing: `python -m babblegraph.embedded.recipe --out DIR [--seed N]`.

Two phases of one run on the CPU. First the model learns to babble random correct solutions and to tell
sound lines from broken ones. Then it attempts training puzzles itself, the verifier labels these attempts,
and training goes on with both: babbling from fresh solutions only, judging from the labelled attempts. Left
out on purpose: any solver, any reinforcement of the model's own successes; the generator is to stay weak.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babblegraph.embedded import data
from babblegraph.embedded.sampler import sample
from babblegraph.tasks import Countdown

STEPS = 3600
JUDGE_SHARE = 0.27  # of the steps are the second phase
ROWS = 64  # solutions a step
WRONG_ROWS = 20  # made-up failures a step, in the first phase
JUDGE_ROWS = 40  # labelled attempts a step, in the second phase
SYNTHETIC_SHARE = 0.15  # of the labelled attempts are made up; the others are the model's own
POOL = 8  # batches are drawn together and sorted by length
COPIES = 8  # attempts a puzzle
PEAK_RATE, WARMUP = 2e-3, 100
VERDICT_WEIGHT, VALUE_WEIGHT = 0.3, 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save the model and its tokenizer, and note how long it took in `training.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory for the model")
    parser.add_argument("--seed", type=data.whole, default=0)
    parser.add_argument("--steps", type=data.positive, default=STEPS, help="fewer steps make a weaker model")
    parser.add_argument("--threads", type=data.positive, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    model = train(seed=options.seed, steps=options.steps)
    save(model, options.out)
    seconds = round(time.perf_counter() - start)
    record = {"seed": options.seed, "steps": options.steps, "threads": options.threads, "seconds": seconds}
    (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")


def train(*, seed: int, steps: int) -> LlamaForCausalLM:
    """Run both phases.

    Args:
        seed: Decides the weights, the data and the attempts.
        steps: Optimizer steps of both phases together.

    Returns:
        The trained model, in float32.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = LlamaForCausalLM(config())
    update = updater(model, steps)
    judge_steps = max(1, round(JUDGE_SHARE * steps))
    clock = time.perf_counter()
    batches = _batches(rng, None)
    for step in range(steps):
        if step == steps - judge_steps:
            batches = _batches(rng, labelled_attempts(model, judge_steps * JUDGE_ROWS, rng, seed))
        loss = losses(model, next(batches))
        judging = VERDICT_WEIGHT * loss["verdict"] + VALUE_WEIGHT * loss["value"] + loss["patience"]
        total = loss["generate"] + judging
        update(total)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            report = "  ".join(f"{name} {value.item():.4f}" for name, value in loss.items())
            print(f"step {step + 1}/{steps}  {time.perf_counter() - clock:.0f} s  {report}", flush=True)
    return model.eval()


def updater(model: LlamaForCausalLM, steps: int) -> Callable[[torch.Tensor], None]:
    """Make the function that takes one optimizer step down a loss: AdamW, clipped, along the schedule of `_rate`."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))

    def update(loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    return update


def config() -> LlamaConfig:
    """Describe the architecture: a Llama of about a million parameters over single characters."""
    return LlamaConfig(
        vocab_size=len(data.VOCABULARY),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=data.PAD,
        bos_token_id=None,
        eos_token_id=data.EOS,
    )


def _rate(step: int, steps: int) -> float:
    """Warm up linearly, then fall to 2 % of the peak along a cosine."""
    warmup = min(WARMUP, max(1, steps // 10))
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.49 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))


def labelled_attempts(model: LlamaForCausalLM, n: int, rng: random.Random, seed: int) -> data.Rows:
    """Let the model attempt training puzzles and label the attempts; add synthetic failures."""
    synthetic = round(SYNTHETIC_SHARE * n)
    prompts = data.training_puzzles(rng, max(1, (n - synthetic) // COPIES))
    generator = torch.Generator().manual_seed(seed)
    task, examples = Countdown(), []
    model.eval()
    for prompt, attempts in zip(prompts, sample(model, prompts, COPIES, generator=generator), strict=True):
        for attempt in attempts:
            text = attempt[:-1] if attempt[-2:] in ("\ny", "\nn") else attempt
            if "<" not in text and len(prompt + text) < data.LONGEST_ROW - 1:
                right = task.verify(prompt, text) == 1.0
                examples.append(data.Attempt(prompt, text, right, generate=False, judged_from=0))
    model.train()
    successes = sum(attempt.right for attempt in examples)
    print(f"own attempts at training puzzles: {len(examples)}, of them right: {successes}", flush=True)
    return data.join(data.pack(examples), data.wrong_attempts(rng, synthetic))


def _batches(rng: random.Random, labelled: data.Rows | None) -> Iterator[data.Rows]:
    """Yield batches without end, each of rows of about one length, which saves a third of the padding.

    Until there are labelled attempts, sound and broken lines are told apart: only a model that sees a slip can
    learn later what an attempt is worth.
    """
    order: list[int] = []
    while True:
        rows = data.solutions(rng, ROWS * POOL, judged=labelled is None)
        if labelled is None:
            rows = data.join(rows, data.wrong_attempts(rng, WRONG_ROWS * POOL))
        else:
            while len(order) < JUDGE_ROWS * POOL:
                order += rng.sample(range(len(labelled.length)), len(labelled.length))
            chosen, order = order[: JUDGE_ROWS * POOL], order[JUDGE_ROWS * POOL :]
            rows = data.join(rows, data.take(labelled, chosen))
        batches = np.array_split(np.argsort(rows.length, kind="stable"), POOL)
        for batch in rng.sample(batches, POOL):
            yield data.take(rows, batch)


def losses(model: LlamaForCausalLM, rows: data.Rows) -> dict[str, torch.Tensor]:
    """Compute the losses of a batch, each a mean over its own positions.

    `generate` and `verdict` are cross-entropies over the vocabulary. `value` compares only the logits of `y`
    and `n` at the line ends of labelled attempts, so that their ratio tells how likely the attempt is to end
    right while the distribution of the next character is left alone. Left entirely alone the two logits would
    rise together where an attempt looks lost, and the model would give up; `patience` forbids a verdict there.
    """
    longest = int(rows.length.max())
    ids = torch.from_numpy(rows.ids[:, :longest])
    aim = torch.from_numpy(rows.aim[:, : longest - 1])
    value = torch.from_numpy(rows.value[:, : longest - 1])
    logits = model(ids[:, :-1]).logits  # [B, L-1, V]; padding is at the right, so causality masks it
    following = ids[:, 1:]

    def cross_entropy(where: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not where.any():
            return torch.zeros(())
        return torch.nn.functional.cross_entropy(scores[where], labels[where])

    def patience(where: torch.Tensor) -> torch.Tensor:
        if not where.any():
            return torch.zeros(())
        others = logits[where].index_fill(-1, torch.tensor([data.NO, data.YES]), float("-inf"))
        return (logits[where].logsumexp(-1) - others.logsumexp(-1)).mean()  # -log(1 - P(y) - P(n))

    return {
        "generate": cross_entropy(aim == data.GENERATE, logits, following),
        "verdict": cross_entropy(aim == data.JUDGE, logits, following),
        "value": cross_entropy(value >= 0, logits[..., [data.NO, data.YES]], value),
        "patience": patience((value >= 0) & (aim != data.JUDGE)),
    }


def save(model: LlamaForCausalLM, out: Path, vocabulary: Mapping[str, int] = data.VOCABULARY) -> None:
    """Write model and tokenizer; weights are stored in half precision and load as float32."""
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, pad_token_id=data.PAD, eos_token_id=data.EOS
    )
    model.half().save_pretrained(out)
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    tokenizer(vocabulary, model.config.max_position_embeddings).save_pretrained(out)


def tokenizer(vocabulary: Mapping[str, int] = data.VOCABULARY, longest: int = 256) -> PreTrainedTokenizerFast:
    """Build the tokenizer: every character a token, nothing added and nothing cleaned up."""
    core = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=[], unk_token="<unk>", fuse_unk=False))
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    main()
