"""The signs and colours of the view: every status has both, so that neither is needed to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from babblegraph.status import Gate, Status


@dataclass(frozen=True)
class Signs:
    """One set of characters to draw with.

    Args:
        status: a sign for each status, one cell wide.
        passed: the sign of a leaf that passes the threshold.
        branch: the guides of a tree: child, last child, line that goes on, nothing; child and last child on the
            way to the best leaf.
        trunk: the line that goes on to the best leaf, and another child beside it.
        sparks: characters of rising height for a value in [0, 1]; empty for none.
        bars: characters of rising height, from nothing to full.
        shades: characters of rising density, from nothing to full.
        bar: done, edge and left part of a bar.
        ellipsis: something is left out.
        gap: levels of a path are left out.
        dot: between two facts.
        minus: before negative numbers.
        arrow: to the node that stands for this one.
        again: a node was expanded again later.
        spinner: one after the other, they turn.
        controls: what stands for some control characters.
        ascii_only: whether nothing but ASCII may be written.
    """

    status: Mapping[Status, str]
    passed: str
    branch: tuple[str, str, str, str, str, str]
    trunk: tuple[str, str]
    sparks: str
    bars: str
    shades: str
    bar: tuple[str, str, str]
    ellipsis: str
    gap: str
    dot: str
    minus: str
    arrow: str
    again: str
    spinner: str
    controls: Mapping[str, str]
    ascii_only: bool = False


UNICODE = Signs(
    status={
        Status.FRONTIER: "○",
        Status.EXPANDED: "●",
        Status.LEAF_END: "◆",
        Status.LEAF_STOP: "◆",
        Status.LEAF_LENGTH: "◇",
        Status.LEAF_DEAD: "✗",
        Status.PRUNED: "⊘",
        Status.MERGED: "⇢",
        Status.STEM: "≈",
    },
    passed="★",
    branch=("├─ ", "└─ ", "│  ", "   ", "┡━ ", "┗━ "),
    trunk=("┃  ", "┠─ "),
    sparks="▁▂▃▄▅▆▇",
    bars=" ▁▂▃▄▅▆▇█",
    shades=" ·░▒▓█",
    bar=("━", "╸", "─"),
    ellipsis="…",
    gap="⋮",
    dot="·",
    minus="−",
    arrow="→",
    again="↻",
    spinner="⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    controls={"\n": "⏎", "\t": "⇥"},
)

ASCII = Signs(
    status={
        Status.FRONTIER: "o",
        Status.EXPANDED: "*",
        Status.LEAF_END: "#",
        Status.LEAF_STOP: "#",
        Status.LEAF_LENGTH: "%",
        Status.LEAF_DEAD: "x",
        Status.PRUNED: "/",
        Status.MERGED: ">",
        Status.STEM: "~",
    },
    passed="@",
    branch=("|- ", "`- ", "|  ", "   ", "|= ", "`= "),
    trunk=("|  ", "|- "),
    sparks="",
    bars=" .:-=+*#",
    shades=" .:+*#",
    bar=("=", ">", "-"),
    ellipsis="..",
    gap=":",
    dot="-",
    minus="-",
    arrow="->",
    again="again",
    spinner="-\\|/",
    controls={"\n": "\\n", "\t": "\\t"},
    ascii_only=True,
)

# Only the sixteen named colours, and never blue or white: those vanish on a dark or on a light background.
STYLES: Mapping[Status, str] = {
    Status.FRONTIER: "cyan",
    Status.EXPANDED: "default",
    Status.LEAF_END: "yellow",
    Status.LEAF_STOP: "yellow",
    Status.LEAF_LENGTH: "yellow",
    Status.LEAF_DEAD: "red",
    Status.PRUNED: "magenta",
    Status.MERGED: "cyan",
    Status.STEM: "dim",
}
BEST, AGAIN = "green", "cyan"  # the way to the best leaf, a restart
PASSED, FAILED, QUIET, STRONG, TITLE = "bold green", "bold yellow", "dim", "bold", "bold cyan"

WORDS: Mapping[Status, str] = {
    Status.FRONTIER: "live",
    Status.EXPANDED: "expanded",
    Status.LEAF_END: "finished",
    Status.LEAF_STOP: "finished",
    Status.LEAF_LENGTH: "out of room",
    Status.LEAF_DEAD: "dead",
    Status.PRUNED: "pruned",
    Status.MERGED: "merged",
    Status.STEM: "held back",
}
MEANINGS: Mapping[Status, str] = {
    Status.LEAF_END: "finished (too low)",
    Status.LEAF_DEAD: "dead (cannot pass)",
    Status.PRUNED: "pruned (by a gate)",
    Status.MERGED: "merged (into →)",
}
GATES: Mapping[Gate, str] = {
    Gate.TOKEN: "token gate",
    Gate.NODE: "node gate",
    Gate.LEAF: "leaf gate",
    Gate.ELITE: "elite gate",
}


def signs_of(encoding: str | None) -> Signs:
    """The signs that an output can show: plain ASCII unless its encoding is one of Unicode.

    >>> signs_of("utf-8").passed, signs_of("ascii").passed
    ('★', '@')
    """
    return UNICODE if (encoding or "").lower().replace("_", "-").startswith("utf") else ASCII
