"""Measure the embedded generator on held-out puzzles: `python -m babblegraph.embedded.evaluate --model DIR`.

Writes `metrics.json` and the model card into the model's directory. All intervals are 95 % percentile
bootstraps over puzzles.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from babblegraph.embedded import data
from babblegraph.embedded.card import model_card
from babblegraph.embedded.sampler import sample
from babblegraph.tasks import Countdown
from babblegraph.tasks.countdown_puzzles import puzzles

PUZZLES, COPIES, RESAMPLES = 1000, 64, 1000
SEED = 2024
ROWS_AT_ONCE = 512
KINDS = (int, int, float, float, bool)  # of the columns of `Judged`


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, score, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of the model")
    parser.add_argument("--puzzles", type=data.positive, default=PUZZLES)
    parser.add_argument("--copies", type=data.positive, default=COPIES, help="attempts a puzzle")
    parser.add_argument("--threads", type=data.positive, default=2)
    options = parser.parse_args(arguments)
    if not (options.model / "config.json").is_file():
        parser.error(f"--model must be the directory of a model, got {str(options.model)!r}: train it first")
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    if (size := model.config.vocab_size) != len(data.VOCABULARY):
        rule = f"--model must have the embedded generator's vocabulary of {len(data.VOCABULARY)} tokens"
        parser.error(f"{rule}, got {str(options.model)!r} with {size}: take one that the recipe made")
    start = time.perf_counter()
    metrics = measure(model, options.puzzles, options.copies)
    training = options.model / "training.json"
    metrics |= {
        "evaluation_seconds": round(time.perf_counter() - start),
        "parameters": sum(p.numel() for p in model.parameters()),
        "training": json.loads(training.read_text()) if training.exists() else {},
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
    }
    (options.model / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    (options.model / "README.md").write_text(model_card(metrics))
    print(json.dumps(metrics, indent=2))


def measure(model: PreTrainedModel, n: int, copies: int) -> dict[str, Any]:
    """Draw attempts at n test puzzles and compute every figure.

    Args:
        model: The embedded generator.
        n: Test puzzles of four numbers.
        copies: Attempts a puzzle, at temperature 1 from the full distribution.

    Returns:
        pass@k, the share of attempts that give their verdict before the last line, and the judge's AUCs, each
        with its interval.
    """
    task = Countdown()
    prompts = [task.prepare(puzzle) for puzzle in puzzles("test", n, SEED)]
    generator = torch.Generator().manual_seed(SEED)
    attempts = sample(model, prompts, copies, generator=generator)
    right = np.array(
        [[task.verify(prompt, text) for text in some] for prompt, some in zip(prompts, attempts, strict=True)]
    )  # [n, copies]
    metrics: dict[str, Any] = {"puzzles": n, "attempts": n * copies, "split": "test", "numbers": 4}
    for k in (k for k in (1, 8, 64) if k <= copies):
        metrics[f"pass@{k}"] = interval(average(pass_at_k(right.sum(1), copies, k)), n)
    early = [[text.endswith(("\ny", "\nn")) and text.count("\n") < 3 for text in some] for some in attempts]
    metrics["early_verdict"] = interval(average(np.mean(early, 1)), n)
    judged = judge(model, prompts, attempts, right)
    for line in (1, 2, 3):
        metrics[f"judge_auc_line_{line}"] = judge_figures(judged[judged.line == line], n)
        if line < 3:  # the third line ends the attempt, and an attempt that is alive then is right
            alive = judged[(judged.line == line) & judged.alive]
            metrics[f"judge_auc_line_{line}_alive"] = judge_figures(alive, n)
    return metrics


def pass_at_k(correct: np.ndarray, n: int, k: int) -> np.ndarray:
    """Estimate the chance that one of k attempts is right, without bias: 1 - C(n-c, k) / C(n, k).

    Args:
        correct: Right attempts of each puzzle. `[P]`
        n: Attempts a puzzle.
        k: Attempts granted.

    Returns:
        One estimate a puzzle. `[P]`

    Example:
        >>> pass_at_k(np.array([0, 1, 4]), 4, 2)
        array([0. , 0.5, 1. ])
    """
    factors = 1 - k / np.arange(1, n + 1)  # [n]; entry i - 1 belongs to a factor (i - k) / i
    return np.array([1 - np.prod(np.maximum(0, factors[n - int(c) :])) for c in correct])


def average(scores: np.ndarray) -> Callable[[np.ndarray], float]:
    """Make the mean over the puzzles whose score is a number a statistic of the puzzles' weights."""
    known = ~np.isnan(scores)

    def mean(weights: np.ndarray) -> float:
        total = weights[known].sum()
        return float(weights[known] @ scores[known] / total) if total else float("nan")

    return mean


