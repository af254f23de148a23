"""Find Countdown puzzles that are hard for the embedded generator: `python -m babblegraph.embedded.hard`.

Held-out puzzles of four numbers are attempted at temperature 1; those of which between one attempt in 128 and eight in
a hundred are right make the hard split. No solver chooses: a puzzle that never came out is left out, though it has a
solution.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from babblegraph.embedded.sampler import sample
from babblegraph.tasks import Countdown
from babblegraph.tasks.countdown_puzzles import HARD, puzzles

HOME = Path(__file__).parent / "model"
EASIEST, HARDEST = 0.08, 0.005  # shares of right attempts
SEED = 77


def main(arguments: Sequence[str] | None = None) -> None:
    """Attempt puzzles of both held-out splits and write the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidates", type=int, default=600, help="puzzles of each split")
    parser.add_argument("--copies", type=int, default=128, help="attempts a puzzle")
    parser.add_argument("--out", type=Path, default=HARD)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(HOME, dtype=torch.float32).eval()
    lines = []
    for split in ("validation", "test"):
        found = hard(model, split, options.candidates, options.copies)
        lines += [f"{split}\t{puzzle}\t{share:.4f}\n" for puzzle, share in found]
        print(f"{split}: {len(found)} of {options.candidates} are hard", flush=True)
    options.out.write_text("".join(lines))


def hard(model: torch.nn.Module, split: str, candidates: int, copies: int) -> list[tuple[str, float]]:
    """List the hard ones among a split's puzzles, each with the share of attempts that were right."""
    task, generator = Countdown(), torch.Generator().manual_seed(SEED)
    chosen = list(puzzles(split, candidates, SEED))
    prompts = [task.prepare(puzzle) for puzzle in chosen]
    attempts = sample(model, prompts, copies, generator=generator)
    shares = [
        sum(task.verify(prompt, text) for text in some) / copies
        for prompt, some in zip(prompts, attempts, strict=True)
    ]
    return [(p, s) for p, s in zip(chosen, shares, strict=True) if HARDEST <= s <= EASIEST]


if __name__ == "__main__":
    main()
