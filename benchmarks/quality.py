"""Which strategy solves most within a budget, with the same generator, the same values and its own best temperature?

A row is a strategy on a task; a cell the percentage of held-out puzzles solved within that many sampled tokens (unique
tokens of the trie, pruned and dead ones included), or within that much work (parameters × tokens that went through
the model, prompts, revived texts and the judge included). Values are legality and, on Countdown, the generator's own
verdict or the learned head beside it; never a solver. Best-of-N draws at most as many samples as it has tokens; on our
trie samples that agree cost nothing, so that it may end with tokens left: cells that it did not reach stay empty.
Every method has the temperature that was best for it on validation puzzles, and settings were chosen there too. Peers
are other libraries on the same generator; they run where they are installed (see peers/requirements.txt). Left out:
seeds (one), GPUs, settings tuned for single budgets.

The work is done in pieces of a few puzzles. With `--parts DIR` each is kept there as soon as it is finished: a run
goes on where it was stopped, and several runs (`--share 1/7`, `--share 2/7`, …, on one machine or on many whose folders
are put together afterwards) do not measure the same piece. Temperatures are chosen when all of a method's validation
pieces are there, so that a run beside others may have to be started twice. `--merge` measures nothing and makes the
tables, the claims and the JSON file of what is there: of each method the first puzzles, up to one that is missing.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import babblegraph as bg
from babblegraph.scoring import JudgeValue
from babblegraph.scoring.learned import LearnedValue

sys.path.insert(0, str(Path(__file__).parent))
from common import parser, report, write
from peers import quality as peers
from quality_claims import BUDGETS, CONSTANT, COUNTED, VERDICT, area, claims_of, plot, tables
from quality_pieces import Piece, Pieces, whole
from quality_settings import EVERY, LONG, METHODS, SAMPLED, SETTINGS, Method, Setting
from search import separate_tokens

TEMPERATURES = (0.6, 0.8, 1.0)
TUNED_AT = 400  # sampled tokens a validation puzzle: temperatures matter most where budgets are small
OTHERS_AT = 1600  # sampled tokens for all but the methods that claims are about
ANSWERS_AT = 800  # sampled tokens in which different right answers are counted
COUNTED_ON, PEER_PUZZLES, TUNED_ON = 50, 200, 25  # puzzles, at most


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    options = read(arguments)
    torch.set_num_threads(1)  # the models are small
    bench = Bench(options)
    pairs = [(t, m) for t in options.tasks for m in options.only if known(t, m)]
    if not options.merge:
        bench.measure([p for t, m in pairs for p in bench.tuning(t, m)])
        bench.measure([p for t, m in pairs for p in bench.testing(t, m)])
    rows = [row for t, m in pairs for row in bench.rows(t, m)]
    test = [row for row in rows if row["split"] == "test"]
    if options.json:
        write(options.json, rows, claims_of(test), options, peers.PACKAGES)
    if test:
        report("quality", rows, claims_of(test), Namespace(json=None), tables=tables(rows, options.tasks))
        plot(test, options.tasks)
    return rows


def known(task: str, method: str) -> bool:
    """Whether a method means something of its own on a task: without a verdict two of them are the same."""
    return SETTINGS[task].judged or method not in (CONSTANT, VERDICT)


class Bench:
    """Measures the pieces that are not there yet, and keeps each."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        self.pieces = Pieces(options.parts)
        self.absent: set[str] = set()  # peers that are not installed
        self.models: dict[tuple[str, float], tuple[bg.Babbler, dict[str, Any]]] = {}

    def tuning(self, task: str, method: str) -> Iterator[Piece]:
        """Validation puzzles at every temperature."""
        method = SAMPLED.get(method, method)
        if len(self.options.temperatures) > 1:
            for t in self.options.temperatures:
                n = self.options.validation
                n = n if method in LONG else min(n, TUNED_ON)
                yield from self.cut(task, method, t, "validation", min(TUNED_AT, self.options.most), n)

    def testing(self, task: str, method: str) -> Iterator[Piece]:
        """Test puzzles at the temperature that was best on validation puzzles; none before it is known."""
        if (best := self.temperature(task, method)) is None:
            return
        most, n, run = self.options.most, self.options.puzzles, SAMPLED.get(method, method)
        if run in peers.NAMES:
            most, n = min(OTHERS_AT, most), min(PEER_PUZZLES, n)
        elif run not in LONG:
            most = min(OTHERS_AT, most)
        elif run == COUNTED and not SETTINGS[task].judged:
            most = min(OTHERS_AT, most)  # tens of thousands of samples, which agree and cost few tokens
        yield from self.cut(task, run, best, "test", most, n)
        if method in METHODS:
            yield from self.cut(task, method, best, "answers", min(ANSWERS_AT, most), min(COUNTED_ON, n))

    def temperature(self, task: str, method: str) -> float | None:
        if len(self.options.temperatures) == 1:
            return self.options.temperatures[0]
        tuned = list(self.tuning(task, method))
        if not all(self.pieces.has(p) for p in tuned):
            return None
        rows = [self.as_of(method, row) for p in whole(tuned) if (row := self.pieces.row(p))]
        return max(rows, key=lambda row: area(row["needed"], row["most"]))["temperature"]

    def as_of(self, method: str, row: dict[str, Any]) -> dict[str, Any]:
        """A row as a method pays for it."""
        if method not in SAMPLED:
            return row
        paid = [x if x is not None and x <= row["most"] else None for x in row["separate"]]
        kept = {k: v for k, v in row.items() if k not in ("work", "cut", "spent")}
        return kept | {"method": method, "needed": paid}

    def cut(
        self, task: str, method: str, temperature: float, split: str, most: int, n: int
    ) -> Iterator[Piece]:
        of = len(self.prompts(task, split, n))
        for first in range(0, of, self.options.piece):
            size = min(self.options.piece, of - first)
            yield Piece(task, method, temperature, split, most, of, first, size)

    def prompts(self, task: str, split: str, n: int) -> list[str]:
        return SETTINGS[task].prompts("test" if split == "answers" else split, n)

    def measure(self, pieces: Sequence[Piece]) -> None:
        """Own pieces first; then, from the end, those that nobody has begun."""
        share, of = self.options.share
        own = [p for i, p in enumerate(pieces) if i % of == share - 1]
        others = [p for i, p in enumerate(pieces) if i % of != share - 1]
        for piece in own:
            if not self.pieces.has(piece):
                self.pieces.begin(piece)
                self.pieces.keep(piece, self.run(piece))
        for piece in reversed(others):
            if not self.pieces.has(piece) and not self.pieces.begun(piece):
                self.pieces.begin(piece)
                self.pieces.keep(piece, self.run(piece))

    def run(self, piece: Piece) -> dict[str, Any] | None:
        """One piece; None where a peer is not installed."""
        if piece.method in self.absent:
            return None
        start, setting = time.perf_counter(), SETTINGS[piece.task]
        babbler, values = self.model(piece)
        some = self.prompts(piece.task, piece.split, piece.of)[piece.first : piece.first + piece.puzzles]
        if piece.method in METHODS:
            found = search(babbler, setting, some, METHODS[piece.method], piece, values)
        elif (
            one := peers.solve(piece.method, babbler, values, setting.task, some, piece.most, piece.first)
        ) is None:
            print(f"{piece.method} is not installed: left out", file=sys.stderr)
            self.absent.add(piece.method)
            return None
        else:
            found = one
        row = piece._asdict() | {"seconds": round(time.perf_counter() - start, 1)} | found
        rate = 100 * np.mean([x is not None for x in row["needed"]])
        print(f"{' '.join(map(str, piece))}: {rate:.0f} %, {row['seconds']} s", file=sys.stderr, flush=True)
        return row

    def model(self, piece: Piece) -> tuple[bg.Babbler, dict[str, Any]]:
        """The generator, and the values that it has of its own."""
        key = (SETTINGS[piece.task].model, piece.temperature)
        if key not in self.models:
            babbler = bg.Babbler.embedded(task=key[0], temperature=key[1])
            values: dict[str, Any] = {}
            if SETTINGS[piece.task].judged:
                home = Path(bg.__file__).parent / "embedded" / "model"
                values = {"verdict": JudgeValue(babbler), "learned": LearnedValue.from_folder(babbler, home)}
            self.models[key] = babbler, values
        return self.models[key]

    def rows(self, task: str, method: str) -> list[dict[str, Any]]:
        """What is there of a method, pieces put together, up to the first puzzle that is missing."""
        asked = whole([*self.tuning(task, method), *self.testing(task, method)])
        return [self.as_of(method, row) for p in asked if (row := self.pieces.beginning(p))]


