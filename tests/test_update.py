"""The update: what is learned, what is masked, what holds it back, and what it refuses."""

from __future__ import annotations

import copy
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import character_tokenizer, family_model, tiny_llama

from babblegraph.errors import BadInput
from babblegraph.learning.rows import Passes, by_length, log_p, logits_of, pad
from babblegraph.learning.update import Anchor, Lessons, _schedule, loss, update
from babblegraph.randomness import Rng


def lessons(*texts, start=2, weight=None) -> Lessons:
    return Lessons(
        [np.array(t, np.int32) for t in texts],
        np.full(len(texts), start, np.int64),
        np.ones(len(texts)) if weight is None else np.asarray(weight, np.float64),
    )


@pytest.fixture
def model():
    return tiny_llama(character_tokenizer()).eval()


class Table(torch.nn.Module):
    """A tabular generator: V tokens, one row of logits for every prefix of up to L tokens behind the prompt."""

    def __init__(self, v: int, length: int) -> None:
        super().__init__()
        self.v, self.length = v, length
        self.place = {
            p: i for i, p in enumerate(q for n in range(length) for q in product(range(v), repeat=n))
        }
        self.logits = torch.nn.Parameter(torch.zeros(len(self.place), v, dtype=torch.float64))

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        rows = [
            [self.place.get(tuple(text[1 : j + 1]), 0) for j in range(len(text))]
            for text in input_ids.tolist()
        ]
        return SimpleNamespace(logits=self.logits[torch.tensor(rows)])


@pytest.mark.slow
def test_exact_weights_lead_a_tabular_generator_to_the_optimal_distribution():
    v, length = 3, 3
    draw = np.random.default_rng(0)
    texts = list(product(range(v), repeat=length))
    f = dict(zip(texts, draw.dirichlet(np.ones(len(texts))), strict=True))
    passing = [t for t in texts if draw.random() < 0.4]
    total = sum(f[t] for t in passing)
    table = Table(v, length)
    texts_of = lessons(*([0, *t] for t in passing), start=1, weight=[f[t] for t in passing])
    for rate in (10.0, 1.0, 0.1, 0.01, 0.001):  # Adam's last steps are about as large as its rate
        update(table, texts_of, learning_rate=rate, epochs=500, batch=len(passing), rng=Rng(0))
    log_g = log_p(table, [np.array([0, *t]) for t in passing], np.ones(len(passing), int))
    divergence = sum(f[t] / total * (np.log(f[t] / total) - lg) for t, lg in zip(passing, log_g, strict=True))
    assert divergence < 1e-10


def test_the_masked_loss_is_what_one_computes_by_hand(model):
    texts = lessons([3, 4, 5, 6], [3, 4, 7], weight=[2.0, 0.5])
    batch = pad(texts.tokens, texts.start)
    plain, whole = loss(model, batch, torch.tensor(texts.weight))
    by_hand = 0.0
    for tokens, w in zip(texts.tokens, texts.weight, strict=True):
        with torch.no_grad():
            logits = model(torch.as_tensor(tokens, dtype=torch.long)[None]).logits[0].log_softmax(-1)
        for j in range(2, len(tokens)):  # the prompt is two tokens long
            by_hand -= w * float(logits[j - 1, tokens[j]])
    assert plain.item() == pytest.approx(by_hand, rel=1e-5)
    assert whole.item() == plain.item()


def test_prompt_and_padding_teach_nothing(model):
    """The logits' gradient is zero wherever the next token is the prompt's or padding."""
    texts = lessons([3, 4, 5, 6, 8], [3, 4, 7])
    batch = pad(texts.tokens, texts.start)
    kept = {}

    def keep(module, inputs, output):
        output.retain_grad()
        kept["logits"] = output

    hook = model.get_output_embeddings().register_forward_hook(keep)
    loss(model, batch, torch.ones(2, dtype=torch.float64))[1].backward()
    hook.remove()
    size = kept["logits"].grad.abs().sum(-1)  # [B, L]
    assert (size[:, 0] == 0).all(), "the prompt's second token is not learned"
    assert (size[1, 2:] == 0).all(), "padding is not learned"
    assert (size[0, 1:4] > 0).all()
    assert size[1, 1] > 0
    assert (size[:, -1] == 0).all(), "nothing follows the last token"


def test_the_end_of_a_text_is_learned(model):
    end = model.config.eos_token_id
    texts = lessons([3, 4, 5, end])
    before = log_p(model, texts.tokens, texts.start)
    update(model, texts, learning_rate=1e-2, epochs=5, rng=Rng(0))
    with torch.no_grad():
        after = model(torch.tensor([[3, 4, 5]])).logits[0, -1].log_softmax(-1)[end]
    assert log_p(model, texts.tokens, texts.start) > before
    assert float(after) > -1


