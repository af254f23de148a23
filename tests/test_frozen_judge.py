"""A judge under adapters equals the judge that the base model is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_judge import BAD, GOOD, PROMPTS, by_hand, forest, model_and_tokenizer

from babblegraph.budget import Budget, Meter
from babblegraph.learning import Settings
from babblegraph.learning.generators import Generators
from babblegraph.lm import Babbler
from babblegraph.scoring import JudgeValue

peft = pytest.importorskip("peft")
LORA = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "init_lora_weights": False}
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft itself
TEMPLATES = [" This is", "This story: {text}\nThis is", ""]


def adapted(kind):
    """A babbler whose adapters change what it says, and one of the same weights without any."""
    model, tokenizer = model_and_tokenizer()
    plain, _ = model_and_tokenizer()
    torch.manual_seed(3)
    if kind == "peft":
        model = peft.get_peft_model(model, peft.LoraConfig(**LORA))
    else:
        model.add_adapter(peft.LoraConfig(**LORA))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.normal_(std=0.15)
    options = {"span": 5, "max_new_tokens": 12}
    return Babbler(model, tokenizer, **options), Babbler(plain, tokenizer, **options)


def meter_of(graph):
    return Meter(Budget(tokens=1), graph.trees)


@pytest.mark.parametrize("kind", ["peft", "transformers"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_frozen_judge_under_adapters_equals_the_base(kind, template):
    trained, base = adapted(kind)
    graph = forest(trained)  # grown by the trained model
    ids, words = np.arange(graph.size), (template, [GOOD], [BAD])
    found = JudgeValue(trained, *words, frozen=True)(graph, ids, meter_of(graph))
    told = {" This is": ("", " This is"), "": ("", "")}.get(template, ("This story: ", "\nThis is"))
    space = " " if template else ""
    twins = [by_hand(base, graph, int(i), *told, [space + GOOD], [space + BAD]) for i in ids]
    np.testing.assert_allclose(found, twins, atol=1e-5)
    own = JudgeValue(trained, *words)(graph, ids, meter_of(graph))
    assert np.abs(own - found).max() > 0.01  # the adapters matter
    again = JudgeValue(trained, *words, frozen=True)(graph, ids, meter_of(graph))
    np.testing.assert_allclose(again, found, atol=1e-6)  # and are back where they were


def test_all_that_a_frozen_judge_computes_is_counted_as_scored_and_shared():
    trained, _ = adapted("peft")
    graph, judge = forest(trained), JudgeValue(*(trained, " This is", [GOOD], [BAD]), frozen=True)
    words, first, second = len(trained.tokenizer(" This is")["input_ids"]), meter_of(graph), meter_of(graph)
    depth = graph.depth
    judge(graph, np.flatnonzero(depth == 1), first)
    judge(graph, np.flatnonzero(depth == 2), second)
    for meter in (first, second):
        spent = meter.read()
        assert spent.sampled == spent.forwarded == spent.prefilled == 0
        assert spent.scored > 0
    new = (graph.stop - graph.start)[depth == 2]
    assert second.read().scored <= new.sum() + len(new) * words  # the tokens above were there


def test_what_was_judged_before_is_given_up():
    trained, _ = adapted("peft")
    graph, judge = forest(trained), JudgeValue(*(trained, " This is", [GOOD], [BAD]), frozen=True)
    one, two = np.arange(3, 9), np.arange(6, 12)
    judge(graph, one, meter_of(graph))
    judge(graph, two, meter_of(graph))
    assert set(judge.babbler.trie(graph).held) == set(two.tolist())


def test_a_model_without_adapters_is_its_own_base():
    babbler = Babbler(*model_and_tokenizer(), span=5, max_new_tokens=12)
    graph = forest(babbler, PROMPTS)
    ids = np.arange(graph.size)
    frozen, plain = (JudgeValue(babbler, " This is", GOOD, BAD, frozen=f) for f in (True, False))
    np.testing.assert_allclose(
        frozen(graph, ids, meter_of(graph)), plain(graph, ids, meter_of(graph)), atol=1e-6
    )


def test_a_judge_stays_the_base_while_adapters_in_its_model_learn():
    """As `train --lora --judge` has it: the judge is made before the adapters are put in, without peft's wrapper."""
    model, tokenizer = model_and_tokenizer()
    plain = Babbler(model_and_tokenizer()[0], tokenizer, span=5, max_new_tokens=12)
    trained = Babbler(model, tokenizer, span=5, max_new_tokens=12)
    graph = forest(plain)
    ids, words = np.arange(graph.size), (" This is", [GOOD], [BAD])
    frozen = JudgeValue(trained, *words, frozen=True)
    before = frozen(graph, ids, meter_of(graph))
    generators = Generators(trained, Settings(mode="lora", lora_rank=4))
    with torch.no_grad():
        for name, weight in generators.learner.named_parameters():
            if "lora" in name:
                weight.normal_(std=0.15)
    learning = [p.requires_grad for p in generators.learner.parameters()]
    np.testing.assert_allclose(frozen(graph, ids, meter_of(graph)), before, atol=1e-6)
    grown = forest(generators.current)
    both = (JudgeValue(generators.current, *words), frozen)
    own, base = (judge(grown, np.arange(grown.size), meter_of(grown)) for judge in both)
    assert np.abs(own - base).max() > 0.01
    assert learning == [p.requires_grad for p in generators.learner.parameters()]
    with generators.as_base():  # one block within the other
        np.testing.assert_allclose(frozen(graph, ids, meter_of(graph)), before, atol=1e-6)
    np.testing.assert_allclose(both[0](grown, np.arange(grown.size), meter_of(grown)), own, atol=1e-6)
