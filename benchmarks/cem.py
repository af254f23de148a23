"""Does the generator learn from its own elite, and from which elite most?

The embedded generator, Countdown-4 in general or specialised to the Game of 24. Arms of one size sample as many texts a
level, in as many levels: expert iteration (λ = 0; plain, from the base at each level, held near it, with earlier
levels replayed, and with texts that the default search found by a value learned at each level, whose rollouts come on
top), weighted CEM (λ = 1 and 0.5, a tenth of the samples from the base), best-of-N fine-tuning (RAFT: six passes over
its few texts, and once as many updates as "expert" makes), TRL's GRPO where it is asked for, and as a control the
recipe that made the generator, continued with as many updates as "expert" makes, each on solutions that it has not
seen. The default, "broad", has ten times the prompts and twice the samples of each, and RAFT and the recipe beside it
at that size too; "seven levels" is the same run, continued. "narrow" is the preset for prompts of one kind. `--steps`
gives every update as many steps.

A row is a model: its figures on held-out test puzzles. At T = 1 the probability that a sample solves a puzzle is the
exact sum over its solutions, and pass@k is 1 − (1 − p)^k, so that intervals are over puzzles alone; the same at lower
temperatures, which show how much of a gain is sharpening; and what the default search, without a value, solves with the
model within some sampled tokens. Runs are kept in a directory, and a benchmark that was stopped goes on there. Left
out: other models, reward models.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

import babblegraph as bg
from babblegraph.api import score_of
from babblegraph.cli.train_options import FRESH
from babblegraph.embedded import data
from babblegraph.intervals import student_mean
from babblegraph.learning import Directory
from babblegraph.learning.held_out import measure
from babblegraph.learning.level import Level
from babblegraph.learning.rows import log_p
from babblegraph.learning.update import Lessons, update
from babblegraph.randomness import Rng
from babblegraph.tasks.training import task_prompts

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report
from exact import Solutions, at_least_one

BASE, EXPERT, BROAD, LONG = "base", "expert, from the base, slowly", "broad", "broad, seven levels"
RECIPE, RECIPE_LARGE = "recipe, continued", "recipe, continued, large"
CONTINUED = {RECIPE: EXPERT, RECIPE_LARGE: BROAD}  # the recipe, for as many updates as another arm makes
NARROW, GRPO, RAFT_LONGER = "narrow", "GRPO (TRL)", "RAFT, as many updates"
LARGE = {"prompts": 5120, "draws": 32}
SAME_RUN = {"broad, one level": 1, BROAD: 2, LONG: 7}  # levels of one run
FAST = {"learning_rate": 3e-4, "epochs": 3}
ARMS = {
    **{name: {"preset": "broad", "levels": levels, **LARGE} for name, levels in SAME_RUN.items()},
    "broad, 0.3 of the base": {"preset": "broad", "levels": 2, "average": 0.3, **LARGE},
    NARROW: {"preset": "narrow", "levels": 8, "prompts": 1024, "draws": 48},
    EXPERT: {"preset": "expert"},
    "expert iteration": {"preset": "expert", "restart": False, **FAST},
    "expert, from the base": {"preset": "expert", **FAST},
    "expert, KL to the base": {"preset": "expert", "restart": False, "kl_base": 0.3, **FAST},
    "expert iteration, two levels replayed": {"preset": "expert", "restart": False, "replay": 2, **FAST},
    "expert, searched with a learned value": {"preset": "expert", "sampler": "babble", "tokens": 350},
    "CEM, λ = 1": {"preset": "cem"},
    "CEM, λ = 0.5": {"preset": "cem", "power": 0.5},
    "RAFT": {"preset": "raft", "epochs": 6},
    RAFT_LONGER: {"preset": "raft", "steps": 83},
    "RAFT, large": {"preset": "raft", "levels": 2, **LARGE},
    GRPO: {},
    RECIPE: {},
    RECIPE_LARGE: {},
}
ASKED_FOR = (LONG, NARROW, GRPO)  # hours, another task, an extra: nothing to begin with
RIVALS = (  # (of whom, who is compared)
    ("RAFT", EXPERT),
    (RAFT_LONGER, EXPERT),
    ("CEM, λ = 1", EXPERT),
    ("CEM, λ = 0.5", EXPERT),
    (GRPO, EXPERT),
    (RECIPE, EXPERT),
    (EXPERT, BROAD),
    ("RAFT", BROAD),
    ("RAFT, large", BROAD),
    (RECIPE_LARGE, BROAD),
)
TEMPERATURES = (1.0, 0.85, 0.7, 0.6, 0.5)
BUDGETS, TOLD = (100, 200, 400), 200  # sampled tokens of a search; the claims are of so many
FEW = 200  # test puzzles that are sampled, for entropy and such
TASKS = {"countdown": bg.Countdown, "game24": bg.Game24}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--task", default="countdown", choices=list(TASKS))
    options.add_argument(
        "--arms", nargs="*", choices=list(ARMS), default=[arm for arm in ARMS if arm not in ASKED_FOR]
    )
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--levels", type=int, default=3)
    options.add_argument("--prompts", type=int, default=512, help="of a level")
    options.add_argument("--draws", type=int, default=16)
    options.add_argument("--test", type=int, default=300, help="held-out test puzzles")
    options.add_argument("--greedy", type=int, default=1000, help="of test puzzles that are solved greedily")
    options.add_argument("--k", type=int, default=64, help="of pass@k")
    options.add_argument("--test-draws", type=int, default=16, help="samples of each, for what is not exact")
    options.add_argument("--steps", type=int, help="of each update; by default as many as its epochs need")
    options.add_argument("--runs", type=Path, default=Path("cem-runs"), help="where runs are kept")
    options.add_argument("--threads", type=int, default=1)
    chosen = options.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.levels, chosen.prompts, chosen.draws = 1, 1, 32, 8
        chosen.test, chosen.greedy, chosen.test_draws, chosen.arms = 20, 40, 4, [EXPERT, RECIPE]
    torch.set_num_threads(chosen.threads)
    logging.disable_progress_bar()
    rows = list(measured(chosen))
    names = [name for name in dict.fromkeys(chain(*rows)) if name not in ("solves", "greedily", "found")]
    cold = [name for name in names if "T =" in name or "search" in name]
    plain = [{name: row.get(name) for name in names if name not in cold} for row in rows]
    colder = [{name: row.get(name) for name in ("arm", "seed", *cold)} for row in rows]
    title = f"{chosen.task}, {chosen.test} test puzzles, %"
    tables = [(title, plain), (f"{title}, sampled at other temperatures, and searched", colder)]
    report("", rows, claims(rows, chosen.k), chosen, tables=tables, packages=("trl",))


def measured(chosen) -> Iterator[dict]:
    """A row for the base and for every arm and seed; what was measured once is read again."""
    base, task = bg.Babbler.embedded(), TASKS[chosen.task]()
    many = max(chosen.test, chosen.greedy)
    test = [task.prepare(p) for p in task_prompts(chosen.task, "test", many, seed=7)]
    solutions = Solutions(base, test[: chosen.test])
    for arm in (BASE, *chosen.arms):
        for seed in range(1 if arm == BASE else chosen.seeds):
            steps = "" if chosen.steps is None else f"-{chosen.steps}"
            size = f"{chosen.task}-{chosen.levels}x{chosen.prompts}x{chosen.draws}{steps}"
            place = chosen.runs / size / folder(arm, seed)
            levels = f"-{SAME_RUN[arm]}" if arm in SAME_RUN else ""
            asked = f"{chosen.test}x{chosen.test_draws}-{chosen.greedy}-{chosen.k}"  # what the figures are of
            done = place.parent / f"{place.name}{levels}-{asked}.json"
            row = json.loads(done.read_text()) if done.exists() else {}
            if "found" in row or (row and not (arm == BASE or place.exists())):
                yield row
                continue
            model, told = trained(base, task, arm, seed, place, chosen)
            if not row:
                row = {
                    "arm": arm,
                    "seed": seed,
                    **figures(base, model, test, task, solutions, chosen),
                    **told,
                }
            row |= found(model, test[: chosen.test], task)
            done.parent.mkdir(parents=True, exist_ok=True)
            done.write_text(json.dumps(row))
            brief = {k: v for k, v in row.items() if isinstance(v, int | float | str)}
            print(json.dumps(brief, ensure_ascii=False), file=sys.stderr, flush=True)
            yield row


def folder(arm: str, seed: int) -> str:
    """Where an arm's run is."""
    return f"{BROAD if arm in SAME_RUN else arm}-{seed}".replace(" ", "-").replace(",", "")


