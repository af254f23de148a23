"""A run of the cross-entropy method as a table of its levels and lines that rise or fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.view import figures
from babblegraph.view.charts import sparkline
from babblegraph.view.grid import GAP, columns_in
from babblegraph.view.signs import FAILED, PASSED, QUIET, STRONG, TITLE, UNICODE, Signs
from babblegraph.view.text import fit_figures, visible, wrapped

if TYPE_CHECKING:
    from babblegraph.learning import Level
    from babblegraph.learning.held_out import Held, Measure

LINE = 24  # cells of a line that rises or falls
BAR = 48  # cells of a line that fills


class Column(NamedTuple):
    """A column of the table, and the width from which it is shown."""

    name: str
    from_width: int


COLUMNS = (
    Column("level", 0),
    Column("pass@1", 0),  # with the two below by other names where there is no threshold, see `_named`
    Column("greedy", 0),
    Column("pass@k", 0),
    Column("entropy", 56),
    Column("elite", 66),
    Column("γ", 74),
    Column("P(S≥γ)", 86),
    Column("loss", 102),
    Column("KL to f", 112),
    Column("tokens", 122),
    Column("time", 130),
)


def levels_report(
    levels: Sequence[Level],
    *,
    width: int,
    signs: Signs = UNICODE,
    now: str = "",
    through: tuple[int, int] = (0, 0),
) -> RenderableType:
    """All levels so far, what is going on, and what the guard says.

    Args:
        levels: those that are done.
        width: in cells; narrow terminals get fewer columns.
        signs: what to draw with.
        now: what is going on.
        through: how much of that is done, and of how much; 0 of what has no known end.
    """
    held = next((level.held for level in levels if level.held), None)
    rows = [_cells(level, signs) for level in levels]
    names = {column.name: _spelled(_named(column.name, held), signs) for column in COLUMNS}
    shown = [column.name for column in COLUMNS if width >= column.from_width]
    wide = [max(map(len, (names[name], *(cells[name] for cells in rows)))) for name in shown]
    shown = shown[: columns_in(wide, width + GAP)]  # a figure that is cut would be another one
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style=QUIET)
    for name in shown:
        table.add_column(names[name], justify="right", no_wrap=True)
    best = max((level.best for level in levels), default=0)
    for level, cells in zip(levels, rows, strict=True):
        style = FAILED if level.alarm else STRONG if level.number == best and level.number else ""
        table.add_row(*(Text(cells[name], style) for name in shown))
    parts: list[RenderableType] = [table]
    parts += _lines(levels, width, signs)
    for level in levels:
        parts += [Text(line, FAILED, no_wrap=True) for line in _remarks(level, width, signs)]
    if now:
        parts.append(Text(fit_figures(now, width, signs), TITLE, no_wrap=True))
    if now and through[1]:
        parts.append(_bar(*through, min(width, BAR), signs))
    return Group(*parts)


def level_line(level: Level) -> str:
    """One level in one line, for a pipe."""
    cells = _cells(level, UNICODE)
    shown = [name for name in cells if cells[name] and name != "level"]
    said = "  ".join(f"{_named(name, level.held)} {cells[name]}" for name in shown)
    tail = f"  alarm: {level.alarm}" if level.alarm else ""
    if level.failures:
        tail += f"  {_failed(level)}"
    return f"level {level.number}  {said}{tail}"


def _failed(level: Level) -> str:
    times = f"time{'s' * (level.failures > 1)}"
    return f"scoring failed {level.failures:,} {times}, first: {level.failure}"


def _cells(level: Level, signs: Signs) -> dict[str, str]:
    held, learned = level.held, level.learned
    arrow = signs.arrow
    return {
        "level": str(level.number),
        "pass@1": "" if held is None else _worth(held.pass_at_1, held),
        "greedy": "" if held is None else _worth(held.greedy, held),
        "pass@k": "" if held is None else _worth(held.pass_at_k, held),
        "entropy": "" if held is None else f"{held.entropy:.2f}",
        "elite": f"{level.elite} from {level.taught}" if level.elite else ("none" if level.number else ""),
        "γ": "" if level.gamma is None else f"{level.gamma:.3g}",
        "P(S≥γ)": "" if level.p_g.value is None else f"{level.p_g.value:.3g}",
        "loss": "" if learned is None else f"{learned.before:.3f}{arrow}{learned.after:.3f}",
        "KL to f": "" if held is None else f"{held.divergence:.2f}",
        "tokens": figures.count(level.tokens) if level.number else "",
        "time": figures.clock(level.seconds),
    }


def _named(column: str, held: Held | None) -> str:
    """A column's title: what is measured are scores where there is no threshold."""
    if held is None:
        return column
    names = {"pass@k": f"pass@{held.k}"}
    if held.threshold is None:
        names = {"pass@1": "score", "pass@k": f"best of {held.k}"}
    return names.get(column, column)


