"""The GPU's kernels against plain torch, on a GPU or, where triton is installed without one, in its interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import written_out
from marks import NEEDS_TRITON

from babblegraph.lm.decode import Sampler
from babblegraph.lm.layout import Layout
from babblegraph.lm.tables import Filling, Tables
from babblegraph.lm.warp import warper

CUDA = torch.cuda.is_available()
pytestmark = NEEDS_TRITON
DEVICE = torch.device("cuda" if CUDA else "cpu")
SLOTS = 900
SHAPES = {  # heads, heads of keys, d, d_v
    "grouped": (4, 2, 16, 16),
    "three a group": (6, 2, 24, 24),
    "one head of keys": (8, 1, 64, 64),
    "latent": (4, 4, 32, 16),
}
HOW = {
    "plain": {},
    "window": {"window": 50},
    "window of a few": {"window": 3},
    "soft cap": {"softcap": 3.0},
    "sinks": {"sinks": True},
    "window and sinks": {"window": 20, "sinks": True},
}


def paths() -> list[np.ndarray]:
    """Rows that share a trunk, some of them a branch too, and two that share nothing; some of one token."""
    free = np.random.default_rng(0).permutation(np.arange(1, SLOTS))
    trunk, branch, rest = free[:330], free[330:360], list(free[360:])
    found = [
        np.r_[trunk[:n], [rest.pop() for _ in range(own)]] for n, own in [(330, 1), (330, 20), (90, 3)] * 3
    ]
    found += [np.r_[trunk[:200], branch, [rest.pop() for _ in range(2)]] for _ in range(19)]
    return [*found, np.array([rest.pop() for _ in range(40)]), np.array([rest.pop()])]


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("least", "enough"),
    [(2, 1), (64, 1), (10**9, 1), (10**9, 1000)],
    ids=["shared", "largely shared", "not shared", "tails cut"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_kernels_equal_attention_written_out(how, shape, least, enough, dtype, monkeypatch):
    from babblegraph.lm import kernels
    from babblegraph.lm import tables as tables_file

    monkeypatch.setattr(tables_file, "CHUNK", 16 if enough > 1 else tables_file.CHUNK)
    if not CUDA and (dtype != torch.float32 or least == 2):
        pytest.skip("the interpreter has no bf16 product, and takes long over many segments")
    heads, kv_heads, d, d_v = shape
    rows = paths()
    lengths = np.array([len(path) for path in rows])
    padded = np.zeros((len(rows), lengths.max()), np.int64)
    for i, path in enumerate(rows):
        padded[i, : len(path)] = path
    layout = Layout(padded, lengths, np.ones_like(lengths), least)
    tile = kernels.rows_of_an_item(heads // kv_heads)
    monkeypatch.setattr(written_out, "TILE", tile)
    filling = Filling.of(layout, tile, enough)
    assert filling.cut.any() == (enough > 1)
    tables = Tables(filling.room(layout, 4).grown(), DEVICE, tile)
    tables.fill(layout, filling)
    tables.step(np.zeros(len(rows), np.int64), np.array([rows[i][-1] for i in layout.order]))

    draw = torch.Generator().manual_seed(0)

    def random(*size):
        return torch.randn(size, generator=draw).to(DEVICE, dtype)

    size = tables.room.rows
    new = random(size, heads, d), random(size, kv_heads, d), random(size, kv_heads, d_v)
    pools = random(SLOTS, kv_heads, d), random(SLOTS, kv_heads, d_v)
    given = {"scale": d**-0.5, "softcap": None, "window": None} | how
    given["sinks"] = random(heads) if how.get("sinks") else None
    ours, plain = [t.clone() for t in pools], [t.float() for t in pools]
    found = kernels.attend(*new, *ours, tables, **given)[: len(rows)].float()
    given["sinks"] = given["sinks"] if given["sinks"] is None else given["sinks"].float()
    told = written_out.attend(*(t.float() for t in new), *plain, tables, **given)[: len(rows)]
    bound = 5e-6 if dtype == torch.float32 else 2e-2
    assert float((found - told).abs().max()) < bound * float(told.abs().max())
    for pool, other in zip(ours, plain, strict=True):
        assert torch.equal(pool[1:].float(), other[1:])  # slot 0 is padding's


@pytest.mark.parametrize("size", [40, 1000, 70_000])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_kernels_draw_what_inversion_by_operators_draws(size, temperature, dtype):
    from babblegraph.lm.sampling_kernels import pick

    draw, rows = torch.Generator().manual_seed(0), 40
    logits = (4 * torch.randn(rows, size, generator=draw)).to(dtype)
    logits[1, ::2] = -torch.inf
    logits[2], logits[2, 7] = -torch.inf, 1.0
    u = torch.rand(rows, generator=draw, dtype=torch.float64)
    u[:3], u[3] = torch.tensor([0, 1 - 2**-53, 0.5]), 1 - 2**-53
    logits, u = logits.to(DEVICE), u.to(DEVICE)
    found = pick(logits, u, temperature)
    told = Sampler(warper(temperature))(logits.float(), torch.arange(rows, device=DEVICE), u)
    same = found[0] == told[0]
    assert float(same.double().mean()) >= 0.95  # a uniform can stand where two ways of rounding part
    for ours, theirs in zip(found[1:3], told[1:3], strict=True):
        assert float((ours - theirs)[same].abs().max()) < 1e-4
    if temperature != 1:
        assert torch.equal(found[3], told[3])
    assert found[0][2] == 7


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the interpreter
def test_logits_that_are_no_numbers_give_none():
    from babblegraph.lm.sampling_kernels import pick

    logits = torch.zeros(4, 1000, device=DEVICE)
    logits[1, 900], logits[2, 3], logits[3] = torch.nan, torch.inf, torch.nan
    for temperature in (1.0, 0.5):
        u = torch.full((4,), 0.3, dtype=torch.float64, device=DEVICE)
        _, log_g, log_q, _ = pick(logits, u, temperature)
        assert log_g.isnan().tolist() == log_q.isnan().tolist() == [False, True, True, True]
