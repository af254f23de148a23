"""One line of the explorer's tree, and everything about one node."""

from __future__ import annotations

import math

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from babblegraph.explore.outline import Outline
from babblegraph.graph import NEVER, NO_PARENT
from babblegraph.status import Gate, Status
from babblegraph.step_text import no_text, step_text
from babblegraph.view import figures
from babblegraph.view.charts import value_colour
from babblegraph.view.fates import over
from babblegraph.view.node import facts
from babblegraph.view.signs import GATES, PASSED, QUIET, STRONG, STYLES, TITLE, UNICODE, WORDS, Signs
from babblegraph.view.text import fit, visible

OPEN, CLOSED, LEAF = "▾ ", "▸ ", "  "
CURSOR, CHOSEN = "›", "bold black on cyan"  # the chosen line has a sign beside its colours
STOPPED = (Status.LEAF_DEAD, Status.PRUNED, Status.MERGED)
ID, VALUE, WHAT = 9, 8, 14  # cells of the columns
LEAST = 4  # of a node's text
WHAT_FROM, ID_FROM = 46, 60  # from how wide a tree on they are there
HEAT = ((0.5, ""), (0.1, "yellow underline"), (0.01, "magenta bold"), (0.0, "red reverse"))  # from which p on
MOST_TOKENS = 2000  # of one span that are coloured
EVERYTHING = 10**9  # cells
MOST_LINES, MOST_CHARACTERS = 400, 20_000  # of a whole text


