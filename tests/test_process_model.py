"""A process reward model, templates and pilot scales against slow twins: one text, one forward pass, no padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_reward_model import SMALL, TOKENIZER, classifier
from test_reward_model import graph as graph  # a fixture
from tiny_models import byte_tokenizer, with_loud_weights
from transformers import BertConfig, BertForTokenClassification, LlamaConfig, LlamaForTokenClassification

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.scoring import ProcessModelValue, RewardModelValue
from babblegraph.status import Flag

STEPS = ["One and one.\nIs two", ".\n", " good\nbad\n\nThe end", "no step yet"]
HOW = {"min": np.min, "product": np.prod, "mean": np.mean, "last": lambda steps: steps[-1]}


def token_classifier(family, labels):
    special = {"pad_token_id": TOKENIZER.pad_token_id, "bos_token_id": None, "eos_token_id": None}
    if family == "bert":
        model = BertForTokenClassification(BertConfig(num_labels=labels, **SMALL, **special))
    else:
        config = LlamaConfig(num_labels=labels, num_key_value_heads=1, **SMALL, **special)
        model = LlamaForTokenClassification(config)
    return with_loud_weights(model, seed=2)


@pytest.fixture
def steps_graph(graph):
    for parent in (0, 1, 2):
        spans = [TOKENIZER(t)["input_ids"] for t in STEPS]
        graph.add(Born.of_spans([parent] * len(spans), spans=spans, log_q=[-1.0] * len(spans)))
    return graph


def meter_of(graph):
    return Meter(Budget(tokens=1), graph.trees)


def by_hand(model, graph, node, aggregate, separator="\n", before="{}"):
    encode = lambda text: TOKENIZER(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    found = []
    tokens = encode(before.format(graph.prompt(node)))
    for step in graph.text(node).split("\n"):
        if not step:
            continue
        tokens = tokens + encode(step) + encode(separator)
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].double()
        found.append((logits, len(tokens) - 1))
    if not found:
        return 1.0, 0
    whole = found[-1][0]  # bidirectional models see later steps too
    steps = [
        float(torch.sigmoid(whole[at, 0]) if whole.shape[1] == 1 else whole[at].softmax(-1)[-1])
        for _, at in found
    ]
    return HOW[aggregate](steps), len(tokens)


@pytest.mark.parametrize("aggregate", HOW)
@pytest.mark.parametrize(("family", "labels"), [("llama", 1), ("llama", 2), ("bert", 3)])
def test_a_saved_token_classifier_values_each_text_as_if_alone(
    family, labels, aggregate, steps_graph, tmp_path
):
    model, ids = token_classifier(family, labels), np.arange(steps_graph.size)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    meter = meter_of(steps_graph)
    value = ProcessModelValue.from_pretrained(tmp_path, aggregate=aggregate, batch_size=4)
    values = value(steps_graph, ids, meter)
    twins = [by_hand(model, steps_graph, int(i), aggregate) for i in ids]
    np.testing.assert_allclose(values, [v for v, _ in twins], atol=1e-5)
    assert values.std() > 0.01
    counted = np.bincount(steps_graph.root, [n for _, n in twins])
    assert meter.counts["scored"].tolist() == counted.tolist()


def test_the_separator_is_the_reward_models_own(steps_graph):
    model, ids = token_classifier("llama", 2), np.flatnonzero(steps_graph.length < 20)
    value = ProcessModelValue(model, TOKENIZER, separator=" 🙂!", template="1 {prompt}\n")
    twins = [by_hand(model, steps_graph, int(i), "min", " 🙂!", "1 {}\n")[0] for i in ids]
    np.testing.assert_allclose(value(steps_graph, ids, meter_of(steps_graph)), twins, atol=1e-5)


def test_blank_lines_are_no_steps_whatever_they_are_made_of(steps_graph):
    value = ProcessModelValue(token_classifier("llama", 1), TOKENIZER)
    assert value._laid_out("1+1?", "a\n \n\t\nb\n") == value._laid_out("1+1?", "a\nb\n")
    assert value._laid_out("1+1?", " \n")[1] == []


def test_a_text_that_is_too_long_fails_alone(steps_graph):
    long = TOKENIZER(" good" * 60)["input_ids"]
    (node,) = steps_graph.add(Born.of_spans([0], spans=[long], log_q=[-1.0]))
    ids = np.array([4, node])
    values = ProcessModelValue(token_classifier("bert", 2), TOKENIZER)(
        steps_graph, ids, meter_of(steps_graph)
    )
    assert np.isnan(values).tolist() == [False, True]
    assert steps_graph.flags[node] & Flag.SCORER_FAILED
    (failure,) = steps_graph.failures
    assert failure["node"] == node
    assert failure["error"].startswith("the process reward model reads ")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"aggregate": "max"}, "one of min, product, mean, last"),
        ({"separator": ""}, "must not be empty"),
        ({"template": "no place"}, "place {prompt}"),
    ],
)
def test_wrong_options_are_refused(options, rule):
    with pytest.raises(BadInput, match=rule):
        ProcessModelValue(token_classifier("llama", 2), TOKENIZER, **options)


def test_a_folder_of_another_kind_is_refused_in_one_line(tmp_path):
    classifier("llama", 1).save_pretrained(tmp_path)
    token_classifier("llama", 2).save_pretrained(tmp_path / "other")
    for folder in (tmp_path, tmp_path / "other"):
        TOKENIZER.save_pretrained(folder)
    with pytest.raises(BadInput, match="sequence classifier") as caught:
        RewardModelValue.from_pretrained(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("saved", "kind", "fix"),
    [
        (token_classifier("llama", 2), RewardModelValue, "a sequence classifier.*--process-model"),
        (classifier("llama", 1), ProcessModelValue, "a token classifier.*--reward-model"),
    ],
)
def test_a_reward_model_of_the_other_kind_is_refused_at_load(saved, kind, fix, tmp_path):
    """Their heads have one name and may have one shape, so that their weights fit."""
    saved.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=fix) as caught:
        kind.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_template_of_its_own_is_what_the_reward_model_reads(graph):
    model, ids = classifier("llama", 1, reads=96), np.arange(graph.size)
    value = RewardModelValue(model, TOKENIZER, template="Q {prompt}? A {text}!")
    found = value(graph, ids, meter_of(graph))
    for i, v in zip(ids.tolist(), found, strict=True):
        text = f"Q {graph.prompt(i)}? A {graph.text(i)}!"
        with torch.no_grad():
            inputs = TOKENIZER(text, return_tensors="pt")
            logit = model(**inputs).logits[0, 0].double()
        assert v == pytest.approx(float(torch.sigmoid(logit)), abs=1e-5)


def test_a_chat_template_is_the_tokenizers_own(graph):
    tokenizer, model = byte_tokenizer(), classifier("llama", 1, reads=96)
    with pytest.raises(BadInput, match="chat template"):
        RewardModelValue(model, tokenizer, template="chat")
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    ids = np.arange(graph.size)
    found = RewardModelValue(model, tokenizer, template="chat")(graph, ids, meter_of(graph))
    for i, v in zip(ids.tolist(), found, strict=True):
        text = f"<turn>user: {graph.prompt(i)}<turn>assistant: {graph.text(i)}"
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            logit = model(**inputs).logits[0, 0].double()
        assert v == pytest.approx(float(torch.sigmoid(logit)), abs=1e-5)


def test_a_pilot_sample_brings_rewards_to_mean_zero_and_deviation_one(graph):
    value = RewardModelValue(classifier("llama", 1), TOKENIZER)
    texts = [(graph.prompt(i), graph.text(i)) for i in range(graph.size)]
    scaled, ids = value.pilot(texts), np.arange(graph.size)
    v = scaled(graph, ids, meter_of(graph))
    z = np.log(v) - np.log1p(-v)
    assert z.mean() == pytest.approx(0, abs=1e-9)
    assert z.std() == pytest.approx(1, abs=1e-9)
    before = value(graph, ids, meter_of(graph))
    assert (np.argsort(before) == np.argsort(v)).all()
    with pytest.raises(BadInput, match="pilot"):
        value.pilot(texts[:1])


@pytest.mark.parametrize("kind", ["outcome", "process"])
def test_a_text_for_which_the_model_gives_no_numbers_fails_alone(kind, steps_graph):
    model = classifier("llama", 1, reads=96) if kind == "outcome" else token_classifier("llama", 1)
    bad = TOKENIZER("🙂", add_special_tokens=False)["input_ids"][0]
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = torch.nan
    value = (RewardModelValue if kind == "outcome" else ProcessModelValue)(model, TOKENIZER)
    ids = np.array([i for i in range(steps_graph.size) if len(steps_graph.path_tokens(i)) < 40])
    values = value(steps_graph, ids, meter_of(steps_graph))
    unknown = np.array([bad in steps_graph.path_tokens(int(i)) for i in ids])
    assert unknown.any()
    assert np.isnan(values).tolist() == unknown.tolist()
    failures = steps_graph.failures
    assert {f["node"] for f in failures} == set(ids[unknown].tolist())
    assert all("gives NaN for this text" in f["error"] for f in failures)
