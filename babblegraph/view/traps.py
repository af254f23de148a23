"""Where a search lost its way: branches that took many tokens and gave nothing, states it kept coming back to, and
where the routes to the elite part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from babblegraph.graph import NO_PARENT, NO_STATE, BabbleGraph
from babblegraph.status import Status
from babblegraph.step_text import no_text
from babblegraph.subtrees import Below, below, sums
from babblegraph.view import figures
from babblegraph.view.grid import GAP, columns_in
from babblegraph.view.signs import QUIET, STRONG, STYLES, TITLE, UNICODE, Signs
from babblegraph.view.text import fit, wrapped

MOST = 8  # lines of a table
FATES = (Status.LEAF_DEAD, Status.PRUNED, Status.MERGED, Status.FRONTIER)
LEAST_TEXT = 16  # cells


class Trap(NamedTuple):
    """A branch without a hit, as high up as that holds.

    Args:
        node: its topmost node.
        tokens, nodes: of the whole branch.
        best: the best score or value in it; NaN where nothing is known.
        fates: how many of its nodes are dead, pruned, merged and live.
    """

    node: int
    tokens: int
    nodes: int
    best: float
    fates: tuple[int, ...]


class Visited(NamedTuple):
    """A state that several nodes reached.

    Args:
        node: the one that stands for it.
        times: how many nodes reached it; a stem is a share of one that did.
        draws: how many samples these stand for.
        hits: hits below any of them, each once though it be below several.
    """

    node: int
    times: int
    draws: int
    hits: int


class Joint(NamedTuple):
    """A node from which different routes lead to hits.

    Args:
        node: where they part.
        routes: its children that lead to hits.
        hits: all hits below.
    """

    node: int
    routes: int
    hits: int


def traps(graph: BabbleGraph, total: Below | None = None) -> list[Trap]:
    """All branches without a hit, the most expensive first.

    A hit is a leaf that passes; without a threshold, one that is finished and not dead. What is live and was
    never expanded is no trap yet.
    """
    total = total or below(graph)
    inner = graph.parent != NO_PARENT
    parent = graph.parent
    barren = inner & (total.hits == 0) & (graph.status != Status.FRONTIER) & (graph.status != Status.STEM)
    heads = np.flatnonzero(barren & ((total.hits[parent] > 0) | (graph.depth == 1)))
    heads = heads[np.lexsort((heads, -total.tokens[heads]))]
    fates = [sums(parent, (graph.status == s).astype(np.int64))[heads].tolist() for s in FATES]
    rows = zip(heads.tolist(), total.tokens[heads].tolist(), total.nodes[heads].tolist(), strict=True)
    return [
        Trap(*row, best, fate)
        for row, best, fate in zip(rows, total.best[heads].tolist(), zip(*fates, strict=True), strict=True)
    ]


def visited(graph: BabbleGraph, total: Below | None = None, k: int = MOST) -> list[Visited]:
    """The states that most nodes reached, at least two each."""
    total = total or below(graph)
    ids = np.flatnonzero((graph.state_key != NO_STATE) & (graph.stop > graph.start))
    ids = ids[graph.parent[ids] != NO_PARENT]
    pairs = np.c_[graph.root[ids].astype(np.int64), graph.state_key[ids]]
    _, group, times = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    order = np.argsort(-times, kind="stable")[:k]
    found = []
    for i in order[times[order] > 1].tolist():
        same = ids[group == i]
        stands = same[graph.status[same] != Status.MERGED]
        node = int(stands[0]) if len(stands) else int(same[0])
        hits = int(total.hits[_uppermost(graph, same)].sum())
        found.append(Visited(node, len(same), int(graph.count[same].sum()), hits))
    return found


def _uppermost(graph: BabbleGraph, ids: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of some nodes that lie below none of the others; every pass doubles how far up it looks."""
    top = graph.size  # a place above all roots
    up = np.r_[np.where(graph.parent == NO_PARENT, top, graph.parent), top]
    above = np.isin(up, ids)  # whether one of them is among the ancestors seen so far
    while (up < top).any():
        above |= above[up]
        up = up[up]
    return ids[~above[ids]]


def joints(graph: BabbleGraph, total: Below | None = None, k: int = MOST) -> list[Joint]:
    """The nodes below which most hits lie on at least two routes, the deepest first where hits are equal."""
    total = total or below(graph)
    fruitful = np.flatnonzero((total.hits > 0) & (graph.parent != NO_PARENT))
    routes = np.bincount(graph.parent[fruitful], minlength=graph.size)
    ids = np.flatnonzero(routes > 1)
    ids = ids[np.lexsort((ids, -graph.depth[ids], -total.hits[ids]))][:k]
    return [Joint(int(i), int(routes[i]), int(total.hits[i])) for i in ids]


