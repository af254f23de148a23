"""Whole runs of the cross-entropy method on a tiny model: levels, guard, directory, resuming, adapters."""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import character_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM

import babblegraph as bg
from babblegraph.errors import BadInput
from babblegraph.learning import directory as directory_room
from babblegraph.learning import generators
from babblegraph.learning import run as run_room
from babblegraph.learning.grow import _shares, grow
from babblegraph.learning.guard import Guard
from babblegraph.learning.held_out import Held, Measure, mean_of
from babblegraph.learning.level import Level
from babblegraph.learning.level import choose as choose_elite
from babblegraph.learning.ranks import Ranks
from babblegraph.learning.run import Run
from babblegraph.learning.sample import first_trees
from babblegraph.learning.update import Anchor, Learned
from babblegraph.learning.value import refits
from babblegraph.lm.engine import choose
from babblegraph.scoring import LearnedValue, Score, function_value
from babblegraph.strategies import best_of_n
from babblegraph.view.levels import level_line

TESTS = Path(__file__).parent
ALONE = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": f"{Path(bg.__file__).parent.parent}:{TESTS}",
}  # of a process of its own
PROMPTS = [f"{i}+{j}=" for i in range(1, 6) for j in range(1, 4)]
ASIDE = ["7+1=", "8+2=", "9+3="]
FAST = bg.Settings(levels=2, prompts=6, draws=8, epochs=2, batch=8, held_draws=8, learning_rate=3e-3)
LONG = replace(FAST, levels=10, prompts=2, draws=4, epochs=1, held_draws=2)


class Small:
    """Pays for digits below 5: a random model writes some by chance, and can learn to write more."""

    name = "small"

    def verify(self, prompt: str, text: str) -> float:
        return float(len(text) > 0 and np.mean([c in "01234" for c in text]) >= 0.5)


def babbler(seed: int = 0) -> bg.Babbler:
    tokenizer = character_tokenizer()
    return bg.Babbler(tiny_llama(tokenizer, seed, layers=2), tokenizer, span=2, max_new_tokens=4)


def learn(**options) -> Run:
    how = {"task": Small(), "held_out": ASIDE, "settings": FAST} | options
    base = how.pop("base", None) or babbler()
    return bg.cem(base, how.pop("prompts", PROMPTS), **how)


def same_weights(a: Run, b: Run) -> bool:
    pairs = zip(a.generators.learner.parameters(), b.generators.learner.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_run_makes_the_generator_better_and_leaves_the_base_alone():
    base = babbler()
    before = [p.clone() for p in base.model.parameters()]
    run = learn(base=base, settings=replace(FAST, levels=3, prompts=None, draws=16, epochs=4))
    levels = list(run)
    assert [level.number for level in levels] == [0, 1, 2, 3]
    assert levels[-1].held.pass_at_1.value > levels[0].held.pass_at_1.value + 0.2
    assert levels[0].held.divergence == 0 < levels[-1].held.divergence
    assert levels[1].elite >= levels[1].taught > 0
    assert levels[1].learned.after < levels[1].learned.before
    assert all(torch.equal(a, b) for a, b in zip(before, base.model.parameters(), strict=True))
    assert bg.babble(run.generators.current, "1+1=", task=Small(), budget=200).passed == [True]


@pytest.mark.parametrize("sampler", ["independent", "frontier"])
def test_weighted_levels_estimate_both_generators(sampler):
    settings = replace(FAST, power=1.0, sampler=sampler, draws=12 if sampler == "independent" else 3, trees=3)
    first, second = list(learn(settings=settings))[1:]
    for level in (first, second):
        for chance in (level.p_f, level.p_g):
            assert chance.low is not None, chance.reason
            assert chance.low <= chance.value <= chance.high
    assert first.p_f.value == pytest.approx(first.p_g.value), "at first both are the same generator"
    assert second.p_f.value != second.p_g.value
    assert 0 < first.effective <= first.elite


@pytest.mark.slow
def test_pruning_weighs_what_it_keeps():
    """P_g from pruned trees and from many independent samples: z below 4.9 (two-sided odds of 1e-6)."""
    settings = replace(FAST, levels=1, prompts=4, power=1.0, base_share=0.0, held_draws=1)
    many = learn(settings=replace(settings, draws=400), held_out=[])
    trees = learn(settings=replace(settings, sampler="frontier", draws=2, keep=2, trees=60), held_out=[])
    a, b = ([level.p_g for level in run][-1] for run in (many, trees))
    half = max(a.high - a.low, b.high - b.low) / 2 / 3.2  # Student's interval with 3 degrees of freedom
    assert abs(a.value - b.value) < 4.9 * half, (a, b)


def test_the_same_seed_gives_the_same_run_to_the_bit():
    first, second, other = learn(seed=1), learn(seed=1), learn(seed=2)
    told = [[replace(level, seconds=0.0) for level in run] for run in (first, second)]
    assert told[0] == told[1]
    assert same_weights(first, second)
    list(other)
    assert not same_weights(first, other)


def test_broad_is_one_update_from_the_base_averaged_with_it():
    """A share of the way from the base to where the update alone would have gone."""
    small = {"levels": 1, "prompts": 12, "draws": 8, "batch": 8, "held_draws": 8}
    whole, part = (learn(settings=bg.preset("broad", **small, **more)) for more in ({"average": 0.0}, {}))
    assert [len(list(run)) for run in (whole, part)] == [2, 2]
    assert part.settings.average == 0.1
    base, new, averaged = (
        run.generators.weights() if run else dict(babbler().model.named_parameters())
        for run in (None, whole, part)
    )
    for name, moved in averaged.items():
        assert torch.allclose(moved, 0.1 * base[name] + 0.9 * new[name], atol=1e-6)
        assert not torch.equal(moved, base[name])


def test_a_run_that_is_resumed_ends_where_it_would_have(tmp_path):
    whole = learn(directory=tmp_path / "whole")
    list(whole)
    part = learn(directory=tmp_path / "part")
    assert next(iter(part)).number == 0
    part = learn(directory=tmp_path / "part", resume=True)
    assert next(iter(part)).number == 1
    part = learn(directory=tmp_path / "part", resume=True)
    assert [level.number for level in part] == [2]
    assert same_weights(whole, part)
    assert [level.held for level in part.levels] == [level.held for level in whole.levels]
    longer = learn(directory=tmp_path / "part", resume=True, settings=replace(FAST, levels=3))
    assert [level.number for level in longer] == [3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"restart": True}, {"replay": 1}, {"average": 0.5}, {"kl_previous": 0.5, "kl_base": 0.5}]
)
def test_every_way_to_hold_on_to_the_past_resumes_too(tmp_path, settings):
    settings = replace(FAST, **settings)
    whole, part = learn(settings=settings), learn(directory=tmp_path / "part", settings=settings)
    list(whole)
    steps = iter(part)
    next(steps), next(steps)
    part = learn(directory=tmp_path / "part", settings=settings, resume=True)
    list(part)
    assert same_weights(whole, part)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["babbling", "learning: step 3", "measuring", "save", "summarise"])
