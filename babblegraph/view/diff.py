"""Two searches of one prompt side by side: where both went, where only one did, where the effort moved, new elites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.compare import NOWHERE, Union, elites, union
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Status
from babblegraph.step_text import no_text, step_text
from babblegraph.subtrees import passing, sums, worth
from babblegraph.view import figures
from babblegraph.view.grid import grid
from babblegraph.view.heading import title
from babblegraph.view.signs import PASSED, QUIET, STRONG, STYLES, TITLE, UNICODE, Signs
from babblegraph.view.text import fit, fit_figures, pad

ONLY_A, ONLY_B, BOTH = "yellow", "cyan", "default"  # red is for what is dead, green for what passes
PAIRS = ("value", "tokens")  # the columns of figures, of A and of B each; the last ones go first
MOVED, NEW = 8, 6  # lines of the tables
FEWEST = 1e-6  # a difference of probabilities below it is rounding
CELLS = 9  # of one column of figures
LEAST, LEAST_TREE, LEAST_TEXT = (
    4,
    16,
    8,
)  # cells of labels, of the tree and of a text, before figures go or move


class _Sides(NamedTuple):
    """Both graphs laid over each other; what lies at and below each of the P places."""

    graphs: tuple[BabbleGraph, BabbleGraph]
    union: Union
    tokens: tuple[NDArray[np.int64], NDArray[np.int64]]  # [P] each, of spans
    elites: tuple[NDArray[np.int32], NDArray[np.int32]]  # places
    worth: tuple[NDArray[np.float32], NDArray[np.float32]]  # [N] each

    def node(self, side: int, place: int) -> int:
        return int((self.union.in_a, self.union.in_b)[side][place])

    def either(self, place: int) -> tuple[BabbleGraph, int]:
        side = 0 if self.node(0, place) != NOWHERE else 1
        return self.graphs[side], self.node(side, place)


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
    found = union(a, b)
    sides = _Sides(
        (a, b),
        found,
        (_tokens(a, found.of_a, found), _tokens(b, found.of_b, found)),
        (elites(a, found.of_a), elites(b, found.of_b)),
        (worth(a), worth(b)),
    )
    lines: list[RenderableType] = []
    for name, graph, style in (("A", a, ONLY_A), ("B", b, ONLY_B)):
        lines.append(
            Text(f"{name}  ", f"bold {style}", no_wrap=True).append_text(title(graph, width - 3, signs))
        )
    lines += ["", _totals(sides, width, signs), "", *_tree(sides, width, height, signs), ""]
    lines += [*_new_elites(sides, width, signs), *_moved(sides, width, signs)]
    return Group(*lines)


def _tokens(graph: BabbleGraph, of: NDArray[np.int32], found: Union) -> NDArray[np.int64]:
    mine = (of != NOWHERE) & (graph.parent != NO_PARENT)
    own = np.bincount(of[mine], weights=(graph.stop - graph.start)[mine], minlength=len(found.parent))
    return sums(found.parent, own.astype(np.int64))


def _totals(sides: _Sides, width: int, signs: Signs) -> Table:
    """Nodes, tokens, leaves and elites of both."""
    there = [x != NOWHERE for x in (sides.union.in_a, sides.union.in_b)]
    both = sides.union.shared
    count = figures.count
    roots = sides.union.parent == NO_PARENT
    one, other = (set(x.tolist()) for x in sides.elites)
    best = [figures.share(float(g.score[g.best(1)[0]])) if g.best(1) else "" for g in sides.graphs]
    rows = {
        "places": (*(count(int(x.sum())) for x in there), count(int(both.sum()))),
        "tokens in spans": (*(count(int(t[roots].sum())) for t in sides.tokens), ""),
        "leaves that pass": (*(count(int(passing(g).sum())) for g in sides.graphs), ""),
        "elites": (count(len(one)), count(len(other)), count(len(one & other))),
        "best score": (*best, ""),
    }
    lines = [(Text(name), cells) for name, cells in rows.items()]
    names = [Text("A", f"bold {ONLY_A}"), Text("B", f"bold {ONLY_B}"), Text("both", STRONG)]
    return grid(Text(), names, lines, width=width, signs=signs, least=LEAST)


def _tree(sides: _Sides, width: int, height: int | None, signs: Signs) -> list[Text]:
    """The tree of all places: those that lead to elites, then those that took most."""
    parent = sides.union.parent
    size = len(parent)
    weight = np.zeros(size)
    for tokens, places in zip(sides.tokens, sides.elites, strict=True):
        hit = np.zeros(size, np.int64)
        hit[places] = 1
        weight += tokens / max(int(tokens[parent == NO_PARENT].sum()), 1) + 2 * (sums(parent, hit) > 0)
    drawn = _pick(parent, weight, 2 * size + 2 if height is None else height)
    below: dict[int, list[int]] = {}
    for place in sorted(drawn):
        below.setdefault(int(parent[place]), []).append(place)
    hidden = _hidden(sides.union, drawn)
    pairs = min(max((width - 2 - LEAST_TREE) // (2 * CELLS), 0), len(PAIRS))
    names = PAIRS[:pairs]
    room = min(width - 2 * pairs * CELLS - 2, 72)
    lines = [
        Text(
            pad("", room) + "".join(f"{n} {x}".rjust(CELLS) for n in names for x in "AB"), QUIET, no_wrap=True
        )
    ]
    stack: list[tuple[int, tuple[bool, ...]]] = [(place, ()) for place in reversed(below[NO_PARENT])]
    while stack:
        place, last = stack.pop()
        if place < 0:  # what is not drawn below ~place
            words = _guides(last, signs) + f"{signs.ellipsis} {hidden[~place]}"
            lines.append(Text(fit_figures(words, width, signs), QUIET, no_wrap=True))
            continue
        lines.append(_place_line(sides, place, last, room, names, signs))
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
    sides: _Sides, place: int, last: tuple[bool, ...], room: int, names: Sequence[str], signs: Signs
) -> Text:
    nodes = sides.node(0, place), sides.node(1, place)
    style = BOTH if NOWHERE not in nodes else ONLY_B if nodes[0] == NOWHERE else ONLY_A
    row = Text(no_wrap=True).append(_guides(last, signs), QUIET)
    row.append("= " if NOWHERE not in nodes else "B " if nodes[0] == NOWHERE else "A ", style)
    for graph, node in zip(sides.graphs, nodes, strict=True):
        row.append(*_sign(graph, node, signs))
    graph, node = sides.either(place)
    said = step_text(graph, node, 6 * room) or no_text(graph, node)
    is_elite = any(place in places for places in sides.elites)
    said = fit(said, max(room - row.cell_len - 1, 1), signs, middle=graph.parent[node] == NO_PARENT)
    row.append(f" {said}", f"{style} bold" if is_elite else style)
    row.append(" " * (room - row.cell_len))
    if "value" in names:
        for known, node in zip(sides.worth, nodes, strict=True):
            row.append(("" if node == NOWHERE else figures.share(float(known[node]))).rjust(CELLS))
    if "tokens" in names:
        for tokens in sides.tokens:
            row.append((figures.count(int(tokens[place])) if tokens[place] else "").rjust(CELLS), QUIET)
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


def _new_elites(sides: _Sides, width: int, signs: Signs) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for side, name, style in ((0, "A", ONLY_A), (1, "B", ONLY_B)):
        mine = sorted(set(sides.elites[side].tolist()) - set(sides.elites[1 - side].tolist()))
        if not mine:
            continue
        lines.append(Text(f"Elites only in {name}", TITLE))
        graph = sides.graphs[side]
        for place in mine[:NEW]:
            node = sides.node(side, place)
            score = figures.share(float(graph.score[node]))
            text = fit(graph.text(node), max(width - 14 - len(score), 8), signs, middle=True)
            lines.append(Text.assemble((f"  {score}  ", QUIET), (text, style), no_wrap=True))
        if len(mine) > NEW:
            lines.append(Text(f"  {signs.ellipsis} {len(mine) - NEW} more", QUIET))
        lines.append("")
    return lines


def _moved(sides: _Sides, width: int, signs: Signs) -> list[RenderableType]:
    """Where mass moved: in probability where the generators differ, else in the share of tokens spent."""
    both = np.flatnonzero(sides.union.shared & (sides.union.parent != NO_PARENT))
    if not len(both):
        return []
    p = [np.exp(g.log_p_g[i[both]]) for g, i in zip(sides.graphs, sides.union[1:3], strict=True)]
    name = "Probability moved"
    if (np.abs(p[0] - p[1]) < FEWEST).all():
        name, roots = "Effort moved, in shares of all tokens", sides.union.parent == NO_PARENT
        p = [t[both] / max(int(t[roots].sum()), 1) for t in sides.tokens]
    change = p[1] - p[0]
    order = np.argsort(-np.abs(change), kind="stable")[:MOVED]
    lines: list[RenderableType] = [Text(name, TITLE)]
    for i in order[np.abs(change[order]) > FEWEST]:
        graph, node = sides.either(int(both[i]))
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