def test_log_probabilities_do_not_depend_on_the_batch(model):
    draw = np.random.default_rng(0)
    texts = [draw.integers(1, 20, n).astype(np.int32) for n in (3, 9, 5, 12, 4)]
    start = np.array([1, 2, 3, 4, 1])
    together = log_p(model, texts, start)
    alone = [log_p(model, [t], np.array([s]))[0] for t, s in zip(texts, start, strict=True)]
    assert np.allclose(together, alone, atol=1e-5)
    assert sorted(np.concatenate(list(by_length(texts, 12))).tolist()) == list(range(5))


def test_a_weight_counts_like_so_many_copies(model):
    twice, one = lessons([3, 4, 5], [3, 4, 6], weight=[2.0, 1.0]), lessons([3, 4, 5], [3, 4, 5], [3, 4, 6])
    a, b = (loss(model, pad(x.tokens, x.start), torch.tensor(x.weight))[0].item() for x in (twice, one))
    assert a == pytest.approx(b, rel=1e-6)


def test_an_anchor_holds_the_generator_back(model):
    texts = lessons([3, 4, 5, 6], [3, 4, 7, 8])
    frozen = copy.deepcopy(model).requires_grad_(False)

    def moved(share: float) -> float:
        learner = copy.deepcopy(frozen).requires_grad_(True)
        anchors = (Anchor(frozen, share),) if share else ()
        update(learner, texts, learning_rate=3e-3, epochs=6, anchors=anchors, rng=Rng(0))
        batch = pad(texts.tokens, texts.start)
        with torch.no_grad():
            a, g = (logits_of(m, batch).log_softmax(-1) for m in (frozen, learner))
        return float(((a.exp() * (a - g)).sum(-1) * batch.learned).sum())

    assert moved(3.0) < 0.7 * moved(0.0)


