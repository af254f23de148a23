"""What a step does beside the model's own operators: counted, so that it does not creep back.

Of steps through the modules; a program (`lm.traced`) has the same operators.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from babblegraph.budget import Budget, Meter
from babblegraph.lm import Babbler
from babblegraph.lm.products import available
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng

ROWS, SHORT, LONG = 8, 24, 40
PROMPT = "3 5 7 11>24\n"


class Counting(TorchDispatchMode):
    """Counts operators, views among them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def steps():
    """Operators of steps in which eight rows go on side by side: of all of them, and how many steps there were."""
    found = []
    for span in (SHORT, LONG):
        babbler = Babbler.embedded(stop=(), span=span, end_ids=(), trace=False)
        graph = babbler.start([PROMPT] * ROWS)
        babbler.next_logits(graph, np.arange(ROWS), Meter(Budget(tokens=1), ROWS))
        chosen, meter = Chosen(np.arange(ROWS), np.ones(ROWS, int)), Meter(Budget(tokens=10**6), ROWS)
        with Counting() as counted:
            born = babbler.expand(graph, chosen, Rng(3), meter)
        assert (born.lengths == span).all()  # so that every step has all rows
        found.append(counted.calls)
    return found[1] - found[0], LONG - SHORT


def plain(babbler):
    """Operators of one plain forward pass of the model on as many rows of one token."""
    with torch.no_grad(), Counting() as counted:
        babbler.model(torch.full((ROWS, 1), 5), use_cache=False, logits_to_keep=1)
    return counted.calls


def test_a_step_has_few_operators_beside_those_of_the_model(steps):
    """Per layer: two writes to the pools, two reads of tails, and their views; the draw and the rest once a step."""
    calls, count = steps
    babbler = Babbler.embedded()
    layers = babbler.model.config.num_hidden_layers
    own = calls.total() / count - plain(babbler).total()
    assert 4 * layers < own < 18 * layers + 48


def test_a_step_is_one_forward_pass_and_one_call_of_attention_a_layer(steps):
    calls, count = steps
    babbler = Babbler.embedded()
    layers = babbler.model.config.num_hidden_layers
    for name in ("aten.silu.default", "aten.embedding.default"):
        assert calls[name] == count * plain(babbler)[name] > 0
    # queries, keys and values are one product, gate and up another
    products = 4 if available() else 7
    assert calls["aten.mm.default"] == count * (products * layers + 1)
    assert plain(babbler)["aten.mm.default"] == 7 * layers + 1
    assert calls["aten._scaled_dot_product_flash_attention_for_cpu.default"] == count * layers


def test_no_number_is_fetched_by_itself(steps):
    """Each of these waits for the device where there is one."""
    calls, _ = steps
    assert calls["aten._local_scalar_dense.default"] == calls["aten.nonzero.default"] == 0
