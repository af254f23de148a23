"""The graph as one HTML file that needs nothing else: a tree to fold, search and read, at any size."""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babblegraph.clean import visible
from babblegraph.graph import NO_PARENT, BabbleGraph
from babblegraph.status import Flag, Gate, Status
from babblegraph.step_text import no_text, owners, step_text
from babblegraph.subtrees import passing

MOST_CHARACTERS = 100_000  # of one node's text
NATS = 16  # steps of one nat in which log q is kept, a byte a token
FRAME = 520  # lines of pixels in a notebook
MOST_IN_NOTEBOOK = 20_000  # nodes; a notebook keeps what it shows

SCRIPTS = ("data.js", "tree.js", "node.js", "map.js", "main.js")


def to_html(graph: BabbleGraph) -> str:
    """The graph as a page that folds and searches, shows token probabilities, and never asks the network.

    Every text is made safe with `clean.visible`; the page's own policy forbids any request.

    Args:
        graph: any.
    Returns:
        The same text for the same graph.
    Complexity: O(N + T).

    >>> page = to_html(BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b"}))
    >>> page.startswith("<!doctype html>"), "src=" in page
    (True, False)
    """
    # In a script only "<" could end it.
    data = json.dumps(_data(graph), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    parts = {"style": _file("page.css"), "script": "".join(map(_file, SCRIPTS))}
    parts |= {"title": html.escape(_title(graph)), "data": data}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _file("page.html"))


def in_notebook(graph: BabbleGraph) -> str:
    """The page in a frame of its own, as Jupyter shows it; a sentence where the graph is too large for that."""
    if graph.size > MOST_IN_NOTEBOOK:
        said = f"A babble graph of {graph.size} nodes: save it, then babblegraph export FILE --to html"
        return f"<p>{said}</p>"
    page = html.escape(to_html(graph), quote=True)
    style = f"width:100%;height:{FRAME}px;border:1px solid #8884"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{page}"></iframe>'


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


def _title(graph: BabbleGraph) -> str:
    meta = graph.meta
    parts = [meta.get("task"), meta.get("model"), meta.get("strategy"), f"seed {meta.get('seed', 0)}"]
    return visible("babblegraph · " + " · ".join(str(p) for p in parts if p))


def _data(graph: BabbleGraph) -> dict[str, Any]:
    used, tokens = np.unique(graph.tokens, return_inverse=True)
    pieces = [graph.vocabulary[int(t)] for t in used]
    texts = [visible(piece.decode("utf-8", errors="replace")) for piece in pieces]
    weighted = graph.meta.get("aim") != "solve"
    with np.errstate(invalid="ignore"):  # of a node that is impossible under f and q alike
        mass = graph.log_weight() if weighted else graph.log_p_g
    arrays = {
        "parent": graph.parent,
        "start": graph.start.astype(np.int32),
        "stop": graph.stop.astype(np.int32),
        "tokens": tokens.reshape(-1).astype(np.uint16 if len(used) < 1 << 16 else np.uint32),
        "nats": np.clip(np.rint(-graph.token_log_q * NATS), 0, 255).astype(np.uint8),
        "value": graph.value,
        "connectivity": graph.connectivity,
        "score": graph.score,
        "mass": mass.astype(np.float32),
        "status": graph.status,
        "gate": graph.gate,
        "flags": graph.flags,
        "born": graph.born,
        "died": graph.died,
        "count": graph.count,
        "passed": passing(graph).astype(np.uint8),
        "merges": graph.merges.array.reshape(-1),
    }
    budget, spent = graph.meta.get("budget") or {}, graph.meta.get("spent") or {}
    sampled = (spent.get("counts") or {}).get("sampled")
    return {
        "arrays": {name: _packed(array) for name, array in arrays.items()},
        "pieces": texts,
        "texts": _texts(graph, pieces, tokens.reshape(-1)),
        "statuses": [s.name.lower() for s in Status],
        "gates": [g.name.lower() for g in Gate],
        "flags": {f.name.lower().replace("_", " "): int(f) for f in Flag if f.name},
        "mass": "log weight" if weighted else "log p",
        "natSteps": NATS,
        "best": next(iter(graph.best()), -1),
        "rounds": int(graph.round),
        "threshold": graph.meta.get("threshold"),
        "sampled": int(sum(sampled)) if sampled else None,
        "budget": budget.get("tokens") and int(budget["tokens"]) * graph.trees,
        "seconds": spent.get("seconds"),
    }


def _texts(graph: BabbleGraph, pieces: list[bytes], tokens: NDArray[np.intp]) -> dict[str, str]:
    """The texts of nodes that are not just their tokens' texts one after the other: prompts, and cut characters."""
    whole = np.array([_is_whole(piece) for piece in pieces])
    cut = np.zeros(graph.size, np.bool_)
    where = np.flatnonzero(~whole[tokens]) if len(tokens) else np.zeros(0, np.intp)
    cut[owners(graph)[where]] = True
    cut |= (graph.stop == graph.start) | (graph.parent == NO_PARENT)
    found = {}
    for node in np.flatnonzero(cut).tolist():
        found[str(node)] = visible(step_text(graph, node, MOST_CHARACTERS)) or no_text(graph, node)
    return found


def _is_whole(piece: bytes) -> bool:
    """Whether a token's text is the same wherever it stands: no cut character, and none that joins the one before."""
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(unicodedata.category(c)[0] != "M" and not 0x1100 <= ord(c) <= 0x11FF for c in text)


def _packed(array: NDArray[Any]) -> list[str]:
    """An array as the name of its type and its bytes, the little end first."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    return [array.dtype.name, base64.b64encode(little.tobytes()).decode("ascii")]