def interval(statistic: Callable[[np.ndarray], float], n: int) -> dict[str, float | None]:
    """Compute a statistic of weighted puzzles and its 95 % bootstrap interval; None where it is undefined.

    Example:
        >>> interval(lambda weights: float(np.average([0.0, 1.0], weights=weights)), 2)
        {'value': 0.5, 'low': 0.0, 'high': 1.0}
    """
    rng = np.random.default_rng(SEED)
    value = statistic(np.ones(n))
    resampled = [statistic(rng.multinomial(n, np.full(n, 1 / n)).astype(float)) for _ in range(RESAMPLES)]
    if np.isnan(value) or np.isnan(resampled).all():
        return {"value": None, "low": None, "high": None}
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


@dataclass
class Judged:
    """Line ends of attempts with the model's judgement there. All `[M]`, ordered by puzzle."""

    puzzle: np.ndarray
    line: np.ndarray
    score: np.ndarray
    right: np.ndarray
    alive: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Judged":
        return Judged(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@torch.inference_mode()
def judge(
    model: PreTrainedModel, prompts: Sequence[str], attempts: Sequence[Sequence[str]], right: np.ndarray
) -> Judged:
    """Read P(y) / (P(y) + P(n)) after every line of every attempt."""
    task, flat = Countdown(), []
    for puzzle, (prompt, some) in enumerate(zip(prompts, attempts, strict=True)):
        for text, outcome in zip(some, right[puzzle], strict=True):
            if "<" not in text:  # a special token inside: nothing to read a judgement from
                flat.append((puzzle, prompt, text.rstrip("yn"), outcome))
    order = sorted(range(len(flat)), key=lambda i: len(flat[i][1] + flat[i][2]))  # equal lengths together
    found = []
    for first in range(0, len(order), ROWS_AT_ONCE):
        chunk = [flat[i] for i in order[first : first + ROWS_AT_ONCE]]
        tokens = [torch.tensor([data.VOCABULARY[c] for c in prompt + text]) for _, prompt, text, _ in chunk]
        ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=data.PAD)
        logits = model(ids).logits
        scores = torch.sigmoid(logits[..., data.YES] - logits[..., data.NO]).numpy()  # [rows, L]
        for row, (puzzle, prompt, text, outcome) in enumerate(chunk):
            ends = [at for at, c in enumerate(text) if c == "\n"]
            for line, end in enumerate(ends, 1):
                alive = task.value(prompt, text[: end + 1]) > 0
                found.append((puzzle, line, scores[row, len(prompt) + end], outcome, alive))
    found.sort(key=lambda entry: entry[0])
    columns = zip(*found, strict=True) if found else [()] * len(KINDS)  # a model may never end a line
    return Judged(*(np.array(column, kind) for column, kind in zip(columns, KINDS, strict=True)))


def judge_figures(judged: Judged, n: int) -> dict[str, Any]:
    """Compute the chance that a right attempt is judged above a wrong one, over all puzzles and within each.

    `within_prompt` averages over the puzzles that have both outcomes: it is what matters to a search of one
    prompt, while `pooled` also rewards knowing which puzzles are easy.
    """
    _, place = np.unique(judged.score, return_inverse=True)
    each = np.full(n, np.nan)
    for puzzle in range(n):
        mine = slice(*np.searchsorted(judged.puzzle, [puzzle, puzzle + 1]))
        each[puzzle] = auc(place[mine], judged.right[mine], np.ones(len(place[mine])))
    return {
        "pooled": interval(lambda weights: auc(place, judged.right, weights[judged.puzzle]), n),
        "within_prompt": interval(average(each), n),
        "line_ends": len(place),
    }


def auc(place: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Compute the area under the curve of weighted ranks; ties count half, NaN when one outcome is missing.

    Example:
        >>> auc(np.array([0, 1, 1]), np.array([0.0, 1.0, 0.0]), np.ones(3))
        0.75
    """
    up = np.bincount(place, weights * right)
    down = np.bincount(place, weights * (1 - right))
    pairs = up.sum() * down.sum()
    return float(up @ (np.cumsum(down) - down / 2) / pairs) if pairs else float("nan")


if __name__ == "__main__":
    main()
