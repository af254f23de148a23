"""`model.generate(custom_generate=bg.generate)`: what transformers promises its users holds for a search too."""

from __future__ import annotations

import copy
import functools
import gc
import math
import time
import weakref

import numpy as np
import pytest
import torch
from marks import slow_but
from tiny_models import plain_logits, tiny_llama
from transformers import LogitsProcessor, StoppingCriteria, StopStringCriteria

import babblegraph as bg
from babblegraph import drop_in
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm import packed, selfcheck
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.strategies import best_of_n
from babblegraph.why_not import why_not

PROMPTS = ["1+2=3\n4", "7*8"]  # the second one is padded on the left


class NoSevens(LogitsProcessor):
    """One of the user's own: no token 7 behind an even one. It writes into what it gets."""

    def __call__(self, input_ids, scores):
        scores[input_ids[:, -1] % 2 == 0, 7] = -torch.inf
        return scores


def allowed(batch, sentence):
    """Other tokens for each prompt, and never those of the same parity twice."""
    return [i for i in range(10) if i % 2 != int(sentence[-1]) % 2 and i != batch // 2]


PROCESSORS = {
    "repetition": {"repetition_penalty": 1.7},
    "n-grams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[3], [4, 5]]},
    "min new": {"min_new_tokens": 5},
    "bias": {"sequence_bias": {(2,): 3.0, (1, 6): -5.0}},
    "suppressed": {"suppress_tokens": [1, 2], "begin_suppress_tokens": [5]},
    "forced end": {"forced_eos_token_id": 22},
    "prompt repetition": {"encoder_repetition_penalty": 1.5},
    "prompt n-grams": {"encoder_no_repeat_ngram_size": 2},
    "prefix": {"prefix_allowed_tokens_fn": allowed},
    "length": {"exponential_decay_length_penalty": (2, 1.5)},
    "warpers": {"do_sample": True, "temperature": 0.6, "top_k": 12, "top_p": 0.9, "min_p": 0.01},
    "own": {"logits_processor": [NoSevens()]},
    "many": {"logits_processor": [NoSevens()], "repetition_penalty": 1.3, "do_sample": True, "top_k": 6},
}


@pytest.fixture
def padded(characters):
    characters.padding_side = "left"
    return characters(PROMPTS, return_tensors="pt", padding=True)


def searched(model, inputs, **options):
    """The output of a search, the graph included."""
    options = {"max_new_tokens": 6, "budget": 120, "return_dict_in_generate": True, **options}
    if "do_sample" not in options:  # transformers wants it for several sequences
        options |= {"do_sample": True, "top_k": 0}
    return model.generate(**inputs, **{"custom_generate": bg.generate, **options})


def with_arguments(kept):
    """`bg.generate`, and what transformers called it with."""

    @functools.wraps(bg.generate)
    def spy(model, *arguments, **named):
        kept.update(named, input_ids=arguments[0])
        return bg.generate(model, *arguments, **named)

    return spy


@pytest.mark.parametrize("name", slow_but(list(PROCESSORS)[::4], PROCESSORS))
def test_processors_see_what_generate_shows_them_and_are_obeyed(name, llama, padded):
    """log q of every token of every node is that of transformers' own list, asked about a whole batch at a time."""
    kept: dict = {}
    out = searched(
        llama,
        padded,
        num_return_sequences=2,
        custom_generate=with_arguments(kept),
        budget=60,
        **PROCESSORS[name],
    )
    graph, batch = out.graph, kept["input_ids"]
    assert len(kept["logits_processor"]) >= 1
    assert graph.size > 10
    for node in range(graph.trees, graph.size):
        tree, tokens = int(graph.root[node]), graph.path_tokens(node)
        before = graph.length[graph.parent[node]]
        plain = plain_logits(llama, tokens)
        for at in range(before, graph.length[node]):
            logits = plain[at - 1].expand(len(batch), -1)
            new = torch.as_tensor(tokens[graph.length[tree] : at]).long().expand(len(batch), -1)
            scores = kept["logits_processor"](torch.cat([batch, new], 1), logits.float().clone())
            expected = torch.log_softmax(scores[2 * tree], -1)[int(tokens[at])]
            found = graph.token_log_q[graph.start[node] + at - before]
            assert float(expected) > -math.inf
            assert found == pytest.approx(float(expected), abs=2e-4)


def test_draws_have_the_processed_distribution(llama, padded):
    """Hoeffding: 24 frequencies of 4,000 draws are all within 0.05, but for odds of 24 · 2 exp(−20) = 1e-7."""
    kept: dict = {}
    options = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 1}
    out = searched(
        llama,
        {k: v[:1] for k, v in padded.items()},
        strategy=best_of_n(n=4000, width=1000),
        custom_generate=with_arguments(kept),
        budget=5000,
        **options,
    )
    graph = out.graph
    logits = plain_logits(llama, graph.path_tokens(0))[-1:]
    q = torch.softmax(kept["logits_processor"](kept["input_ids"], logits.clone()), -1)[0].numpy()
    drawn = np.zeros(len(q))
    drawn[[int(graph.path_tokens(i)[-1]) for i in range(1, graph.size)]] = graph.count[1:]
    assert drawn.sum() == 4000
    assert np.abs(drawn / 4000 - q).max() < 0.05


