"""What a graph file must be: the rules that `graph_file.load` checks before it believes a single column."""

from __future__ import annotations

import os
import re
import reprlib
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from babblegraph.errors import GraphFileError
from babblegraph.graph import COLUMNS, NEVER, NO_PARENT, NO_STATE
from babblegraph.status import Flag, Gate, Status

LINKS = ("depth", "first_child", "last_child", "next_sibling")  # they follow from `parent`: not stored
LISTS = ("tokens", "token_log_q", "merges")  # stored columns that have no row for each node

Tensors = dict[str, NDArray[Any]]


class GraphFile:
    """A file under examination: says in one line what is wrong with it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path

    def check(self, header: dict[str, Any], tensors: Tensors) -> None:
        """Raises GraphFileError unless header and columns are those of a graph."""
        self._check_header(header)
        self._check_rows(len(header["prompts"]), tensors)
        self._check_forest(len(header["prompts"]), tensors)
        self._check_ranges(tensors)
        known = np.array([int(token) for token in header["vocabulary"]], np.int64)
        self.require_each(
            np.isin(tensors["tokens"], known), "every token id must have bytes", tensors["tokens"], "token"
        )

    def check_columns(self, opened: Any) -> None:
        """The stored columns must be those of this version, each with its type and number of dimensions."""
        dtypes: dict[str, Any] = {name: c.dtype for name, c in COLUMNS.items() if name not in LINKS}
        dtypes |= {"tokens": np.int32, "token_log_q": np.float32, "merges": np.int32}
        names = set(opened.keys())
        self.require(names >= dtypes.keys(), "no column may be missing", sorted(dtypes.keys() - names))
        self.require(names <= dtypes.keys(), "no column may be unknown", sorted(names - dtypes.keys()))
        for name, dtype in dtypes.items():
            kind = f"{np.dtype(dtype).kind.upper()}{8 * np.dtype(dtype).itemsize}"  # as safetensors names it
            column = opened.get_slice(name)
            shape = column.get_shape()
            self.require(column.get_dtype() == kind, f"{name} must have the type {kind}", column.get_dtype())
            if name == "merges":
                self.require(len(shape) == 2 and shape[1] == 2, "merges must have the shape [E, 2]", shape)
            else:
                self.require(len(shape) == 1, f"{name} must have one dimension", shape)

    def require(self, ok: bool, rule: str, got: object) -> None:
        """Raises GraphFileError unless the rule is kept."""
        if not ok:
            self.refuse(rule, got)

    def require_each(self, ok: NDArray[np.bool_], rule: str, got: NDArray[Any], of: str = "node") -> None:
        """The same for each row; the first one that breaks the rule is named."""
        if not ok.all():
            i = int(np.argmin(ok))
            self.refuse(f"{rule} ({of} {i} has not)", got[i].tolist())

    def refuse(self, rule: str, got: object, fix: str = "take an undamaged copy or save again") -> NoReturn:
        """Raises GraphFileError."""
        raise GraphFileError(f"{os.fsdecode(self.path)!r}: {rule}, got {reprlib.repr(got)}: {fix}")

    def _check_header(self, header: dict[str, Any]) -> None:
        prompts, vocabulary, failures = (header.get(k) for k in ("prompts", "vocabulary", "failures"))
        ok = isinstance(prompts, list) and len(prompts) > 0 and all(isinstance(p, str) for p in prompts)
        self.require(ok, "prompts must be a list of texts", prompts)
        ok = isinstance(vocabulary, dict) and all(map(_is_word, vocabulary.items()))
        self.require(ok, "the vocabulary must give the bytes of token ids as latin-1", vocabulary)
        ok = isinstance(failures, list) and all(isinstance(f, dict) for f in failures)
        self.require(ok, "failures must be a list of objects", failures)
        self.require(isinstance(header.get("meta"), dict), "meta must be an object", header.get("meta"))
        done = header.get("round")
        self.require(type(done) is int and done >= 0, "round must be a number from 0", done)

    def _check_rows(self, trees: int, tensors: Tensors) -> None:
        n, t = len(tensors["parent"]), len(tensors["tokens"])
        self.require(n >= trees, f"there must be a node for each of {trees} prompts", n)
        for name in tensors.keys() - LISTS:
            rows = len(tensors[name])
            self.require(rows == n, f"{name} must have {n} rows, as many as parent", rows)
        rows = len(tensors["token_log_q"])
        self.require(rows == t, f"token_log_q must have {t} rows, as many as tokens", rows)

    def _check_forest(self, trees: int, tensors: Tensors) -> None:
        """Parents come before children, nodes hang in the tree that they say, spans lie inside the tokens."""
        parent, root, length = tensors["parent"], tensors["root"], tensors["length"]
        start, stop, merges = tensors["start"], tensors["stop"], tensors["merges"]
        ids = np.arange(len(parent))
        is_root = ids < trees
        ok = (parent == NO_PARENT) == is_root
        self.require_each(ok, f"parent must be {NO_PARENT} for the first {trees} nodes alone", parent)
        self.require_each((parent >= NO_PARENT) & (parent < ids), "parent must be an earlier node", parent)
        ok = root == np.where(is_root, ids, root[parent])
        self.require_each(ok, "root must be that of the parent, or the root itself", root)
        self.require_each((start >= 0) & (start <= stop), "start must be from 0 to stop", start)
        self.require_each(stop <= len(tensors["tokens"]), "stop must not be behind the last token", stop)
        ok = length == np.where(is_root, 0, length[parent]) + stop - start
        self.require_each(ok, "length must be that of the parent and the span together", length)
        ok = np.all((merges >= 0) & (merges < len(ids)), axis=1)
        self.require_each(ok, "merges must be of nodes in the graph", merges, "merge")

    def _check_ranges(self, tensors: Tensors) -> None:
        for name, most in (("status", max(Status)), ("gate", max(Gate)), ("flags", sum(Flag))):
            self.require_each(tensors[name] <= most, f"{name} must be at most {int(most)}", tensors[name])
        lowest = {"count": 0, "draws": 0, "born": 0, "died": NEVER, "state_key": NO_STATE}
        for name, least in lowest.items():
            self.require_each(tensors[name] >= least, f"{name} must be at least {least}", tensors[name])


def _is_word(item: tuple[str, object]) -> bool:
    token, data = item
    ok = isinstance(data, str) and max(data, default="") < "\u0100"
    return ok and re.fullmatch("-?[0-9]{1,10}", token) is not None