def test_a_run_that_is_interrupted_goes_on_to_the_same_end_when_it_is_iterated_again(
    tmp_path, monkeypatch, moment
):
    """Ctrl-C or a full disk in the middle of a level: in a notebook nobody resumes, the same run goes on."""
    known = choose(babbler().model)  # the check of the engine is most of so small a run
    monkeypatch.setattr("babblegraph.lm.way.choose", lambda model, engine: known)
    small = replace(FAST, prompts=2, draws=4, steps=4, batch=1, held_draws=2)
    whole = learn(settings=small)
    list(whole)
    left = {"babbling": 2, "learning: step 3": 1, "measuring": 2, "save": 2, "summarise": 2}[moment]

    def interrupting(what: str, *_: object) -> None:
        nonlocal left
        left -= what.startswith(moment)
        if left == 0 and what.startswith(moment):
            raise KeyboardInterrupt

    for owner, name in ((generators.Generators, "save"), (directory_room.Directory, "summarise")):
        plain = getattr(owner, name)

        def call(*args, name=name, plain=plain):
            interrupting(name)
            return plain(*args)

        monkeypatch.setattr(owner, name, call)
    run = learn(settings=small, directory=tmp_path, say=interrupting)
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert len(run.levels) < 3
    list(run)
    assert same_weights(whole, run)
    assert [level.held for level in run.levels] == [level.held for level in whole.levels]
    assert len(learn(settings=small, directory=tmp_path, resume=True).levels) == 3


def test_between_levels_the_progress_bars_of_transformers_are_the_users_own():
    from transformers.utils import logging

    logging.enable_progress_bar()  # which a command may have turned off
    assert all(
        logging.is_progress_bar_enabled() for _ in learn(settings=replace(LONG, levels=1), held_out=[])
    )