def trained(base, task, arm: str, seed: int, place: Path, chosen) -> tuple[bg.Babbler, dict]:
    """The babbler of an arm and what it cost."""
    if arm == BASE:
        return base, {"tokens": 0, "texts": 0, "updates": 0, "cpu_s": 0}
    if arm in CONTINUED:
        return continued(base, arm, seed, place, chosen)
    if arm == GRPO:
        return policy_gradient(base, task, seed, chosen)
    size = {"levels": chosen.levels, "prompts": chosen.prompts, "draws": chosen.draws, "steps": chosen.steps}
    settings = bg.preset(**(size | named(ARMS[arm])))
    fresh = FRESH if ARMS[arm].get("prompts") else settings.levels
    prompts = task_prompts(chosen.task, "train", fresh * settings.prompts, seed=seed, fewer=True)
    there = (place / "config.json").exists()
    run = bg.cem(
        base, prompts, task=task, held_out=(), settings=settings, directory=place, resume=there, seed=seed
    )
    noted = place.parent / f"{place.name}-cpu.json"  # of each level, since a run may take several sittings
    spent = json.loads(noted.read_text()) if noted.exists() else []
    began = time.process_time()
    for level in run:
        spent = [*spent[: level.number], round(time.process_time() - began, 1)]
        noted.write_text(json.dumps(spent))
        began = time.process_time()
    run.generators.load(Directory(place).folder(settings.levels))
    return run.generators.current, cost(run.levels[: settings.levels + 1], spent)


