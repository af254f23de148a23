"""How fast is the babble graph itself, and how much memory does it take, up to a million nodes?

No model: what an expansion brings is made up, and making it is not timed. A row is a way to grow a forest: scores are
the likelihood and the entropy to go, pruning is the strategy's with 256 live nodes, `late` is the speed over the last
ninth, where anything that grows with the forest would show, and `select` one more choice of actions. Seconds are of
the processor, but for files. treequest's bookkeeping grows one node at a time; so does one row of ours. Left out:
what a model costs, which is far more, and the bytes of tokens (8 each).
"""

from __future__ import annotations

import importlib.util
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.graph import BabbleGraph
from babblegraph.randomness import Rng, chain
from babblegraph.scoring import Score, entropy_to_go, likelihood
from babblegraph.status import Status
from babblegraph.strategies import babble, frontier

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report

SPAN, KEEP, WORDS, ENDS = 8, 256, 1000, 0.1  # tokens of a node, live nodes, vocabulary, share of leaves
MILLION = 1_000_000
INSTALL = "treequest: not installed (pip install treequest==0.3.3)"


def main() -> None:
    options = parser(__doc__).parse_args()
    sizes = (1_000, 10_000, 50_000) if options.quick else (10_000, 100_000, MILLION)
    ours("frontier", 1_000, batch=100)  # what is imported when it is first needed is not timed
    rows = [ours(way, size, batch=1_024) for size in sizes for way in ("frontier", "babble")]
    for nodes in (300, 1_000) if options.quick else (1_000, 5_000):
        rows.append(ours("frontier", nodes, batch=1))
        rows += treequests(nodes)
    report("The graph without a model", rows, claims(rows, sizes[-1]), options)


def ours(way, size, batch):
    """Grows a forest of one tree to `size` nodes, then saves and loads it."""
    strategy = {"frontier": frontier(width=4, keep=KEEP), "babble": babble(width=16, keep=KEEP)}[way]
    score, rng, draw = Score(None, likelihood, entropy_to_go), Rng(0), np.random.default_rng(0)
    graph = BabbleGraph(["p"], [[0]], dict.fromkeys(range(WORDS), b"word"))
    meter, total, late = Meter(Budget(tokens=1 << 40), 1), 0.0, []
    while graph.size < size:
        born = made_up(graph, batch, draw)
        start = time.process_time()
        graph.round += 1
        score(graph, graph.add(born), meter)
        strategy.prune(graph, rng)
        seconds = time.process_time() - start
        total += seconds
        if graph.size > 8 / 9 * size:
            late.append(seconds)
    start = time.process_time()
    strategy.select(graph, meter)
    select = time.process_time() - start
    columns = sum(column.nbytes for column in graph._columns.values())
    saved, loaded, megabytes = on_disk(graph)
    return {
        "way": f"babblegraph, {way}, batches of {batch:,}",
        "nodes": graph.size,
        "nodes/s": graph.size / total,
        "nodes/s, late": len(late) * batch / sum(late),
        "select ms": 1e3 * select,
        "bytes/node": columns / graph.size,
        "save s": saved,
        "load s": loaded,
        "file MB": megabytes,
        "peak MiB": peak(),
    }


