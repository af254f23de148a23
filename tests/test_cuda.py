"""The same on a GPU, where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import tiny_llama

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.scoring import JudgeValue, likelihood
from babblegraph.status import Status

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_logits_on_cuda_equal_plain_forward_on_every_node_of_a_search(characters):
    model = tiny_llama(characters).cuda()
    babbler = bg.Babbler(model, characters, span=4, max_new_tokens=20)
    result = bg.babble(babbler, ["3 5>8\n", "7"], value=likelihood, budget=300)
    graph, meter = result.graph, Meter(Budget(tokens=1), 2)
    ids = np.flatnonzero(graph.status <= Status.EXPANDED)
    ours = babbler.next_logits(graph, ids, meter).cpu()
    for row, node in zip(ours, ids, strict=True):
        tokens = torch.as_tensor(graph.path_tokens(int(node)).astype(np.int64)).cuda()[None]
        with torch.no_grad():
            plain = model(input_ids=tokens, use_cache=False).logits[0, -1].float().cpu()
        assert float((row - plain).abs().max() / plain.abs().max()) < 1e-4


def test_the_judge_runs_on_cuda(characters):
    babbler = bg.Babbler(tiny_llama(characters).cuda(), characters, span=4, max_new_tokens=12)
    result = bg.babble(babbler, "1 2", value=JudgeValue(babbler, "=", ["y"], ["n"]), budget=80)
    assert result.spent.scored > 0


def test_generate_on_cuda_draws_what_it_draws_on_the_cpu(characters):
    characters.padding_side = "left"
    inputs = characters(["1+2=3\n4", "7*8"], return_tensors="pt", padding=True)
    options = {"max_new_tokens": 6, "budget": 120, "num_return_sequences": 2, "do_sample": True, "top_k": 9}
    options |= {"custom_generate": bg.generate, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    found = tiny_llama(characters).cuda().generate(**inputs.to("cuda"), **options)
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), tiny_llama(characters).generate(**inputs.to("cpu"), **options))
