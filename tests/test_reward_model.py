"""A reward model against the slow twin: every text by itself, without padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, tiny_llama, with_loud_weights
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm.tokens import TokenBytes
from babblegraph.scoring.reward_model import RewardModelValue
from babblegraph.scoring.rewards import filled

TOKENIZER = byte_tokenizer()
TEXTS = [" there was", " a good little robot.\n", " 🙂", "!", " The numbers are 1 2 3 4 5 6 7 8 9 10."]
SMALL = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}


def classifier(family, labels, reads=48):
    special = {"pad_token_id": TOKENIZER.pad_token_id, "bos_token_id": None, "eos_token_id": None}
    sizes = SMALL | {"max_position_embeddings": reads}
    if family == "bert":
        model = BertForSequenceClassification(BertConfig(num_labels=labels, **sizes, **special))
    elif family == "gpt2":
        config = GPT2Config(num_labels=labels, **{n: s for n, s in sizes.items() if n[0] != "i"}, **special)
        model = GPT2ForSequenceClassification(config)
    else:
        config = LlamaConfig(num_labels=labels, num_key_value_heads=1, **sizes, **special)
        model = LlamaForSequenceClassification(config)
    return with_loud_weights(model, seed=1)


@pytest.fixture
def graph():
    prompts = ["Once upon a time", "This is"]
    graph = BabbleGraph(prompts, [TOKENIZER(p)["input_ids"] for p in prompts], TokenBytes(TOKENIZER))
    for parent in (0, 1, 2):
        spans = [TOKENIZER(t)["input_ids"] for t in TEXTS]
        graph.add(Born.of_spans([parent] * len(spans), spans=spans, log_q=[-1.0] * len(spans)))
    return graph


def one_by_one(model, graph, ids, tokenizer=TOKENIZER):
    values, tokens = [], []
    for i in ids.tolist():
        inputs = tokenizer(graph.prompt(i) + graph.text(i), return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0].double()
        good = torch.sigmoid(logits[0]) if len(logits) == 1 else logits.softmax(-1)[-1]
        values.append(float(good))
        tokens.append(inputs["input_ids"].shape[1])
    return np.array(values), np.array(tokens)


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("labels", [1, 2, 3])
def test_a_saved_classifier_values_each_text_as_if_alone(family, labels, graph, tmp_path):
    model, ids = classifier(family, labels), np.arange(graph.size)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    meter = Meter(Budget(tokens=1), graph.trees)
    values = RewardModelValue.from_pretrained(tmp_path, batch_size=4)(graph, ids, meter)
    twins, tokens = one_by_one(model, graph, ids)
    np.testing.assert_allclose(values, twins, atol=1e-5)
    assert values.std() > 0.01, "the values must tell texts apart"
    assert meter.counts["scored"].tolist() == np.bincount(graph.root, tokens).tolist()
    assert meter.read().forwarded == meter.read().sampled == 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])  # positions from rotations, and counted ones
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_does_not_matter(family, side, graph):
    tokenizer, model, ids = byte_tokenizer(), classifier(family, 1), np.arange(graph.size)
    tokenizer.padding_side = side
    values = RewardModelValue(model, tokenizer)(graph, ids, Meter(Budget(tokens=1), graph.trees))
    np.testing.assert_allclose(values, one_by_one(model, graph, ids)[0], atol=1e-5)


@pytest.mark.parametrize("has_end", [True, False])
def test_a_tokenizer_without_padding_works_too(has_end, graph):
    tokenizer, model, ids = byte_tokenizer(), classifier("llama", 1), np.arange(graph.size)
    twins = one_by_one(model, graph, ids)[0]
    tokenizer.pad_token = None
    if not has_end:
        tokenizer.eos_token = None
    model.config.pad_token_id = None
    values = RewardModelValue(model, tokenizer)(graph, ids, Meter(Budget(tokens=1), graph.trees))
    np.testing.assert_allclose(values, twins, atol=1e-5)


def test_a_padding_id_that_differs_from_the_tokenizers_does_not_matter(graph):
    model, ids = classifier("llama", 1), np.arange(graph.size)
    twins = one_by_one(model, graph, ids)[0]
    model.config.pad_token_id = 7  # a checkpoint may say so; the tokenizer does the padding
    values = RewardModelValue(model, TOKENIZER)(graph, ids, Meter(Budget(tokens=1), graph.trees))
    np.testing.assert_allclose(values, twins, atol=1e-5)


@pytest.mark.parametrize("known_to", ["the model", "nobody"])
def test_a_text_that_ends_with_the_end_of_text_is_read_there_where_there_is_no_padding(known_to):
    tokenizer, pad, model = byte_tokenizer(), TOKENIZER.pad_token_id, classifier("llama", 1)
    tokenizer.pad_token = None
    if known_to == "nobody":
        tokenizer.bos_token = "<turn>"
    model.config.pad_token_id = pad if known_to == "the model" else None
    texts = [("Once", f"{text}<eos>") for text in TEXTS]
    twins = [model(**tokenizer(p + t, return_tensors="pt")).logits.item() for p, t in texts]
    np.testing.assert_allclose(RewardModelValue(model, tokenizer)._rewards(texts)[0], twins, atol=1e-5)


def test_a_prompt_that_speaks_of_templates_is_laid_out_as_it_is():
    assert filled("{prompt}\n{text}", TOKENIZER, "Fill in {text}.", "{prompt}") == "Fill in {text}.\n{prompt}"


def test_a_text_longer_than_the_model_reads_costs_its_node_only(graph):
    long = TOKENIZER(" good" * 60)["input_ids"]
    (node,) = graph.add(Born.of_spans([0], spans=[long], log_q=[-1.0]))
    model, meter = classifier("bert", 2), Meter(Budget(tokens=1), graph.trees)
    values = RewardModelValue(model, TOKENIZER)(graph, np.array([0, node]), meter)
    assert np.isfinite(values).tolist() == [True, False]
    assert graph.failures[0] == {
        "node": node,
        "error": "the reward model reads 48 tokens at most",
        "text": "",
    }
    assert meter.read().scored == graph.length[0]
    pairs = [(graph.prompt(i), graph.text(i)) for i in range(graph.size)]
    known = RewardModelValue(model, TOKENIZER).pilot(pairs[:node])
    assert RewardModelValue(model, TOKENIZER).pilot(pairs).scale == known.scale


def test_no_nodes_no_values(graph):
    value = RewardModelValue(classifier("llama", 1), TOKENIZER)
    assert len(value(graph, np.zeros(0, np.int64), Meter(Budget(tokens=1), graph.trees))) == 0


def test_what_is_no_classifier_is_refused_in_one_line(tmp_path):
    with pytest.raises(BadInput, match="sequence classifier") as caught:
        RewardModelValue.from_pretrained(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)
    tiny_llama(TOKENIZER).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"score\.weight") as caught:  # its head would be random numbers
        RewardModelValue.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
