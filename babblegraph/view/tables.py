"""The tables at the end of a search: the gates, what was spent, and one line a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from babblegraph.budget import Budget, Spent
from babblegraph.graph import BabbleGraph
from babblegraph.status import Gate, Status
from babblegraph.subtrees import passing
from babblegraph.view import figures
from babblegraph.view.grid import grid
from babblegraph.view.promise import best_leaf
from babblegraph.view.signs import GATES, PASSED, QUIET, STRONG, STYLES, TITLE, UNICODE, Signs
from babblegraph.view.text import fit, fit_figures, pad

ANSWER = 16  # cells of an answer that was voted for
LEAST = 8  # cells of a prompt, before its nodes are counted


def gates(graph: BabbleGraph, *, width: int, signs: Signs = UNICODE) -> Table:
    """Each gate: how many entered and passed it, and the share that it stopped.

    The token gate counts tokens (what top-k and top-p cut), where the generator counted them; the node gate
    scored nodes; the leaf gate finished leaves; the elite gate the distinct texts among those that passed.

    Args:
        graph: any.
        width: in cells.
        signs: what to draw with.
    """
    rows = []
    for gate, (entered, passed) in gate_counts(graph).items():
        stopped = figures.percent(entered - passed, entered) or signs.dot
        rows.append((GATES[gate], figures.count(entered), figures.count(passed), stopped))
    return _table(("Gates", "entered", "passed", "stopped"), rows, width, signs)


def gate_counts(graph: BabbleGraph) -> dict[Gate, tuple[int, int]]:
    """For each gate that was in use, how many (entered, passed) it."""
    found: dict[Gate, tuple[int, int]] = {}
    if token := graph.meta.get("token_gate"):
        found[Gate.TOKEN] = int(token["entered"]), int(token["passed"])
    scored = ~np.isnan(graph.value)
    scored[: graph.trees] = False
    found[Gate.NODE] = int(scored.sum()), int((scored & (graph.gate != Gate.NODE)).sum())
    finished = graph.is_leaf() & (graph.gate != Gate.NODE)
    passed = passing(graph)
    if graph.meta.get("threshold") is None:
        passed = finished & (graph.status != Status.LEAF_DEAD)
    found[Gate.LEAF] = int(finished.sum()), int(passed.sum())
    texts = {(int(graph.root[i]), graph.text(int(i))) for i in np.flatnonzero(passed)}
    found[Gate.ELITE] = int(passed.sum()), len(texts)
    return found


def budget(
    spent: Spent, bounds: Budget | None, graph: BabbleGraph, *, width: int, signs: Signs = UNICODE
) -> Table:
    """What was spent of each kind, and of which bound; bounds hold for each tree, but for the seconds.

    Args:
        spent: totals over all trees.
        bounds: as they were given; None where they are not known.
        graph: what was grown for it.
        width: in cells.
        signs: what to draw with.
    """
    tokens, nodes, seconds = (
        (None, None, None) if bounds is None else (bounds.tokens, bounds.nodes, bounds.seconds)
    )
    trees, rows = graph.trees, []
    kinds = (
        ("sampled tokens", spent.sampled, tokens and tokens * trees),
        ("forwarded tokens", spent.forwarded, None),
        ("prefilled tokens", spent.prefilled, None),
        ("scored tokens", spent.scored, None),
        ("nodes", spent.nodes, nodes and nodes * trees),
    )
    for name, used, bound in kinds:
        of = figures.count(bound) if bound else ""
        rows.append((name, figures.count(used), of, figures.percent(used, bound) if bound else ""))
    if trees > 1:
        each = "" if not tokens else figures.count(tokens)
        rows.append((f"tokens a {figures.tree_name(graph)}", figures.count(spent.sampled / trees), each, ""))
    of = f"{seconds:g}" if seconds else ""
    rows.append(("seconds", f"{spent.seconds:.1f}", of, figures.percent(spent.seconds, seconds or 0)))
    if spent.peak_slots:
        rows.append(("peak K/V slots", figures.count(spent.peak_slots), "", ""))
    return _table(("Budget", "spent", "of", "used"), rows, width, signs)


def prompts(
    graph: BabbleGraph,
    *,
    width: int,
    height: int | None = None,
    focus: int | None = None,
    signs: Signs = UNICODE,
) -> list[Text]:
    """One line a prompt: its sign, what was asked, its nodes and its answer's score; folded beyond the height.

    Args:
        graph: any.
        width: in cells.
        height: at most so many lines.
        focus: the tree that is drawn below; it is marked, and always there.
        signs: what to draw with.
    """
    trees = graph.trees
    per = {
        name: np.bincount(graph.root[chosen], minlength=trees)
        for name, chosen in (
            ("nodes", slice(trees, None)),
            ("live", graph.status == Status.FRONTIER),
            ("pruned", graph.status == Status.PRUNED),
            ("dead", graph.status == Status.LEAF_DEAD),
        )
    }
    passed = np.bincount(graph.root[passing(graph)], minlength=trees)
    word, name = "passed", figures.tree_name(graph)
    if (right := graph.meta.get("right")) is not None:
        passed, word = np.array([bool(hit) for hit in right], np.intp), "right"
    asked = graph.meta.get("asked", {})  # where a chat template has made much else of it
    vote = graph.meta.get("vote")
    answer = ANSWER if vote is not None and width - 4 - ANSWER - 7 >= LEAST else 0
    last = answer + 7
    names = ["nodes", "live", "pruned", "dead"] if width >= 72 and vote is None else ["nodes"]
    names = names if width - 4 - 8 * len(names) - last >= LEAST else []
    shown = _some(trees, None if height is None else height - 2, focus)
    prompts = [asked.get(graph.prompts[i], graph.prompts[i]) for i in shown]
    most = max(width - 5 - 8 * len(names) - last, 1)
    said = [fit(p, most, signs, middle=True) for p in prompts]
    room = min(max(24, *(cell_len(s) for s in said)), most + 1)
    heading = Text(no_wrap=True).append("  " + name.ljust(room + 2), QUIET)
    ends = "best".rjust(7) if vote is None else ("answer".rjust(answer) if answer else "") + "votes".rjust(7)
    lines = [heading.append("".join(n.rjust(8) for n in names) + ends, QUIET)]
    for i, prompt in zip(shown, said, strict=True):
        sign, style = (signs.passed, PASSED) if passed[i] else _tree_sign(per["live"][i], signs)
        mark = signs.arrow[-1] if i == focus else " "
        row = Text(no_wrap=True).append(f"{mark} ", TITLE).append(f"{sign} ", style)
        row.append(pad(prompt, room), STRONG if i == focus else "")
        row.append("".join(figures.count(per[n][i]).rjust(8) for n in names), QUIET)
        if vote is not None:
            said_by, share = fit(vote["answer"][i] or "", answer - 2, signs), vote["share"][i]
            row.append(" " * (answer - cell_len(said_by)) + said_by, style)
            row.append(("" if share is None else f"{100 * share:.0f} %").rjust(7), QUIET)
        else:
            best = best_leaf(graph, i)
            row.append(("" if best is None else figures.share(float(graph.score[best]))).rjust(7), style)
        lines.append(row)
    if len(shown) < trees:
        rest = np.setdiff1d(np.arange(trees), shown)
        words = f"    {signs.ellipsis} {len(rest)} more {name}s"
        if graph.meta.get("threshold") is not None or word == "right":
            words += f": {int((passed[rest] > 0).sum())} {word}"
        lines.append(Text(fit_figures(words, width, signs), QUIET, no_wrap=True))
    return lines


def _some(trees: int, room: int | None, focus: int | None) -> list[int]:
    """The prompts to list: the one in focus and those around it."""
    if room is None or trees <= room + 1:
        return list(range(trees))
    room = max(room, 1)
    start = min(max((focus or 0) - room // 2, 0), trees - room)
    return list(range(start, start + room))


def _tree_sign(live: int, signs: Signs) -> tuple[str, str]:
    status = Status.FRONTIER if live else Status.EXPANDED
    return signs.status[status], STYLES[status]


def _table(
    names: Sequence[str], rows: Sequence[tuple[str, str, str, str]], width: int, signs: Signs
) -> Table:
    title, *rest = names
    columns, lines = [Text(name, QUIET) for name in rest], [(Text(label), cells) for label, *cells in rows]
    return grid(Text(title, TITLE), columns, lines, width=width, signs=signs)
