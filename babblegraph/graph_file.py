"""Graphs on disk: one safetensors file with a JSON header, written whole or not at all.

The header carries the prompts, the bytes of the token ids that occur (so that the file is readable without a
tokenizer), what the run wants remembered, and a digest of everything: damage never goes unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import reprlib
import secrets
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from babblegraph.errors import BadInput, GraphFileError
from babblegraph.graph import COLUMNS, NO_PARENT, BabbleGraph
from babblegraph.graph_check import LINKS, GraphFile, Tensors

FORMAT = 1  # of the file; a reader refuses anything newer
HEADER = "babblegraph"  # the one key of the safetensors metadata
MAX_HEADER_BYTES = 100_000_000  # what safetensors agrees to read


def save(graph: BabbleGraph, path: str | os.PathLike[str]) -> None:
    """Writes a graph to one file; a failed write leaves an older file untouched.

    Args:
        graph: what to save. `meta` and `failures` must be plain JSON: tuples come back as lists.
        path: of the file, whose folder must exist.
    Raises:
        BadInput: the path cannot be written, `meta` is not plain JSON, or a token id has no bytes.

    >>> import tempfile
    >>> graph = BabbleGraph(["ab"], [[0, 1]], {0: b"a", 1: b"b"}, meta={"model": "tiny"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(graph, f"{folder}/graph.safetensors")
    ...     load(f"{folder}/graph.safetensors").meta
    {'seed': 0, 'model': 'tiny'}
    """
    tensors = _tensors(graph)
    data = safetensors.numpy.save(tensors, {HEADER: _header(graph, tensors)})
    size, most = int.from_bytes(data[:8], "little"), MAX_HEADER_BYTES
    if size > most:
        raise BadInput(f"prompts, meta and failures must take at most {most} bytes, got {size}: save less")
    try:
        write_whole(path, data)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"a graph must go to a writable file, got {_got(path, error)}: choose another"
        ) from error


def load(path: str | os.PathLike[str]) -> BabbleGraph:
    """Reads a graph that `save` wrote, and checks all of it.

    Args:
        path: of the file.
    Returns:
        The same graph, bit for bit; its vocabulary holds only the token ids that occur.
    Raises:
        BadInput: there is no such file, or it cannot be read.
        GraphFileError: the file is damaged, foreign or from a newer version.

    >>> load("missing.safetensors")
    Traceback (most recent call last):
    babblegraph.errors.BadInput: a graph file must be readable, got 'missing.safetensors' (no such file): ...
    """
    file = GraphFile(path)
    header, tensors = _read(file)
    file.check(header, tensors)
    _check_digest(file, header, tensors)
    vocabulary = {int(token): data.encode("latin-1") for token, data in header["vocabulary"].items()}
    return _graph(header, tensors, vocabulary)


def _tensors(graph: BabbleGraph) -> Tensors:
    columns: Tensors = {name: getattr(graph, name) for name in COLUMNS if name not in LINKS}
    lists = {"tokens": graph.tokens, "token_log_q": graph.token_log_q, "merges": graph.merges.array}
    return columns | lists


def _header(graph: BabbleGraph, tensors: Tensors) -> str:
    header = {
        "version": FORMAT,
        "prompts": graph.prompts,
        "vocabulary": _used_bytes(graph),
        "round": int(graph.round),
        "failures": graph.failures,
        "meta": graph.meta,
    }
    try:
        header = json.loads(_dump(header))  # now what a reader will see, so that the digest is of that
        return _dump({**header, "digest": _digest(header, tensors)})
    except (TypeError, ValueError, RecursionError) as error:
        rule = "meta and failures must be plain JSON"
        raise BadInput(f"{rule}, got {error}: keep finite numbers, texts, lists and dicts only") from error


def _used_bytes(graph: BabbleGraph) -> dict[str, str]:
    used: dict[str, str] = {}
    for token in np.unique(graph.tokens).tolist():
        try:
            used[str(token)] = graph.vocabulary[token].decode("latin-1")
        except KeyError as error:
            rule = "every token id must have bytes"
            raise BadInput(f"{rule}, got {token}: add it to the graph's vocabulary") from error
    return used


def _dump(header: dict[str, Any]) -> str:
    return json.dumps(header, allow_nan=False, default=_plain)


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{reprlib.repr(value)} of type {type(value).__name__}")


def _digest(header: dict[str, Any], tensors: Tensors) -> str:
    digest = hashlib.blake2b(_dump(header).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} ".encode())
        digest.update(tensors[name].data)
    return digest.hexdigest()


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a regular file, or the one that a link leads to, whole or not at all; raises OSError."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError("not a regular file")
    temporary = target.with_name(f".babblegraph-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)  # what only its owner may read stays so
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _read(file: GraphFile) -> tuple[dict[str, Any], Tensors]:
    try:
        if not os.path.isfile(file.path):
            raise OSError("not a file" if os.path.exists(file.path) else "no such file")
        with safetensors.safe_open(file.path, framework="np") as opened:
            header = _parse(file, (opened.metadata() or {}).get(HEADER))
            file.check_columns(opened)
            return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except GraphFileError:
        raise
    except safetensors.SafetensorError as error:
        file.refuse("a graph file must be whole and in safetensors format", str(error))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"a graph file must be readable, got {_got(file.path, error)}: check the path"
        ) from error


def _parse(file: GraphFile, text: str | None) -> dict[str, Any]:
    if text is None:
        file.refuse("a graph file must have a babblegraph header", None, "give a file that `save` wrote")
    try:
        header = json.loads(text, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        file.refuse("the header must be valid JSON", str(error))
    if not isinstance(header, dict):
        file.refuse("the header must be a JSON object", header)
    version = header.get("version")
    if type(version) is not int or version < 1:
        file.refuse("the format version must be a number above 0", version)
    if version > FORMAT:
        file.refuse(f"the format version must be at most {FORMAT}", version, "install a newer babblegraph")
    return header


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_digest(file: GraphFile, header: dict[str, Any], tensors: Tensors) -> None:
    content = {key: value for key, value in header.items() if key != "digest"}
    try:
        same = header.get("digest") == _digest(content, tensors)
    except ValueError:  # a number too large for a float
        same = False
    file.require(same, "the content must match its digest", header.get("digest"))


def _graph(header: dict[str, Any], tensors: Tensors, vocabulary: dict[int, bytes]) -> BabbleGraph:
    trees, n = len(header["prompts"]), len(tensors["parent"])
    graph = BabbleGraph(header["prompts"], [[0]] * trees, vocabulary)
    links: Tensors = {name: np.full(n, COLUMNS[name].fill, COLUMNS[name].dtype) for name in LINKS}
    graph.size, graph._token_size = n, len(tensors["tokens"])
    graph._tokens, graph._token_log_q = tensors["tokens"], tensors["token_log_q"]
    graph._columns = {name: {**tensors, **links}[name] for name in COLUMNS}
    graph._link(np.arange(trees, n, dtype=np.int32), graph.parent[trees:])
    graph.depth[:] = _depth(graph.parent)
    graph.merges.extend(tensors["merges"])
    graph.round, graph.meta, graph.failures = header["round"], header["meta"], header["failures"]
    return graph


def _depth(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """How many nodes are above each, [N]: every pass doubles how far up each one looks."""
    depth = (parent != NO_PARENT).astype(np.int32)
    up = np.where(parent == NO_PARENT, np.arange(len(parent), dtype=np.int32), parent)
    while (above := depth[up]).any():
        depth += above
        up = up[up]
    return depth


def _got(path: str | os.PathLike[str], error: Exception) -> str:
    return f"{os.fsdecode(path)!r} ({getattr(error, 'strerror', None) or error})"
