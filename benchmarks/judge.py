"""Is judging easier than making? Judges' ranking within prompts beside the maker's pass@1, and what it buys a search.

Held-out Countdown-4 puzzles and the embedded generator. Each judge values the same live nodes of the same unpruned
rollouts; "AUC" is the chance, within a puzzle, that a rollout that ends right goes through the better node. The exact
value, P(right | node) from the generator's own probabilities of all solutions, is the ceiling: no judge can know
more than luck. Then `babble` searches with each value at equal sampled tokens. Left out: other models and tasks.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.lm.babbler import EMBEDDED
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import JudgeValue, LearnedValue, RewardModelValue, Score, likelihood
from babblegraph.scoring.examples import examples
from babblegraph.scoring.learned import is_there
from babblegraph.scoring.reliability import reliability
from babblegraph.strategies import babble, best_of_n
from babblegraph.tasks.countdown_puzzles import puzzles
from babblegraph.tasks.countdown_solver import solve

sys.path.insert(0, str(Path(__file__).parent))
from common import bootstrap, claim, parser, report
from search import separate_tokens, unique_tokens

BUDGETS = (100, 200, 400, 800)
EXACT, LEARNED, VERDICT, REWARD = (
    "exact value",
    "learned head",
    "own verdict",
    "reward model from comparisons",
)
LIKELY, CONSTANT, BEST = "likelihood", "constant", "best-of-n on our trie"
SEPARATE = "best-of-n, separate samples"


def main(arguments=None):
    options = parser(__doc__)
    options.add_argument("--puzzles", type=int, default=200)
    options.add_argument("--copies", type=int, default=32)
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--split", default="test", choices=["validation", "test"])
    options.add_argument(
        "--pairs", type=int, default=4000, help="comparisons for the reward model; 0 leaves it out"
    )
    options.add_argument(
        "--tokens",
        type=int,
        default=BUDGETS[-1],
        help="of each search, for each puzzle; 0 leaves searches out",
    )
    chosen = options.parse_args(arguments)
    if chosen.quick:
        chosen.puzzles, chosen.copies, chosen.seeds, chosen.pairs, chosen.tokens = 4, 6, 1, 0, 100
    torch.set_num_threads(1)  # the model is small
    prompts = [f"{p}\n" for p in puzzles(chosen.split, chosen.puzzles, seed=1, numbers=4)]
    babbler = bg.Babbler.embedded()
    judges = judges_of(babbler, chosen.pairs)
    judged, maker = judged_by(babbler, prompts, judges, chosen.copies)
    searched = searches(babbler, prompts, judges, chosen) if chosen.tokens else {}
    names = list(dict.fromkeys([*judges, *searched]))
    rows = [row(name, judged.get(name), searched.get(name), chosen) for name in names]
    title = f"{len(prompts)} held-out puzzles × {chosen.copies} rollouts; the maker's pass@1 is {maker:.1%}"
    report(title, rows, claims_of(judged, searched, maker, chosen), chosen)
    return rows


def searches(babbler, prompts, judges, chosen):
    """What `searched_with` finds, by name."""
    searched = {
        name: searched_with(babbler, prompts, value, chosen)
        for name, value in judges.items()
        if name != LIKELY
    }
    searched |= {
        f"{name}, trusted": searched_with(babbler, prompts, judges[name], chosen, trusting())
        for name in (EXACT, LEARNED, VERDICT)
        if name in judges
    }
    searched[CONSTANT] = searched_with(babbler, prompts, None, chosen)
    samples = best_of_n(width=1, threshold=1.0)
    searched[BEST] = searched_with(babbler, prompts, None, chosen, samples)
    searched[SEPARATE] = searched_with(babbler, prompts, None, chosen, samples, separate_tokens)
    return searched


def trusting():
    """`babble` that takes values for probabilities: no failure tells it more."""
    return babble(width=1, threshold=1.0, patience=1e3)


def judges_of(babbler, pairs):
    """Every judge by name, the ceiling first."""
    found = {EXACT: ExactValue(babbler)}
    if is_there(EMBEDDED):
        found[LEARNED] = LearnedValue.from_folder(babbler, EMBEDDED)
    found |= {VERDICT: JudgeValue(babbler), LIKELY: likelihood}
    if pairs:
        found[REWARD] = reward_model(babbler, pairs)
    return found


class ExactValue:
    """P(the generator ends right | node): the sum of its probabilities of all ways that solve what is left."""

    def __init__(self, babbler):
        self.babbler, self.known = babbler, {}

    @torch.inference_mode()
    def __call__(self, graph, ids, meter):
        texts = [(graph.prompt(i), graph.text(i)) for i in ids.tolist()]
        tails = [
            (head, text, tail)
            for head, text in dict.fromkeys(texts)
            if (head, text) not in self.known
            for tail in self._solutions(head, text)
        ]
        for at in range(0, len(tails), 256):
            self._add(tails[at : at + 256])
        return np.array([min(self.known[pair], 1.0) for pair in texts])

    def _solutions(self, head, text):
        self.known[head, text] = 0.0
        state = bg.Countdown().state(head, text)
        if state is None:
            return []
        numbers, target = state.split(">")
        return solve([int(n) for n in numbers.split(" ")], int(target))

    def _add(self, tails):
        encode = self.babbler.tokenizer
        tokens = [torch.tensor(encode(head + text + tail)["input_ids"]) for head, text, tail in tails]
        ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        log_p = self.babbler.model(ids).logits.log_softmax(-1)
        for row, (head, text, tail) in enumerate(tails):
            at = torch.arange(len(tokens[row]) - len(tail), len(tokens[row]))
            self.known[head, text] += float(log_p[row, at - 1, tokens[row][at]].sum().exp())


def reward_model(babbler, pairs):
    """The generator itself, trained by TRL on comparisons of its own attempts at training puzzles."""
    from babblegraph.scoring.train_reward import Comparison, train_reward

    prompts = [f"{p}\n" for p in puzzles("train", pairs, seed=5, numbers=4)]
    graph = rolled(babbler, prompts, 8)
    comparisons, draw = [], np.random.default_rng(0)
    leaf = np.flatnonzero(graph.is_leaf())
    for tree in range(graph.trees):
        mine = leaf[graph.root[leaf] == tree]
        good, bad = mine[graph.score[mine] >= 1], mine[graph.score[mine] < 1]
        if len(good) and len(bad):
            for depth in (1, 2, 3):  # also of the same attempts' beginnings
                texts = [
                    "".join(graph.text(int(draw.choice(x))).splitlines(True)[:depth]) for x in (good, bad)
                ]
                if texts[0] != texts[1]:
                    comparisons.append(Comparison(prompts[tree], *texts))
    with tempfile.TemporaryDirectory() as folder:
        options = {"epochs": 2, "batch_size": 32, "rate": 3e-4, "device": "cpu"}
        found = train_reward(comparisons, EMBEDDED, folder, **options)
        print(f"reward model: {found.comparisons} comparisons, {found.accuracy:.1%} of held-out ones right")
        return RewardModelValue.from_pretrained(folder, device="cpu")


def rolled(babbler, prompts, copies):
    """Unpruned rollouts as one forest."""
    graph, score = babbler.start(prompts, 3), Score(bg.Countdown())
    meter, rng = Meter(Budget(seconds=np.inf), graph.trees), Rng(3)
    ids, draws = np.arange(graph.trees), np.full(graph.trees, copies)
    while len(ids):
        graph.round += 1
        born = graph.add(babbler.expand(graph, Chosen(ids, draws), rng, meter))
        score(graph, born, meter)
        ids = born[~graph.is_leaf(born)].astype(np.intp)
        draws = graph.count[ids].astype(np.intp)
    babbler.release(graph, np.arange(graph.size))
    return graph


class Judged(NamedTuple):
    """A judge's figures at one depth."""

    found: Any  # `Reliability`
    own: tuple  # Brier skill beside a predictor that knows each puzzle's own pass rate: figure, low, high
    base: tuple  # and beside one that knows only the pass rate of all puzzles together


