"""The table of an estimate: value and interval, what it cost, and how far to trust it."""

from __future__ import annotations

import math

from rich.console import Group
from rich.text import Text

from babblegraph.estimates import Estimate
from babblegraph.view import figures
from babblegraph.view.grid import GAP
from babblegraph.view.signs import FAILED, QUIET, STRONG, TITLE, UNICODE, Signs
from babblegraph.view.text import fit, visible, wrapped

LEAST = 24  # cells of what is said beside its name: fewer, and it goes on a line of its own
APART = "   "  # between a figure and what is said of it, which may go on in the next line
LEAST_RATIO = 0.01  # below it, that so few tokens would do says more than how many times fewer


def estimate_report(
    prompt: str,
    threshold: float,
    found: Estimate,
    *,
    width: int,
    signs: Signs = UNICODE,
    one_of: tuple[int, Estimate] | None = None,
) -> Group:
    """What an estimate says, as a table, and its warnings.

    Args:
        prompt: whose texts were sampled.
        threshold: what their score has to reach.
        found: an estimate that is available, or that has a bound.
        width: in cells.
        signs: what to draw with.
        one_of: k, and the estimate of pass@k.
    """
    rows = _rows(threshold, found, signs)
    if one_of is not None:
        rows.insert(1, (f"pass@{one_of[0]}", interval(one_of[1], signs), STRONG))
    title = Text.assemble(
        ("Estimate  ", TITLE), (fit(prompt, max(width - 10, 8), signs), STRONG), no_wrap=True
    )
    lines, room = [title], max(len(name) for name, *_ in rows)
    for name, said, style in rows:
        lines += _row(name, visible(said, signs), style, room, width)
    for warning in found.warnings:
        lines += [Text(line, FAILED) for line in wrapped(visible(f"warning: {warning}", signs), width)]
    return Group(*lines)


def interval(found: Estimate, signs: Signs = UNICODE) -> str:
    """A value and its 95 % interval, with ± where both its halves read the same; without a value, why and the bound."""
    if found.value is None:
        bound = "" if found.high is None else f": at most {found.high:.2g} (95 %)"
        return f"{found.reason}{bound}"
    if found.low is None or found.high is None:
        return f"{found.value:.4g}"
    below, above = f"{found.value - found.low:.2g}", f"{found.high - found.value:.2g}"
    half = f" {'+-' if signs.ascii_only else '±'} {above}" if below == above else ""
    return f"{found.value:.4g}{half}{APART}(95 %: {found.low:.3g} to {found.high:.3g})"


def _row(name: str, said: str, style: str, room: int, width: int) -> list[Text]:
    """What is said stands beside its name; where that leaves too little room, below it, an interval on its own line."""
    left = width - room - GAP
    if left < LEAST and len(name) + GAP + len(said) > width:
        return [Text(name, QUIET), *(Text(line, style) for line in _lines(said, width, GAP))]
    start = room + GAP if left >= LEAST else len(name) + GAP
    first, *more = _lines(said, width - start)
    beside = Text.assemble((name.ljust(start), QUIET), (first, style), no_wrap=True)
    return [beside, *(Text(" " * start + line, style, no_wrap=True) for line in more)]


def _lines(said: str, width: int, indent: int = 0) -> list[str]:
    if indent + len(said) <= width:
        return [" " * indent + said]
    return [line for part in said.split(APART) for line in wrapped(part, width, indent)]


def _rows(threshold: float, found: Estimate, signs: Signs) -> list[tuple[str, str, str]]:
    rows = [
        (
            f"P(score reaches {threshold:g})",
            interval(found, signs),
            STRONG if found.value is not None else FAILED,
        )
    ]
    if found.value is not None and math.isfinite(found.log_evidence):
        rows.append(("log evidence", f"{figures.log(found.log_evidence, signs)} nats", ""))
        rows.append(("KL(best texts, generator)", f"{figures.log(found.divergence, signs)} nats", ""))
    rows.append(("trees, with a hit", f"{found.trees}, {found.hits}", ""))
    if found.tokens is not None:
        rows.append(("tokens spent", figures.count(found.tokens), ""))
    if found.independent_tokens is not None and found.tokens:
        rows.append(("independent sampling", _independent(found.independent_tokens, found.tokens), ""))
    rows.append(("effective sample size", f"{found.effective:.4g}", ""))
    if math.isfinite(found.heaviest):
        rows.append(("heaviest leaf", f"{100 * found.heaviest:.2g} % of all weight", ""))
    return rows


def _independent(tokens: float, spent: int) -> str:
    """What independent texts would have cost; how many times as much only where that says something."""
    said = "under 1 token" if tokens < 1 else f"{figures.count(tokens)} token{'s' * (tokens >= 1.5)}"
    said += " for the same interval"
    ratio = tokens / spent
    if ratio < LEAST_RATIO:
        return said
    return f"{said}{APART}({f'{ratio:.2g}' if ratio < 100 else figures.count(ratio)} times as many)"