def named(arm: dict) -> dict:
    """The arguments of `preset`."""
    return {"name" if k == "preset" else k: v for k, v in arm.items()}


def cost(levels: list[Level], spent: list[float]) -> dict:
    """What some levels took."""
    return {
        "tokens": sum(level.tokens for level in levels),
        "texts": sum(level.elite for level in levels),
        "updates": sum(level.learned.steps for level in levels if level.learned),
        "cpu_s": round(sum(spent[: len(levels)])),
    }


def continued(base, arm: str, seed: int, place: Path, chosen) -> tuple[bg.Babbler, dict]:
    """The recipe's own babble, fresh random solutions at every update, for as many updates as its rival makes."""
    began, batch = time.process_time(), bg.Settings().batch
    rival = CONTINUED[arm]
    levels = Directory(place.parent / folder(rival, seed)).done()[: 1 + SAME_RUN.get(rival, chosen.levels)]
    steps = cost(levels, [])["updates"]
    rows = data.solutions(random.Random(seed), steps * batch, judged=False)
    start = (rows.aim == data.GENERATE).argmax(1) + 1
    tokens = [row[:n].astype(np.int32) for row, n in zip(rows.ids, rows.length, strict=True)]
    model = bg.Babbler.embedded().model
    lessons = Lessons(tokens, start.astype(np.int64), np.ones(len(tokens)))
    learned = update(model, lessons, steps=steps, batch=batch, rng=Rng(seed))
    told = {
        "tokens": 0,
        "texts": len(tokens),
        "updates": learned.steps,
        "cpu_s": round(time.process_time() - began),
    }
    return base.again(model=model), told


def policy_gradient(base, task, seed: int, chosen) -> tuple[bg.Babbler, dict]:
    """TRL's GRPO on as many samples of the same prompts, `pip install babblegraph[train]`."""
    from peers import grpo

    began, n = time.process_time(), chosen.levels * chosen.prompts
    prompts = [task.prepare(prompt) for prompt in task_prompts(chosen.task, "train", n, seed=seed)]
    model = bg.Babbler.embedded().model
    told = grpo.learn(model, base.tokenizer, task, prompts, chosen.draws, seed)
    spent = {"cpu_s": round(time.process_time() - began)}
    return base.again(model=model), told._asdict() | spent


