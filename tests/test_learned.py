"""The learned value: its data against hand counts, its fit against a truth that is known."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from table_lm import TableLM
from test_score import words
from tiny_models import character_tokenizer, tiny_llama

import babblegraph as bg
from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.loop import search
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import LearnedValue, Score
from babblegraph.scoring.collect import Collected, collect, features_of
from babblegraph.scoring.examples import examples
from babblegraph.scoring.fit import _ahead, _calibrate, fit
from babblegraph.scoring.learned import CARD, WEIGHTS, save, usual_layers
from babblegraph.status import Status
from babblegraph.strategies import best_of_n, frontier

TOKENIZER = character_tokenizer()


class Digits:
    """A text of six characters or more passes if most of them are digits; `=` is dead."""

    def verify(self, prompt, text):
        return float(sum(c.isdigit() for c in text) > len(text) / 2)

    def value(self, prompt, text):
        return float("=" not in text)

    def done(self, prompt, text):
        return len(text) >= 6


def babbler_of(seed=0):
    return bg.Babbler(tiny_llama(TOKENIZER, seed), TOKENIZER, span=2, max_new_tokens=12)


@pytest.fixture(scope="module")
def collected():
    prompts = [f"{a} {b}>" for a in range(10) for b in range(10)]
    babbler = babbler_of()
    return babbler, collect(babbler, prompts, Score(Digits()), layers=(2, 3), copies=6, seed=1)


def test_unpruned_rollouts_give_each_node_the_share_of_its_draws_that_passed():
    lm = TableLM(3, 4, seed=1)
    strategy = best_of_n(n=60, width=60)
    score = Score(_TableTask(lm))
    rounds = search(lm, ["p", "q"], score=score, strategy=strategy, budget=Budget(tokens=10**6))
    graph = list(rounds)[-1].graph
    found = examples(graph, 0.5, clip=1.0)
    assert len(found.node) > 20
    for node, label, weight in zip(*found, strict=True):
        below = [i for i in range(graph.size) if graph.is_leaf(i) and node in graph.path(i)]
        draws = graph.count[below]
        assert label == pytest.approx(draws[graph.score[below] >= 0.5].sum() / draws.sum())
        assert weight == pytest.approx(graph.count[node])
        assert draws.sum() == graph.count[node]


class _TableTask:
    def __init__(self, lm):
        self.lm = lm

    def verify(self, prompt, text):
        return self.lm.score[tuple(ord(c) - 97 for c in text)]


@pytest.mark.slow
def test_labels_of_pruned_forests_are_unbiased_after_weighting():
    """Σ weight · label / count of depth-1 nodes over 400 pruned trees, against the exact P: |z| < 5, odds 6e-7."""
    lm = TableLM(3, 3, seed=2)
    good, total = np.zeros((3, 400)), np.zeros((3, 400))
    for seed in range(400):
        rounds = search(
            lm,
            ["p"],
            score=Score(_TableTask(lm)),
            strategy=frontier(width=3, keep=3),
            budget=Budget(tokens=10**6),
            seed=seed,
        )
        graph = list(rounds)[-1].graph
        found = examples(graph, 0.5, clip=1.0)
        for node, label, weight in zip(*found, strict=True):
            if graph.depth[node] == 1:
                token = int(graph.tokens[graph.start[node]])
                good[token, seed] = label * weight / graph.count[node]
                total[token, seed] = 1
    for token in range(3):
        exact = lm.probability(lambda t, token=token: t[0] == token and lm.score[t] >= 0.5)
        exact /= lm.probability(lambda t, token=token: t[0] == token)
        there = total[token] > 0
        x = good[token][there]
        assert abs(x.mean() - exact) < 5 * max(x.std(ddof=1), 0.05) / np.sqrt(there.sum())


def test_weights_are_cut_at_the_quantile():
    graph, ids, _meter = words("a", "b", "c", status=Status.FRONTIER)
    leaves = graph.add(Born.of_spans(np.repeat(ids, 2), [[1]] * 6, [-1.0] * 6, Status.LEAF_END))
    graph.score[leaves] = [1, 0, 1, 0, 1, 0]
    graph.log_inclusion[leaves] = graph.log_p_f[leaves] - graph.log_weight(graph.parent[leaves])
    graph.log_inclusion[leaves[0]] -= np.log(100)
    wild, tame = (examples(graph, 1.0, clip=c) for c in (1.0, 0.5))
    assert wild.label[0] == pytest.approx(100 / 101)
    np.testing.assert_allclose(tame.label, 0.5)


def test_unfinished_texts_are_no_examples():
    graph, *_ = words("a", "b")
    with pytest.raises(BadInput, match="got 2 unfinished"):
        examples(graph, 1.0)


def test_what_is_collected_is_the_fate_of_the_nodes(collected):
    _babbler, data = collected
    assert data.rollouts == 600
    assert set(np.unique(data.depth)) == {1, 2, 3, 4}
    first = data.depth == 1
    assert data.weight[first].sum() <= 600  # rollouts that died on their first span are no examples
    inner = data.parent >= 0
    assert (data.depth[inner] == data.depth[data.parent[inner]] + 1).all()
    assert (data.prompt[inner] == data.prompt[data.parent[inner]]).all()
    below = np.bincount(data.parent[inner], (data.share * data.label)[inner], minlength=len(data.label))
    np.testing.assert_allclose(
        (data.settled + below)[first], data.label[first]
    )  # a node's fate is its children's


def test_features_are_those_of_the_value_whoever_else_is_asked_about(collected):
    babbler, _ = collected
    graph = babbler.start(["1 2>", "3 4>"])
    meter = Meter(Budget(tokens=10**6), 2)
    graph.add(babbler.expand(graph, Chosen(np.arange(2), np.full(2, 6)), Rng(0), meter))
    ids = np.random.default_rng(0).permutation(np.arange(2, graph.size))
    together = features_of(babbler, graph, ids, (2, 3), meter)
    alone = torch.cat(
        [features_of(babbler_of(), graph, ids[k : k + 1], (2, 3), meter) for k in range(len(ids))]
    )
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-4)
    assert together.shape[1] == 3 * 2 * 64 + 2
    np.testing.assert_allclose(together[:, -2], 1)
    np.testing.assert_allclose(together[:, -1], graph.log_q[ids], rtol=1e-6)


def test_states_beyond_half_precision_make_no_head_of_nan(monkeypatch):
    babbler = babbler_of()
    hidden = babbler.hidden
    loud = lambda *asked: type(found := hidden(*asked))(*(part * 1e6 for part in found))  # noqa: E731
    monkeypatch.setattr(babbler, "hidden", loud)
    prompts = [f"{a} 2>" for a in range(10)]
    data = collect(babbler, prompts, Score(Digits()), layers=(1, 3), copies=8)
    assert torch.isfinite(data.features).all()
    fitted = fit(data, hidden=4, epochs=1, held_out=0.3)
    assert all(torch.isfinite(t).all() for t in fitted.head.state_dict().values())


def synthetic(seed, prompts=300, draws=6):
    """A two-step game: features show a hidden quality; a text passes with a probability that is known."""
    draw = np.random.default_rng(seed)
    rows, truth = [], []
    for prompt in range(prompts):
        for _ in range(draws):
            one, two = draw.normal(size=2)
            p1, p2 = 0.5 / (1 + np.exp(-2 * one)), 1 / (1 + np.exp(-(2 * one + 3 * two - 1)))
            passed = float(draw.random() < p2)
            at = len(rows)
            rows.append([one, 0.0, 1, passed, prompt, 1, -1, 1.0, 0.0])
            rows.append([one, two, 2, passed, prompt, 2, at, 1.0, passed])
            truth += [p1, p2]
    table = np.array(rows)
    noise = draw.normal(size=(len(table), 6))
    return Collected(
        features=torch.as_tensor(np.c_[table[:, :3], noise]).half(),
        label=table[:, 3],
        weight=np.ones(len(table)),
        prompt=table[:, 4].astype(int),
        depth=table[:, 5].astype(int),
        parent=table[:, 6].astype(int),
        share=table[:, 7],
        settled=table[:, 8],
        rollouts=prompts * draws,
        tokens=0,
    ), np.array(truth)


@pytest.mark.slow
def test_a_head_learns_what_there_is_to_learn_and_is_calibrated():
    data, _ = synthetic(0)
    new, truth = synthetic(1)
    fitted = fit(data, hidden=32, members=2, epochs=12, batch=64, seed=0)
    assert fitted.prompts == (270, 30)
    with torch.no_grad():
        value = fitted.head(new.features).double().numpy()
    second = new.depth == 2
    assert np.corrcoef(value[second], truth[second])[0, 1] > 0.97
    assert fitted.held_out[2].auc > 0.85
    assert fitted.held_out[2].skill > 0.3
    assert fitted.held_out[1].auc < fitted.held_out[2].auc
    assert max(f.calibration_error for f in fitted.held_out.values()) < 0.12  # 320 rollouts


def test_calibration_finds_the_slope_and_the_offset_of_what_is_held_out():
    """Outcomes as often as half the log-odds and one say; those that were fitted on say otherwise."""
    z = torch.linspace(-4, 4, 80)
    head = SimpleNamespace(
        eval=lambda: None, log_odds=lambda x: x.T, slope=torch.ones(()), offset=torch.zeros(())
    )
    held = np.arange(80) % 2 == 0
    label = np.where(held, torch.sigmoid(z.double() / 2 + 1).numpy(), 0.0)
    _calibrate(head, SimpleNamespace(features=z[:, None], label=label, weight=np.ones(80)), held)
    assert (float(head.slope), float(head.offset)) == pytest.approx((0.5, 1.0), abs=1e-3)


def test_labels_from_one_step_further_on_have_the_same_mean_and_less_noise():
    """|z| < 5 for the mean difference, odds 6e-7; the luck of the second step is averaged out."""
    data, truth = synthetic(0)
    first = data.depth == 1
    ahead, outcome = _ahead(data, truth)[first], data.label[first]
    difference = ahead - outcome
    assert abs(difference.mean()) < 5 * difference.std() / np.sqrt(first.sum())
    luck = np.random.default_rng(0).normal(size=4000)
    quality = data.features[first, 0].double().numpy()
    exact = np.array([np.mean(1 / (1 + np.exp(-(2 * one + 3 * luck - 1)))) for one in quality])
    assert np.mean((ahead - exact) ** 2) < 0.7 * np.mean((outcome - exact) ** 2)


def test_leaves_count_as_what_they_are_in_labels_from_one_step_further_on():
    """A node with draws that died, passed at once, and lived on: shares 1/4, 1/4 and 1/2 of value 0.6."""
    data, _ = synthetic(0, prompts=1, draws=1)
    data = data._replace(share=np.array([1.0, 0.5]), settled=np.array([0.25, 0.0]))
    assert _ahead(data, np.array([0.9, 0.6]))[0] == pytest.approx(0.25 + 0.5 * 0.6)


def test_the_same_seed_gives_the_same_head(collected):
    _, data = collected
    one, two, other = (fit(data, hidden=16, members=2, epochs=2, seed=s).head for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_saved_value_says_the_same_in_a_search(collected, tmp_path):
    babbler, data = collected
    fitted = fit(data, hidden=16, members=2, epochs=2)
    save(tmp_path, babbler.fingerprint, fitted, (2, 3), rollouts=data.rollouts)
    value = LearnedValue.from_folder(babbler, tmp_path)
    found = bg.babble(babbler, ["1 2>", "3 4>"], task=Digits(), value=value, budget=100, threshold=2.0)
    graph = found.graph
    ids = graph.frontier()
    with torch.no_grad():
        features = features_of(babbler, graph, ids, (2, 3), Meter(Budget(tokens=1), 2))
        twins = fitted.head(features).numpy()
    np.testing.assert_allclose(graph.value[ids], twins, atol=2e-3)  # weights are kept in half precision
    card = json.loads((tmp_path / CARD).read_text())
    assert card["rollouts"] == 600
    assert set(card["held_out"]) == set(np.unique(data.depth).astype(str))


def test_a_value_costs_no_forward_pass_that_the_search_does_not_need(collected, tmp_path):
    babbler, data = collected
    save(tmp_path, babbler.fingerprint, fit(data, hidden=16, members=1, epochs=1), (2, 3))
    value = LearnedValue.from_folder(babbler, tmp_path)
    spent = [
        bg.babble(babbler, ["1 2>"], task=Digits(), value=v, strategy=best_of_n(n=20), budget=500).spent
        for v in (None, value)
    ]
    assert spent[0].sampled == spent[1].sampled
    assert spent[1].scored == 0
    assert spent[1].forwarded + spent[1].prefilled == spent[0].forwarded + spent[0].prefilled


def test_a_value_of_another_generator_is_refused(collected, tmp_path):
    babbler, data = collected
    save(tmp_path, babbler.fingerprint, fit(data, hidden=16, members=1, epochs=1), (2, 3))
    with pytest.raises(BadInput, match="generator that it was fitted on"):
        LearnedValue.from_folder(babbler_of(seed=1), tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInput, match=r"value\.json") as caught:
            LearnedValue.from_folder(babbler, folder)
        assert "\n" not in str(caught.value)


def test_one_outcome_alone_cannot_be_learned_from(collected):
    _, data = collected
    with pytest.raises(BadInput, match="pass and texts that fail"):
        fit(data._replace(label=np.zeros(len(data.label))))


def test_usual_layers_are_spread_over_the_model():
    assert usual_layers(babbler_of()) == (1, 2, 3)
    assert usual_layers(bg.Babbler.embedded()) == (1, 2, 3, 4)


def test_where_memory_holds_few_prompts_a_value_learns_from_the_same_rollouts():
    prompts = ["1+1=", "2+2=", "3+1=", "4+2=", "5+1=", "6+2="]
    ample = bg.Babbler(tiny_llama(TOKENIZER), TOKENIZER, span=2, max_new_tokens=6)
    tight = ample.again(memory_limit=150 * (ample._engines.token_bytes + 2 * 32 * 4))
    how = {"layers": (2, 3), "copies": 16, "seed": 1}
    whole = collect(ample, prompts, Score(Digits()), **how)
    with pytest.warns(RuntimeWarning, match="at once: going on with"):
        parts = collect(tight, prompts, Score(Digits()), **how)
    assert whole.rollouts == parts.rollouts
    rows = [
        sorted(zip(c.prompt, c.depth, c.label, c.weight, c.share.round(4), strict=True))
        for c in (whole, parts)
    ]
    assert np.allclose(*rows, atol=1e-3)