def test_sequences_have_the_shape_and_order_that_generate_gives(llama, padded, characters):
    out = searched(llama, padded, num_return_sequences=3)
    graph, n = out.graph, padded["input_ids"].shape[1]
    assert out.sequences.shape[0] == out.sequences_scores.shape[0] == 6
    assert out.sequences.dtype == torch.long
    for prompt in range(2):
        rows = out.sequences[3 * prompt : 3 * prompt + 3]
        assert (rows[:, :n] == padded["input_ids"][prompt]).all()
        assert len({tuple(row.tolist()) for row in rows}) == 3
        scores = out.sequences_scores[3 * prompt : 3 * prompt + 3]
        assert (scores[:-1] >= scores[1:]).all()
        best = graph.path_tokens(graph.best(1, tree=prompt)[0])[graph.length[prompt] :]
        new = rows[0, n:].tolist()
        assert new[: len(best)] == best.tolist()
        assert set(new[len(best) :]) <= {characters.pad_token_id}
    again = searched(llama, padded, num_return_sequences=3, return_dict_in_generate=False)
    assert torch.equal(again, out.sequences)


def test_without_sampling_the_likeliest_leaf_comes_first(llama, padded):
    out = searched(llama, padded, do_sample=False, max_new_tokens=3, budget=400)
    graph = out.graph
    assert "TemperatureLogitsWarper" not in str(graph.meta["sampling"])
    for tree in range(2):
        leaves = np.flatnonzero(graph.is_leaf() & (graph.root == tree))
        mean = graph.log_p_f[leaves] / (graph.length[leaves] - graph.length[tree])
        assert float(out.sequences_scores[tree]) == pytest.approx(np.exp(mean.max()), rel=1e-4)


def test_a_padded_prompt_grows_as_it_does_alone(llama, padded):
    together = searched(llama, padded, num_return_sequences=2)
    for i in range(2):
        own = {"input_ids": padded["input_ids"][i : i + 1][:, padded["attention_mask"][i] == 1]}
        alone = searched(llama, own, num_return_sequences=2)
        new, skipped = alone.sequences[:, own["input_ids"].shape[1] :], padded["input_ids"].shape[1]
        assert torch.equal(together.sequences[2 * i : 2 * i + 2, skipped : skipped + new.shape[1]], new)


