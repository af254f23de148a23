"""The table of an estimate: value and interval, what it cost, and how far to trust it."""

from __future__ import annotations

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.estimates import Estimate
from babblegraph.view import figures
from babblegraph.view.signs import FAILED, QUIET, STRONG, TITLE, UNICODE, Signs
from babblegraph.view.text import fit


def estimate_report(
    prompt: str,
    threshold: float,
    found: Estimate,
    *,
    width: int,
    signs: Signs = UNICODE,
    one_of: tuple[int, Estimate] | None = None,
) -> Group:
    """What an estimate says, as a table and a line for each warning.

    Args:
        prompt: whose texts were sampled.
        threshold: what their score has to reach.
        found: an estimate that is available, or that has a bound.
        width: in cells.
        signs: what to draw with.
        one_of: k, and the estimate of pass@k.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, overflow="crop")
    table.add_column(no_wrap=True, overflow="crop")
    rows = _rows(threshold, found, signs)
    if one_of is not None:
        rows.insert(1, (f"pass@{one_of[0]}", _interval(one_of[1], signs), STRONG))
    for name, said, style in rows:
        table.add_row(Text(name, QUIET), Text(said, style))
    title = Text.assemble(
        ("Estimate  ", TITLE), (fit(prompt, max(width - 10, 8), signs), STRONG), no_wrap=True
    )
    parts: list[RenderableType] = [title, table]
    for warning in found.warnings:
        parts.append(Text(fit(f"warning: {warning}", width, signs), FAILED, no_wrap=True))
    return Group(*parts)


def _rows(threshold: float, found: Estimate, signs: Signs) -> list[tuple[str, str, str]]:
    rows = [
        (
            f"P(score reaches {threshold:g})",
            _interval(found, signs),
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
        ratio = f"{found.independent_tokens / found.tokens:.2g} times"
        said = f"{figures.count(found.independent_tokens)}   ({ratio} as many, for the same interval)"
        rows.append(("independent sampling", said, ""))
    rows.append(("effective sample size", f"{found.effective:.4g}", ""))
    if math.isfinite(found.heaviest):
        rows.append(("heaviest leaf", f"{100 * found.heaviest:.2g} % of all weight", ""))
    return rows


def _interval(found: Estimate, signs: Signs) -> str:
    if found.value is None:
        bound = "" if found.high is None else f": at most {found.high:.2g} (95 %)"
        return f"{found.reason}{bound}"
    if found.low is None or found.high is None:
        return f"{found.value:.4g}"
    half = max(found.high - found.value, found.value - found.low)
    plus = "±" if signs is UNICODE else "+-"
    return f"{found.value:.4g} {plus} {half:.2g}   (95 %: {found.low:.3g} to {found.high:.3g})"
