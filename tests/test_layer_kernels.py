"""What a layer does to single numbers, by the GPU's kernels: on a GPU, or where triton is in its interpreter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from marks import NEEDS_TRITON
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

CUDA = torch.cuda.is_available()
pytestmark = NEEDS_TRITON
DEVICE = torch.device("cuda" if CUDA else "cpu")
KINDS = pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(
            torch.bfloat16, marks=pytest.mark.skipif(not CUDA, reason="the interpreter has no bf16")
        ),
        torch.float16,
    ],
    ids=["fp32", "bf16", "fp16"],
)


def random(*size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def layouts(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    together = random(5, 1, 160, dtype=dtype)
    return {
        "whole": random(5, 3, 24, dtype=dtype),
        "rows": random(7, 1000, dtype=dtype),
        "a part of a product": together[..., 16:112].view(5, 1, 6, 16),
        "heads first": random(2, 3, 4, 16, dtype=dtype).transpose(1, 2)[:1],
        "many rows": random(3000, 1, 8, dtype=dtype),
    }


@KINDS
@pytest.mark.parametrize("layout", layouts(torch.float32))
def test_a_norm_by_the_kernel_is_that_of_the_model(layout, dtype):
    from babblegraph.lm.layer_kernels import fits, rms_norm

    x = layouts(dtype)[layout]
    norm = LlamaRMSNorm(x.shape[-1], eps=1e-5).to(DEVICE, dtype)
    torch.nn.init.normal_(norm.weight)
    assert fits(x)
    with torch.no_grad():
        found, told = rms_norm(x, norm.weight, 1e-5), norm(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found, told, rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert float((found == told).double().mean()) > (0.5 if dtype == torch.float32 else 0.98)
    operator = F.rms_norm(x, [x.shape[-1]], norm.weight, 1e-5)
    torch.testing.assert_close(found, operator, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)


def test_what_lies_otherwise_is_not_read():
    from babblegraph.lm.layer_kernels import fits, rms_norm

    x = torch.zeros(4, 5, 6, 8)
    with pytest.raises(ValueError, match="two strides at most"):
        rms_norm(x[:, 1:3, :4], torch.ones(8), 1e-5)
    assert fits(x)
    assert fits(x[:, 1])
    assert fits(x[:, :, 2])
    assert fits(x[..., :4])
    assert not fits(x[:, 1:3, :4])
    assert not fits(x.transpose(2, 3))
    assert not fits(x[:0])
    assert not fits(x[0, 0, 0])


@KINDS
@pytest.mark.parametrize("size", [8, 24, 128])
@pytest.mark.parametrize(("rows", "length"), [(3, 1), (2, 5), (40, 1)])
def test_queries_and_keys_are_turned_as_the_model_turns_them(size, rows, length, dtype):
    from babblegraph.lm.layer_kernels import turn

    together = random(rows, length, 9 * size, dtype=dtype)  # six heads of queries, two of keys, one of values
    query = together[..., : 6 * size].view(rows, length, 6, size).transpose(1, 2)
    key = together[..., 6 * size : 8 * size].view(rows, length, 2, size).transpose(1, 2)
    angle = 6 * torch.rand(rows, length, size, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    for given in ((cos, sin), (cos[:1], sin[:1])):
        found, told = turn(query, key, *given), apply_rotary_pos_emb(query, key, *given)
        for ours, theirs in zip(found, told, strict=True):
            assert ours.shape == theirs.shape
            if dtype == torch.float32:  # where a product and a sum may be one operation
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
            else:
                assert torch.equal(ours, theirs)