def test_the_seed_decides_and_torch_does_not(llama, padded):
    torch.manual_seed(1)
    first = searched(llama, padded, seed=3).sequences
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, searched(llama, padded, seed=3).sequences)
    assert torch.equal(state, torch.get_rng_state())
    assert any(not torch.equal(first, searched(llama, padded, seed=s).sequences) for s in range(4, 8))


class AtThree(StoppingCriteria):
    """One of the user's own: a text that ends with an even token and has three new ones is done."""

    def __init__(self, prompt):
        self.prompt = prompt

    def __call__(self, input_ids, scores, **more):
        return (input_ids[:, -1] % 2 == 0) & (input_ids.shape[1] >= self.prompt + 3)


def test_criteria_of_the_user_end_texts_and_nothing_else_does(llama, padded):
    n = padded["input_ids"].shape[1]
    graph = searched(llama, padded, stopping_criteria=[AtThree(n)], max_new_tokens=9, budget=300).graph
    stopped = 0
    for i in range(graph.trees, graph.size):
        new = graph.path_tokens(i)[graph.length[graph.root[i]] :]
        done = [len(new[:k]) >= 3 and new[k - 1] % 2 == 0 for k in range(1, len(new) + 1)]
        assert not any(done[:-1])
        assert graph.is_leaf(i) or not done[-1]
        assert done[-1] or graph.status[i] != Status.LEAF_STOP
        stopped += done[-1]
    assert stopped > 5


def test_stop_strings_end_texts(bpe):
    model, inputs = tiny_llama(bpe), bpe(["a good"], return_tensors="pt")
    criteria = [StopStringCriteria(bpe, ["e", "is"])]
    graph = searched(model, inputs, stopping_criteria=criteria, max_new_tokens=12, budget=900, span=4).graph
    stopped = np.flatnonzero(graph.status == Status.LEAF_STOP)
    assert len(stopped) > 3
    for i in range(1, graph.size):
        text = bpe.decode(graph.path_tokens(i)[graph.length[0] :], skip_special_tokens=True)
        found = "e" in text or "is" in text
        assert found or graph.status[i] != Status.LEAF_STOP
        assert graph.is_leaf(i) or not found


def test_lengths_and_ends_are_those_of_the_generation_config(llama, padded):
    n = padded["input_ids"].shape[1]
    out = searched(llama, padded, max_new_tokens=None, max_length=n + 4, eos_token_id=[2, 5])
    graph = out.graph
    assert out.sequences.shape[1] <= n + 4
    generated = graph.length - graph.length[graph.root]
    assert (generated[graph.status == Status.LEAF_LENGTH] == 4).all()
    last = graph.tokens[graph.stop[graph.trees :] - 1]
    np.testing.assert_array_equal(np.isin(last, [2, 5]), graph.status[graph.trees :] == Status.LEAF_END)


def test_max_time_ends_a_search_and_what_there_is_comes_back(llama, padded):
    searched(llama, padded)  # what a model's first call finds out about it takes its time, too
    start = time.monotonic()
    out = searched(llama, padded, max_time=0.3, max_new_tokens=60, budget=10**9)
    assert time.monotonic() - start < 20
    assert out.sequences.shape[0] == 2
    assert out.graph.size > 2


def test_a_value_sees_texts_and_a_task_its_prompt(llama, padded, characters):
    search = functools.partial(bg.generate, tokenizer=characters)
    seen: list[str] = []

    def value(texts):
        seen.extend(texts)
        return [text.count("7") / 30 for text in texts]

    out = searched(llama, padded, custom_generate=search, value=value)
    assert all(text.startswith(tuple(PROMPTS)) for text in seen)
    sevens = [characters.decode(row, skip_special_tokens=True).count("7") / 30 for row in out.sequences]
    assert out.sequences_scores.tolist() == pytest.approx(sevens)

    class Task:
        stop = ("\n",)

        def verify(self, prompt, text):
            assert prompt in PROMPTS
            return float("3" in text)

    out = searched(llama, padded, custom_generate=search, task=Task(), budget=600)
    assert out.sequences_scores.tolist() == [1, 1]
    assert out.graph.meta["stop"] == ["\n"]


