"""The judge against the slow twin: one plain forward pass over the whole text for each node."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, counting_real_tokens, plain_logits, tiny_llama, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import Babbler
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring.judge import JudgeValue
from babblegraph.status import Flag, Status

PROMPTS = ["Once upon a time", "This is", "The numbers are 1 2 3 4 5 6 7 8 9"]
GOOD, BAD = "good", "bad"


def model_and_tokenizer(context=128):
    tokenizer = byte_tokenizer()
    return tiny_llama(tokenizer, context=context), tokenizer


@pytest.fixture(scope="module")
def babbler():
    return Babbler(*model_and_tokenizer(), span=5, max_new_tokens=12)


def forest(babbler, prompts=PROMPTS, rounds=2):
    graph = babbler.start(prompts)
    for _ in range(rounds):
        ids = graph.frontier()[:6]
        meter = Meter(Budget(tokens=10**6), graph.trees)
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 5)), Rng(0), meter))
    return graph


def by_hand(babbler, graph, node, before, after, good, bad):
    """P(good) / (P(good) + P(bad)) after the text's own tokens; `good` and `bad` are whole words' first tokens."""
    encode = lambda text: babbler.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    tokens = graph.path_tokens(node).tolist()
    if graph.status[node] == Status.LEAF_END and (before or after):
        tokens = tokens[:-1]  # nothing can be asked after the end of the text
    p = plain_logits(babbler.model, encode(before) + tokens + encode(after))[-1].double().softmax(-1)
    g, b = (float(p[sorted({encode(w)[0] for w in words})].sum()) for words in (good, bad))
    return g / (g + b)


CASES = {
    "suffix": (" This is", ("", " This is", [" good"], [" bad"])),
    "suffix without a space": ("This is", ("", " This is", [" good"], [" bad"])),
    "text and suffix": ("{text} This is", ("", " This is", [" good"], [" bad"])),
    "text in the middle": ("This story: {text}\nThis is", ("This story: ", "\nThis is", [" good"], [" bad"])),
    "text at the end": ("This is {text}", ("This is ", "", ["good"], ["bad"])),
    "nothing": ("", ("", "", ["good"], ["bad"])),
}


@pytest.mark.parametrize("case", CASES)
def test_a_judge_equals_a_plain_forward_pass(babbler, case):
    template, told = CASES[case]
    graph = forest(babbler)
    ids = np.arange(graph.size)
    values = JudgeValue(babbler, template, [GOOD], [BAD])(graph, ids, Meter(Budget(tokens=1), graph.trees))
    twins = [by_hand(babbler, graph, int(i), *told) for i in ids]
    np.testing.assert_allclose(values, twins, atol=1e-5)
    assert values.std() > 0.01, "the values must tell nodes apart"


def test_texts_that_have_ended_are_judged_before_their_end(babbler):
    end = babbler.tokenizer.eos_token_id
    graph = babbler.start(["This is"])
    with torch.no_grad():
        babbler.model.lm_head.weight[end] += 0.5  # so that some texts end
    try:
        for _ in range(2):
            ids = graph.frontier()
            meter = Meter(Budget(tokens=10**6), 1)
            graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 12)), Rng(0), meter))
        ended = np.flatnonzero(graph.status == Status.LEAF_END)
        assert len(ended) > 3
        for case in ("suffix", "text in the middle"):
            template, told = CASES[case]
            values = JudgeValue(babbler, template, GOOD, BAD)(graph, ended, Meter(Budget(tokens=1), 1))
            twins = [by_hand(babbler, graph, int(i), *told) for i in ended]
            np.testing.assert_allclose(values, twins, atol=1e-5)
    finally:
        with torch.no_grad():
            babbler.model.lm_head.weight[end] -= 0.5


@pytest.mark.parametrize("template", [" This is", "This story: {text}\nThis is", ""])
def test_values_do_not_depend_on_who_else_is_judged(babbler, template):
    graph, judge = forest(babbler), JudgeValue(babbler, template, [GOOD], [BAD])
    ids = np.random.default_rng(0).permutation(graph.size)
    together = judge(graph, ids, Meter(Budget(tokens=1), graph.trees))
    alone = [judge(graph, ids[k : k + 1], Meter(Budget(tokens=1), graph.trees))[0] for k in range(len(ids))]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_several_words_add_up(babbler):
    graph = forest(babbler, rounds=1)
    ids = np.arange(graph.size)
    judge = JudgeValue(babbler, " This is", ["good", "nice"], ["bad", "sad", "mad"])
    assert len(judge.good) > 1
    values = judge(graph, ids, Meter(Budget(tokens=1), graph.trees))
    told = ("", " This is", [" good", " nice"], [" bad", " sad", " mad"])
    np.testing.assert_allclose(values, [by_hand(babbler, graph, int(i), *told) for i in ids], atol=1e-5)


def test_a_suffix_costs_its_own_tokens_and_they_count_as_scored(babbler):
    graph = forest(babbler)
    ids, meter = graph.frontier(), Meter(Budget(tokens=1), graph.trees)
    babbler.next_logits(graph, ids, meter)  # now every node's own tokens are there
    judge, meter = JudgeValue(babbler, " This is", GOOD, BAD), Meter(Budget(tokens=1), graph.trees)
    in_use = babbler.trie(graph).store.in_use
    with counting_real_tokens(babbler.model) as forwarded:
        judge(graph, ids, meter)
    words = babbler.tokenizer(" This is")["input_ids"]
    assert sum(forwarded) == meter.read().scored == len(ids) * len(words)
    assert meter.read().forwarded == meter.read().prefilled == meter.read().sampled == 0
    assert (
        meter.counts["scored"].tolist() == (np.bincount(graph.root[ids], minlength=3) * len(words)).tolist()
    )
    assert babbler.trie(graph).store.in_use == in_use, "nothing of a judgement is kept"


def around(babbler, graph, ids, before, after):
    """The texts that a judge with words before the text reads."""
    before, after = (babbler.tokenizer(t)["input_ids"] for t in (before, after))
    return [(*before, *graph.path_tokens(int(i)).tolist(), *after) for i in ids]


def distinct(texts):
    """Distinct beginnings of texts that go on, and the texts themselves: what has to be computed for all of them."""
    return len({t[:n] for t in texts for n in range(1, len(t))}) + len(texts)


def test_words_before_the_text_cost_what_texts_do_not_share(babbler):
    graph = forest(babbler)
    ids, meter = graph.frontier(), Meter(Budget(tokens=1), graph.trees)
    with counting_real_tokens(babbler.model) as forwarded:
        JudgeValue(babbler, "Rate: {text}\nThis is", GOOD, BAD)(graph, ids, meter)
    texts = around(babbler, graph, ids, "Rate: ", "\nThis is")
    assert sum(forwarded) == meter.read().scored == distinct(texts) < sum(map(len, texts)) / 2


def test_a_text_that_has_grown_costs_what_is_new(babbler):
    judge = JudgeValue(babbler, "Rate: {text}\nThis is", GOOD, BAD)
    graph = forest(babbler, rounds=1)
    first = graph.frontier()
    judge(graph, first, Meter(Budget(tokens=1), graph.trees))
    meter = Meter(Budget(tokens=10**6), graph.trees)
    born = graph.add(babbler.expand(graph, Chosen(first[:4], np.full(4, 3)), Rng(1), meter))
    meter = Meter(Budget(tokens=1), graph.trees)
    values = judge(graph, born, meter)
    told = ("Rate: ", "\nThis is", [" good"], [" bad"])
    np.testing.assert_allclose(values, [by_hand(babbler, graph, int(i), *told) for i in born], atol=1e-5)
    old, new = (around(babbler, graph, ids, *told[:2]) for ids in (first, born))
    known = {t[:n] for t in old for n in range(1, len(t))}
    again = {t[:n] for t in new for n in range(1, len(t))} & known
    assert meter.read().scored == distinct(new) - len(again)
    assert len(again) > 30


def test_the_very_next_token_costs_one_token_that_is_kept(babbler):
    graph = forest(babbler, rounds=1)
    ids, judge = graph.frontier(), JudgeValue(babbler, "", GOOD, BAD)
    with counting_real_tokens(babbler.model) as forwarded:
        first = judge(graph, ids, Meter(Budget(tokens=1), graph.trees))
        again = judge(graph, ids, Meter(Budget(tokens=1), graph.trees))
    assert sum(forwarded) == len(ids)
    assert (first == again).all()


def test_the_beginning_of_text_stays_in_front(babbler):
    tokenizer = babbler.tokenizer
    first = tokenizer.convert_tokens_to_ids("<turn>")
    tokenizer.bos_token = "<turn>"
    try:
        graph = babbler.start(["<turn>Once upon a time"])
        assert graph.tokens[0] == first
        judge = JudgeValue(babbler, "Rate: {text} This is", GOOD, BAD)
        (value,) = judge(graph, np.array([0]), Meter(Budget(tokens=1), 1))
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        tokens = [first, *encode("Rate: "), *graph.path_tokens(0)[1:].tolist(), *encode(" This is")]
        p = plain_logits(babbler.model, tokens)[-1].double().softmax(-1)
        good, bad = float(p[encode(" good")[0]]), float(p[encode(" bad")[0]])
        assert value == pytest.approx(good / (good + bad), abs=1e-5)
    finally:
        tokenizer.bos_token = None


def test_token_ids_are_kept_as_generated(babbler):
    """Tokenising the text again would join tokens; the judge must not."""
    graph = babbler.start(["Once"])
    split = [babbler.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in "good"]
    assert len(babbler.tokenizer("good")["input_ids"]) < len(split)
    graph.add(Born.of_spans([0], spans=[split], log_q=[-1.0]))
    judge = JudgeValue(babbler, " This is", GOOD, BAD)
    (value,) = judge(graph, np.array([1]), Meter(Budget(tokens=1), 1))
    assert value == pytest.approx(by_hand(babbler, graph, 1, *CASES["suffix"][1]), abs=1e-5)


def test_words_that_no_longer_fit_fail_on_that_node_alone():
    model, tokenizer = model_and_tokenizer(context=24)
    babbler = Babbler(model, tokenizer, span=6)
    graph = forest(babbler, ["Once upon a time", "This is"], rounds=4)
    ids = np.arange(graph.size)
    words = tokenizer(" This is")["input_ids"]
    values = JudgeValue(babbler, " This is", GOOD, BAD)(graph, ids, Meter(Budget(tokens=1), graph.trees))
    too_long = graph.length + len(words) > 24
    assert too_long.any()
    assert not too_long.all()
    assert (np.isnan(values) == too_long).all()
    assert ((graph.flags & Flag.SCORER_FAILED > 0) == too_long).all()
    assert "24 tokens" in graph.failures[0]["error"]


@pytest.mark.parametrize("before", [[], [1, 2]])
def test_asking_the_model_itself_for_what_follows_too_many_words_is_refused(before):
    """Learned positions end with the context: an IndexError of torch's, else."""
    model = tiny_model("gpt2", vocab_size=64, n_positions=24, n_embd=16, n_layer=2, n_head=2)
    babbler, words = Babbler(model, max_new_tokens=1), [3] * 5
    room = babbler.context - len(before) - len(words)
    graph = babbler.start([list(range(room)), list(range(room + 1))])
    meter = Meter(Budget(tokens=1), 2)
    assert babbler.logits_after(graph, [0], words, meter, before).isfinite().all()
    with pytest.raises(BadInput, match=f"{babbler.context} tokens, got {babbler.context + 1}: use fewer"):
        babbler.logits_after(graph, [0, 1], words, meter, before)


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        (["good"], ["good"], "different tokens"),
        (["good", "nice"], ["bad", "good"], "different tokens"),
        ([], ["bad"], "at least one good and one bad"),
        (["good"], [], "at least one good and one bad"),
        ([""], ["bad"], "at least one token"),
    ],
)
@pytest.mark.parametrize("template", ["", " This is\n"])
def test_words_that_cannot_be_told_apart_are_refused(babbler, good, bad, message, template):
    with pytest.raises(BadInput, match=message) as caught:
        JudgeValue(babbler, template, good, bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["{text}\nThis is:\n", "{text} This is", "{text}"])
def test_words_are_read_as_they_stand_behind_a_text_not_as_if_one_began_there(template):
    """Alone, a tokenizer like Llama 2's gives every text a space to begin with."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    special = trainers.BpeTrainer(special_tokens=["<eos>"], initial_alphabet=["1", "x"])
    core.train_from_iterator(["good bad", "\nThis is:\n"] * 9, special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    judge = JudgeValue(Babbler(tiny_llama(tokenizer), tokenizer), template, "good", "bad")
    space = " " * (template == "{text} This is")
    for word, (first,) in (("good", judge.good), ("bad", judge.bad)):
        text = tokenizer(f"x{template.removeprefix('{text}')}{space}{word}")["input_ids"]
        start = tokenizer("x")["input_ids"]
        assert text[: len(start)] == start
        assert text[len(start) :][: len(judge.after) + 1] == [*judge.after, first]
