"""What the meter says of a search is what a counter wrapped round the model sees, for every strategy."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from marks import slow_but

import babblegraph as bg
from babblegraph.scoring import JudgeValue
from babblegraph.strategies import STRATEGIES

PROMPTS = ["3 5 7 11>24\n", "2 3 4 12>24\n"]  # of one length: padding is no token


@contextmanager
def counted(model):
    """Tokens that go into the model, seen at its embedding."""
    seen = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    try:
        yield seen
    finally:
        hook.remove()


@pytest.fixture(scope="module")
def babbler():
    torch.set_num_threads(1)
    return bg.Babbler.embedded()


@pytest.mark.parametrize("name", slow_but(["babble", "frontier", "puct"], STRATEGIES))
@pytest.mark.parametrize("judged", slow_but([True], [False, True]))
def test_every_token_that_goes_into_the_model_is_counted_once(babbler, name, judged):
    value = JudgeValue(babbler) if judged else None
    with counted(babbler.model) as seen:
        result = bg.babble(
            babbler, PROMPTS, task=bg.Countdown(), value=value, strategy=STRATEGIES[name](), budget=120
        )
    spent = result.spent
    assert sum(seen) == spent.forwarded + spent.prefilled + spent.scored
    assert 0 < spent.sampled <= 240


def test_a_judge_with_words_of_its_own_is_counted_as_scored(babbler):
    value = JudgeValue(babbler, template=":", good="y", bad="n")
    with counted(babbler.model) as seen:
        one = STRATEGIES["best-first"](
            children=1
        )  # one node a round: rows of several lengths would be padded
        result = bg.babble(babbler, PROMPTS[:1], task=bg.Countdown(), value=value, strategy=one, budget=120)
    assert result.spent.scored > 0
    assert sum(seen) == result.spent.forwarded + result.spent.prefilled + result.spent.scored


@pytest.mark.parametrize("name", STRATEGIES)
def test_sampled_tokens_are_the_spans_of_the_trie(babbler, name):
    """Tokens of all spans, those that siblings begin with alike counted once."""
    graph = bg.babble(babbler, PROMPTS, task=bg.Countdown(), strategy=STRATEGIES[name](), budget=120).graph
    for tree in range(graph.trees):
        paths = {tuple(graph.path_tokens(i).tolist()) for i in np.flatnonzero(graph.root == tree)}
        prefixes = {p[:n] for p in paths for n in range(int(graph.length[tree]) + 1, len(p) + 1)}
        sampled = graph.meta["spent"]["counts"]["sampled"][tree]
        assert (
            len(prefixes) <= sampled if name == "stochastic-beam" else len(prefixes) == sampled
        )  # a race has losers


def test_the_peak_of_slots_is_never_below_what_one_text_needs(babbler):
    result = bg.babble(babbler, PROMPTS[:1], task=bg.Countdown(), strategy=STRATEGIES["puct"](), budget=200)
    longest = int(result.graph.length.max())
    assert longest - 1 <= result.spent.peak_slots <= len(PROMPTS[0]) + 200