def test_a_model_finds_its_own_tokenizer_in_its_folder():
    model = bg.Babbler.embedded().model
    ids = torch.tensor([[8, 4, 10, 4, 12, 4, 6, 6, 15, 7, 9, 3]])
    out = searched(model, {"input_ids": ids}, value=lambda texts: [0.5] * len(texts), max_new_tokens=20)
    assert out.graph.prompts == ["3 5 7 11>24\n"]
    assert out.sequences_scores.tolist() == [0.5]


def test_a_budget_too_small_gives_unfinished_texts_without_a_score(llama, padded):
    out = searched(
        llama, padded, max_new_tokens=50, budget=3, num_return_sequences=4, eos_token_id=None, span=1
    )
    assert out.sequences.shape[0] == 8
    assert out.sequences_scores.isnan().all()
    assert out.sequences.shape[1] > padded["input_ids"].shape[1]


def test_the_model_is_left_as_it_was(llama, padded):
    llama.train()
    attention = llama.config._attn_implementation
    searched(llama, padded)
    assert llama.training
    assert llama.config._attn_implementation == attention
    llama.eval()
    before = llama(**padded).logits
    searched(llama, padded)
    assert not llama.training
    assert torch.equal(before, llama(**padded).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 4}, "num_beams must be 1, got 4"),
        ({"output_scores": True}, "output_scores must be off"),
        ({"value": lambda texts: [1.0] * len(texts)}, "tokenizer=tokenizer"),
        ({"guidance_scale": 2.0}, "UnbatchedClassifierFreeGuidanceLogitsProcessor"),
        ({"inputs_embeds": torch.zeros(2, 7, 64)}, "token"),
        ({"seed": -1}, "seed"),
        ({"seed": "a"}, "seed .* got 'a'"),
        ({"seed": 1.5}, r"seed .* got 1\.5"),
        ({"penalty_alpha": 0.6}, r"penalty_alpha is another way .* got 0\.6"),
        ({"dola_layers": "low"}, "dola_layers is another way"),
        ({"force_words_ids": [[5]]}, "force_words_ids is another way"),
        ({"budget": 0}, "budget"),
    ],
)
def test_what_a_search_cannot_do_is_refused_in_one_line(options, message, llama, padded):
    llama.config._name_or_path = ""
    with pytest.raises(BadInput, match=message) as caught:
        searched(llama, padded, **options)
    assert "\n" not in str(caught.value)


def test_a_prompt_that_is_all_padding_is_refused_by_its_row(llama, padded):
    nothing = padded | {"attention_mask": torch.stack([padded["attention_mask"][0], torch.zeros(7).long()])}
    with pytest.raises(BadInput, match="at least one token, got none in row 1"):
        searched(llama, nothing)


def test_positions_of_ones_own_are_refused_and_those_that_a_search_counts_are_not(llama, padded):
    mask = padded["attention_mask"]
    ours = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  # as transformers counts them
    assert searched(llama, padded, position_ids=ours, max_new_tokens=2).sequences.shape == (2, 9)
    with pytest.raises(BadInput, match=r"position_ids must count .* got \[20, 21") as caught:
        searched(llama, padded, position_ids=ours + 20, max_new_tokens=2)
    assert "\n" not in str(caught.value)


def test_texts_of_several_lengths_need_padding(characters, padded):
    model = tiny_llama(characters)
    model.generation_config.pad_token_id = model.config.pad_token_id = None
    out = searched(model, padded, num_return_sequences=2, eos_token_id=None, max_new_tokens=2)
    assert out.sequences.shape[1] == padded["input_ids"].shape[1] + 2
    criteria = [AtThree(padded["input_ids"].shape[1])]
    options = {"eos_token_id": None, "stopping_criteria": criteria, "max_new_tokens": 9}
    with pytest.raises(BadInput, match="pad_token_id"):
        searched(model, padded, num_return_sequences=4, **options)