def judged_by(babbler, prompts, judges, copies):
    """Figures by depth of each judge, over all depths as 0; and the maker's pass@1.

    A puzzle's own pass rate after a line is the mean exact value of the live nodes there, which owes nothing to the
    outcomes that are judged; the sample's own rate would have seen them.
    """
    graph = rolled(babbler, prompts, copies)
    node, label, weight = examples(graph, 1.0)
    root, depth = graph.root[node], graph.depth[node]
    found, own, base = {}, None, None
    for name, judge in judges.items():
        value = np.concatenate(
            [judge(graph, some, free(graph)) for some in np.array_split(node, 1 + len(node) // 500)]
        )
        babbler.release(graph, np.arange(graph.size))
        if own is None:  # the exact value comes first
            own, base = (
                mean_of(value, weight, root * (depth.max() + 1) + depth),
                mean_of(label, weight, depth),
            )
        found[name] = {}
        for level, some in {0: depth > 0, 1: depth == 1, 2: depth == 2}.items():
            v, y, w, r = (x[some] for x in (value, label, weight, root))
            skills = (skill(v, known[some], y, w, r) for known in (own, base))
            found[name][level] = Judged(reliability(v, y, w, r), *skills)
    leaf = graph.is_leaf() & (graph.score >= 1)
    return found, float(graph.count[leaf].sum() / (copies * graph.trees))


def mean_of(x, weight, group):
    """The weighted mean of each element's group, [M]."""
    which = np.unique(group, return_inverse=True)[1]
    return (np.bincount(which, weight * x) / np.bincount(which, weight))[which]


def skill(value, known, label, weight, puzzle, repeats=2000):
    """1 − the Brier score of a value / that of what is known, with a 95 % bootstrap interval over puzzles."""
    squares = [
        np.bincount(puzzle, weight * (label * (1 - p) ** 2 + (1 - label) * p**2)) for p in (value, known)
    ]
    there = np.unique(puzzle)
    draw = np.random.default_rng(0).choice(there, (repeats, len(there)))
    ours, theirs = (x[draw].sum(1) for x in squares)
    low, high = np.quantile(1 - ours / np.maximum(theirs, 1e-12), [0.025, 0.975])
    return float(1 - squares[0].sum() / squares[1].sum()), float(low), float(high)


def free(graph):
    return Meter(Budget(seconds=np.inf), graph.trees)


def searched_with(babbler, prompts, value, chosen, strategy=None, tokens=unique_tokens):
    """Sampled tokens until each puzzle was solved, infinite where it was not, [seeds, puzzles]; and seconds."""
    start, needed = time.perf_counter(), np.full((chosen.seeds, len(prompts)), np.inf)
    how = {"strategy": strategy or babble(width=1, threshold=1.0), "task": bg.Countdown(), "value": value}
    for seed in range(chosen.seeds):
        found = bg.babble(babbler, [p.strip() for p in prompts], budget=chosen.tokens, seed=seed, **how)
        needed[seed] = np.where(found.passed, tokens(found.graph), np.inf)
    return needed, time.perf_counter() - start


def budgets(chosen):
    return [b for b in BUDGETS if b <= chosen.tokens]


def row(name, judged, searched, chosen):
    cells = {
        f"{b} tokens": None if searched is None else float(100 * (searched[0] <= b).mean())
        for b in budgets(chosen)
    }
    figures = {"judge": name}
    for depth, where in ((1, "line 1"), (2, "line 2")):
        one = judged[depth] if judged else None
        figures[f"AUC {where}"] = one and one.found.auc
        figures[f"skill {where}"] = one and one.own[0]
        figures[f"skill over base rate, {where}"] = one and one.base[0]
        figures[f"calibration {where}"] = one and one.found.calibration_error
    figures["skill"] = judged and judged[0].own[0]
    return figures | cells | {"seconds": searched and searched[1]}


def claims_of(judged, searched, maker, chosen):
    found = [claim("the maker's pass@1", maker, "for comparison", True)]
    if LEARNED in judged:
        for depth, where, least in ((1, "after line 1", 0.63), (2, "after line 2", 0.74)):
            head = judged[LEARNED][depth]
            area = f"learned head, AUC within a prompt {where}"
            found.append(claim(area, head.found.auc, f"≥ {least}", head.found.auc >= least))
            for what, (value, *interval) in (
                ("a puzzle's own pass rate", head.own),
                ("the base rate", head.base),
            ):
                name = f"learned head, Brier skill over {what} {where}"
                found.append(claim(name, value, "> 0", value > 0, interval))
        head = judged[LEARNED][0]
        found.append(
            claim("learned head, Brier skill, both lines", head.own[0], "> 0", head.own[0] > 0, head.own[1:])
        )
        error = head.found.calibration_error
        found.append(claim("learned head, expected calibration error", error, "≤ 0.03", error <= 0.03))
        for ours in (LEARNED, f"{LEARNED}, trusted") if searched else ():
            found += [gain(searched, ours, CONSTANT, b, 0.0) for b in budgets(chosen)[1:]]
    if chosen.tokens >= 400:
        found += [gain(searched, f"{EXACT}, trusted", other, 400, 20.0) for other in (SEPARATE, BEST)]
    return found


def gain(searched, ours, theirs, budget, least):
    """Percentage points, paired by puzzle, with a bootstrap interval over puzzles."""
    points = 100 * ((searched[ours][0] <= budget).mean(0) - (searched[theirs][0] <= budget).mean(0))
    low, high = bootstrap(points)
    name = f"babble with {ours} − {theirs} at {budget} tokens, points"
    met = points.mean() >= least if least else low > 0
    return claim(name, points.mean(), f"≥ {least:g}" if least else "> 0", met, (low, high))


if __name__ == "__main__":
    main()
