"""Graph files: what is saved comes back bit for bit, and no damage goes unnoticed."""

from __future__ import annotations

import json
import math
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from babblegraph import graph_file
from babblegraph.born import Born
from babblegraph.columns import Pairs
from babblegraph.errors import BadInput, GraphFileError
from babblegraph.graph import COLUMNS, BabbleGraph
from babblegraph.graph_file import load, save
from babblegraph.status import Flag, Gate, Status

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FREE = (
    "log_p_f",
    "log_p_g",
    "log_q",
    "log_inclusion",
    "value",
    "connectivity",
    "score",
    "key",
)  # any bits will do


@st.composite
def graphs(draw: st.DrawFn) -> BabbleGraph:
    """A random graph whose every column holds something, NaNs with payload and all bits of keys included."""
    prompts = draw(st.lists(st.text(st.characters()), min_size=1, max_size=3))
    meta = draw(st.dictionaries(st.text(), JSON, max_size=3))
    vocabulary = {i: draw(st.binary(max_size=3)) for i in range(5)}
    graph = BabbleGraph(prompts, [[0]] * len(prompts), vocabulary, draw(st.integers(0, 2**63)), meta)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for m in draw(st.lists(st.integers(1, 20), max_size=3)):
        spans = [rng.integers(0, 5, rng.integers(0, 4)).tolist() for _ in range(m)]
        graph.add(Born.of_spans(rng.integers(0, graph.size, m), spans, -rng.random(m)))
    for name in FREE:
        column = getattr(graph, name)
        column[:] = np.frombuffer(rng.bytes(column.nbytes), column.dtype)
    for name, most in (("status", max(Status)), ("gate", max(Gate)), ("flags", sum(Flag))):
        getattr(graph, name)[:] = rng.integers(0, most + 1, graph.size)
    for name in ("count", "draws", "born", "died", "state_key"):
        getattr(graph, name)[:] = rng.integers(0, np.iinfo(getattr(graph, name).dtype).max, graph.size)
    graph.merges = Pairs(rng.integers(0, graph.size, (rng.integers(0, 4), 2)))
    graph.failures = draw(st.lists(st.dictionaries(st.text(), JSON, max_size=2), max_size=2))
    graph.round = draw(st.integers(0, 10**6))
    return graph


@given(graphs())
@settings(deadline=None)
def test_a_saved_graph_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, graph: BabbleGraph
) -> None:
    path = tmp_path_factory.getbasetemp() / "graph.safetensors"
    save(graph, path)
    found = load(path)
    assert bits(found) == bits(graph)
    assert (found.prompts, found.merges, found.round) == (graph.prompts, graph.merges, graph.round)
    assert (found.meta, found.failures) == (graph.meta, graph.failures)
    assert [found.text(i) for i in range(found.size)] == [graph.text(i) for i in range(graph.size)]
    assert [found.children(i) for i in range(found.size)] == [graph.children(i) for i in range(graph.size)]
    assert found.depth.tolist() == [len(graph.path(i)) - 1 for i in range(graph.size)]
    first = path.read_bytes()
    save(found, path)
    assert path.read_bytes() == first


def test_a_loaded_graph_grows_on(tmp_path: Path) -> None:
    graph, path = example(), tmp_path / "graph"
    save(graph, path)
    found = load(path)
    for grown in (graph, found):
        for _ in range(9):
            grown.add(Born.of_spans(np.arange(grown.size), [[1, 2]] * grown.size, np.zeros(grown.size)))
    assert bits(found) == bits(graph)


def test_a_file_that_is_written_anew_stays_as_private_as_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.chmod(0o600)
    assert saved(tmp_path).stat().st_mode & 0o777 == 0o600