KILLER = """
    import os, random, signal, sys, time
    import torch
    torch.set_num_threads(1)
    from test_learning import LONG, learn
    draw = random.Random(0)
    for _ in range(12):
        child = os.fork()  # before anything was computed, so that it has no threads to lose
        if not child:
            for level in learn(settings=LONG, directory={directory!r}, resume=os.path.exists({config!r})):
                pass
            os._exit(0)
        time.sleep(draw.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        levels = {directory!r} + "/levels"
        there = [name for name in os.listdir(levels) if name.isdigit()] if os.path.isdir(levels) else []
        print(int(killed), len(there), flush=True)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_loses_no_level(tmp_path):
    """SIGKILL at twelve random moments, then to the end: the weights are those of a run that nobody killed."""
    whole = learn(settings=LONG)
    list(whole)
    script, directory = tmp_path / "run.py", tmp_path / "run"
    names = {"directory": str(directory), "config": str(directory / "config.json")}
    script.write_text(textwrap.dedent(KILLER.format(**names)))
    command = [sys.executable, str(script)]
    said = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | ALONE
    ).stdout
    killed, levels = zip(*(map(int, line.split()) for line in said.splitlines()), strict=True)
    assert sum(killed) >= 6, "it was still at work"
    assert list(levels) == sorted(levels), "no level was lost"
    resumed = learn(settings=LONG, directory=directory, resume=(directory / "config.json").exists())
    list(resumed)
    assert same_weights(whole, resumed)


class Killed(BaseException):
    """Nothing runs after it: what would clean up must not get to the disk."""


def kill_at(moment: int, patch: pytest.MonkeyPatch) -> list[str]:
    """Lets a process die before its n-th call that changes the disk; of a text that it writes half is there."""
    calls: list[str] = []

    def dying(owner, name):
        whole = getattr(owner, name)

        def call(*args, **options):
            calls.append(name)
            if len(calls) < moment:
                return whole(*args, **options)
            if len(calls) == moment and name == "write_text":
                whole(args[0], args[1][: len(args[1]) // 2], *args[2:], **options)
            raise Killed

        patch.setattr(owner, name, call)

    for owner, name in (
        (os, "replace"),
        (shutil, "rmtree"),
        (Path, "write_text"),
        (Path, "mkdir"),
        (generators.Generators, "save"),
        (directory_room, "save_file"),
        (bg.BabbleGraph, "save"),
    ):
        dying(owner, name)
    return calls


@pytest.mark.slow
def test_a_run_that_dies_between_any_two_writes_goes_on_to_the_same_end(tmp_path, monkeypatch):
    """Every moment at which the disk is in another state, one after the other, half-written files among them."""
    known = choose(babbler().model)  # the check of the engine is most of so small a run
    monkeypatch.setattr("babblegraph.lm.way.choose", lambda model, engine: known)
    tiny = replace(LONG, levels=1)
    whole = learn(settings=tiny, held_out=[])
    list(whole)
    moment, died = 0, True
    while died:
        moment, directory = moment + 1, tmp_path / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            calls = kill_at(moment, patch)
            try:
                list(learn(settings=tiny, held_out=[], directory=directory))
                died = False
            except Killed:
                assert len(calls) >= moment
        begun = (directory / "config.json").exists()
        resumed = learn(settings=tiny, held_out=[], directory=directory, resume=begun)
        list(resumed)
        assert same_weights(whole, resumed), (moment, calls[-1])
        assert len((directory / "metrics.jsonl").read_text().splitlines()) == 2
    assert moment > 20


SHARED = """
    import torch
    torch.set_num_threads(1)
    from test_learning import learn
    from babblegraph.learning import launched
    run = learn(ranks=launched(), directory={directory!r})
    for level in run:
        pass
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    """accelerate shares out searches and batches; the sums differ by rounding only."""
    pytest.importorskip("accelerate")
    whole = learn()
    list(whole)
    script, directory = tmp_path / "run.py", tmp_path / "run"
    script.write_text(textwrap.dedent(SHARED.format(directory=str(directory))))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    shared |= {"LOCAL_WORLD_SIZE": "2"} | ALONE
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)], env=os.environ | shared | {"RANK": str(i), "LOCAL_RANK": str(i)}
        )
        for i in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    levels = [
        Level.from_json(json.loads(line)) for line in (directory / "metrics.jsonl").read_text().splitlines()
    ]
    for mine, theirs in zip(whole.levels[1:], levels[1:], strict=True):
        assert (mine.elite, mine.taught, mine.tokens) == (theirs.elite, theirs.taught, theirs.tokens)
        assert mine.learned.after == pytest.approx(theirs.learned.after, rel=1e-3)
    found = AutoModelForCausalLM.from_pretrained(directory / "levels" / "001", dtype=torch.float32)
    one = learn(settings=replace(FAST, levels=1))
    list(one)
    ours = dict(one.generators.learner.named_parameters())
    apart = [(float((p - ours[n]).detach().abs().max()), n) for n, p in found.named_parameters()]
    assert max(apart)[0] < 1e-4, max(apart)


def test_a_process_without_a_prompt_searches_nothing_and_knows_what_the_others_found():
    """Two processes and one prompt; the first one's part is played back."""
    settings, how = replace(FAST, draws=4), {"score": Score(Small()), "score_base": None, "threshold": 1.0}
    how |= {"seed": 3, "say": lambda *_: None}
    found: list = []

    class Playing(Ranks):
        def __init__(self, rank):
            super().__init__()
            self.rank, self.world = rank, 2

        def gathered(self, item):
            found.append(item)
            return [found[0], []] if self.first else [found[0], item]

    both = generators.Generators(babbler(), settings)
    first, second = (grow(both, ["1+1="], settings, ranks=Playing(rank), **how) for rank in (0, 1))
    assert second.graph is None
    assert second.tokens == first.tokens > 0
    assert second.leaves.text == first.leaves.text


def test_a_level_loads_in_plain_transformers_and_writes_the_same(tmp_path):
    run = learn(directory=tmp_path / "run")
    last = list(run)[-1]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / "002", dtype=torch.float32)
    right = 0
    for prompt in ASIDE:
        ids = torch.tensor([babbler().start([prompt]).tokens.tolist()])
        out = model.generate(ids, do_sample=False, max_new_tokens=4, pad_token_id=0)[0, ids.shape[1] :]
        right += Small().verify(prompt, babbler().tokenizer.decode(out, skip_special_tokens=True))
    assert right / len(ASIDE) == pytest.approx(last.held.greedy.value)


def test_what_plain_transformers_samples_from_a_level_passes_as_often_as_reported(tmp_path):
    """`generate` of transformers alone, against the figure of the run: z below 4.9 (two-sided odds of 1e-6)."""
    n = 400
    run = learn(directory=tmp_path / "run", settings=replace(FAST, held_draws=n))
    reported = list(run)[-1].held.pass_at_1.value
    assert 0.1 < reported < 0.95, "there is something to compare"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / "002", dtype=torch.float32)
    torch.manual_seed(0)
    right = 0
    for prompt in ASIDE:
        ids = torch.tensor([babbler().start([prompt]).tokens.tolist()] * n)
        out = model.generate(ids, do_sample=True, top_k=0, max_new_tokens=4, pad_token_id=0)[
            :, ids.shape[1] :
        ]
        texts = babbler().tokenizer.batch_decode(out, skip_special_tokens=True)
        right += sum(Small().verify(prompt, text) for text in texts)
    found = right / (n * len(ASIDE))
    both = (found + reported) / 2
    assert abs(found - reported) < 4.9 * np.sqrt(both * (1 - both) * 2 / (n * len(ASIDE)))


