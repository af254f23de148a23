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
    prompt: str, threshold: float, found: Estimate, *, width: int, signs: Signs = UNICODE
) -> Group:
    """What an estimate says, as a table and a line for each warning.

    Args:
        prompt: whose texts were sampled.
        threshold: what their score has to reach.
        found: an estimate that is available, or that has a bound.
        width: in cells.
        signs: what to draw with.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, overflow="crop")
    table.add_column(no_wrap=True, overflow="crop")
    for name, said, style in _rows(threshold, found, signs):
        table.add_row(Text(name, QUIET), Text(said, style))
    title = Text.assemble(
        ("Estimate  ", TITLE), (fit(prompt, max(width - 10, 8), signs), STRONG), no_wrap=True
    )
    parts: list[RenderableType] = [title, table]
    for warning in found.warnings:
        parts.append(Text(fit(f"warning: {warning}", width, signs), FAILED, no_wrap=True))
    return Group(*parts)


def _rows(threshold: float, found: Estimate, signs: Signs) -> list[tuple[str, str, str]]:
    name = f"P(score reaches {threshold:g})"
    if found.value is None:
        rows = [(name, f"{found.reason}: at most {found.high:.2g} (95 %)", FAILED)]
    elif found.low is None or found.high is None:
        rows = [(name, f"{found.value:.4g}", STRONG)]
    else:
        half = max(found.high - found.value, found.value - found.low)
        plus = "±" if signs is UNICODE else "+-"
        interval = f"{found.value:.4g} {plus} {half:.2g}   (95 %: {found.low:.3g} to {found.high:.3g})"
        rows = [(name, interval, STRONG)]
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