def search(
    babbler: bg.Babbler,
    setting: Setting,
    prompts: list[str],
    method: Method,
    piece: Piece,
    values: dict[str, Any],
) -> dict[str, Any]:
    """Sampled tokens and work until each puzzle was solved, None where it was not."""
    many, value = piece.split == "answers", values.get(method.value)
    strategy = method.make(None if many else 1.0)
    how = {"task": setting.task, "value": value, "strategy": strategy, "budget": piece.most}
    found = bg.babble(babbler, prompts, connectivity=None, **how)
    counts = {k: np.array(v) for k, v in found.graph.meta["spent"]["counts"].items()}
    through = counts["forwarded"] + counts["prefilled"] + counts["scored"]
    size = sum(p.numel() for p in babbler.model.parameters())
    spent = {"needed": counts["sampled"], "work": through * size}
    if method.strategy == "best-of-n":
        spent["separate"] = separate_tokens(found.graph)
    passed = np.array(found.passed) & (spent["needed"] <= piece.most)
    row: dict[str, Any] = {
        name: [int(x) if ok else None for x, ok in zip(all_, passed, strict=True)]
        for name, all_ in spent.items()
    }
    cut = ~passed & (spent["needed"] >= piece.most)
    row["cut"] = [int(x) if off else None for x, off in zip(spent["work"], cut, strict=True)]
    if method.strategy == "best-of-n":
        row["spent"] = counts["sampled"].tolist()
    return row | {"answers": right_answers(found.graph)} if many else row