def test_the_directory_holds_what_it_says(tmp_path):
    run = learn(directory=tmp_path / "run")
    levels = list(run)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [Level.from_json(line) for line in lines] == levels
    graph = bg.BabbleGraph.load(tmp_path / "run" / "levels" / "001" / "graph.bg")
    assert 0 < graph.trees <= 8
    assert graph.is_leaf().any()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["draws"] == 8


def test_the_first_trees_alone_look_as_they_did_among_others():
    found = bg.babble(babbler(), PROMPTS[:5], task=Small(), strategy=best_of_n(n=6), budget=1000).graph
    few = first_trees(found, 2)
    assert few.trees == 2
    ids = np.flatnonzero(found.root < 2)
    assert few.size == len(ids)
    assert [few.text(i) for i in range(few.size)] == [found.text(i) for i in ids]
    assert [few.children(0)] == [np.searchsorted(ids, found.children(0)).tolist()]
    assert np.array_equal(few.score, found.score[ids], equal_nan=True)
    assert first_trees(found, 9) is found


class Rare(Small):
    """Pays for one digit only: few samples have it."""

    def verify(self, prompt, text):
        return float(text[:1] == "7")


def test_prompts_that_no_sample_passes_are_drawn_again():
    """More prompts teach; what is estimated comes from the first samples alone, which all prompts have alike."""
    settings = replace(FAST, levels=1, prompts=None, draws=4)
    plain, more = (
        list(learn(base=babbler(3), task=Rare(), settings=replace(settings, more=n)))[1] for n in (None, 64)
    )
    assert more.taught > plain.taught > 0
    assert more.tokens > plain.tokens
    assert more.p_g == plain.p_g
    assert sum(more.skipped.values()) + more.taught == len(PROMPTS)
    with pytest.raises(BadInput, match="threshold"):
        learn(task=None, value=lambda texts: [0.5] * len(texts), settings=replace(settings, more=4, rho=0.5))


def grown_of(prompts, settings, task):
    how = {"score": Score(task), "score_base": Score(task), "threshold": 1.0, "seed": 1, "ranks": Ranks()}
    return grow(generators.Generators(babbler(), settings), prompts, settings, say=lambda *_: None, **how)


def test_a_prompt_that_passes_in_any_of_its_trees_is_not_drawn_again_and_others_once():
    """With repetitions of each prompt, and of the base's samples too."""
    settings = replace(FAST, trees=3, draws=4, more=8, base_share=0.5)
    found = grown_of(PROMPTS, settings, Rare())
    leaves, late = found.leaves, found.late
    passed = {leaves.prompts[p] for p in leaves.prompt[leaves.score >= 1].tolist()}
    again = [late.prompts[p] for p in late.trees.tolist()]
    assert passed
    assert set(again) == set(PROMPTS) - passed
    assert {again.count(prompt) for prompt in again} == {3}, "each repetition once more"


def test_samples_that_were_drawn_again_count_like_the_first():
    """Else four samples that fail were half of the weight of 32, and a share ρ would not be reached."""
    found = grown_of(PROMPTS, replace(FAST, draws=4, more=28), Rare())
    whole = found.all
    weight = np.exp(whole.log_share)
    assert np.bincount(whole.prompt, weight) == pytest.approx(1.0)
    assert np.bincount(whole.trees, whole.share) == pytest.approx(1.0)
    again = np.unique(found.late.trees)
    assert len(again) > 2
    counts = weight[np.isin(whole.prompt, again)] * 32
    assert counts == pytest.approx(counts.round()), "whole samples of 32"


def test_the_share_of_trees_from_the_base_is_what_was_asked_for_whatever_the_sampler():
    for sampler, trees in (("babble", 4), ("frontier", 4), ("independent", 1)):
        settings = replace(FAST, sampler=sampler, trees=trees, draws=4, tokens=8, base_share=0.25)
        leaves = grown_of(PROMPTS[:1], settings, Small()).leaves
        assert leaves.share[leaves.of_base].sum() == pytest.approx(0.25), sampler
        assert len(leaves.trees) == max(trees, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"more": 16, "draws": 4}, {"power": 1.0}, {"sampler": "frontier", "power": 1.0, "trees": 2}],
)
def test_many_prompts_are_searched_part_by_part_with_the_same_outcome(monkeypatch, settings):
    """Memory does not grow with the prompts of a level, and samples do not depend on who was searched beside."""
    settings = replace(FAST, levels=1, prompts=None, **settings)
    said, runs = [], []
    for at_once in (256, 4):
        monkeypatch.setattr("babblegraph.side_by_side.PROMPTS", at_once)
        runs.append(learn(task=Rare(), settings=settings, say=lambda what, *_: said.append(what)))
    (_, one), (_, other) = (list(run) for run in runs)
    assert (one.tokens, one.taught, one.skipped) == (other.tokens, other.taught, other.skipped)
    assert one.taught > 0
    assert one.p_g.value == pytest.approx(other.p_g.value)
    whole, parts = (run._lessons[1] for run in runs)
    assert [t.tolist() for t in whole.tokens] == [t.tolist() for t in parts.tokens]
    assert whole.weight == pytest.approx(parts.weight, abs=1e-5)
    assert any(f"prompts 5–8 of {len(PROMPTS)}" in what for what in said)