def test_dropout_autocast_and_no_grad_around_it_change_nothing():
    """A user's own training may have left the base in training mode, and a script may turn gradients off."""
    tokenizer = character_tokenizer()
    plain = family_model("gpt2", tokenizer)
    texts = lessons([3, 4, 5, 6], [3, 4, 7, 8])
    training = copy.deepcopy(plain).train()
    assert np.array_equal(*(log_p(m, texts.tokens, texts.start) for m in (plain, training)))
    frozen = copy.deepcopy(plain).requires_grad_(False)
    learners = copy.deepcopy(plain), copy.deepcopy(training)
    update(learners[0], texts, steps=2, anchors=(Anchor(frozen, 1.0),), rng=Rng(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        anchor = Anchor(copy.deepcopy(frozen).train(), 1.0)
        update(learners[1], texts, steps=2, anchors=(anchor,), rng=Rng(0))
    pairs = list(zip(*(learner.parameters() for learner in learners), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(p.grad is None for p in learners[0].parameters()), "no memory is left behind"
    assert training.training
    assert anchor.model.training


def test_the_same_seed_gives_the_same_weights_to_the_bit(model):
    texts = lessons(*([3, 4, i, i + 1] for i in range(5, 15)))
    learners = [copy.deepcopy(model) for _ in range(2)]
    for learner in learners:
        update(learner, texts, epochs=2, batch=4, rng=Rng(7))
    pairs = zip(learners[0].parameters(), learners[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_rate_rises_to_all_of_it_and_falls_to_a_tenth():
    rates = [_schedule(step, 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == pytest.approx([(i + 1) / (top + 1) for i in range(top + 1)])
    assert max(rates) == 1.0
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-5)
    assert (_schedule(0, 1), _schedule(0, 2)) == (1.0, 1.0), "the first step of few is no smaller"


def test_so_many_steps_are_made_whatever_the_elite_is(model):
    """As many as two passes make, they do what two passes do; a pass may end half-way."""
    texts = lessons(*([3, 4, i, i + 1] for i in range(5, 15)))
    learners = [copy.deepcopy(model) for _ in range(2)]
    assert update(learners[0], texts, epochs=2, batch=4, rng=Rng(7)).steps == 6
    assert update(learners[1], texts, steps=6, batch=4, rng=Rng(7)).steps == 6
    pairs = zip(learners[0].parameters(), learners[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    told = []
    learned = update(
        model, texts, steps=4, batch=4, rng=Rng(7), progress=lambda done, of: told.append((done, of))
    )
    assert learned.steps == 4
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_of_many_texts_the_loss_is_told_of_some_from_first_to_last(model, monkeypatch):
    monkeypatch.setattr("babblegraph.learning.update.MEASURED", 3)
    many = lessons(*([3, 4, 3 + i % 5, 4 + i % 3] for i in range(7)), weight=[1, 2, 3, 4, 5, 6, 7])
    some = [0, 3, 6]
    log_g = log_p(model, [many.tokens[i] for i in some], many.start[some])
    by_hand = -(many.weight[some] * log_g).sum() / (2 * many.weight[some].sum())
    learned = update(model, many, steps=1, batch=2, learning_rate=1e-9, rng=Rng(0))
    assert learned.before == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.slow
def test_a_model_in_bfloat16_learns_with_small_steps_as_one_in_float32_does(model):
    texts = lessons(*([3, 4, 5, 6 + i % 3] for i in range(8)))
    rough = copy.deepcopy(model).to(torch.bfloat16)
    how = {"learning_rate": 2e-5, "steps": 200, "batch": 8}
    learned = update(model, texts, rng=Rng(0), **how)
    roughly = update(rough, texts, rng=Rng(0), **how)
    gain, theirs = (one.before - one.after for one in (learned, roughly))
    assert theirs == pytest.approx(gain, rel=0.2)
    assert all(p.dtype == torch.bfloat16 for p in rough.parameters())


class Small(torch.nn.Module):
    """A model on a device that has memory for so many tokens a pass, and notes how many there were."""

    def __init__(self, model, most: int) -> None:
        super().__init__()
        self.model, self.most, self.seen = model, most, []

    def forward(self, input_ids, **how):
        if input_ids.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(input_ids.numel())
        return self.model(input_ids=input_ids, **how)


@pytest.mark.parametrize("most", [24, 11])
def test_an_update_goes_on_with_half_the_texts_a_pass_where_memory_lacks(model, monkeypatch, most):
    monkeypatch.setattr(Passes.__init__, "__defaults__", (64,))
    texts = lessons(*([3, 4, *([5, 6, 7] * 3)[: 3 + i % 5]] for i in range(8)), weight=range(1, 9))
    small = Small(copy.deepcopy(model), most)
    whole = update(model, texts, steps=3, batch=8, rng=Rng(0))
    with pytest.warns(RuntimeWarning, match="no memory"):
        parts = update(small, texts, steps=3, batch=8, rng=Rng(0))
    assert max(small.seen) <= most
    assert parts.steps == whole.steps == 3
    assert (parts.before, parts.after) == pytest.approx((whole.before, whole.after), rel=1e-5)
    for mine, theirs in zip(small.model.parameters(), model.parameters(), strict=True):
        off = (
            (mine - theirs).detach().abs()
        )  # Adam makes a step of its own of a gradient that is next to none
        assert float(off.max()) < 1e-4
        assert float(off.mean()) < 1e-7
    with pytest.warns(RuntimeWarning, match="no memory"):
        found = log_p(small, texts.tokens, texts.start)
    assert np.allclose(found, log_p(model, texts.tokens, texts.start), atol=1e-5)


def test_where_not_even_one_text_has_room_the_device_says_so(model):
    with pytest.warns(RuntimeWarning, match="no memory"), pytest.raises(torch.OutOfMemoryError):
        update(Small(model, 3), lessons([3, 4, 5, 6], [3, 4, 7, 8]), rng=Rng(0))


def test_a_pass_has_fewer_tokens_where_each_has_many_logits(model):
    assert Passes(model).most == 1 << 14
    model.config.vocab_size, before = 150_000, model.config.vocab_size
    try:
        assert 1_000 < Passes(model).most < 2_000
    finally:
        model.config.vocab_size = before


def test_a_learning_rate_that_destroys_is_halved_and_the_weights_come_back(model):
    known = lessons(*([3, 4, i] for i in range(5, 15)))
    update(model, known, learning_rate=3e-3, epochs=5, rng=Rng(0))
    before = copy.deepcopy(model.state_dict())
    learned = update(model, known, learning_rate=1e6, epochs=1, batch=1, rng=Rng(0))
    assert learned.steps == 0
    assert learned.retries == 3
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (Lessons([], np.zeros(0, np.int64), np.zeros(0)), {}),
        (lessons([3, 4, 5], weight=[np.nan]), {}),
        (lessons([3, 4, 5], weight=[0.0]), {}),
        (lessons([3, 4, 5], [3, 4, 6], weight=[1.0, np.inf]), {}),
        (lessons([3, 4, 5], [3, 4, 6], weight=[1.0, -0.5]), {}),
        (lessons([3, 4, 5]), {"learning_rate": 0.0}),
        (lessons([3, 4, 5]), {"epochs": 0}),
        (lessons([3, 4, 5]), {"steps": 0}),
        (lessons([3, 4, 5]), {"learning_rate": np.inf}),
    ],
)
def test_what_cannot_be_learned_is_refused(model, texts, options):
    with pytest.raises(BadInput):
        update(model, texts, rng=Rng(0), **options)