def trap_report(graph: BabbleGraph, *, width: int, signs: Signs = UNICODE) -> Group:
    """The whole report, in words and tables.

    Args:
        graph: any.
        width: in cells.
        signs: what to draw with.
    """
    total = below(graph)
    found, states, parts = traps(graph, total), visited(graph, total), joints(graph, total)
    hit = "passes" if graph.meta.get("threshold") is not None else "is finished"
    whole = int(total.tokens[: graph.trees].sum())
    lines: list[RenderableType] = [Text("Traps", TITLE)]
    for said in _sentences(found, whole, int(total.hits[: graph.trees].sum()), hit):
        lines += [Text(line, no_wrap=True) for line in wrapped(said, width, indent=2)]
    if found:
        lines += ["", _trap_table(graph, found[:MOST], whole, width, signs)]
    if states:
        lines += ["", Text("States reached most often", TITLE), _state_table(graph, states, width, signs)]
    if parts:
        lines += ["", Text(f"Where routes to a leaf that {hit} part", TITLE)]
        lines.append(_joint_table(graph, parts, width, signs))
    return Group(*lines)


def _sentences(found: Sequence[Trap], whole: int, hits: int, hit: str) -> list[str]:
    lost = sum(x.tokens for x in found)
    if not found:
        return [f"No branch was expanded without a leaf that {hit}."]
    branches, they = (
        ("One branch has", "it holds") if len(found) == 1 else (f"{len(found)} branches have", "they hold")
    )
    said = [
        f"{branches} no leaf that {hit}; {they} {figures.count(lost)} of {figures.count(whole)} tokens "
        f"({figures.percent(lost, whole)})."
    ]
    if len(found) > 3:
        top = sum(x.tokens for x in found[:3])
        said.append(f"The three largest hold {figures.percent(top, whole)} of all tokens.")
    dead, pruned, merged, live = (sum(x.fates[i] for x in found) for i in range(len(FATES)))
    within, nodes = "it" if len(found) == 1 else "them", "node is" if dead == 1 else "nodes are"
    said.append(f"In {within} {dead} {nodes} dead, {pruned} pruned, {merged} merged and {live} still live.")
    said.append(f"{hits} {'leaf' if hits == 1 else 'leaves'} in all {_verb(hits, hit)}.")
    return said


def _verb(n: int, hit: str) -> str:
    return hit if n == 1 else {"passes": "pass", "is finished": "are finished"}[hit]


def _trap_table(graph: BabbleGraph, found: Sequence[Trap], whole: int, width: int, signs: Signs) -> Table:
    names = ("tokens", "share", "nodes", "dead", "pruned", "merged", "live", "best")
    rows = [
        (
            *(figures.count(x.tokens), figures.percent(x.tokens, whole), figures.count(x.nodes)),
            *map(figures.count, x.fates),
            figures.share(x.best),
        )
        for x in found
    ]
    return _table(graph, [x.node for x in found], names, rows, width, signs)


def _state_table(graph: BabbleGraph, found: Sequence[Visited], width: int, signs: Signs) -> Table:
    rows = [(figures.count(x.times), figures.count(x.draws), figures.count(x.hits)) for x in found]
    return _table(graph, [x.node for x in found], ("nodes", "draws", "hits"), rows, width, signs)


def _joint_table(graph: BabbleGraph, found: Sequence[Joint], width: int, signs: Signs) -> Table:
    rows = [(str(graph.depth[x.node]), str(x.routes), figures.count(x.hits)) for x in found]
    return _table(graph, [x.node for x in found], ("depth", "routes", "hits"), rows, width, signs)


def _table(
    graph: BabbleGraph,
    nodes: Sequence[int],
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    signs: Signs,
) -> Table:
    """One line a node: its id, its text so far, and as many of the figures as there is room for."""
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="")
    wide = [max(len(x) for x in (name, *column)) for name, column in zip(names, _columns(rows), strict=True)]
    room = width - max(8, *(len(f"#{node}") for node in nodes)) - GAP
    shown = columns_in(wide, room - LEAST_TEXT)
    room -= sum(wide[:shown]) + GAP * shown
    table.add_column(Text("node", QUIET), justify="right", no_wrap=True)
    table.add_column(Text("text", QUIET), no_wrap=True)
    for name in names[:shown]:
        table.add_column(Text(name, QUIET), justify="right", no_wrap=True)
    for node, row in zip(nodes, rows, strict=True):
        said = graph.text(node) or (
            graph.prompts[node] if graph.parent[node] == NO_PARENT else no_text(graph, node)
        )
        text = Text(fit(said, min(room, 60), signs, middle=True), STRONG)
        table.add_row(Text(f"#{node}", STYLES[Status(int(graph.status[node]))]), text, *row[:shown])
    return table


def _columns(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    return list(zip(*rows, strict=True))