def test_only_the_bytes_of_tokens_that_occur_are_stored(tmp_path: Path) -> None:
    graph = BabbleGraph(["p"], [[3]], {i: bytes([i]) for i in range(256)})
    graph.add(Born.of_spans([0], [[200]], [-1.0]))
    save(graph, tmp_path / "graph")
    assert load(tmp_path / "graph").vocabulary == {3: b"\x03", 200: b"\xc8"}


def test_numbers_of_numpy_in_meta_become_plain(tmp_path: Path) -> None:
    graph = example()
    graph.meta = {"a": np.float32(0.5), "b": np.int64(3), "c": (1, 2), 4: True}
    save(graph, tmp_path / "graph")
    assert load(tmp_path / "graph").meta == {"a": 0.5, "b": 3, "c": [1, 2], "4": True}


@pytest.mark.parametrize("meta", [{"a": math.nan}, {"a": math.inf}, {"a": object()}, {("a", 1): 2}])
def test_meta_that_is_not_plain_json_is_refused_and_the_old_file_kept(
    meta: dict[Any, Any], tmp_path: Path
) -> None:
    path = saved(tmp_path)
    before, graph = path.read_bytes(), example()
    graph.meta = meta
    with pytest.raises(BadInput, match="meta and failures must be plain JSON, got "):
        save(graph, path)
    assert path.read_bytes() == before


