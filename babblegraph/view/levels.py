"""A run of the cross-entropy method as a table of its levels and lines that rise or fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.view import figures
from babblegraph.view.charts import sparkline
from babblegraph.view.signs import FAILED, PASSED, QUIET, STRONG, TITLE, UNICODE, Signs
from babblegraph.view.text import fit

if TYPE_CHECKING:
    from babblegraph.learning import Level
    from babblegraph.learning.held_out import Measure

LINE = 24  # cells of a line that rises or falls


class Column(NamedTuple):
    """A column of the table, and the width from which it is shown."""

    name: str
    from_width: int


COLUMNS = (
    Column("level", 0),
    Column("pass@1", 0),
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
    levels: Sequence[Level], *, width: int, signs: Signs = UNICODE, now: str = ""
) -> RenderableType:
    """All levels so far, what is going on, and what the guard says.

    Args:
        levels: those that are done.
        width: in cells; narrow terminals get fewer columns.
        signs: what to draw with.
        now: what is going on.
    """
    shown = [column for column in COLUMNS if width >= column.from_width]
    k = next((level.held.k for level in levels if level.held), None)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style=QUIET)
    for column in shown:
        name = column.name.replace("k", str(k)) if column.name == "pass@k" and k else column.name
        table.add_column(
            name if not signs.ascii_only else name.replace("γ", "gamma").replace("≥", ">="),
            justify="right",
            no_wrap=True,
        )
    best = max((level.best for level in levels), default=0)
    for level in levels:
        cells = _cells(level, signs)
        style = FAILED if level.alarm else STRONG if level.number == best and level.number else ""
        table.add_row(*(Text(cells[column.name], style) for column in shown))
    parts: list[RenderableType] = [table]
    parts += _lines(levels, width, signs)
    for level in levels:
        parts += [Text(line, style, no_wrap=True) for line, style in _remarks(level, width, signs)]
    if now:
        parts.append(Text(fit(now, width, signs), TITLE, no_wrap=True))
    return Group(*parts)


def level_line(level: Level) -> str:
    """One level in one line, for a pipe."""
    cells = _cells(level, UNICODE)
    said = "  ".join(f"{name} {cells[name]}" for name in cells if cells[name] and name != "level")
    tail = f"  alarm: {level.alarm}" if level.alarm else ""
    return f"level {level.number}  {said}{tail}"


def _cells(level: Level, signs: Signs) -> dict[str, str]:
    held, learned = level.held, level.learned
    arrow = signs.arrow
    return {
        "level": str(level.number),
        "pass@1": "" if held is None else _percent(held.pass_at_1),
        "greedy": "" if held is None else _percent(held.greedy),
        "pass@k": "" if held is None else _percent(held.pass_at_k),
        "entropy": "" if held is None else f"{held.entropy:.2f}",
        "elite": f"{level.elite} of {level.taught}" if level.elite else ("none" if level.number else ""),
        "γ": "" if level.gamma is None else f"{level.gamma:.3g}",
        "P(S≥γ)": "" if level.p_g.value is None else f"{level.p_g.value:.3g}",
        "loss": "" if learned is None else f"{learned.before:.3f}{arrow}{learned.after:.3f}",
        "KL to f": "" if held is None else f"{held.divergence:.2f}",
        "tokens": figures.count(level.tokens) if level.number else "",
        "time": figures.clock(level.seconds),
    }


def _percent(measure: Measure) -> str:
    return f"{100 * measure.value:.1f}"


def _lines(levels: Sequence[Level], width: int, signs: Signs) -> list[Text]:
    """pass@1, pass@k and entropy over levels."""
    held = [level.held for level in levels if level.held is not None]
    if len(held) < 2 or width < 50:
        return []
    rows = (
        ("pass@1", [100 * one.pass_at_1.value for one in held], " %"),
        (f"pass@{held[0].k}", [100 * one.pass_at_k.value for one in held], " %"),
        ("entropy", [one.entropy for one in held], " nats"),
    )
    found = []
    for name, values, unit in rows:
        line = sparkline(values, LINE, signs)
        change = f"{values[0]:.3g} {signs.arrow} {values[-1]:.3g}{unit}"
        found.append(Text.assemble((f"{name:<9}", QUIET), (f"{line}  ", PASSED), change, no_wrap=True))
    return found


def _remarks(level: Level, width: int, signs: Signs) -> list[tuple[str, str]]:
    found = []
    if level.skipped and not level.elite:
        why = ", ".join(f"{reason} ({n})" for reason, n in level.skipped.items())
        found.append((fit(f"level {level.number} learned nothing: {why}", width, signs), FAILED))
    if level.learned is not None and level.learned.retries:
        slower = f"halved {level.learned.retries} times, to {level.learned.rate:.2g}"
        said = f"level {level.number}: the learning rate was {slower}"
        found.append((fit(said, width, signs), FAILED))
    if level.alarm:
        said = f"level {level.number} is refused: {level.alarm}; back to level {level.best}"
        found.append((fit(said, width, signs), FAILED))
    return found
