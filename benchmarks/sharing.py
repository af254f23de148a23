"""From which size on is it cheaper to attend to a segment once for all rows that share it?

One attention layer, as a decoding step runs it (on a GPU by its kernels, in bf16, captured): R rows share a segment of
n tokens, and each has a tail of its own. Shared, the segment is read where it lies, with the queries of all rows, and
merged; otherwise its tokens are part of every tail. A cell is time shared ÷ time private; the break-even in rows ×
tokens is what `lm.layout.LEAST` holds. It is a constant and not measured at run time, since another choice rounds
differently: the same seed must give the same graph. Left out: several segments in one level, sliding windows.
"""

from __future__ import annotations

import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from babblegraph.lm.attention import trie_attention
from babblegraph.lm.decode import least_room
from babblegraph.lm.layout import LEAST, Layout
from babblegraph.lm.plan import Plan
from babblegraph.lm.store import Store
from babblegraph.lm.tables import Filling, Tables

sys.path.insert(0, str(Path(__file__).parent))
from common import claim, parser, report

HEADS, KEY_HEADS, SIZE, TAIL = 6, 2, 64, 24  # a small Llama's layer; tokens of a row's own
ROWS, TOKENS = (2, 4, 8, 16, 32, 64, 128), (8, 16, 32, 64, 128, 256, 512, 1024)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=15)
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    lines, columns = (ROWS[::3], TOKENS[::3]) if chosen.quick else (ROWS, TOKENS)
    rows, sizes, ratios = [], [], []
    for r in lines:
        cells = {n: ratio(r, n, chosen.device, chosen.repeats) for n in columns}
        rows.append({"rows": r, **{f"{n} tokens": x for n, x in cells.items()}})
        sizes += [r * n for n in cells]
        ratios += cells.values()
    size, paid = np.array(sizes), np.array(ratios)
    least = LEAST[chosen.device]
    shared, private = paid[size >= least], 1 / paid[size < least]
    claims = [
        claim("break-even, rows × tokens", break_even(size, paid), f"LEAST is {least}", True),
        claim(
            "time ÷ best choice, worst cell",
            max(1.0, *shared, *private),
            "<= 1.5",
            max(*shared, *private) <= 1.5,
        ),
        claim(
            "shared ÷ private at the largest cell",
            rows[-1][f"{columns[-1]} tokens"],
            "< 0.5",
            ratios[-1] < 0.5,
        ),
    ]
    report("time with the segment shared ÷ with it in every tail", rows, claims, chosen)


def ratio(rows: int, tokens: int, device: str, repeats: int) -> float:
    """Shared ÷ private, the median of paired runs."""
    ways = [layer(rows, tokens, device, least) for least in (1, sys.maxsize)]
    for way in ways:
        way()
    times = [[clock(way, device) for way in ways] for _ in range(repeats)]
    return statistics.median(shared / private for shared, private in times)


def layer(rows: int, tokens: int, device: str, least: int):
    """One decoding step's attention, ready to run."""
    store, module = Store(torch.device(device), cache_bytes=0), torch.nn.Module()
    module.layer_idx = 0
    trunk = store.take(tokens)
    own = store.take(rows * TAIL).reshape(TAIL, rows).T  # as decoding in step lays them out
    paths = np.concatenate([np.tile(trunk, (rows, 1)), own], 1)
    layout = Layout(paths, np.full(rows, paths.shape[1]), np.ones(rows, np.int64), least)
    if device == "cuda":
        return captured(layout, paths[:, -1])
    draw = torch.Generator().manual_seed(0)
    slots, positions = paths[:, -1:], np.full((rows, 1), paths.shape[1] - 1)
    query, key = (torch.randn(rows, h, 1, SIZE, generator=draw).to(device) for h in (HEADS, KEY_HEADS))

    def run():
        plan = Plan(store, layout, slots, positions)
        for _ in range(4):  # layers that share a plan
            trie_attention(module, query, key, key, None, tree=plan)

    return run


def captured(layout: Layout, newest: np.ndarray):
    """The same by the kernels that decode, replayed as a CUDA graph."""
    from babblegraph.lm import kernels

    draw = torch.Generator("cuda").manual_seed(0)
    tile = kernels.rows_of_an_item(HEADS // KEY_HEADS)
    filling = Filling.of(layout, tile, kernels.items_enough(KEY_HEADS))
    tables = Tables(least_room(filling.room(layout, 1)), torch.device("cuda"), tile)
    tables.fill(layout, filling)
    tables.step(np.zeros(len(newest), np.int64), newest[layout.order])
    size = {"generator": draw, "device": "cuda", "dtype": torch.bfloat16}
    query = torch.randn(tables.room.rows, HEADS, SIZE, **size)
    key = torch.randn(tables.room.rows, KEY_HEADS, SIZE, **size)
    keys, values = (torch.randn(1 << 15, KEY_HEADS, SIZE, **size) for _ in range(2))

    def layers():
        for _ in range(4):
            kernels.attend(query, key, key, keys, values, tables, scale=SIZE**-0.5)

    layers()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layers()
    return partial(_replay, graph, layers)


def _replay(graph: torch.cuda.CUDAGraph, layers: object) -> None:
    """Replays; what the layers read and write is held by them, not by the graph."""
    graph.replay()


def clock(run, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(5):
        run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def break_even(size: np.ndarray, paid: np.ndarray) -> float:
    """The threshold that loses least time, summed over all cells in logs."""
    cost = [np.log(np.where(size >= t, paid, 1.0)).sum() for t in np.unique(size)]
    return float(np.unique(size)[int(np.argmin(cost))])


if __name__ == "__main__":
    main()