def figures(base, model, test, task, solutions: Solutions, chosen) -> dict:
    """Per cent of the test puzzles; and what was sampled."""
    exact, *lower = solutions.probability(model.model, TEMPERATURES)
    ask = {"score": score_of(task, None, 1.0), "threshold": 1.0, "log_f": partial(log_p, base.model)}
    plain = measure(model, test[:FEW], draws=chosen.test_draws, **ask)
    greedily = measure(model.again(top_k=1), test[: chosen.greedy], draws=1, **ask).greedily
    colder = {
        f"pass@{k}, T = {t}": percent(at_least_one(p, k).mean())
        for t, p in zip(TEMPERATURES[1:], lower, strict=True)
        for k in (1, chosen.k)
    }
    return {
        "pass@1": percent(exact.mean()),
        "greedy": percent(np.mean(greedily)),
        f"pass@{chosen.k}": percent(at_least_one(exact, chosen.k).mean()),
        **colder,
        "entropy": plain.entropy,
        "KL to base": plain.divergence,
        "distinct": plain.distinct,
        "solves": [round(float(p), 7) for p in exact],
        "greedily": greedily,
    }


def found(model, test, task) -> dict:
    """What the default search, without a value, solves with this generator."""
    prompts = [prompt.strip() for prompt in test]
    passed = {n: bg.babble(model, prompts, task=task, budget=n, seed=1).passed for n in BUDGETS}
    row = {f"search, {n} tokens": percent(np.mean(some)) for n, some in passed.items()}
    return row | {"found": [int(hit) for hit in passed[TOLD]]}


def percent(share: float) -> float:
    return round(100 * share, 2)


def claims(rows: list[dict], k: int) -> list[dict]:
    """Each arm against the base, and against its rivals, paired by puzzle."""
    base = next(row for row in rows if row["arm"] == BASE)
    made = []
    arms = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if arm != BASE]
    for arm in arms:
        mine = [row for row in rows if row["arm"] == arm]
        ratio = np.mean([row["pass@1"] for row in mine]) / base["pass@1"]
        made.append(claim(f"{arm}: pass@1 at T = 1 ÷ the base's", ratio, "≥ 1.35", ratio >= 1.35))
        gain, interval = paired(mine, [base], "greedily")
        made.append(
            claim(
                f"{arm}: greedy, points",
                gain,
                "≥ 4, interval above 0",
                gain >= 4 and interval[0] > 0,
                interval,
            )
        )
        if all("found" in row for row in mine):
            gain, interval = paired(mine, [base], "found")
            said = f"{arm}: solved by search within {TOLD} tokens, points"
            made.append(claim(said, gain, "interval above 0", interval[0] > 0, interval))
        lost, interval = paired(mine, [base], "solves", k)
        made.append(claim(f"{arm}: pass@{k}, points", lost, "lower limit > -2", interval[0] > -2, interval))
    for rival, arm in RIVALS:
        theirs, ours = ({row["seed"]: row for row in rows if row["arm"] == name} for name in (rival, arm))
        if not (both := sorted(theirs.keys() & ours.keys())):
            continue
        theirs, ours = ([some[seed] for seed in both] for some in (theirs, ours))
        for name, what, at in (("greedy", "greedily", 1), (f"pass@{k}", "solves", k)):
            gain, interval = paired(ours, theirs, what, at)
            said = f"{arm} − {rival}: {name}, points"
            made.append(claim(said, gain, "interval above 0", interval[0] > 0, interval))
    return made


def paired(mine: list[dict], theirs: list[dict], what: str, k: int = 1) -> tuple[float, tuple[float, float]]:
    """Mean difference in points over puzzles, each the mean over seeds, with Student's interval over puzzles."""
    a, b = (np.mean([at_least_one(np.array(row[what]), k) for row in some], 0) for some in (mine, theirs))
    gain, interval = student_mean(100 * (a - b))
    return gain, interval or (gain, gain)


if __name__ == "__main__":
    main()
