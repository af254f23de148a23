"""Where does a generator go, level by level, that learns from its own elite: to f_opt, or to a few texts?

A table of all 81 texts of a small language model is the generator, so that the update is exact, f_opt is known, and all
that is left of the method are its weights and its samples. The elite is chosen and weighed by the library's own code.
λ is the power of the base in the target, ε the share of the samples that grow from the base; without the ratio every
sample counts the same, whatever it grew from. A cell is the mean over replicas of KL(f_opt ‖ g) in nats after so many
levels, g mixed with a thousandth of f so that a lost text does not make it infinite. Left out: what a network
generalises from one prompt to others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from babblegraph.intervals import student_mean
from babblegraph.learning.elite import elite
from babblegraph.learning.leaves import Leaves
from babblegraph.randomness import Rng

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parent.parent / "tests"))
from common import claim, parser, report
from table_lm import TableLM

ARMS = [  # λ, ε, whether weights have the ratio
    (0.0, 0.0, True),
    (0.5, 0.0, True),
    (1.0, 0.0, True),
    (0.0, 0.1, False),
    (0.0, 0.1, True),
    (0.5, 0.1, True),
    (1.0, 0.1, True),
]
SHOWN = (1, 2, 3, 5, 10, 20, 50, 100)
FLOOR = 1e-3  # of f in the generator that is measured


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--samples", type=int, default=2000, help="of a level")
    options.add_argument("--levels", type=int, default=100)
    options.add_argument("--replicas", type=int, default=20)
    options.add_argument("--threshold", type=float, default=0.7)
    chosen = options.parse_args()
    if chosen.quick:
        chosen.levels, chosen.replicas = 10, 4
    rows = [row(*arm, chosen) for arm in ARMS]
    shown = [{k: v for k, v in one.items() if k not in ("each", "biggest ratio")} for one in rows]
    title = f"KL(f_opt ‖ g) in nats by level, {chosen.samples} samples each, {chosen.replicas} replicas"
    report(title, rows, claims(rows, chosen.levels), chosen, tables=[(title, shown)])


def row(power: float, epsilon: float, ratio: bool, chosen) -> dict:
    """One arm: its mean KL at some levels, and f_opt's mass on texts that g has lost in the end."""
    lm = TableLM(3, 4, seed=0)
    f = np.exp([lm.log_p[t] for t in lm.texts])  # [K]
    score = np.array([lm.score[t] for t in lm.texts])
    best = np.where(score >= chosen.threshold, f, 0.0)
    best /= best.sum()
    shown = [level for level in SHOWN if level <= chosen.levels]
    found, lost, biggest = [], [], 0.0
    for replica in range(chosen.replicas):
        g, path = f, []
        for level in range(chosen.levels):
            draw = Rng(replica).generator(level)
            g, most = next_level(f, g, score, power, epsilon, ratio, chosen, draw)
            path.append(divergence(best, f, g))
            biggest = max(biggest, most)
        found.append(path)
        lost.append(best[g == 0].sum())
    mean = np.mean(found, 0)
    return {
        "λ": power,
        "ε": epsilon,
        "ratio": "yes" if ratio else "no",
        **{f"level {level}": float(mean[level - 1]) for level in shown},
        "lost, %": 100 * float(np.mean(lost)),
        "each": [path[-1] for path in found],
        "biggest ratio": biggest,
    }


def next_level(f, g, score, power, epsilon, ratio, chosen, draw) -> tuple[np.ndarray, float]:
    """Samples, elite, and the exact update of a table: the elite's weights; and the biggest f / q among it."""
    of_base = round(epsilon * chosen.samples)
    counts = [draw.multinomial(chosen.samples - of_base, g), draw.multinomial(of_base, f)]
    texts, source = (
        np.concatenate(x)
        for x in zip(
            *((np.flatnonzero(c), np.full((c > 0).sum(), i)) for i, c in enumerate(counts)), strict=True
        )
    )
    share = np.array([1 - epsilon, epsilon])[: 2 if of_base else 1]
    count = np.concatenate([c[c > 0] for c in counts])
    with np.errstate(divide="ignore"):
        log_f, log_g = np.log(f[texts]), np.log(g[texts])
    leaves = Leaves(
        prompts=("",),
        prompt=np.zeros(len(texts), np.int64),
        tree=source.astype(np.int64),
        trees=np.zeros(len(share), np.int64),
        share=share,
        of_base=np.array([False, True])[: len(share)],
        text=tuple(map(str, texts)),
        tokens=tuple(np.array([t], np.int32) for t in texts),
        start=np.zeros(len(texts), np.int64),
        score=score[texts],
        log_f=log_f,
        log_g=log_g,
        log_share=np.log(count / chosen.samples),
        biased="" if ratio else "weights without the ratio",
    )
    found = elite(leaves, power=power, threshold=chosen.threshold, flat=False, lowest_too=True)
    moved = np.bincount(texts[found.leaf], found.weight, len(f))
    mixed = epsilon * f + (1 - epsilon) * g
    return moved, float((f[texts] / mixed[texts]).max())


def divergence(best, f, g) -> float:
    """KL(f_opt ‖ g), g mixed with a little of f."""
    some = best > 0
    return float(
        (best * np.log(best / ((1 - FLOOR) * g + FLOOR * f), where=some, out=np.zeros_like(f))).sum()
    )


def claims(rows: list[dict], levels: int) -> list[dict]:
    """Where theory says that an arm goes."""
    by_arm = {(one["λ"], one["ε"], one["ratio"]): one for one in rows}
    held, drifted = by_arm[1.0, 0.1, "yes"], by_arm[0.0, 0.0, "yes"]
    end = f"level {max(level for level in SHOWN if level <= levels)}"
    name = "λ = 1, ε = 0.1: KL(f_opt ‖ g) at the end, nats"
    apart, interval = student_mean(np.subtract(drifted["each"], held["each"]))
    return [
        claim(name, held[end], "≤ 0.1", held[end] <= 0.1),
        claim("λ = 0 − that, nats", apart, "interval above 0", interval[0] > 0, interval),
        claim(
            "λ = 1, ε = 0.1: biggest f ÷ q", held["biggest ratio"], "≤ 10", held["biggest ratio"] <= 10 + 1e-9
        ),
    ]


if __name__ == "__main__":
    main()
