"""The directory of a run: every level a folder, each written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from babblegraph.errors import BadInput
from babblegraph.learning.level import Level
from babblegraph.learning.update import Lessons

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.learning.generators import Generators
    from babblegraph.learning.value import Refitted

CONFIG, METRICS, LEVEL, LESSONS, GRAPH = (
    "config.json",
    "metrics.jsonl",
    "level.json",
    "lessons.safetensors",
    "graph.bg",
)


class Directory:
    """Where a run keeps what it needs to go on after any interruption, and what others want to look at.

    `config.json`, `metrics.jsonl` with one level a line, and `levels/000`, `levels/001`, …: each a folder that
    transformers loads, with `level.json`, the elite's `lessons.safetensors`, `graph.bg`, a sample of the trees, and
    the level's value head where it has one. A level is written beside its place and then renamed, so that it is
    there whole or not at all.

    Args:
        path: the run's directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.levels = self.path / "levels"

    def begin(self, config: dict[str, Any], *, resume: bool) -> list[Level]:
        """Makes the directory or finds it, and returns the levels that are done.

        Raises:
            BadInput: there is a run already and nobody wants to resume it; none to resume; or another one's settings.
        """
        there = (self.path / CONFIG).is_file()
        if resume and not there:
            raise BadInput(
                f"only a run can be resumed, got {str(self.path)!r} without {CONFIG}: begin it first"
            )
        if not resume:
            self.need_new()
        self.levels.mkdir(parents=True, exist_ok=True)
        if there:
            self._same(config)
        for half_written in self.levels.glob(".[0-9]*"):
            shutil.rmtree(half_written)
        _write(self.path / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        done = self.done()
        if done:
            self.summarise(done)  # the last one's line may be missing
        return done

    def need_new(self) -> None:
        """Raises BadInput unless a run can begin here: it holds nothing yet, and can be made or written to."""
        if (self.path / CONFIG).is_file():
            raise BadInput(
                f"a run's directory must be new, got {str(self.path)!r}: resume it, or name another"
            )
        place = next(one for one in (self.path, *self.path.absolute().parents) if os.path.lexists(one))
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise BadInput(
                f"a run's directory must be one that can be written to, got {str(self.path)!r}: name another"
            )
        if not self._fresh():
            raise BadInput(f"a run's directory must be empty, got {str(self.path)!r}: name another")

    def done(self) -> list[Level]:
        """The levels that are there, in order.

        Raises:
            BadInput: one that cannot be read.
        """
        found: list[Level] = []
        for folder in sorted(self.levels.glob("[0-9]*"), key=lambda one: (len(one.name), one.name)):
            if folder != self.folder(len(found)):
                raise BadInput(
                    f"a run needs all its levels, got {folder.name} in {str(self.levels)!r} without "
                    f"{self.folder(len(found)).name}: put it back, or begin anew"
                )
            try:
                found.append(Level.from_json(json.loads((folder / LEVEL).read_text("utf-8"))))
            except (OSError, ValueError, TypeError, KeyError) as problem:
                raise BadInput(f"a level must hold its {LEVEL}, got {str(folder)!r}: {problem}") from problem
        return found

    def write(
        self,
        level: Level,
        generators: Generators,
        lessons: Lessons | None,
        graph: BabbleGraph | None,
        value: Refitted | None = None,
    ) -> None:
        """Adds a level."""
        beside, place = self.levels / f".{level.number:03d}", self.folder(level.number)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        written = generators.save(beside)
        if value is not None:
            value.save(beside, written)
        if lessons is not None:
            save_lessons(lessons, beside / LESSONS)
        if graph is not None:
            graph.save(beside / GRAPH)
        _write(beside / LEVEL, json.dumps(level.to_json(), indent=2, ensure_ascii=False) + "\n")
        for file in [*beside.rglob("*"), beside]:
            _sync(file)
        if place.exists():  # an interrupt came just after it was written, and the run made it again
            shutil.rmtree(beside)
        else:
            os.replace(beside, place)
        _sync(self.levels)
        self.summarise(self.done())

    def summarise(self, levels: Iterable[Level]) -> None:
        """Writes `metrics.jsonl` anew from the levels."""
        lines = (json.dumps(level.to_json(), ensure_ascii=False) for level in levels)
        _write(self.path / METRICS, "".join(f"{line}\n" for line in lines))

    def folder(self, number: int) -> Path:
        """Where a level is."""
        return self.levels / f"{number:03d}"

    def lessons(self, number: int) -> Lessons | None:
        """What a level learned from; None where it was skipped."""
        file = self.folder(number) / LESSONS
        return load_lessons(file) if file.is_file() else None

    def config(self) -> dict[str, Any]:
        """What the run was told.

        Raises:
            BadInput: there is no run here, or it cannot be read.
        """
        try:
            return dict(json.loads((self.path / CONFIG).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as problem:  # the last of JSON that is no object
            raise BadInput(
                f"a run's directory must hold {CONFIG}, got {str(self.path)!r}: begin a run there first"
            ) from problem

    def _fresh(self) -> bool:
        """Whether nothing is there but what a run leaves that was killed before it had begun."""
        if not self.path.is_dir():
            return True
        others = [one for one in self.path.iterdir() if one.name != _beside(self.path / CONFIG).name]
        return not others or (others == [self.levels] and not any(self.levels.iterdir()))

    def _same(self, config: dict[str, Any]) -> None:
        """A run goes on as it began; only the number of levels may grow."""
        saved = self.config()
        for part, now in config.items():
            was = saved.get(part)
            if isinstance(now, dict) and isinstance(was, dict):
                new = {*now} - {*was} if part == "run" else set()  # what versions before did not keep
                for name in sorted({*now, *was} - {"levels"} - new):
                    if now.get(name) != was.get(name):
                        raise BadInput(
                            f"a run must go on as it began, got {name} {now.get(name)!r} instead of "
                            f"{was.get(name)!r}: begin another"
                        )
            elif now != was:
                raise BadInput(f"a run must go on as it began, its {part} changed: begin another")


def save_lessons(lessons: Lessons, file: Path) -> None:
    """Writes token ids, one text after the other, and weights."""
    lengths = np.array([len(tokens) for tokens in lessons.tokens], np.int64)
    flat = np.concatenate([*lessons.tokens, np.zeros(0, np.int32)]).astype(np.int32)
    save_file({"tokens": flat, "lengths": lengths, "start": lessons.start, "weight": lessons.weight}, file)


def load_lessons(file: Path) -> Lessons:
    """Reads what `save_lessons` wrote."""
    saved = load_file(file)
    tokens = np.split(saved["tokens"], np.cumsum(saved["lengths"])[:-1])
    return Lessons(list(tokens), saved["start"], saved["weight"])


def _write(file: Path, text: str) -> None:
    beside = _beside(file)
    beside.write_text(text, "utf-8")
    _sync(beside)
    os.replace(beside, file)


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.new")


def _sync(path: Path) -> None:
    """Waits until it is on the disk, so that a rename never outruns what it names."""
    at = os.open(path, os.O_RDONLY)
    try:
        os.fsync(at)
    except OSError:
        pass  # some file systems cannot sync folders
    finally:
        os.close(at)
