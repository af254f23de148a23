"""Two searches of one prompt side by side: where both went, where only one did, where the effort moved, new elites."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.compare import NOWHERE, Union
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.step_text import no_text, step_text
from babblegraph.subtrees import sums
from babblegraph.view import figures
from babblegraph.view.grid import grid
from babblegraph.view.heading import title
from babblegraph.view.sides import Sides, sides
from babblegraph.view.signs import PASSED, QUIET, STRONG, STYLES, TITLE, UNICODE, Signs
from babblegraph.view.text import fit, fit_figures

ONLY_A, ONLY_B, BOTH = "yellow", "cyan", "default"  # red is for what is dead, green for what passes
PAIRS = ("value", "tokens")  # the columns of figures, of A and of B each; the last ones go first
MOVED, NEW = 8, 6  # lines of the tables
FEWEST = 1e-6  # a difference of probabilities below it is rounding
CELLS = 9  # of one column of figures
LEAST, LEAST_TREE = 4, 16  # cells of labels and of the tree, before columns of figures go
LEAST_TEXT = 8  # cells of a text, before it has a line of its own


def diff_report(
    a: BabbleGraph, b: BabbleGraph, *, width: int, height: int | None = 40, signs: Signs = UNICODE
) -> Group:
    """What two searches share and what only one of them found.

    Args:
        a, b: graphs with a prompt in common.
        width: in cells.
        height: of the tree, at most.
        signs: what to draw with.
    Raises:
        BadInput: no prompt in common.
    """
    found = sides(a, b)
    lines: list[RenderableType] = []
    for name, graph, style in (("A", a, ONLY_A), ("B", b, ONLY_B)):
        lines.append(
            Text(f"{name}  ", f"bold {style}", no_wrap=True).append_text(title(graph, width - 3, signs))
        )
    lines += ["", _totals(found, width, signs), "", *_tree(found, width, height, signs), ""]
    lines += [*_new_elites(found, width, signs), *_moved(found, width, signs)]
    return Group(*lines)


def _totals(found: Sides, width: int, signs: Signs) -> Table:
    """Nodes, tokens, leaves and elites of both, all of them of the trees that are compared."""
    both, count, roots = found[:2], figures.count, found.union.parent == NO_PARENT
    one, other = (set(side.elites.tolist()) for side in both)
    rows = {
        "places": (
            *(count(int((x.nodes != NOWHERE).sum())) for x in both),
            count(int(found.union.shared.sum())),
        ),
        "tokens in spans": (*(count(int(x.tokens[roots].sum())) for x in both), ""),
        "leaves that pass": (*(count(x.passed) for x in both), ""),
        "elites": (count(len(one)), count(len(other)), count(len(one & other))),
        "best score": (*(figures.share(x.best) for x in both), ""),
    }
    if any(x.graph.trees > 1 for x in both):
        all_or_some = (
            f"{x.trees} of {x.graph.trees}" if x.trees < x.graph.trees else f"{x.trees}" for x in both
        )
        rows = {"trees": (*all_or_some, ""), **rows}
    lines = [(Text(name), cells) for name, cells in rows.items()]
    names = [Text("A", f"bold {ONLY_A}"), Text("B", f"bold {ONLY_B}"), Text("both", STRONG)]
    return grid(Text(), names, lines, width=width, signs=signs, least=LEAST)


def _tree(found: Sides, width: int, height: int | None, signs: Signs) -> list[Text]:
    """The tree of all places: those that lead to elites, then those that took most."""
    parent = found.union.parent
    size = len(parent)
    weight = np.zeros(size)
    for side in found[:2]:
        hit = np.zeros(size, np.int64)
        hit[side.elites] = 1
        share = side.tokens / max(int(side.tokens[parent == NO_PARENT].sum()), 1)
        weight += share + 2 * (sums(parent, hit) > 0)
    drawn = _pick(parent, weight, 2 * size + 2 if height is None else height)
    below: dict[int, list[int]] = {}
    for place in sorted(drawn):
        below.setdefault(int(parent[place]), []).append(place)
    hidden = _hidden(found.union, drawn)
    pairs = min(max((width - 2 - LEAST_TREE) // (2 * CELLS), 0), len(PAIRS))
    names = PAIRS[:pairs]
    room = min(width - 2 * pairs * CELLS - 2, 72)
    headings = "".join(f"{name} {side}".rjust(CELLS) for name in names for side in "AB")
    lines = [Text(" " * room + headings, QUIET, no_wrap=True)] if names else []
    stack: list[tuple[int, tuple[bool, ...]]] = [(place, ()) for place in reversed(below[NO_PARENT])]
    while stack:
        place, last = stack.pop()
        if place < 0:  # what is not drawn below ~place
            words = _guides(last, signs) + f"{signs.ellipsis} {hidden[~place]}"
            lines.append(Text(fit_figures(words, width, signs), QUIET, no_wrap=True))
            continue
        lines.append(_place_line(found, place, last, room, names, signs))
        under = [*below.get(place, []), *([~place] if place in hidden else [])]
        stack += [(p, (*last, i == len(under) - 1)) for i, p in enumerate(under)][::-1]
    return lines


def _pick(parent: NDArray[np.int32], weight: NDArray[np.float64], room: int) -> set[int]:
    """The heaviest places with all above them, as many as there are lines for, folded ones counted."""
    drawn = set(np.flatnonzero(parent == NO_PARENT).tolist())
    lines = 2 * len(drawn)
    for place in np.argsort(-weight, kind="stable").tolist():
        if lines >= room - 1:
            break
        chain = []
        while place not in drawn:
            chain.append(place)
            place = int(parent[place])
        if lines + 2 * len(chain) <= room:
            drawn.update(chain)
            lines += 2 * len(chain)
    return drawn


def _hidden(found: Union, drawn: set[int]) -> dict[int, str]:
    """For each drawn place, how many children of it are not drawn, and who has been there."""
    chosen = np.array(sorted(drawn), np.intp)
    mask = np.zeros(len(found.parent), np.bool_)
    mask[chosen] = True
    ids = np.flatnonzero(~mask & mask[found.parent])
    who = np.where(found.shared[ids], 0, np.where(found.in_b[ids] == NOWHERE, 1, 2))
    counts = np.bincount(found.parent[ids] * 3 + who, minlength=3 * len(mask)).reshape(-1, 3)
    words = ("in both", "only in A", "only in B")
    return {
        int(p): ", ".join(f"{n} {w}" for n, w in zip(counts[p], words, strict=True) if n)
        for p in chosen
        if counts[p].any()
    }


def _place_line(
    found: Sides, place: int, last: tuple[bool, ...], room: int, names: Sequence[str], signs: Signs
) -> Text:
    both = found[:2]
    nodes = tuple(int(side.nodes[place]) for side in both)
    style = BOTH if NOWHERE not in nodes else ONLY_B if nodes[0] == NOWHERE else ONLY_A
    row = Text(no_wrap=True).append(_guides(last, signs), QUIET)
    row.append("= " if NOWHERE not in nodes else "B " if nodes[0] == NOWHERE else "A ", style)
    for side, node in zip(both, nodes, strict=True):
        row.append(*_sign(side.graph, node, signs))
    graph, node = found.either(place)
    said = step_text(graph, node, 6 * room) or no_text(graph, node)
    is_elite = any(place in side.elites for side in both)
    said = fit(said, max(room - row.cell_len - 1, 1), signs, middle=graph.parent[node] == NO_PARENT)
    row.append(f" {said}", f"{style} bold" if is_elite else style)
    row.append(" " * (room - row.cell_len))
    if "value" in names:
        row.append("".join(figures.share(float(side.worth[place])).rjust(CELLS) for side in both))
    if "tokens" in names:
        cells = (figures.count(int(side.tokens[place])) if side.tokens[place] else "" for side in both)
        row.append("".join(cell.rjust(CELLS) for cell in cells), QUIET)
    return row


def _sign(graph: BabbleGraph, node: int, signs: Signs) -> tuple[str, str]:
    if node == NOWHERE:
        return " ", ""
    threshold = graph.meta.get("threshold")
    status = Status(int(graph.status[node]))
    live = graph.is_leaf(node) and status != Status.LEAF_DEAD
    if live and threshold is not None and graph.reaches(threshold, node):
        return signs.passed, PASSED
    return signs.status[status], STYLES[status]


def _guides(last: Sequence[bool], signs: Signs) -> str:
    """The lines that lead to a place; the levels far above are left out."""
    branch, end, line, nothing, *_ = signs.branch
    if not last:
        return ""
    return "".join(nothing if x else line for x in last[-6:-1]) + (end if last[-1] else branch)


def _new_elites(found: Sides, width: int, signs: Signs) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for name, style, side, other in (("A", ONLY_A, found.a, found.b), ("B", ONLY_B, found.b, found.a)):
        mine = sorted(set(side.elites.tolist()) - set(other.elites.tolist()))
        if not mine:
            continue
        lines.append(Text(f"Elites only in {name}", TITLE))
        for place in mine[:NEW]:
            score = figures.share(float(side.worth[place]))
            text = fit(
                side.graph.text(int(side.nodes[place])), max(width - 14 - len(score), 8), signs, middle=True
            )
            lines.append(Text.assemble((f"  {score}  ", QUIET), (text, style), no_wrap=True))
        if len(mine) > NEW:
            lines.append(Text(f"  {signs.ellipsis} {len(mine) - NEW} more", QUIET))
        lines.append("")
    return lines


def _moved(found: Sides, width: int, signs: Signs) -> list[RenderableType]:
    """Where mass moved: in probability where the generators differ, else in the share of tokens spent."""
    both = np.flatnonzero(found.union.shared & (found.union.parent != NO_PARENT))
    if not len(both):
        return []
    p = [np.exp(side.graph.log_p_g[side.nodes[both]]) for side in found[:2]]
    name = "Probability moved"
    if (np.abs(p[0] - p[1]) < FEWEST).all():
        name, roots = "Effort moved, in shares of all tokens", found.union.parent == NO_PARENT
        p = [x.tokens[both] / max(int(x.tokens[roots].sum()), 1) for x in found[:2]]
    change = p[1] - p[0]
    order = np.argsort(-np.abs(change), kind="stable")[:MOVED]
    lines: list[RenderableType] = [Text(name, TITLE)]
    for i in order[np.abs(change[order]) > FEWEST]:
        graph, node = found.either(int(both[i]))
        lines += _change(p[0][i], p[1][i], graph.text(node), width, signs)
    return lines if len(lines) > 1 else []


def _change(before: float, after: float, text: str, width: int, signs: Signs) -> list[Text]:
    """Two shares and where they were; in a narrow view the text has a line of its own."""
    style = ONLY_B if after > before else ONLY_A
    figure = f"  {100 * before:7.2f} % {signs.arrow} {100 * after:6.2f} %  "
    if (room := width - len(figure) - 2) >= LEAST_TEXT:
        return [Text.assemble((figure, style), fit(text, room, signs, middle=True), no_wrap=True)]
    lone = f"{100 * before:.2f} % {signs.arrow} {100 * after:.2f} %"
    return [
        Text(lone, style, no_wrap=True),
        Text(f"  {fit(text, width - 2, signs, middle=True)}", no_wrap=True),
    ]