class Lines:
    """Draws the lines of an outline.

    Args:
        outline: what is shown.
        new: the round whose nodes are marked as new; None for no round.
        signs: what to draw with; Textual needs a terminal that knows Unicode anyway.
    """

    def __init__(self, outline: Outline, new: int | None = None, signs: Signs = UNICODE) -> None:
        self.outline, self.graph, self.new, self.signs = outline, outline.graph, new, signs
        best = self.graph.best(1)
        self.best = set(self.graph.path(best[0])) if best else set()
        self.winners = dict(self.graph.merges)

    def indent(self, node: int, width: int) -> int:
        """Cells before a node's fold sign: two a level, as far as that leaves room."""
        return 1 + min(2 * int(self.graph.depth[node]), max(width // 3, 2))

    def line(self, node: int, width: int, chosen: bool = False) -> Text:
        """A node on one line of at most `width` cells."""
        outline, graph, signs = self.outline, self.graph, self.signs
        status = Status(int(graph.status[node]))
        faded = QUIET if status in STOPPED or over(int(outline.fates[node]))[0] else ""
        row = Text(no_wrap=True)
        row.append(CURSOR if chosen else " ").append(" " * (self.indent(node, width) - 1))
        row.append(self.fold_sign(node), QUIET)
        passed = bool(outline.passed[node])
        row.append(
            f"{signs.passed if passed else signs.status[status]} ", PASSED if passed else STYLES[status]
        )
        if node in outline.marked:
            row.append("! ", "bold yellow")
        what_cells, id_cells = WHAT * (width >= WHAT_FROM), ID * (width >= ID_FROM)
        value_cells = VALUE * (width - row.cell_len - what_cells - id_cells >= VALUE + LEAST)
        columns = what_cells + value_cells + id_cells
        room = max(width - row.cell_len - columns, LEAST)
        more = self._below(node) if outline.children[node] and not outline.is_open[node] else ""
        more = more if room - len(more) >= 10 else ""
        said = fit(self.said(node, room), room - len(more), signs, middle=graph.parent[node] == NO_PARENT)
        style = "underline" if outline.found[node] else STRONG if node in self.best else faded
        row.append(said, style).append(more, QUIET)
        row.append(" " * (width - columns - row.cell_len))
        if what_cells:
            what, colour = self.what(node)
            row.append(fit(what, WHAT, signs).rjust(WHAT), colour)
        if value_cells:
            value = float(outline.worth[node])
            colour = "" if math.isnan(value) else value_colour(value)
            row.append(figures.share(value).rjust(VALUE), f"{faded} {colour}".strip())
        if id_cells:
            row.append(f"#{node}".rjust(ID), QUIET)
        row.truncate(width)
        return Text(no_wrap=True).append(row.plain, CHOSEN) if chosen else row

    def said(self, node: int, room: int) -> str:
        """What a node adds to the text, unsafe."""
        return step_text(self.graph, node, 6 * room + 16) or no_text(self.graph, node)

    def fold_sign(self, node: int) -> str:
        """Whether there is something to fold."""
        if not self.outline.children[node]:
            return LEAF
        return OPEN if self.outline.is_open[node] else CLOSED

    def what(self, node: int) -> tuple[str, str]:
        """A word on what became of a node, and its style."""
        graph = self.graph
        status, gate = Status(int(graph.status[node])), Gate(int(graph.gate[node]))
        if self.outline.passed[node]:
            return "passed", PASSED
        if node in self.winners and status == Status.MERGED:
            return f"{self.signs.arrow} #{self.winners[node]}", STYLES[status]
        if status == Status.PRUNED and gate != Gate.NONE:
            return GATES[gate], STYLES[status]
        if status == Status.EXPANDED:
            return over(int(self.outline.fates[node]))
        if status == Status.FRONTIER:
            return ("new" if graph.born[node] == self.new else ""), STYLES[status]
        if graph.meta.get("threshold") is not None and status in (Status.LEAF_END, Status.LEAF_STOP):
            return "failed", STYLES[status]
        return WORDS[status], STYLES[status]

    def _below(self, node: int) -> str:
        n, best = int(self.outline.below.nodes[node]) - 1, float(self.outline.below.best[node])
        is_over = over(int(self.outline.fates[node]))[0]
        said = "" if math.isnan(best) or is_over else f", best {best:.2f}"
        return f" {self.signs.ellipsis} {figures.count(n)} below{said}"

    def details(self, node: int, width: int) -> Group:
        """Everything about a node: what became of it and why, whom it beat, its tokens, its whole text."""
        graph, signs = self.graph, self.signs
        status = Status(int(graph.status[node]))
        passed = bool(self.outline.passed[node])
        head = Text.assemble((f"Node {node}", TITLE), "  ")
        head.append(
            f"{signs.passed if passed else signs.status[status]} ", PASSED if passed else STYLES[status]
        )
        head.append(self.why(node), PASSED if passed else STYLES[status])
        parts: list[RenderableType] = [head, ""]
        for name, said in facts(graph, node, signs):
            if said:
                parts.append(Text.assemble((f"{name:<17}", QUIET), said))
        parts += [*self._siblings(node), "", Text("Tokens, the unlikely ones marked", TITLE), self.heat(node)]
        parts += [heat_legend(), "", Text("The whole text", TITLE)]
        return Group(*parts, *self._whole(node))

    def _whole(self, node: int) -> list[Text]:
        """The text from the prompt to the end of a node; a very long one without its middle, as every key draws it."""
        graph, lines = self.graph, []
        for step in graph.path(node):
            style = QUIET if graph.parent[step] == NO_PARENT else STRONG if step == node else ""
            lines += [(line, style) for line in self._lines_of(step)]
        if out := max(len(lines) - MOST_LINES, 0):
            lines[MOST_LINES // 4 : MOST_LINES // 4 + out] = [
                (f"{self.signs.gap} {figures.count(out)} lines left out: y copies all", TITLE)
            ]
        room = MOST_CHARACTERS
        if sum(len(line) for line, _ in lines) > room:
            room //= len(lines)
        return [Text(fit(line, room, self.signs, middle=True), style) for line, style in lines]

    def why(self, node: int) -> str:
        """What became of a node, in a sentence."""
        graph = self.graph
        status, gate = Status(int(graph.status[node])), Gate(int(graph.gate[node]))
        when = "" if graph.died[node] == NEVER else f" in round {graph.died[node]}"
        if self.outline.passed[node]:
            return f"passed{when}"
        if status == Status.PRUNED:
            return f"pruned by the {GATES.get(gate, 'search')}{when}"
        if status == Status.LEAF_DEAD:
            return f"dead{when}: provably worth 0"
        if status == Status.MERGED:
            return f"merged{when}: the same state as #{self.winners.get(node, '?')}"
        if ends := over(int(self.outline.fates[node]))[0]:
            return f"{WORDS[status]}; its ends: {ends}"
        return WORDS[status] + (when if graph.is_leaf(node) else "")

    def heat(self, node: int) -> Text:
        """The tokens of a node, marked by how unlikely each was when it was drawn."""
        graph, text = self.graph, Text()
        start, stop = int(graph.start[node]), int(graph.stop[node])
        for t in range(start, min(stop, start + MOST_TOKENS)):
            piece = visible(graph.vocabulary[int(graph.tokens[t])].decode("utf-8", "replace"), self.signs)
            p = 1.0 if graph.parent[node] == NO_PARENT else float(np.exp(graph.token_log_q[t]))
            text.append(piece, next(style for least, style in HEAT if p >= least))
        if stop - start > MOST_TOKENS:
            text.append(f" {self.signs.ellipsis} {figures.count(stop - start - MOST_TOKENS)} more", TITLE)
        return text if text.plain else Text(no_text(graph, node), QUIET)

    def _siblings(self, node: int) -> list[RenderableType]:
        """Whom the node beat, and the best of the others."""
        graph, worth = self.graph, self.outline.worth
        up = graph.parent[node]
        if up == NO_PARENT or np.isnan(worth[node]):
            return []
        others = np.flatnonzero((graph.parent == up) & ~np.isnan(worth))
        others = others[others != node]
        if not len(others):
            return []
        said = f"{int((worth[others] < worth[node]).sum())} of {len(others)}"
        lines: list[RenderableType] = [Text.assemble((f"{'siblings beaten':<17}", QUIET), said)]
        for i in others[np.argsort(-worth[others], kind="stable")][:3].tolist():
            shown = fit(self.said(i, 40), 40, self.signs)
            lines.append(Text(f"  {worth[i]:.2f}  {shown}", QUIET, no_wrap=True, overflow="ellipsis"))
        return lines

    def _lines_of(self, step: int) -> list[str]:
        """A step's text, cut after its line ends, which stay visible."""
        return self.said(step, EVERYTHING).splitlines(keepends=True)


def heat_legend() -> Text:
    """What the marks of `Lines.heat` mean."""
    legend = Text("p ", QUIET)
    for (least, style), name in zip(HEAT, ("≥ 0.5", "≥ 0.1", "≥ 0.01", "< 0.01"), strict=True):
        legend.append(name, style or QUIET).append("  " if least else "")
    return legend