def right_answers(graph: bg.BabbleGraph) -> list[int]:
    """How many different texts of each tree passed."""
    right = np.flatnonzero(graph.is_leaf() & (graph.score >= 1))
    texts = [{graph.text(i) for i in right[graph.root[right] == tree]} for tree in range(graph.trees)]
    return [len(some) for some in texts]


def read(arguments: Sequence[str] | None) -> Namespace:
    made = parser(__doc__)
    made.add_argument("--tasks", type=listed(SETTINGS), default=list(SETTINGS))
    made.add_argument("--only", type=listed(EVERY), default=list(EVERY))
    made.add_argument("--puzzles", type=int, default=1000, help="of the test split")
    made.add_argument("--validation", type=int, default=100, help="puzzles to choose temperatures on")
    made.add_argument(
        "--temperatures",
        type=lambda t: [float(x) for x in t.split(",")],
        default=list(TEMPERATURES),
        help="to choose from; a single one is taken as it is",
    )
    made.add_argument("--most", type=int, default=BUDGETS[-1], help="sampled tokens for each puzzle")
    made.add_argument("--parts", type=Path, help="a folder in which finished pieces are kept and found")
    made.add_argument("--merge", action="store_true", help="measure nothing: put together what is in --parts")
    made.add_argument("--piece", type=int, default=25, help="puzzles in a piece, searched side by side")
    made.add_argument(
        "--share", type=_share, default=(1, 1), help="2/7: the second of seven runs beside each other"
    )
    options = made.parse_args(arguments)
    if options.quick:
        options.puzzles, options.validation, options.most = 12, 6, 400
        options.temperatures = [1.0]
    return options


def _share(text: str) -> tuple[int, int]:
    share, _, of = text.partition("/")
    if not (share.isdecimal() and of.isdecimal() and 1 <= int(share) <= int(of)):
        raise SystemExit(f"a share is written 2/7, got {text!r}: the second of seven")
    return int(share), int(of)


def listed(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(";") if ";" in text else text.split(",") if text not in known else [text]
        for name in found:
            if name not in known:
                raise SystemExit(f"a name is one of {'; '.join(known)}, got {name!r}: choose among them")
        return found

    return names


if __name__ == "__main__":
    main()
