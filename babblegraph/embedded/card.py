"""The model card of the embedded generator, written from its figures."""

from typing import Any

from babblegraph.embedded import data

TEMPLATE = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# The embedded generator of babblegraph

A Llama-shaped language model of {parameters:,} parameters over single characters. It babbles solutions
of Countdown puzzles: after the prompt `3 5 7 11>24` it writes one arithmetic step a line with the
numbers that are left, then its own verdict.

```
3 5 7 11>24
7-3=4:4 5 11
11-5=6:4 6
4*6=24:24
y
```

**It is weak on purpose**: {odds} is right, so that a search over its attempts has
something to do. It is meant for trying out, testing and measuring tree search, offline and in seconds,
and for nothing else.

## Figures

{puzzles:,} held-out puzzles of four numbers from 1 to {largest}, targets {low_target} to {high_target};
{copies} attempts each at temperature 1 from the full distribution;
in brackets 95 % bootstrap intervals over puzzles.

| | |
|---|---|
{pass_rows}

The judge is the same model: P(y) / (P(y) + P(n)) right after a line. The table gives the area under its
ROC curve for whether *this attempt* ends right; "within a prompt" averages over the puzzles that have
both outcomes; "alive" leaves out attempts that the task's partial check already shows to be dead.

| judged after | pooled | within a prompt |
|---|---|---|
{judge_rows}

Measured {date} on {machine}; Python {python}, torch {torch}, transformers {transformers}.

## Training

`python -m babblegraph.embedded.recipe --out DIR --seed {seed}`: {steps:,} AdamW steps in float32 from random
weights, {minutes:.0f} minutes on {threads} CPU cores that also had other work.

1. *Babbling.* Random correct solutions: draw three to five numbers (mostly four), combine them by
   random legal steps, call the last result the target. Made-up failures beside them teach the ratio of
   `y` to `n` to tell sound lines from broken ones.
2. *Judging.* The model attempts training puzzles; the verifier labels the attempts; they are mixed with
   fresh solutions and a few made-up failures. Attempts train the verdict and, at each line end, the
   ratio of `y` to `n` to tell how likely the attempt is to end right. They never train what to write
   next, so the model is not trained on its own successes.

A puzzle is its sorted numbers and its target. A hash assigns each puzzle to train (80 %), validation
(10 %) or test (10 %); training sees the first, the figures above the last. No solver had a part in data
or labels.

## Limits

- Numbers above {largest}, targets outside {low_target} to {high_target} and puzzles of six numbers are
  outside its training. It has positions for 256 characters, but was trained on none beyond about 90.
- {early} of attempts give up: they write a verdict before the last line.
- The judgement after one or two lines estimates the model's own luck from there, not whether a
  solution exists.
- Characters outside its vocabulary of {vocabulary} tokens become `<unk>`.

## Licence

Apache-2.0.
"""

LINES = {
    "judge_auc_line_1": "line 1",
    "judge_auc_line_1_alive": "line 1, alive",
    "judge_auc_line_2": "line 2",
    "judge_auc_line_2_alive": "line 2, alive",
    "judge_auc_line_3": "the complete attempt",
}


def model_card(metrics: dict[str, Any]) -> str:
    """Write the card.

    Args:
        metrics: What `babblegraph.embedded.evaluate` measured.

    Returns:
        Markdown with the head that model hubs read.
    """
    training = {"seed": 0, "steps": 0, "seconds": 0, "threads": 2} | metrics["training"]
    return TEMPLATE.format(
        parameters=metrics["parameters"],
        odds=_odds(metrics["pass@1"]["value"], metrics["attempts"]),
        puzzles=metrics["puzzles"],
        copies=metrics["attempts"] // metrics["puzzles"],
        largest=data.LARGEST,
        low_target=data.TARGETS[0],
        high_target=data.TARGETS[-1],
        vocabulary=len(data.VOCABULARY),
        early=_percent(metrics["early_verdict"]),
        pass_rows="\n".join(
            f"| {name} | {_percent(figure)} |" for name, figure in metrics.items() if name.startswith("pass@")
        ),
        judge_rows="\n".join(
            f"| {name} | {_plain(metrics[line]['pooled'])} | {_plain(metrics[line]['within_prompt'])} |"
            for line, name in LINES.items()
        ),
        date=metrics["date"],
        machine=metrics["machine"],
        **metrics["versions"],
        seed=training["seed"],
        steps=training["steps"],
        minutes=training["seconds"] / 60,
        threads=training["threads"],
    )


def _odds(share: float, attempts: int) -> str:
    """Write how many attempts are right."""
    return f"about one attempt in {1 / share:.1f}" if share else f"none of its {attempts:,} attempts"


def _percent(figure: dict[str, float | None]) -> str:
    """Write a share with its interval."""
    return _with_interval(figure, ".1%")


def _plain(figure: dict[str, float | None]) -> str:
    """Write an area with its interval."""
    return _with_interval(figure, ".3f")


def _with_interval(figure: dict[str, float | None], form: str) -> str:
    """Write value (low to high), or that too few attempts made it undefined."""
    value, low, high = (
        format(number, form) if number is not None else "unknown" for number in figure.values()
    )
    return value if value == "unknown" else f"{value} ({low} to {high})"
