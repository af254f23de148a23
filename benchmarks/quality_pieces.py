"""Pieces of the work of `quality.py`: what each is, and a folder in which runs beside each other find them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

GIVEN_UP = 900  # seconds after which a piece that was begun is taken over
COLUMNS = ("needed", "work", "cut", "separate", "spent", "answers")  # of each puzzle


class Piece(NamedTuple):
    """Some puzzles of one method, run together. What it is called is what it is."""

    task: str
    method: str
    temperature: float
    split: str  # or "answers": puzzles of the test split, searched on after the first right answer
    most: int
    of: int  # puzzles of the split, of which these are
    first: int
    puzzles: int

    @property
    def file(self) -> str:
        return "_".join(str(x).replace(" ", "-").replace(",", "") for x in self) + ".json"


WHAT = Piece._fields[:-3]  # all but which puzzles: those of a split have an order, whoever asks for how many


class Pieces:
    """Finished pieces, kept in a folder where there is one.

    Args:
        folder: shared with runs beside this one; None to keep them in mind alone.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.found: dict[str, dict[str, Any]] = {}  # by the names of their files

    def begin(self, piece: Piece) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / piece.file).with_suffix(".begun").touch()

    def begun(self, piece: Piece) -> bool:
        """Whether a run beside this one is at it; one that takes longer than `GIVEN_UP` was stopped."""
        if self.folder is None:
            return False
        mark = (self.folder / piece.file).with_suffix(".begun")
        return mark.exists() and time.time() - mark.stat().st_mtime < GIVEN_UP

    def has(self, piece: Piece) -> bool:
        """Whether a piece was measured, now or before, here or beside."""
        return self.row(piece) is not None

    def row(self, piece: Piece) -> dict[str, Any] | None:
        """What is known of a piece, from pieces of any size; None where a puzzle of it is missing."""
        at = {row["first"] + i: (row, i) for row in self.of(piece) for i in range(row["puzzles"])}
        wanted = range(piece.first, piece.first + piece.puzzles)
        if not all(i in at for i in wanted):
            return None
        used = {id(at[i][0]): at[i][0] for i in wanted}.values()
        columns = [c for c in COLUMNS if all(c in row for row in used)]
        lists = {c: [at[i][0][c][at[i][1]] for i in wanted] for c in columns}
        return piece._asdict() | lists | {"seconds": round(sum(row["seconds"] for row in used), 1)}

    def beginning(self, piece: Piece) -> dict[str, Any] | None:
        """What is known of a piece from its first puzzle on, up to where one is missing."""
        known = {r["first"] + i for r in self.of(piece) for i in range(r["puzzles"])}
        n = next(i for i in range(piece.puzzles + 1) if piece.first + i not in known or i == piece.puzzles)
        return self.row(piece._replace(of=n, puzzles=n)) if n else None

    def of(self, piece: Piece) -> list[dict[str, Any]]:
        """All that was measured of the row that a piece is of."""
        self.look()
        return [row for row in self.found.values() if all(row[k] == getattr(piece, k) for k in WHAT)]

    def look(self) -> None:
        """Finds what others have finished."""
        for path in sorted(self.folder.glob("*.json")) if self.folder else ():
            if path.name not in self.found:
                self.found[path.name] = json.loads(path.read_text("utf-8"))

    def keep(self, piece: Piece, row: dict[str, Any] | None) -> None:
        if row is None:
            return
        self.found[piece.file] = row
        if self.folder:
            path = self.folder / piece.file
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".part{os.getpid()}")
            beside.write_text(json.dumps(row) + "\n", "utf-8")
            beside.replace(path)
            path.with_suffix(".begun").unlink(missing_ok=True)


def whole(pieces: Sequence[Piece]) -> list[Piece]:
    """The rows that pieces are of, each as one piece."""
    return list(dict.fromkeys(p._replace(first=0, puzzles=p.of) for p in pieces))
