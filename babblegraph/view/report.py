"""What is shown when a search is over: the tree, the answer, the path to it, the gates and the budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.budget import Budget, Meter, Spent
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.step_text import no_text, step_text
from babblegraph.view import figures, tables
from babblegraph.view.heading import legend, line_of, title, verdict
from babblegraph.view.promise import best_leaf, promise
from babblegraph.view.signs import (
    FAILED,
    PASSED,
    QUIET,
    STRONG,
    TITLE,
    UNICODE,
    Signs,
)
from babblegraph.view.text import fit, fit_figures, head, pad, visible
from babblegraph.view.tree import tree_lines

MOST_STEPS = 16  # of a path; the middle of a longer one is left out
MOST_FAILURES = 3
WIDE, SIDE, GAP = 150, 60, 4  # from which width on the answer stands beside the tree, in how many cells


def report(
    graph: BabbleGraph,
    *,
    width: int,
    height: int | None = 40,
    tree: int | None = None,
    spent: Spent | None = None,
    budget: Budget | None = None,
    signs: Signs = UNICODE,
) -> Group:
    """The whole final report.

    Args:
        graph: any.
        width: in cells.
        height: of the tree, at most.
        tree: the tree to draw; by default the one with the best leaf.
        spent: what was spent; by default what the graph remembers.
        budget: its bounds; by default what the graph remembers.
        signs: what to draw with.
    """
    tree = best_tree(graph) if tree is None else tree
    spent, budget = spent or saved_spent(graph), budget or saved_budget(graph)
    parts: list[RenderableType] = [title(graph, width, signs), verdict(graph, spent, budget, width, signs)]
    parts += [*legend(graph, width, signs), ""]
    if graph.trees > 1:
        parts += [*tables.prompts(graph, width=width, height=24, focus=tree, signs=signs), ""]
    side = SIDE if width >= WIDE else 0
    room = width - side - GAP if side else width
    drawn = tree_lines(graph, room, height, tree, signs=signs)
    said = answer(graph, tree, width=side or width, signs=signs)
    ends: list[RenderableType] = [tables.gates(graph, width=side or width, signs=signs)]
    if spent is not None:
        ends.append(tables.budget(spent, budget, graph, width=side or width, signs=signs))
    if side:
        parts.append(_beside(Group(*drawn), Group(*said, "", *_spaced(ends))))
    else:
        parts += [*drawn, "", *said, ""]
        parts.append(Columns(ends, padding=(0, 6)) if width >= 90 else Group(*_spaced(ends)))
    parts += failures(graph, width, signs)
    return Group(*parts)


def answer(graph: BabbleGraph, tree: int, *, width: int, signs: Signs = UNICODE) -> list[RenderableType]:
    """The best leaf of one tree in full, and the path to it step by step."""
    best = best_leaf(graph, tree)
    if best is None:
        return _no_answer(graph, tree, width, signs)
    score, threshold = float(graph.score[best]), graph.meta.get("threshold")
    if "vote" in graph.meta or "right" in graph.meta:
        line = _settled(graph, tree, score, width, signs)
    elif threshold is None:
        line = line_of(("Answer", TITLE), ("  score ", QUIET), (f"{score:.2f}", STRONG))
    elif graph.reaches(threshold, best):
        passed = f"{signs.passed} passed"
        line = line_of(
            ("Answer", TITLE), ("  score ", QUIET), (f"{score:.2f}", STRONG), ("  ", ""), (passed, PASSED)
        )
    else:
        short = f"  the best has {figures.short_of(score, threshold)} of {threshold:g}"
        line = line_of(("No answer passes", FAILED), (short, QUIET))
    lines: list[RenderableType] = [line]
    lines += whole_text(graph.text(best), width, signs)
    return [*lines, "", *path(graph, best, width=width, signs=signs)]


def path(graph: BabbleGraph, node: int, *, width: int, signs: Signs = UNICODE) -> list[RenderableType]:
    """One line for each step from the prompt to a node."""
    nodes = graph.path(node)
    columns = [("value", 7), ("conn", 7), (figures.mass_name(graph), 8)][
        : 1 if width < 60 else 2 if width < 84 else 3
    ]
    texts = [step_text(graph, n, 6 * width) or no_text(graph, n) for n in nodes]
    number = max(len(str(len(nodes) - 1)), 3)  # cells of a step's
    left = max(width - number - 2 - sum(c for _, c in columns), 1)
    room = min(left, max(24, *(len(s) + 4 for s in texts)))
    names = "".join(name.rjust(c) for name, c in columns)
    lines: list[RenderableType] = [line_of(("Path".ljust(room + number + 2), TITLE), (names, QUIET))]
    for depth, (n, text) in enumerate(zip(nodes, texts, strict=True)):
        if MOST_STEPS // 2 <= depth < len(nodes) - MOST_STEPS // 2:
            if depth == MOST_STEPS // 2:
                said = f"{' ' * (number + 1)}{signs.gap} {len(nodes) - MOST_STEPS} more steps"
                lines.append(Text(fit_figures(said, width, signs), QUIET, no_wrap=True))
            continue
        row = Text(no_wrap=True).append(f"{depth or ' ':>{number}}  ", QUIET)
        text = fit(text, room, signs, middle=graph.parent[n] == NO_PARENT)
        row.append(pad(text, room), STRONG if depth else "")
        known = graph.score[n] if not np.isnan(graph.score[n]) else graph.value[n]
        weight = figures.log(figures.mass(graph, n), signs) if depth else ""
        cells = (figures.share(float(known)), figures.share(float(graph.connectivity[n])), weight)
        for cell, (_, c) in zip(cells, columns, strict=False):
            row.append(cell.rjust(c))
        lines.append(row)
    return lines


def whole_text(text: str, width: int, signs: Signs = UNICODE) -> list[Text]:
    """A text in full, safe to show, its line ends kept; long lines go on in the next one."""
    lines: list[Text] = []
    for line in text.rstrip("\n").split("\n"):
        safe, at = visible(line, signs), 0
        while True:
            part = head(safe, max(width - 2, 2), at)
            lines.append(Text(f"  {part}", no_wrap=True))
            at += len(part)
            if at >= len(safe):
                break
    return lines


def failures(graph: BabbleGraph, width: int, signs: Signs = UNICODE) -> list[RenderableType]:
    """How often value functions failed, and on which texts first."""
    if not graph.failures:
        return []
    n = int(graph.meta.get("scorer_failures", len(graph.failures)))
    lines: list[RenderableType] = [
        "",
        Text(f"The value or the task failed {n} time{'s' if n > 1 else ''}", FAILED),
    ]
    for failure in graph.failures[:MOST_FAILURES]:
        error = fit_figures(f"  #{failure.get('node', '?')}  {failure.get('error', '')}", width, signs)
        lines.append(Text(error, no_wrap=True))
        if text := failure.get("text"):
            lines.append(Text(fit(f"      on {text!s}", width, signs, middle=True), QUIET, no_wrap=True))
    return lines


def best_tree(graph: BabbleGraph) -> int:
    """The tree with the best finished leaf, where there was a vote the one most agreed on; right ones come first."""
    vote = graph.meta.get("vote")
    right = np.array([bool(hit) for hit in graph.meta.get("right", ())], np.bool_)
    if vote is None:
        leaves = np.array(graph.best(graph.size if right.any() else 1), np.intp)
        trees = graph.root[leaves]
        trees = trees[right[trees]] if right.any() else trees
        return int(trees[0]) if len(trees) else 0
    worth = np.array([-np.inf if share is None else share for share in vote["share"]])
    return int(np.argmax(np.where(right, worth, -np.inf) if right.any() else worth))


def saved_spent(graph: BabbleGraph) -> Spent | None:
    """What the graph remembers to have cost."""
    saved = graph.meta.get("spent")
    if saved is None:
        return None
    return Meter.resumed(saved_budget(graph) or Budget(seconds=float("inf")), graph.trees, saved).read()


def saved_budget(graph: BabbleGraph) -> Budget | None:
    """The bounds that the graph remembers."""
    saved: Mapping[str, Any] = graph.meta.get("budget") or {}
    bounds = {k: saved[k] for k in ("tokens", "nodes", "seconds") if saved.get(k) is not None}
    return Budget(**bounds) if bounds else None


def _settled(graph: BabbleGraph, tree: int, score: float, width: int, signs: Signs) -> Text:
    """The heading of an answer that was voted for or marked."""
    line = line_of(("Answer", TITLE))
    if (vote := graph.meta.get("vote")) is not None and vote["answer"][tree] is not None:
        share = f"  {100 * vote['share'][tree]:.0f} % of the {'weighted ' * vote['weighted']}votes"
        line.append("  ").append(fit(vote["answer"][tree], max(width - 30 - len(share), 8), signs), STRONG)
        line.append(share, QUIET)
    else:
        line.append("  score ", QUIET).append(f"{score:.2f}", STRONG)
    if (right := graph.meta.get("right")) is not None:
        said, style = (f"{signs.passed} right", PASSED) if right[tree] else ("not right", FAILED)
        line.append("  ").append(said, style)
    return line


def _no_answer(graph: BabbleGraph, tree: int, width: int, signs: Signs) -> list[RenderableType]:
    """What there is to say of a tree without a finished leaf that has a score: how far it came."""
    finished = (graph.root == tree) & graph.is_leaf() & (graph.status != Status.LEAF_DEAD)
    why = "no finished leaf has a score" if finished.any() else "no leaf was finished"
    lines: list[RenderableType] = [line_of(("No answer", FAILED), (f"  {why}", QUIET))]
    live = np.flatnonzero((graph.root == tree) & (graph.status == Status.FRONTIER))
    live = live[live != tree]
    if not len(live):
        return lines
    far = int(live[np.argmax(promise(graph, live))])
    lines += [Text("  the most promising unfinished text:", QUIET), ""]
    return [*lines, *path(graph, far, width=width, signs=signs)]


def _beside(left: RenderableType, right: RenderableType) -> Table:
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(left, right)
    return table


def _spaced(parts: list[RenderableType]) -> list[RenderableType]:
    return [x for part in parts for x in (part, "")][:-1]