def made_up(graph, batch, draw):
    """A batch of random children, four below each of the first nodes of the frontier."""
    parents, last = graph.frontier()[: max(batch // 4, 1)], graph.parent[-1]
    if batch == 1 and graph.size > 1 and graph.draws[last] < 4:
        parents = last[None]
    parents = parents if len(parents) else np.zeros(1, np.intp)
    parent = np.repeat(parents, -(-batch // len(parents)))[:batch].astype(np.int32)
    token_log_q = -draw.random((batch, SPAN)).astype(np.float32)
    log_q = token_log_q.sum(1).astype(np.float64)
    ended = draw.random(batch) < ENDS
    expanded, draws = np.unique(parent, return_counts=True)
    return Born(
        parent=parent,
        tokens=draw.integers(0, WORDS, batch * SPAN, np.int32),
        lengths=np.full(batch, SPAN, np.int32),
        token_log_q=token_log_q.reshape(-1),
        log_p_f=log_q,
        log_p_g=log_q,
        log_q=log_q,
        log_inclusion=log_q + np.log(4),
        count=np.ones(batch, np.int32),
        status=np.where(ended, Status.LEAF_END, Status.FRONTIER).astype(np.uint8),
        flags=np.zeros(batch, np.uint8),
        key=chain(graph.key[parent], np.arange(batch)),
        expanded=expanded,
        draws=draws.astype(np.int32),
        parent_flags=np.zeros(len(expanded), np.uint8),
    )


def on_disk(graph):
    """Seconds to save and to load, and the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "graph.bg", time.perf_counter()
        graph.save(path)
        saved = time.perf_counter()
        loaded = BabbleGraph.load(path)
        end = time.perf_counter()
        assert loaded.size == graph.size
        return saved - start, end - saved, path.stat().st_size / 1e6


def peak():
    """The most memory that this process has had so far, interpreter and libraries included."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def treequests(nodes):
    """The same for treequest, one node a step; the ways that take a copy or fit a model grow to 300 nodes only."""
    measured = (
        "nodes/s",
        "nodes/s, late",
        "select ms",
        "bytes/node",
        "save s",
        "load s",
        "file MB",
        "peak MiB",
    )
    nothing = {"nodes": 0, **dict.fromkeys(measured, "")}
    if importlib.util.find_spec("treequest") is None:
        return [{"way": INSTALL, **nothing}]
    import treequest

    name, found = f"treequest {version('treequest')}", []
    for kind, inplace in (("StandardMCTS", True), ("StandardMCTS", False), ("ABMCTSA", True)):
        n = nodes if inplace and kind == "StandardMCTS" else min(nodes, 300)
        algorithm, seconds = getattr(treequest, kind)(), []
        state, generate = algorithm.init_tree(), {"go on": step_at_random(np.random.default_rng(0))}
        for _ in range(n):
            start = time.process_time()
            state = algorithm.step(state, generate, inplace=inplace)
            seconds.append(time.process_time() - start)
        late = seconds[8 * n // 9 :]
        speeds = {"nodes": n, "nodes/s": n / sum(seconds), "nodes/s, late": len(late) / sum(late)}
        way = f"{name}, {kind}, {'in place' if inplace else 'copied'}"
        found.append({"way": way, **nothing, **speeds})
    return found


def step_at_random(draw):
    """What treequest calls to make a child: here a number one larger, and a random score."""
    return lambda number: ((number or 0) + 1, float(draw.random()))


def claims(rows, size):
    """What the README and the issues claim of the largest forest."""
    mine = [r for r in rows if r["nodes"] >= size and "batches of 1,024" in r["way"]]
    slow, wide = min(r["nodes/s"] for r in mine), max(r["bytes/node"] for r in mine)
    disk = max(max(r["save s"], r["load s"]) for r in mine)
    late = max(r["nodes/s"] / r["nodes/s, late"] for r in mine)
    found = [
        claim(f"nodes/s up to {size:,} nodes", slow, ">= 300,000", slow >= 300_000),
        claim("time per node, last ninth ÷ mean", late, "<= 2", late <= 2),
        claim("bytes a node, tokens left out, room to grow included", wide, "<= 160", wide <= 160),
        claim("seconds to save or to load", disk, "<= 10", disk <= 10),
        claim(
            "peak memory of the whole process, MiB",
            mine[-1]["peak MiB"],
            "< 1024",
            mine[-1]["peak MiB"] < 1024,
        ),
    ]
    for r in rows:
        if r["way"].startswith("treequest") and "StandardMCTS, in place" in r["way"]:
            name, theirs = f"treequest's, {r['nodes']:,} nodes in place", r["nodes/s"]
            one = next(
                x["nodes/s"] for x in rows if x["way"].endswith("batches of 1") and x["nodes"] == r["nodes"]
            )
            found.append(claim(f"nodes/s in batches ÷ {name}", slow / theirs, ">= 10", slow >= 10 * theirs))
            found.append(claim(f"nodes/s one by one ÷ {name}", one / theirs, ">= 1", one >= theirs))
    return found


if __name__ == "__main__":
    main()