def _spelled(name: str, signs: Signs) -> str:
    return name if not signs.ascii_only else name.replace("γ", "gamma").replace("≥", ">=")


def _worth(measure: Measure, held: Held) -> str:
    """A percentage of texts that pass, or a score."""
    return f"{measure.value:.3f}" if held.threshold is None else f"{100 * measure.value:.1f}"


def _lines(levels: Sequence[Level], width: int, signs: Signs) -> list[Text]:
    """γ, P(S ≥ γ), pass@1, pass@k and entropy over levels."""
    held = [level.held for level in levels if level.held is not None]
    if len(held) < 2 or width < 50:
        return []
    scale, unit = (1, "") if held[0].threshold is None else (100, " %")
    rows: tuple[tuple[str, list[float], str], ...] = (
        (_named("pass@1", held[0]), [scale * one.pass_at_1.value for one in held], unit),
        (_named("pass@k", held[0]), [scale * one.pass_at_k.value for one in held], unit),
        ("entropy", [one.entropy for one in held], " nats"),
    )
    gammas = [level.gamma for level in levels if level.gamma is not None]
    chances = [level.p_g.value for level in levels if level.p_g.value is not None]
    greek = (_spelled("γ", signs), _spelled("P(S≥γ)", signs))
    searched = [
        (name, values, "") for name, values in zip(greek, (gammas, chances), strict=True) if len(values) > 1
    ]
    rows = (*searched, *rows)
    found, wide = [], max(len(name) for name, *_ in rows)
    for name, values, unit in rows:
        change = f"{values[0]:.3g} {signs.arrow} {values[-1]:.3g}{unit}"
        line = sparkline(values, min(LINE, width - wide - len(change) - 2 * GAP), signs)
        found.append(Text.assemble((f"{name:<{wide}}  ", QUIET), (f"{line}  ", PASSED), change, no_wrap=True))
    return found


def _bar(done: int, of: int, width: int, signs: Signs) -> Text:
    """How far something is, as a line that fills."""
    full, empty = ("=", "-") if signs.ascii_only else ("━", "─")
    cells = round(width * min(done / of, 1.0))
    return Text.assemble((full * cells, PASSED), (empty * (width - cells), QUIET), no_wrap=True)


def _remarks(level: Level, width: int, signs: Signs) -> list[str]:
    """What went wrong in a level, in as many lines as that takes."""
    found = []
    if level.failures:
        found.append(f"level {level.number}: {_failed(level)}")
    if level.skipped and not level.elite:
        why = ", ".join(f"{reason} ({n})" for reason, n in level.skipped.items())
        found.append(f"level {level.number} learned nothing: {why}")
    if level.learned is not None and level.learned.retries:
        times = "once" if level.learned.retries == 1 else f"{level.learned.retries} times"
        slower = f"halved {times}, to {level.learned.rate:.2g}"
        found.append(f"level {level.number}: the learning rate was {slower}")
    if level.alarm:
        found.append(f"level {level.number} is refused: {level.alarm}; back to level {level.best}")
    return [line for said in found for line in wrapped(visible(said, signs), width)]
