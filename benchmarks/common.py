"""What every benchmark shares: options, the table, and a JSON file that says where its figures come from."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="a small run that shows that it works")
    made.add_argument("--json", type=Path, help="write the table, the claims and the machine to this file")
    return made


def report(
    title: str,
    rows: Sequence[dict[str, Any]],
    claims: Sequence[dict[str, Any]],
    options: argparse.Namespace,
    *,
    tables: Sequence[tuple[str, Sequence[dict[str, Any]]]] = (),
    packages: Sequence[str] = (),
) -> None:
    """Prints one table and its claims, and writes them as JSON where that is asked for.

    Args:
        tables: what is shown instead of one table of all rows, by title.
        packages: whose versions matter too.
    """
    console = Console(width=None if sys.stdout.isatty() else 160)
    for name, shown in tables or [(title, rows)]:
        console.print(_table(name, shown))
    for c in claims:
        console.print(
            f"{'met' if c['met'] else 'NOT MET':8} {c['name']}: {c['value']:.4g} (bound {c['bound']})"
        )
    if options.json:
        write(options.json, rows, claims, options, packages)


def write(
    path: Path,
    rows: Sequence[dict[str, Any]],
    claims: Sequence[dict[str, Any]],
    options: argparse.Namespace,
    packages: Sequence[str] = (),
) -> None:
    """The JSON file of a benchmark, replaced in one go."""
    plain = _plain(options)
    found = {"machine": machine(), "versions": versions(packages), "date": date.today().isoformat()}
    found |= {"options": plain, "rows": list(rows), "claims": list(claims)}
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    beside.replace(path)


def earlier(options: argparse.Namespace, free: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the `--json` file of a run that was cut off, to go on with; none where there is no such file.

    Args:
        free: options that may differ now, since rows do not depend on them.

    Raises:
        SystemExit: the file is of other options: its rows and those to come would not be of one table.
    """
    if options.json is None:
        raise SystemExit("--resume goes on with the --json file, got none: add --json FILE")
    if not options.json.exists():
        return []
    found = json.loads(options.json.read_text("utf-8"))
    now, free = json.loads(json.dumps(_plain(options))), {*free, "json", "resume"}
    changed = [name for name in now if name not in free and found["options"].get(name) != now[name]]
    if changed:
        name = changed[0]
        raise SystemExit(
            f"--resume goes on with the same options, got --{name} {now[name]} and the file has "
            f"{found['options'].get(name)}: give that, or another file"
        )
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Columns in which no row has anything are left out."""
    table = Table(title=title, title_justify="left")
    names = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    for name in names:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in names))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def claim(
    name: str, value: float, bound: str, met: bool, interval: Sequence[float] | None = None
) -> dict[str, Any]:
    """A figure that a README or an issue claims, computed from the rows."""
    pair = None if interval is None else [float(x) for x in interval]
    return {"name": name, "value": float(value), "interval": pair, "bound": bound, "met": bool(met)}


def bootstrap(samples: np.ndarray, repeats: int = 2000, seed: int = 0) -> tuple[float, float]:
    """A 95 % percentile interval of the mean of independent samples, [N]."""
    draw = np.random.default_rng(seed).integers(0, len(samples), (repeats, len(samples)))
    low, high = np.quantile(samples[draw].mean(1), [0.025, 0.975])
    return float(low), float(high)


def machine() -> dict[str, Any]:
    """The processor and its size, without names of hosts."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system()}


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Versions of what was measured; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in ("babblegraph", "torch", "transformers", "numpy", *packages):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
