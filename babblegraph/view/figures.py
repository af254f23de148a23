"""Numbers, short enough for a narrow column."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from babblegraph.graph import BabbleGraph, Ids
from babblegraph.view.signs import UNICODE, Signs


def count(n: float) -> str:
    """A count in at most five cells.

    >>> [count(n) for n in (7, 9999, 12_345, 999_999, 2_500_000)]
    ['7', '9999', '12.3k', '1.0M', '2.5M']
    """
    if abs(n) < 10_000:
        return f"{n:.0f}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if abs(n) < 999.5 * size or unit == "G":
            return f"{n / size:.{0 if abs(n) >= 99.95 * size else 1}f}{unit}"
    raise AssertionError


def share(x: float) -> str:
    """A value in [0, 1] with two digits; nothing where there is none. Scores may be larger: in at most seven cells.

    >>> share(0.826), share(float("nan")), share(-12345.67), share(-1234567)
    ('0.83', '', '-12346', '-1e+06')
    """
    if math.isnan(x):
        return ""
    return next(said for form in (".2f", ".1f", ".0f", ".0e") if len(said := f"{x:{form}}") <= 7)


def short_of(x: float, threshold: float) -> str:
    """A score below a threshold, with as many digits as show that it is below.

    >>> short_of(0.5, 1), short_of(0.9984, 1)
    ('0.50', '0.998')
    """
    return next((said for d in range(2, 9) if float(said := f"{x:.{d}f}") < threshold), f"{x:g}")


def percent(part: float, whole: float) -> str:
    """A share in per cent; nothing of nothing is nothing.

    >>> percent(1, 8), percent(0, 0)
    ('12.5 %', '')
    """
    return f"{100 * part / whole:.1f} %" if whole else ""


def log(x: float, signs: Signs = UNICODE) -> str:
    """A logarithm in at most six cells.

    >>> log(-2.125), log(-1234.5), log(float("-inf"))
    ('−2.1', '−1234', '−inf')
    """
    if math.isnan(x):
        return ""
    text = f"{x:.1f}" if abs(x) < 1000 else f"{x:.0f}" if abs(x) < 1e5 else f"{x:.0e}"
    return text.replace("-0.0", "0.0").replace("-", signs.minus)


def clock(seconds: float) -> str:
    """A duration, rounded up to whole seconds.

    >>> clock(2.3), clock(75), clock(7322)
    ('0:03', '1:15', '2:02:02')
    """
    s = math.ceil(max(seconds, 0))
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


def tree_name(graph: BabbleGraph) -> str:
    """What one of the graph's trees stands for: a prompt, or a repetition of one where prompts repeat.

    >>> tree_name(BabbleGraph(["p", "q"], [[0], [0]], {})), tree_name(BabbleGraph(["p", "p"], [[0], [0]], {}))
    ('prompt', 'tree')
    """
    return "prompt" if len(set(graph.prompts)) == graph.trees else "tree"


def is_weighted(graph: BabbleGraph) -> bool:
    """Whether the weights of the graph's nodes mean something."""
    return graph.meta.get("aim") != "solve"


def mass_name(graph: BabbleGraph) -> str:
    """The heading of `mass`."""
    return "log w" if is_weighted(graph) else "log p"


def mass(graph: BabbleGraph, node: int) -> float:
    """How much a node stands for: its unbiased log-weight, or where weights mean nothing its log-probability."""
    return float(masses(graph, [node])[0])


def masses(graph: BabbleGraph, ids: Ids) -> NDArray[np.float64]:
    """`mass` of many nodes, [M]."""
    return graph.log_weight(ids) if is_weighted(graph) else graph.log_p_g[ids]
