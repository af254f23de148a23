"""The cross-entropy method on language models: level by level, the generator learns from its elite."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from babblegraph.errors import BadInput
from babblegraph.given import need_seed
from babblegraph.learning.directory import Directory
from babblegraph.learning.generators import Generators, averaged, begin_anew, quiet_bars, ways_of
from babblegraph.learning.grow import Grown, grow
from babblegraph.learning.guard import Guard
from babblegraph.learning.held_out import measure
from babblegraph.learning.level import Level, choose, lessons_of, report, together
from babblegraph.learning.prompts import Prompts, check, told_apart
from babblegraph.learning.ranks import Ranks
from babblegraph.learning.sample import first_trees
from babblegraph.learning.settings import Settings
from babblegraph.learning.update import Lessons, update
from babblegraph.learning.value import Heads
from babblegraph.randomness import Rng
from babblegraph.side_by_side import SideBySide

if TYPE_CHECKING:
    from babblegraph.learning.grow import Say
    from babblegraph.learning.held_out import Held
    from babblegraph.learning.value import Refitted
    from babblegraph.lm import Babbler
    from babblegraph.protocols import Scorer

SAMPLE = 8  # trees of a level that are kept to look at
SEARCH, HELD, LEARN, _, THIN, VALUE = range(6)  # words of random keys


class Run:
    """A run of the cross-entropy method: iterate over it, one level at a time.

    Every level is a function of the weights before it, the settings and the seed, so that a run that was
    interrupted goes on to the same end: when it is resumed, and when it is iterated over again.

    Args:
        base: f, from which everything begins.
        prompts: to learn on, ready for the model; each counts once.
        score: fills in scores.
        threshold: the final γ.
        settings: see `Settings`.
        held_out: prompts for the figures and the guard; none, no guard.
        directory: where to keep levels; None keeps the last ones in memory only.
        resume: go on with what the directory holds.
        seed: of everything random.
        ranks: the processes of the run.
        say: told what is going on.
        config: what else the directory is to remember.

    Attributes:
        generators: f and g as they are now.
        levels: all that are done, those of an earlier sitting too.
    """

    def __init__(
        self,
        base: Babbler,
        prompts: Sequence[Any],
        *,
        score: Scorer,
        threshold: float | None,
        settings: Settings,
        held_out: Sequence[Any] = (),
        directory: Directory | None = None,
        resume: bool = False,
        seed: int = 0,
        ranks: Ranks | None = None,
        say: Say = lambda what, done, of: None,
        config: dict[str, Any] | None = None,
    ) -> None:
        _check(threshold, settings, seed)
        self.prompts = Prompts(prompts, held_out, settings.prompts, Rng(seed))
        begin_anew(base)
        check(base, [*self.prompts.learn, *self.prompts.held_out], settings.power)
        self.score, self.settings = score, settings
        self.threshold = None if threshold is None else float(np.float32(threshold))  # as scores are kept
        self._side_by_side = SideBySide()
        self.directory, self.rng, self.say = directory, Rng(seed), say
        self.ranks = ranks or Ranks()
        self.levels: list[Level] = []
        self._lessons: dict[int, Lessons] = {}
        self._heads = Heads(score, settings, self.threshold, self.ranks, say)
        told = {
            "settings": settings.to_json(),
            "run": {
                "seed": seed,
                "threshold": threshold,
                "prompts": told_apart(self.prompts.learn),
                "held_out": told_apart(self.prompts.held_out),
                "model": base.fingerprint,
                **ways_of(base),
            },
            **(config or {}),
        }
        self.generators = Generators(base, settings)  # first: where it refuses, no directory is begun
        if directory is not None:
            self.generators.check_saving()
            if self.ranks.first:
                self.levels = directory.begin(told, resume=resume)
        self.levels = self.ranks.gathered(self.levels)[0]
        self._weights = {0: self.generators.weights()}  # of the base, the best level and the last
        self.guard: Guard | None = None
        with quiet_bars():
            self._restore()

    def __iter__(self) -> Iterator[Level]:
        """Each level that is still to be done, level 0 first: the base, measured."""
        while len(self.levels) <= self.settings.levels:
            with quiet_bars():
                level = self._next()
            yield level

    def _next(self) -> Level:
        try:
            return self._whole()
        except BaseException:  # of Ctrl-C, or a full disk, when the weights have moved, half-way or wholly
            self.generators.put(self._weights[self._at])
            raise

    def _whole(self) -> Level:
        began, number = time.perf_counter(), len(self.levels)
        if number == 0:
            level, lessons, grown = Level(0, next_rate=self.settings.learning_rate), None, None
        else:
            level, lessons, grown = self._level(number)
        level = self._guarded(replace(level, held=self._measured(level)))
        value = self._head(number, self.generators.current)
        if value is not None:
            level = replace(level, auc=value.auc, head_tokens=value.tokens)
        level = replace(level, seconds=time.perf_counter() - began)
        self._keep(level, lessons, grown, value)
        return level

    @property
    def _at(self) -> int:
        """The level whose weights g has."""
        if not self.levels:
            return 0
        last = self.levels[-1]
        return last.best if last.alarm else last.number

    def _level(self, number: int) -> tuple[Level, Lessons | None, Grown]:
        """Search, choose, learn."""
        settings, before = self.settings, self.levels[-1]
        now, base = self._scores()
        how: dict[str, Any] = {"score": now, "score_base": base, "threshold": self.threshold}
        how |= {"ranks": self.ranks, "say": self.say, "side_by_side": self._side_by_side}
        grown = grow(
            self.generators, self.prompts.of(number), settings, seed=self._seed(SEARCH, number), **how
        )
        leaves = grown.all
        chosen = choose(leaves, settings, self.threshold, Rng(self._seed(THIN, number)))
        level = replace(report(number, grown, chosen, settings, self.threshold), next_rate=before.next_rate)
        if not len(chosen.leaf):
            return level, None, grown
        lessons = lessons_of(leaves, chosen)
        learned = self._learn(number, lessons, before.next_rate)
        return replace(level, learned=learned, next_rate=min(before.next_rate, learned.rate)), lessons, grown

    def _learn(self, number: int, lessons: Lessons, rate: float) -> Any:
        settings, generators = self.settings, self.generators
        earlier = range(1, number) if settings.restart else range(max(1, number - settings.replay), number)
        again = [self._lessons_of(i) for i in earlier]
        anchors = generators.anchors(settings)  # g as it searched, wherever learning begins
        if settings.restart:
            generators.put(self._weights[0])
        before = generators.weights() if settings.average else None
        learned = update(
            generators.learner,
            together([*(some for some in again if some is not None), lessons]),
            learning_rate=rate,
            epochs=settings.epochs,
            steps=settings.steps,
            batch=settings.batch,
            anchors=anchors,
            rng=Rng(self._seed(LEARN, number)),
            ranks=self.ranks,
            progress=lambda done, of: self.say(f"learning: step {done:,} of {of:,}", done, of),
        )
        if not learned.steps:
            generators.put(self._weights[self._at])  # not the base's, from which a restart had begun
        elif before is not None:
            generators.put(averaged(generators.weights(), before, settings.average))
        generators.moved()
        return learned

    def _measured(self, level: Level) -> Held | None:
        if not self.prompts.held_out:
            return None
        if level.number > 0 and level.learned is None:  # nothing moved
            before = self.levels[-1]
            return self.guard.best if before.alarm and self.guard is not None else before.held
        self.say("measuring", 0, 0)
        return measure(
            self.generators.current,
            self.prompts.held_out,
            score=self.score,
            threshold=self.threshold,
            draws=self.settings.held_draws,
            seed=self._seed(HELD),
            log_f=self.generators.log_f if level.number else None,
            side_by_side=self._side_by_side,
        )

    def _guarded(self, level: Level) -> Level:
        """With the guard's word; after an alarm the best level's weights are back, and learning is slower."""
        alarm = self._judged(level)
        if self.guard is None:
            return replace(level, best=level.number)
        rate = level.next_rate / 2 if alarm else level.next_rate
        return replace(level, alarm=alarm, best=self.guard.best_level, next_rate=rate)

    def _judged(self, level: Level) -> str:
        """What the guard says; the first level that is measured is what it goes by."""
        if level.held is None:
            return ""
        if self.guard is None:
            self.guard = Guard(level.held, self.settings.entropy_drop)
            return ""
        return self.guard.judge(level.number, level.held)

    def _scores(self) -> tuple[Scorer, Scorer]:
        """What the searches of the current generator and of the base score by: each its own value head, if any."""
        now = self._head(self._at, self.generators.current)
        if now is None:
            return self.score, self.score
        guided = now.guiding(self.generators.current, self.score)
        if not self.settings.epsilon:
            return guided, guided
        base = self._head(0, self.generators.base) or now
        return guided, base.guiding(self.generators.base, self.score)

    def _head(self, number: int, babbler: Babbler) -> Refitted | None:
        """The value head of a level, whose generator this is, on the next level's prompts, which are new to it."""
        return self._heads.of(number, babbler, self.prompts.of(number + 1), self._seed(VALUE, number))

    def _keep(
        self, level: Level, lessons: Lessons | None, grown: Grown | None, value: Refitted | None
    ) -> None:
        if lessons is not None:
            self._lessons[level.number] = lessons
        if self.directory is not None and self.ranks.first:
            graph = None if grown is None or grown.graph is None else first_trees(grown.graph, SAMPLE)
            self.directory.write(level, self.generators, lessons, graph, value)
        self.ranks.wait()
        if not level.alarm:
            self._weights[level.number] = self.generators.weights()
        self.levels.append(level)  # from here on it is done
        self._weights = {n: one for n, one in self._weights.items() if n in (0, level.best, level.number)}
        self._heads.forget_all_but(0, level.best, level.number)
        if level.alarm:
            self.generators.put(self._weights[level.best])

    def _restore(self) -> None:
        """The state after the levels that the directory holds."""
        for level in self.levels:
            if not level.alarm:  # what was refused is not judged anew, maybe by another version
                self._judged(level)
        if not self.levels or self.directory is None:
            return
        last = self.levels[-1]
        self.generators.load(self.directory.folder(last.best))
        self._weights[last.best] = self.generators.weights()
        if last.number != last.best and not last.alarm:
            self.generators.load(self.directory.folder(last.number))
            self._weights[last.number] = self.generators.weights()

    def _lessons_of(self, number: int) -> Lessons | None:
        if number not in self._lessons and self.directory is not None:
            found = self.directory.lessons(number)
            if found is not None:
                self._lessons[number] = found
        return self._lessons.get(number)

    def _seed(self, *words: int) -> int:
        return int(self.rng.generator(*words).integers(1 << 31))


def _check(threshold: float | None, settings: Settings, seed: int) -> None:
    need_seed(seed)
    if settings.more is not None and threshold is None:
        raise BadInput(
            f"more samples are drawn until one passes a threshold, got more {settings.more} and none: give one"
        )
    soft = settings.rank is not None or settings.beta is not None
    if threshold is None and settings.rho is None and settings.top is None and not soft:
        raise BadInput(
            "an elite needs a threshold, rho, top, rank or beta, got none: rho=0.1 takes the best tenth of each prompt"
        )