def test_where_memory_holds_few_draws_they_are_made_in_parts_with_the_same_outcome():
    settings = replace(FAST, levels=1, prompts=None, draws=16, held_draws=32)
    ample = learn(base=babbler(), settings=settings)
    tokens = 80  # that a limit holds; the prompts of a level need 60, the texts of one up to 16 × 4 more
    bytes_of_one = ample.generators.base._engines.token_bytes
    tight = learn(base=babbler().again(memory_limit=tokens * bytes_of_one * 8 // 7), settings=settings)
    whole = list(ample)
    with pytest.warns(RuntimeWarning, match="draws at once: going on with"):
        parts = list(tight)
    for one, other in zip(whole, parts, strict=True):
        assert (one.tokens, one.taught, one.elite) == (other.tokens, other.taught, other.elite)
        assert one.held.passes == other.held.passes
        assert one.held.greedily == other.held.greedily
    assert same_weights(ample, tight) or np.allclose(
        *(
            torch.cat([p.detach().flatten() for p in run.generators.learner.parameters()])
            for run in (ample, tight)
        ),
        atol=1e-5,
    )


def test_where_not_even_one_prompt_has_room_the_limit_is_named():
    base = babbler().again(
        memory_limit=64 * babbler()._engines.token_bytes * 8 // 7, max_new_tokens=100, end_ids=()
    )
    settings = replace(FAST, levels=1, prompts=None, draws=2, held_draws=2)
    with pytest.warns(RuntimeWarning, match="going on with"), pytest.raises(BadInput, match="memory limit"):
        list(learn(base=base, settings=settings))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_the_value_head_is_refitted_at_each_level_and_found_beside_it(tmp_path, mode):
    """Each head goes with its level's weights and with no other's; a resumed run ends where it would have."""
    if mode == "lora":
        pytest.importorskip("peft")
    settings = replace(
        FAST, sampler="babble", levels=1, tokens=30, prompts=None, mode=mode, lora_rank=4, epochs=1
    )
    whole = learn(settings=settings, directory=tmp_path / "whole")
    levels = list(whole)
    assert all(level.auc for level in levels)
    folders = [tmp_path / "whole" / "levels" / f"{number:03d}" for number in range(2)]
    written = [bg.Babbler.from_pretrained(str(folder), span=2, max_new_tokens=4) for folder in folders]
    assert all(level.head_tokens > 0 for level in levels)
    heads = [LearnedValue.from_folder(one, folder) for one, folder in zip(written, folders, strict=True)]
    with pytest.raises(BadInput, match="fitted on"):
        LearnedValue.from_folder(written[0], folders[1])
    plain = bg.babble(written[1], "1+1=", task=Small(), budget=60)
    guided = bg.babble(written[1], "1+1=", task=Small(), value=heads[1], budget=60)
    assert len(np.unique(guided.graph.value)) > len(np.unique(plain.graph.value)), "it has something to say"
    part = learn(settings=settings, directory=tmp_path / "part", base=babbler())
    steps = iter(part)
    next(steps)
    part = learn(settings=settings, directory=tmp_path / "part", resume=True)
    list(part)
    assert same_weights(whole, part)
    assert [level.auc for level in part.levels] == [level.auc for level in levels]


def test_a_value_head_is_fitted_only_where_it_is_of_use():
    score, own = Score(Small()), Score(Small(), function_value(lambda texts: [0.5] * len(texts)))
    assert [refits(score, sampler, None) for sampler in ("independent", "frontier", "babble")] == [
        False,
        True,
        True,
    ]
    assert refits(score, "independent", True)
    assert not refits(score, "babble", False)
    assert not refits(own, "babble", None), "a value of the user's own stays"
    for one in (own, Score(None)):
        with pytest.raises(BadInput, match="verifier"):
            refits(one, "babble", True)


def test_without_two_outcomes_there_is_no_head_and_the_run_goes_on():
    run = learn(task=Constant(), settings=replace(FAST, levels=1, sampler="babble", tokens=40))
    assert [level.auc for level in run] == [{}, {}]


def test_adapters_serve_as_generator_and_base(tmp_path):
    pytest.importorskip("peft")
    base = babbler()
    texts = [np.array([3, 4, 5, 6], np.int32)]
    plain = base.model(torch.as_tensor(texts[0], dtype=torch.long)[None]).logits.detach().clone()
    settings = replace(FAST, mode="lora", lora_rank=4, power=1.0, kl_base=0.1, learning_rate=1e-2)
    run = learn(base=base, settings=settings, directory=tmp_path / "run")
    levels = list(run)
    assert levels[-1].held.divergence > 0
    assert run.generators.learner is base.model
    found = bg.babble(run.generators.base, ["1+1="] * 4, task=Small(), budget=60, seed=3).graph
    twin = bg.babble(babbler(), ["1+1="] * 4, task=Small(), budget=60, seed=3).graph
    assert [found.text(i) for i in range(found.size)] == [twin.text(i) for i in range(twin.size)], (
        "still the base"
    )
    with run.generators.as_base():
        again = run.generators.learner(torch.as_tensor(texts[0], dtype=torch.long)[None]).logits
    assert torch.equal(plain, again.detach()), "with adapters off the model is the base"
    start = np.array([2])
    assert run.generators.log_f(texts, start) != run.generators.log_g(texts, start)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / "002", dtype=torch.float32)
    ids = torch.as_tensor(texts[0], dtype=torch.long)[None]
    assert torch.allclose(merged(ids).logits, run.generators.learner(ids).logits, atol=1e-4)
    resumed = learn(settings=settings, directory=tmp_path / "run", resume=True)
    assert list(resumed) == []
    assert torch.equal(resumed.generators.learner(ids).logits, run.generators.learner(ids).logits)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft itself
@pytest.mark.parametrize("settings", [FAST, replace(FAST, mode="lora", lora_rank=4)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_generator_with_adapters_of_its_own_does_not_learn(tmp_path, settings, wrapped):
    """With adapters off the base would not be the generator given, and a level's folder would lack what they do."""
    peft = pytest.importorskip("peft")
    given = babbler()
    own = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    wrapper = peft.get_peft_model(given.model, own)
    given = bg.Babbler(wrapper if wrapped else given.model, given.tokenizer, span=2, max_new_tokens=4)
    with pytest.raises(BadInput, match="no adapters yet"):
        learn(base=given, settings=settings, directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_run_of_the_same_base_begins_anew_and_what_it_made_is_no_base(tmp_path):
    pytest.importorskip("peft")
    base, settings = babbler(), replace(FAST, levels=1, prompts=2, epochs=1, mode="lora", lora_rank=4)
    first = learn(base=base, settings=settings, held_out=[])
    list(first)
    made = first.generators.current
    weights = first.generators.weights()
    for mode in ("lora", "full"):
        with pytest.raises(BadInput, match="no adapters yet"):
            learn(base=made, settings=replace(settings, mode=mode))
    second = learn(base=base, settings=settings, held_out=[], directory=tmp_path)
    list(second)
    resumed = learn(settings=settings, held_out=[], directory=tmp_path, resume=True)
    assert len(resumed.levels) == 2, "the base that it remembers has no adapters"
    assert all(torch.equal(w, weights[name]) for name, w in second.generators.weights().items())
    third = learn(base=base, settings=replace(settings, mode="full"))
    assert third.generators.weights().keys() == dict(babbler().model.named_parameters()).keys(), "taken out"


def test_adapters_that_are_averaged_with_the_base_do_so_much_less():
    pytest.importorskip("peft")
    settings = replace(FAST, levels=1, restart=True, mode="lora", lora_rank=4, learning_rate=1e-2)
    runs = [learn(settings=replace(settings, average=share), held_out=[]) for share in (0.0, 0.5)]
    moves = []
    for run in runs:
        list(run)
        layers = [m for m in run.generators.learner.modules() if hasattr(m, "get_delta_weight")]
        moves.append(torch.cat([layer.get_delta_weight("default").flatten() for layer in layers]))
    assert moves[0].norm() > 0.1
    assert torch.allclose(moves[1], 0.5 * moves[0], atol=1e-6)


def test_where_no_rate_helps_the_generator_stays_what_it_was_not_the_base(monkeypatch):
    """A restart begins from the base; where nothing comes of it, the level before is what is left."""
    plain, asked = run_room.update, []

    def failing(model, lessons, **options):
        asked.append(lessons)
        learned = plain(model, lessons, **options) if len(asked) == 1 else None
        return learned or Learned(1.0, 1.0, 0, 1e-5, 3)

    monkeypatch.setattr(run_room, "update", failing)
    run = learn(settings=replace(FAST, restart=True, average=0.3))
    steps = iter(run)
    next(steps), next(steps)
    first = run.generators.weights()
    assert next(steps).learned.steps == 0
    assert all(torch.equal(w, first[name]) for name, w in run.generators.weights().items())
    assert run.levels[2].held == run.levels[1].held


def held(pass_1: float, passes, entropy: float = 5.0) -> Held:
    one = Measure(pass_1)
    return Held(
        one,
        one,
        64,
        one,
        one,
        entropy,
        0.0,
        1.0,
        tuple(passes),
        tuple(float(n > 0) for n in passes),
        (),
        0,
        1.0,
    )


@pytest.mark.slow
def test_adapters_are_held_near_themselves_as_they_were(monkeypatch):
    """KL to the level before: an adapter alone is as good as a copy of the whole model."""
    pytest.importorskip("peft")

    def whole(self, share):
        return Anchor(copy.deepcopy(self.learner).requires_grad_(False), share)

    settings = replace(FAST, mode="lora", lora_rank=4, kl_previous=2.0, learning_rate=1e-2)
    ours = learn(settings=settings)
    assert list(ours)[-1].held.divergence > 0
    free = learn(settings=replace(settings, kl_previous=0.0))
    list(free)
    monkeypatch.setattr(generators.Generators, "_previous", whole)
    theirs = learn(settings=settings)
    list(theirs)
    ids = torch.arange(3, 9)[None]
    near, same, far = (run.generators.learner(ids).logits.detach() for run in (ours, theirs, free))
    assert torch.allclose(near, same, atol=1e-5)
    assert not torch.allclose(near, far, atol=1e-3)


def test_the_guard_knows_collapse_from_noise():
    guard = Guard(held(0.2, [5] * 80 + [0] * 20))
    assert guard.judge(1, held(0.3, [5] * 79 + [0] * 21)) == "", "one prompt in a hundred is noise"
    assert guard.best_level == 1
    assert "pass@64 fell" in guard.judge(2, held(0.4, [9] * 60 + [0] * 40))
    assert "entropy fell" in guard.judge(3, held(0.9, [5] * 90 + [0] * 10, entropy=1.0))
    assert "log-probability" in guard.judge(4, held(0.9, [5] * 100, entropy=float("nan")))
    assert guard.best_level == 1


def test_a_few_prompts_that_agree_prove_nothing():
    """Two prompts of which half pass fall both by chance in one of sixteen sound levels; of five, in one of 1,024."""
    for n, alarms in ((2, False), (4, False), (5, True), (50, True)):
        guard = Guard(held(0.2, [5] * n))
        assert ("pass@64 fell" in guard.judge(1, held(0.3, [0] * n))) == alarms, n
    assert mean_of(np.ones(20)) == pytest.approx((1.0, 0.861, 1.0), abs=1e-3), "as none in twenty has failed"
    assert mean_of(np.zeros(20)) == pytest.approx((0.0, 0.0, 0.139), abs=1e-3)
    assert mean_of(np.ones(1)) == (1.0, None, None)


def test_after_an_alarm_the_best_level_is_back_and_learning_is_slower(tmp_path):
    settings = replace(FAST, levels=3, entropy_drop=0.02, learning_rate=3e-2, epochs=6)
    run = learn(settings=settings, directory=tmp_path / "run")
    levels = list(run)
    alarmed = [level for level in levels if level.alarm]
    assert alarmed, "a drop of two hundredths is soon passed"
    first = alarmed[0]
    assert first.next_rate == pytest.approx(levels[first.number - 1].next_rate / 2)
    assert first.best < first.number
    best = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "levels" / f"{levels[-1].best:03d}")
    if levels[-1].alarm:
        ours = dict(run.generators.learner.named_parameters())
        assert all(torch.equal(p, ours[name]) for name, p in best.named_parameters())


class Constant(Small):
    def verify(self, prompt, text):
        return 0.5


@pytest.mark.parametrize("settings", [{}, {"rho": 0.2}, {"top": 2}, {"power": 1.0}, {"rank": 4}])
def test_a_constant_reward_skips_the_level_with_the_reason(settings):
    run = learn(task=Constant(), settings=replace(FAST, levels=1, **settings))
    level = list(run)[1]
    assert level.learned is None
    assert sum(level.skipped.values()) == 6
    assert level.held == run.levels[0].held


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "prompts"),
        ({"held_out": PROMPTS[:1]}, "held-out"),
        ({"task": None, "held_out": []}, "elite needs"),
        ({"prompts": None}, "prompts"),
        ({"prompts": [[1, 2, 3], [4, 5]]}, "a text or a chat"),
        ({"prompts": ["1+1=", 3.5]}, "a text or a chat"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": "a"}, "seed"),
        ({"prompts": [*PROMPTS, " "]}, "empty"),
        ({"prompts": [*PROMPTS, "1" * 128]}, "leave room"),
        ({"held_out": ["1" * 128]}, "leave room"),
        ({"base": babbler().again(top_k=5), "settings": replace(FAST, power=1.0)}, "truncation"),
        ({"base": babbler().model}, "Babbler"),
        ({"resume": True}, "directory"),
        ({"settings": "expert"}, "settings"),
        ({"settings": {"levels": 1}}, "settings"),
        ({"prompts": [[{"role": "user", "content": "hi"}]], "held_out": []}, "chat"),
    ],
)
def test_what_cannot_be_run_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        learn(**options)


def test_a_babbler_with_a_base_of_its_own_does_not_learn():
    other = babbler()
    with pytest.raises(BadInput, match="its own base"):
        learn(base=babbler().again(base=other.model, mixture=0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 0}, {"rho": 0.0}, {"rho": 1.0}, {"learning_rate": 0.0}, {"sampler": "best"}, {"mode": "half"},
        {"power": 2.0}, {"power": 1.0, "sampler": "babble"},
        {"more": 8, "power": 1.0}, {"more": 0}, {"steps": 0}, {"average": 1.0}, {"kl_base": -1.0}, {"rank": 1},
        {"beta": 0.0}, {"epochs": 1.5}, {"base_share": 1.0}, {"top": 1.5}, {"cap": 2.5}, {"power": 1.0, "draws": 1},
        {"power": 1.0, "sampler": "frontier", "trees": 1}, {"replay": 1.5},
        {"rank": 4, "beta": 0.5},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadInput):
        bg.Settings(**wrong)


@pytest.mark.slow
def test_another_run_is_not_overwritten_nor_changed_on_the_way(tmp_path):
    list(learn(directory=tmp_path / "run", settings=replace(FAST, levels=1)))
    with pytest.raises(BadInput, match="new"):
        learn(directory=tmp_path / "run")
    with pytest.raises(BadInput, match="draws"):
        learn(directory=tmp_path / "run", resume=True, settings=replace(FAST, draws=9))
    with pytest.raises(BadInput, match="model"):
        learn(directory=tmp_path / "run", resume=True, base=babbler(seed=1))
    with pytest.raises(BadInput, match="prompts"):
        learn(directory=tmp_path / "run", resume=True, prompts=[*PROMPTS[1:], "9+9="])
    for other in (
        {"temperature": 0.5},
        {"max_new_tokens": 3},
        {"stop": "\n"},
        {"until": "="},
        {"end_ids": ()},
    ):
        with pytest.raises(BadInput, match=f"got {next(iter(other))} "):
            learn(directory=tmp_path / "run", resume=True, base=babbler().again(**other))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    del config["run"]["temperature"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert learn(directory=tmp_path / "run", resume=True).levels, "of a version that did not keep it"
    with pytest.raises(BadInput, match="resumed"):
        learn(directory=tmp_path / "none", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="empty"):
        learn(directory=tmp_path / "full")


def test_what_others_leave_in_a_run_does_no_harm_and_what_they_take_is_missed(tmp_path):
    list(learn(directory=tmp_path, settings=replace(FAST, levels=1)))
    (tmp_path / "levels" / ".DS_Store").write_text("")
    assert len(learn(directory=tmp_path, settings=replace(FAST, levels=1), resume=True).levels) == 2
    shutil.rmtree(tmp_path / "levels" / "000")
    with pytest.raises(BadInput, match=r"got 001 in .* without 000"):
        learn(directory=tmp_path, settings=replace(FAST, levels=1), resume=True)


def test_a_run_may_have_more_than_a_thousand_levels(tmp_path):
    there = directory_room.Directory(tmp_path)
    for number in range(1002):
        there.folder(number).mkdir(parents=True)
        (there.folder(number) / "level.json").write_text(json.dumps(Level(number).to_json()))
    assert [level.number for level in there.done()] == list(range(1002))


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_model_with_options_of_sampling_beside_greedy_decoding_is_saved(tmp_path, mode):
    """transformers loads it without a word, as it does many on the hub, and would refuse to save it."""
    if mode == "lora":
        pytest.importorskip("peft")
    base = babbler()
    base.model.generation_config.update(do_sample=False, temperature=0.7)
    both = generators.Generators(base, replace(FAST, mode=mode, lora_rank=4))
    both.save(tmp_path)
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert found.generation_config.temperature == 0.7
    assert not base.model.generation_config.do_sample, "the user's own is as it was"


@pytest.mark.parametrize("draws", [2, 10, 14, 24, 25, 30])
def test_at_least_the_share_that_bounds_the_weights_grows_from_the_base(draws):
    of_base, of_current = _shares(bg.Settings(power=1.0, draws=draws))
    assert of_base + of_current == draws
    assert draws <= 10 * of_base < draws + 10


def test_independent_samples_are_not_cut_off_where_nobody_asks_for_it():
    assert bg.Settings(draws=512).most_tokens > 512 * 1024 >= bg.Settings(tokens=99).most_tokens == 99
    assert bg.Settings(sampler="frontier").most_tokens == bg.Settings(sampler="babble").most_tokens == 4000


def test_a_level_that_learns_nothing_after_an_alarm_has_the_figures_of_what_came_back(monkeypatch):
    """Level 1 is refused and level 2 finds nobody who passes: it has the weights of level 0, and so its figures."""
    asked = []

    def choosing(leaves, settings, threshold, rng):
        asked.append(threshold)
        return choose_elite(leaves, settings, threshold if len(asked) == 1 else 2.0, rng)

    monkeypatch.setattr(run_room, "choose", choosing)
    settings = replace(FAST, learning_rate=3e-2, epochs=6, entropy_drop=0.02)
    base, refused, skipped = learn(settings=settings)
    assert refused.alarm
    assert skipped.learned is None
    assert not skipped.alarm
    assert skipped.held == base.held != refused.held
    assert skipped.next_rate == refused.next_rate


@pytest.mark.slow
def test_held_near_the_level_before_is_something_else_than_near_the_base():
    near = [learn(settings=replace(FAST, restart=True, **{name: 0.5})) for name in ("kl_previous", "kl_base")]
    for run in near:
        list(run)
    assert not same_weights(*near)


def test_without_a_threshold_the_figures_are_scores_and_the_guard_goes_by_them():
    def vowels(texts):
        return [np.mean([c in "01234" for c in text[4:]] or [0.0]) for text in texts]

    run = learn(task=None, value=vowels, settings=replace(FAST, top=1))
    base, *_ = list(run)
    assert base.held.threshold is None
    assert base.held.pass_at_1.value == pytest.approx(base.held.score.value)
    assert 0 < base.held.pass_at_1.value < base.held.pass_at_k.value <= 1
    guard = Guard(base.held)
    fell = zip(base.held.best, (0.1, 0.2, 0.3), strict=True)
    worse = base.held._replace(best=tuple(x - less for x, less in fell), pass_at_1=Measure(0.1))
    assert guard.judge(1, worse) == "", "of three prompts that is no proof"
    fell = zip(base.held.best, (0.18, 0.2, 0.22), strict=True)
    worse = base.held._replace(best=tuple(x - less for x, less in fell), pass_at_1=Measure(0.1))
    assert "the best of 8 fell by 0.2" in guard.judge(1, worse)
    assert guard.judge(2, base.held._replace(pass_at_1=Measure(0.0))) == ""
    assert guard.best_level == 0, "a lower score is not better"


def test_a_score_reaches_its_own_threshold():
    """Scores are kept in 32 bits: 0.7 of them is a little below 0.7 of 64."""
    run = learn(task=None, value=lambda texts: [0.7 if "1" in t[4:] else 0.2 for t in texts], threshold=0.7)
    base, level, *_ = run
    assert base.held.pass_at_1.value > 0
    assert level.elite > 0


class Failing(Small):
    def verify(self, prompt: str, text: str) -> float:
        if "1" in text:
            raise ZeroDivisionError("one")
        return super().verify(prompt, text)


def test_a_verifier_that_fails_is_told_of():
    base, level, *_ = learn(task=Failing())
    assert base.failures == 0, "nothing was searched"
    assert level.failures > 0
    assert level.failure == "verify raised ZeroDivisionError: one"
    assert "scoring failed" in level_line(level)
    assert Level.from_json(json.loads(json.dumps(level.to_json()))) == level


def test_a_prompt_that_comes_twice_is_not_both_learned_on_and_held_out():
    twenty = [f"{i}+{j}=" for i in range(1, 5) for j in range(1, 6)]
    run = learn(prompts=iter([*twenty, twenty[0]]), held_out=None)
    assert (run.prompts.learn, run.prompts.held_out) == (twenty[:18], twenty[18:])


def test_prompts_of_levels_come_round():
    run = learn()
    batches = [run.prompts.of(i) for i in (1, 2, 3, 4, 5)]
    assert all(len(batch) >= 5 for batch in batches)
    assert {p for batch in batches for p in batch} == set(PROMPTS)
    assert len({p for batch in batches[:2] for p in batch}) == 12
