"""A model whose logits are no numbers: refused at load, and in a search told once, the other texts going on as ever."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from test_decode import both, same
from tiny_models import plain_logits, tiny_llama

import babblegraph as bg
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import NO_PARENT
from babblegraph.lm import Babbler
from babblegraph.lm.invert import BLOCK, Inverse
from babblegraph.protocols import Draws
from babblegraph.scoring import JudgeValue
from babblegraph.strategies import best_of_n, frontier, token_beam
from babblegraph.why_not import why_not

BAD = 3  # what follows this token is NaN


@pytest.fixture
def breaking(characters):
    """A model that the check at load finds nothing wrong with."""
    model = tiny_llama(characters)
    with torch.no_grad():
        model.model.embed_tokens.weight[BAD] = torch.nan
    return model


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_a_model_that_gives_no_finite_numbers_is_refused_at_load(number, characters):
    model = tiny_llama(characters)
    with torch.no_grad():
        model.model.norm.weight[5] = number
    with pytest.raises(BadInput, match=r"finite numbers, 'llama' gives .*: load it in float32 or") as caught:
        Babbler(model, characters)
    assert "\n" not in str(caught.value)


WAYS = {
    "independent": {"strategy": best_of_n(width=16)},
    "systematic": {"strategy": frontier(width=6, keep=8, draws=Draws.SYSTEMATIC), "close": True},
    "distinct": {"strategy": frontier(width=6, keep=8, draws=Draws.DISTINCT)},
    "every token": {"strategy": token_beam(width=30)},
    "babble": {},
}
OPTIONS = {
    "dense": {"engine": "dense"},
    "truncated": {"top_k": 8},
    "processed": {"logits_processor": [lambda ids, scores: scores]},
}


CASES = [*((way, "") for way in WAYS), *(("independent", how) for how in OPTIONS)]


@pytest.mark.parametrize(("way", "options"), CASES)
def test_a_text_that_leads_to_no_numbers_ends_and_the_others_are_what_the_model_says(
    way, options, breaking, characters
):
    babbler = Babbler(breaking, characters, span=3, max_new_tokens=9, **OPTIONS.get(options, {}))
    with pytest.warns(RuntimeWarning, match="got NaN for what follows a text") as told:
        graph = bg.babble(babbler, ["1+2", "7"], budget=120, **WAYS[way]).graph
    assert len(told) == 1
    assert graph.meta["not_numbers"] >= 1
    assert graph.meta["aim"] == "solve" or "NaN for what follows" in why_not(graph)
    ends = np.flatnonzero(graph.first_child == NO_PARENT)
    assert len(ends) > 10
    for node in ends[-8:].tolist():
        tokens, tree = graph.path_tokens(node), int(graph.root[node])
        assert BAD not in tokens[:-1]  # nothing follows it
        log_p = torch.log_softmax(plain_logits(breaking, tokens[:-1]), -1)
        at = np.arange(graph.length[tree], len(tokens))
        assert graph.log_p_g[node] == pytest.approx(float(log_p[at - 1, tokens[at]].sum()), abs=1e-3)


def test_a_prompt_that_leads_to_no_numbers_ends_the_search_and_is_told(breaking, characters):
    babbler = Babbler(breaking, characters, max_new_tokens=9)
    with pytest.warns(RuntimeWarning, match="load it in float32 or bfloat16"):
        result = bg.babble(babbler, str(BAD) + "+", budget=100)
    assert result.text is None


def test_on_a_device_that_draws_by_itself_the_same_texts_end(breaking, characters, monkeypatch):
    def draw(babbler):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            graph = bg.babble(babbler, ["1+2", "3", "7"], strategy=best_of_n(width=24), budget=300).graph
        return graph, len(told)

    (plain, told), (ours, also), flights = both(
        monkeypatch, lambda: Babbler(breaking, characters, span=4, max_new_tokens=12), draw
    )
    assert flights > 0
    assert told == also == 1
    assert plain.meta["not_numbers"] == ours.meta["not_numbers"]
    same(plain, ours)


def test_a_verdict_that_is_no_number_is_unknown_and_noted(breaking, characters):
    babbler = Babbler(breaking, characters, max_new_tokens=9)
    graph = babbler.start([f"1{BAD}+", "1+2"])
    value = JudgeValue(babbler, "", ["1"], ["2"])(graph, np.arange(2), Meter(Budget(tokens=1), 2))
    assert np.isnan(value).tolist() == [True, False]
    assert [failure["node"] for failure in graph.failures] == [0]


@pytest.mark.parametrize("size", [5, BLOCK + 3, 3 * BLOCK])
def test_draws_from_no_numbers_are_some_token(size):
    """They are thrown away, but on a GPU one out of range would end the process."""
    p = torch.full((2, size), torch.nan)
    tokens, _ = Inverse(p).find(torch.tensor([0, 1]), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert ((tokens >= 0) & (tokens < size)).all()


def test_a_base_that_gives_no_numbers_is_told_once_and_there_is_no_estimate_under_it(breaking, characters):
    babbler = Babbler(tiny_llama(characters, seed=1), characters, span=3, max_new_tokens=9, base=breaking)
    with pytest.warns(RuntimeWarning, match="a base must give numbers, got NaN") as told:
        graph = bg.babble(babbler, ["1+2", "7"], strategy=frontier(width=6, keep=8), budget=120).graph
    assert len(told) == 1
    lost = np.isnan(graph.log_p_f)
    after = [BAD in graph.path_tokens(i)[graph.length[graph.root[i]] :][:-1] for i in range(graph.size)]
    assert lost.tolist() == after
    assert graph.meta["base_not_numbers"] >= lost.sum() > 0
    assert not np.isnan(graph.log_p_g).any()
    assert "the base gave NaN" in why_not(graph)
    assert "NaN" not in why_not(graph, under="g")