def test_a_token_without_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got 7: add it"):
        save(BabbleGraph(["p"], [[7]], {}), tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_nothing_could_read_back_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_file, "MAX_HEADER_BYTES", 100)
    with pytest.raises(BadInput, match="at most 100 bytes"):
        save(example(), tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("?")]
)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    call: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before, larger = path.read_bytes(), example()
    larger.add(Born.of_spans([0], [[1]], [-1.0]))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(BadInput if isinstance(error, OSError) else type(error)) as caught:
        save(larger, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(error, OSError):
        assert "No space left" in one_line(caught.value)


def test_a_path_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    file = saved(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    for path in (tmp_path, tmp_path / "no" / "graph", file / "graph", tmp_path / "pipe", f"{tmp_path}/a\0b"):
        with pytest.raises(BadInput) as caught:
            save(example(), path)
        assert "writable file" in one_line(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_a_path_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "a\nb", tmp_path / "pipe", f"{tmp_path}/a\0b"):
        with pytest.raises(BadInput) as caught:
            load(path)
        assert not isinstance(caught.value, GraphFileError)
        one_line(caught.value)


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    save(example(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert bits(load(tmp_path / "file")) == bits(example())


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    assert saved(tmp_path).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    data, chance = path.read_bytes(), random.Random(0)
    for length in [0, 1, 7, 8, 9, len(data) - 1, *chance.sample(range(len(data)), 50)]:
        path.write_bytes(data[:length])
        refusal(path)
    path.write_bytes(data + b"x")
    refusal(path)


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Of a JSON header a few bits may differ without another meaning, such as the case of the E in 1e-9."""
    path = saved(tmp_path)
    data, chance, harmless = path.read_bytes(), random.Random(0), 0
    header = 8 + int.from_bytes(data[:8], "little")
    for at in [*chance.sample(range(header), 600), *chance.sample(range(header, len(data)), 300)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        try:
            found = load(path)
        except GraphFileError as error:
            one_line(error)
        else:
            harmless += 1
            assert at < header
            assert (bits(found), found.prompts, found.meta) == (
                bits(example()),
                example().prompts,
                example().meta,
            )
    assert harmless < 30


def test_swapped_columns_are_refused(tmp_path: Path) -> None:
    def swap(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["log_p_f"], tensors["log_q"] = tensors["log_q"], tensors["log_p_f"]

    graph = example()
    graph.log_q[:] = 1
    assert "digest" in refusal(forged(saved(tmp_path, graph), swap, sign=False))


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    for data in (b"", b"PK\x03\x04" * 100, b"\x89PNG\r\n\x1a\n" + bytes(99), b'{"a": 1}', os.urandom(1000)):
        path.write_bytes(data)
        assert "safetensors" in refusal(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path)
    assert "must have a babblegraph header" in refusal(path)
    safetensors.numpy.save_file({"weight": np.zeros(3)}, path, {"format": "pt"})
    assert "must have a babblegraph header" in refusal(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"version": NaN}', "[" * 100_000, '{"version": true}', "{}"]
)
def test_a_header_that_is_no_header_is_refused(text: str, tmp_path: Path) -> None:
    safetensors.numpy.save_file({"parent": np.zeros(3, np.int32)}, tmp_path / "file", {"babblegraph": text})
    assert "header" in (message := refusal(tmp_path / "file")) or "version" in message


def test_a_newer_version_says_what_to_install(tmp_path: Path) -> None:
    def newer(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        header["version"] = graph_file.FORMAT + 1
        tensors["novelty"] = np.zeros(1)

    assert refusal(forged(saved(tmp_path), newer)).endswith("got 2: install a newer babblegraph")


HEADERS: dict[str, tuple[str, Any]] = {
    "no prompts": ("prompts", []),
    "prompts of numbers": ("prompts", [1, 2]),
    "prompts as one text": ("prompts", "pq"),
    "more prompts than nodes": ("prompts", ["p"] * 99),
    "one prompt more": ("prompts", ["p", "q", "r"]),
    "one prompt less": ("prompts", ["p"]),
    "no vocabulary": ("vocabulary", None),
    "a token without bytes": ("vocabulary", {"0": "a", "2": "b"}),
    "bytes above latin-1": ("vocabulary", {"0": "\u0100", "1": "a", "2": "b"}),
    "a token that is no number": ("vocabulary", {"zero": "a", "1": "a", "2": "b"}),
    "a token out of all ranges": ("vocabulary", {"9" * 30: "a", "1": "a", "2": "b"}),
    "a negative round": ("round", -1),
    "a round that is no number": ("round", True),
    "failures that are none": ("failures", [1]),
    "meta that is none": ("meta", []),
    "another digest": ("digest", "0" * 32),
    "no digest": ("digest", None),
    "a number beyond floats": ("meta", {"a": 123456789.5}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_with_wrong_content_is_refused(case: str, tmp_path: Path) -> None:
    name, value = HEADERS[case]

    def damage(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        header[name] = value

    path = forged(saved(tmp_path), damage, sign=name != "digest")
    if case == "a number beyond floats":
        path.write_bytes(path.read_bytes().replace(b"123456789.5", b"1234567e999"))
    refusal(path)


ROWS: dict[str, list[tuple[int, int]]] = {  # column: (node, value) that break a rule
    "parent": [(2, 2), (2, 5), (2, -2), (0, 1), (2, -1), (1, 0), (5, 2**31 - 1)],
    "root": [(0, 1), (2, 1), (5, -1), (5, 99)],
    "start": [(2, -1), (2, 99), (2, -(2**63))],
    "stop": [(5, 99), (5, 0), (2, 2**63 - 1)],
    "length": [(0, 2), (5, 0), (5, -1)],
    "status": [(5, max(Status) + 1), (5, 255)],
    "gate": [(5, max(Gate) + 1)],
    "flags": [(5, sum(Flag) + 1)],
    "count": [(5, -1)],
    "draws": [(5, -1)],
    "born": [(5, -1)],
    "died": [(5, -2)],
    "state_key": [(5, -2)],
    "tokens": [(0, 99), (0, -1)],
}


@pytest.mark.parametrize(("name", "at", "value"), [(n, *row) for n, rows in ROWS.items() for row in rows])
def test_a_row_that_breaks_a_rule_is_refused_by_name(name: str, at: int, value: int, tmp_path: Path) -> None:
    def damage(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors[name][at] = value

    message = refusal(forged(saved(tmp_path), damage))
    assert "digest" not in message
    assert str(value) in message or name in ("start", "stop", "tokens")


@pytest.mark.parametrize("merge", [(0, 6), (-1, 0), (0, 2**31 - 1)])
def test_a_merge_with_a_node_that_is_not_there_is_refused(merge: tuple[int, int], tmp_path: Path) -> None:
    def damage(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["merges"] = np.array([merge], np.int32)

    assert "merges must be of nodes" in refusal(forged(saved(tmp_path), damage))


@pytest.mark.parametrize(
    "name", [*sorted(COLUMNS.keys() - graph_file.LINKS), "tokens", "token_log_q", "merges"]
)
def test_a_column_that_is_missing_or_of_another_type_length_or_shape_is_refused(
    name: str, tmp_path: Path
) -> None:
    changes: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
        "no column may be missing": lambda column: None,
        f"{name} must have the type": lambda column: column.view(np.uint16),
        f"{name} must have .*(dimension|shape)": lambda column: column[None, :, None],
    }
    if name != "merges":  # any number of merges is right
        changes["must have .* rows|there must be"] = lambda column: (
            column[:-1] if name != "parent" else column[:1]
        )
    for rule, change in changes.items():

        def damage(header: dict[str, Any], tensors: dict[str, Any], change: Any = change) -> None:
            column = change(tensors.pop(name))
            if column is not None:
                tensors[name] = np.ascontiguousarray(column)

        with pytest.raises(GraphFileError, match=rule):
            load(forged(saved(tmp_path), damage))


def test_an_unknown_column_is_refused(tmp_path: Path) -> None:
    def damage(header: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["first_child"] = np.zeros(6, np.int32)

    assert "no column may be unknown, got ['first_child']" in refusal(forged(saved(tmp_path), damage))


def test_reading_and_writing_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from babblegraph import export, graph_file; graph = graph_file.load(sys.argv[1]);"
        "export.to_dot(graph); assert not {'torch', 'transformers', 'rich'} & sys.modules.keys()"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(graph_file.__file__).parent.parent)}
    command = [sys.executable, "-W", "error", "-c", code, str(saved(tmp_path))]
    subprocess.run(command, check=True, timeout=120, env=here)


def example() -> BabbleGraph:
    """Two trees, six nodes."""
    graph = BabbleGraph(
        ["pé", "q"], [[0], [0, 1]], {0: b"a", 1: b"\xff", 2: b'"'}, 5, {"model": "m", "t": 1e-9}
    )
    graph.add(Born.of_spans([0, 1, 0], [[1], [2, 2], []], [-1.0, -2.0, -3.0]))
    graph.add(Born.of_spans([2], [[0, 1, 2]], [-1.5]))
    graph.merges.append((4, 2))
    return graph


def saved(folder: Path, graph: BabbleGraph | None = None) -> Path:
    save(graph or example(), folder / "graph.safetensors")
    return folder / "graph.safetensors"


def forged(path: Path, damage: Callable[[dict[str, Any], dict[str, Any]], None], sign: bool = True) -> Path:
    """Damages a file as someone would who knows how to make its digest right again."""
    with safetensors.safe_open(path, framework="np") as opened:
        header = json.loads(opened.metadata()["babblegraph"])
    tensors = safetensors.numpy.load_file(path)
    damage(header, tensors)
    if sign:
        header.pop("digest")
        header["digest"] = graph_file._digest(header, tensors)
    safetensors.numpy.save_file(tensors, path, {"babblegraph": json.dumps(header)})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(GraphFileError) as caught:
        load(path)
    assert path.name in str(caught.value)
    return one_line(caught.value)


def one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message
    assert ", got " in message
    assert len(message) < 400
    return message


def bits(graph: BabbleGraph) -> dict[str, bytes]:
    columns = {name: getattr(graph, name).tobytes() for name in COLUMNS}
    return {**columns, "tokens": graph.tokens.tobytes(), "token_log_q": graph.token_log_q.tobytes()}