def test_a_babbler_takes_processors_and_criteria_too(llama, characters):
    """Without a batch of `generate` a processor sees prompts as they are, spans of any depth side by side."""
    seen = set()

    class Watch(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.update(tuple(row) for row in input_ids.tolist())
            return scores.masked_fill(torch.arange(scores.shape[1]) == 7, -torch.inf)

    babbler = bg.Babbler(llama, characters, logits_processor=[Watch()], span=3, max_new_tokens=9)
    result = bg.babble(babbler, PROMPTS, budget=200)
    graph = result.graph
    paths = {
        tuple(graph.path_tokens(i)[:at].tolist())
        for i in range(2, graph.size)
        for at in range(graph.length[graph.parent[i]], graph.length[i])
    }
    assert paths <= seen
    assert not (graph.tokens[graph.start[2] :] == 7).any()


def test_processors_that_may_leave_texts_out_allow_estimates_under_q_alone(llama, characters):
    from babblegraph.strategies import frontier

    for given, refused in (([NoSevens()], True), ([], False)):
        babbler = bg.Babbler(llama, characters, logits_processor=given, max_new_tokens=2, span=1)
        graph = bg.babble(babbler, ["1+"] * 2, strategy=frontier(width=2, keep=4), budget=4000).graph
        assert bool(why_not(graph)) == refused
        assert why_not(graph, "q") == ""


def test_a_place_where_nothing_is_allowed_is_exhausted(llama, characters):
    class Nothing(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.full_like(scores, -torch.inf) if input_ids.shape[1] > 3 else scores

    babbler = bg.Babbler(llama, characters, logits_processor=[Nothing()], span=2)
    graph, meter = babbler.start(["1+"]), Meter(Budget(tokens=50), 1)
    for _ in range(2):
        live = graph.frontier()
        born = babbler.expand(graph, Chosen(live, np.full(len(live), 3)), Rng(0), meter)
        graph.add(born)
    assert not len(graph.frontier())
    assert graph.length.max() == 4


def test_without_a_tokenizer_prompts_are_token_ids_and_texts_are_numbers(llama):
    babbler = bg.Babbler(llama, max_new_tokens=3)
    graph = babbler.start([[5, 6], torch.tensor([7])])
    assert graph.prompts == ["5 6 ", "7 "]
    assert babbler.start([5, 6]).prompts == ["5 6 "]
    assert bg.babble(babbler, [[5, 6]], budget=30).text.split()[0].isdigit()
    with pytest.raises(BadInput, match="token ids"):
        babbler.start(["five"])


@pytest.mark.slow
def test_a_second_call_neither_checks_the_model_nor_packs_its_weights_again(llama, padded, monkeypatch):
    done = []
    for place, name in ((selfcheck, "check"), (packed.Packed, "_packed")):
        plain = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *a, f=plain, name=name: done.append(name) or f(*a))
    first = searched(llama, padded).sequences
    assert done == ["check", "_packed"]
    assert torch.equal(searched(llama, padded, num_return_sequences=2).sequences[::2], first)
    assert done == ["check", "_packed"]
    with torch.no_grad():
        llama.lm_head.weight.mul_(-1)  # it has learned: not checked again, but noticed
    moved = searched(llama, padded).sequences
    assert done == ["check", "_packed", "_packed"]
    assert torch.equal(moved, searched(copy.deepcopy(llama), padded).sequences)
    assert not torch.equal(moved, first)
    done.clear()
    searched(llama.double(), padded)
    assert done == ["check", "_packed"]


def test_what_is_kept_of_a_model_goes_with_it(characters, padded):
    model = tiny_llama(characters)
    searched(model, padded)
    gone = weakref.ref(model.lm_head)
    assert model in drop_in._ways
    del model
    gc.collect()
    assert gone() is None
