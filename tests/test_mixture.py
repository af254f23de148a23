"""A generator that has moved away from its base, and the defensive mixture of both."""

from __future__ import annotations

import copy
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schemes import Forest, code_of, grown, to_the_end
from table_lm import TableLM
from test_rows import meter_of, one
from tiny_models import counting_real_tokens, plain_logits, tiny_model

import babblegraph as bg
from babblegraph.errors import BadInput
from babblegraph.estimates import expectation
from babblegraph.lm import Babbler
from babblegraph.lm.mixture import mixed
from babblegraph.protocols import ALL, Chosen
from babblegraph.randomness import Rng
from babblegraph.scoring import likelihood
from babblegraph.splitting import multilevel
from babblegraph.strategies import frontier
from babblegraph.why_not import why_not

PROMPTS = ["3 5>8\n", "7"]


def grown_whole(lm, trees=1):
    forest = Forest(lm, trees, 3)
    to_the_end(grown(ALL))(forest)
    return forest.graph


@pytest.mark.parametrize("size", [(3, 4), (2, 6)])
@pytest.mark.parametrize("share", [None, 0.01, 0.5, 0.99])
def test_all_three_log_probabilities_of_every_text_are_those_of_the_tables(size, share):
    lm = TableLM(*size, seed=2, moved=9, mixture=share)
    graph = grown_whole(lm)
    leaves = np.flatnonzero(graph.is_leaf())
    assert len(leaves) == len(lm.texts)
    texts = [lm.generated(graph, i) for i in leaves]
    f, g = (np.array([m.log_p[t] for t in texts]) for m in (lm, lm.moved))
    q = g if share is None else np.logaddexp(np.log(share) + f, np.log1p(-share) + g)
    for name, told in (("log_p_f", f), ("log_p_g", g), ("log_q", q)):
        np.testing.assert_allclose(getattr(graph, name)[leaves], told, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(np.exp(graph.log_q[leaves]).sum(), 1, atol=1e-12)


@pytest.mark.parametrize("share", [None, 0.1])
@pytest.mark.parametrize("under", ["f", "g", "q"])
def test_weights_of_one_sample_are_exact_under_f_and_g_and_q(under, share):
    """Every text drawn with its own probability q: the mean of its weight times h is the sum over all texts."""
    lm = TableLM(3, 4, seed=2, moved=9, mixture=share)
    whole = grown_whole(lm)
    leaves = np.flatnonzero(whole.is_leaf())
    log_p = {"f": whole.log_p_f, "g": whole.log_p_g, "q": whole.log_q}[under][leaves]
    inclusion = whole.log_q[leaves]  # of one draw
    h = np.cos(np.arange(len(leaves)))
    mean = np.exp(whole.log_q[leaves]) @ (np.exp(log_p - inclusion) * h)
    assert abs(mean - np.exp(log_p) @ h) < 1e-12
    graph = lm.start(["p"])
    for _ in range(lm.length):
        ids = graph.frontier()
        graph.add(lm.expand(graph, Chosen(ids, np.ones(len(ids), int)), Rng(0), meter_of(graph)))
    (drawn,) = np.flatnonzero(graph.is_leaf())
    assert abs(graph.log_inclusion[drawn] - graph.log_q[drawn]) < 1e-12


@pytest.mark.parametrize("under", ["f", "g"])
def test_estimates_under_f_and_under_g_come_from_the_same_trees(under):
    """1,500 trees of the mixture, |z| < 5.7: odds 1.2e-8 each."""
    lm = TableLM(3, 4, seed=2, moved=9, mixture=0.3)
    forest = Forest(lm, 1500, 4)
    to_the_end(grown(3))(forest)
    target = lm if under == "f" else lm.moved
    found = expectation(forest.graph, lambda graph, ids: forest.h["elite"][forest.code[ids]], under=under)
    truth = sum(np.exp(target.log_p[t]) for t in lm.texts if forest.h["elite"][code_of(t, lm.v)] > 0)
    assert abs(found.value - truth) < 5.7 * found.error


LOGITS = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(LOGITS, LOGITS, st.integers(0, 2)), min_size=1, max_size=12), st.floats(1e-6, 0.999)
)
def test_no_beginning_of_a_text_has_a_weight_above_one_over_epsilon(steps, share):
    """Any two models, any path: f/q ≤ 1/ε, g/q ≤ 1/(1−ε), and q is the mixture of whole texts."""
    f = g = q = 0.0
    for logits_f, logits_g, token in steps:
        log_f, log_g = (
            torch.log_softmax(torch.tensor([x], dtype=torch.float64), -1) for x in (logits_f, logits_g)
        )
        log_q = mixed(log_f, log_g, np.array([f]), np.array([g]), share)
        assert abs(float(log_q.exp().sum()) - 1) < 1e-9
        f, g, q = (x + float(step[0, token]) for x, step in ((f, log_f), (g, log_g), (q, log_q)))
        assert f - q <= -np.log(share) + 1e-9
        assert g - q <= -np.log1p(-share) + 1e-9
        assert q == pytest.approx(np.logaddexp(np.log(share) + f, np.log1p(-share) + g), abs=1e-9)


def test_a_constant_share_would_not_bound_the_weights():
    """The mistake that the mixture of whole texts avoids: token by token the bound grows with the length."""
    f, g = np.log([0.5, 0.5]), np.log([1e-6, 1 - 1e-6])
    each = np.logaddexp(np.log(0.5) + f, np.log(0.5) + g)
    assert 20 * (f[0] - each[0]) > np.log(1e5) > -np.log(0.5)


def moved_from(model, size=0.3):
    """A copy of a model with other weights."""
    other = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in other.parameters():
            weight += size * weight.std() * torch.randn(weight.shape, generator=noise)
    return other


@pytest.mark.parametrize("mixture", [None, 0.25])
@pytest.mark.parametrize("engine", ["cascade", "dense"])
def test_both_models_are_what_they_are_in_plain_forward_passes(mixture, engine, llama, characters):
    moved = moved_from(llama)
    options = {"span": 2, "max_new_tokens": 6, "mixture": mixture, "engine": engine}
    babbler = Babbler(moved, characters, base=llama, **options)
    graph = babbler.start(PROMPTS)
    meter = meter_of(graph)
    for _ in range(3):
        ids = graph.frontier()[:6]
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 4)), Rng(0), meter))
        babbler.release(graph, ids[:2])
    assert np.abs(graph.log_p_f - graph.log_p_g).max() > 0.1, "it has moved"
    for i in range(graph.trees, graph.size):
        path, start = graph.path_tokens(i), int(graph.length[graph.root[i]])
        told = {}
        for name, model in (("f", llama), ("g", moved)):
            log_p = plain_logits(model, path).double().log_softmax(-1)
            told[name] = sum(float(log_p[at - 1, path[at]]) for at in range(start, len(path)))
        assert graph.log_p_f[i] == pytest.approx(told["f"], abs=2e-4)
        assert graph.log_p_g[i] == pytest.approx(told["g"], abs=2e-4)
        q = told["g"]
        if mixture is not None:
            q = np.logaddexp(np.log(mixture) + told["f"], np.log1p(-mixture) + told["g"])
        assert graph.log_q[i] == pytest.approx(q, abs=2e-4)


def test_the_meter_counts_the_tokens_of_both(llama, characters):
    moved = moved_from(llama)
    babbler = Babbler(moved, characters, base=llama, span=3, max_new_tokens=9)
    graph = babbler.start(PROMPTS)
    meter = meter_of(graph)
    with counting_real_tokens(llama) as of_f, counting_real_tokens(moved) as of_g:
        for _ in range(3):
            ids = graph.frontier()
            graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 3)), Rng(0), meter))
    spent = meter.read()
    assert sum(of_f) == sum(of_g) > 0
    assert sum(of_f) + sum(of_g) == spent.forwarded + spent.prefilled


def test_a_base_that_has_not_moved_changes_nothing(llama, characters):
    alone = Babbler(llama, characters, span=3, max_new_tokens=9)
    beside = Babbler(llama, characters, span=3, max_new_tokens=9, base=moved_from(llama, 0.0), mixture=0.3)
    graphs = []
    for babbler in (alone, beside):
        graph = babbler.start(PROMPTS)
        for _ in range(3):
            ids = graph.frontier()
            graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 3)), Rng(0), meter_of(graph)))
        graphs.append(graph)
    assert np.array_equal(graphs[0].tokens, graphs[1].tokens)
    np.testing.assert_allclose(graphs[0].log_q, graphs[1].log_q, atol=1e-4)


def test_an_interruption_leaves_both_tries_as_they_were(llama, characters, monkeypatch):
    moved = moved_from(llama)
    babbler = Babbler(moved, characters, base=llama, span=4, max_new_tokens=8)
    graph = babbler.start(PROMPTS)
    born = graph.add(babbler.expand(graph, Chosen(np.arange(2), np.full(2, 3)), Rng(0), meter_of(graph)))
    calls, forward = [], moved.forward

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(moved, "forward", failing)
    some = Chosen(born[:2].astype(np.intp), np.full(2, 4))
    with pytest.raises(KeyboardInterrupt):
        babbler.expand(graph, some, Rng(0), meter_of(graph))
    monkeypatch.setattr(moved, "forward", forward)
    again = babbler.expand(graph, some, Rng(0), meter_of(graph))
    other = Babbler(moved, characters, base=llama, span=4, max_new_tokens=8)
    told = other.expand(graph, some, Rng(0), meter_of(graph))
    assert np.array_equal(again.tokens, told.tokens)
    np.testing.assert_allclose(again.log_p_f, told.log_p_f, atol=1e-4)


def test_a_search_under_a_base_says_what_the_base_would_do(llama, characters):
    """The frontier of a moved model: weights sum to 1 on average under f; |z| < 5.7 over 300 trees."""
    babbler = Babbler(moved_from(llama, 0.1), characters, base=llama, mixture=0.5, span=2, max_new_tokens=4)
    result = bg.babble(
        babbler, ["7"] * 300, value=likelihood, strategy=frontier(width=3, keep=4), budget=10**5, seed=2
    )
    assert why_not(result.graph) == ""
    assert result.graph.meta["sampling"]["mixture"] == 0.5
    one_ = expectation(result.graph, lambda graph, ids: np.ones(len(ids)))
    assert abs(one_.value - 1) < 5.7 * one_.error


def test_a_graph_goes_on_with_the_base_that_began_it(llama, characters, tmp_path):
    moved = moved_from(llama)
    with_base = Babbler(moved, characters, base=llama, span=2, max_new_tokens=8)
    graph = with_base.start(["7"])
    graph.add(with_base.expand(graph, one(0, 3), Rng(0), meter_of(graph)))
    graph.save(tmp_path / "graph.bg")
    loaded = bg.BabbleGraph.load(tmp_path / "graph.bg")
    ids = loaded.frontier()
    chosen = Chosen(ids, np.full(len(ids), 2))
    for other in (Babbler(moved, characters), Babbler(moved, characters, base=moved_from(llama, 0.2))):
        with pytest.raises(BadInput, match="the base that began it"):
            other.expand(loaded, chosen, Rng(0), meter_of(loaded))
    assert len(with_base.expand(loaded, chosen, Rng(0), meter_of(loaded)).parent)


def test_memory_is_shared_between_both(llama, characters):
    babbler = Babbler(moved_from(llama), characters, base=llama, memory_limit=1 << 22)
    alone = Babbler(llama, characters, memory_limit=1 << 21)
    assert babbler._engines.memory == alone._engines.memory == babbler._engines.base._memory


@pytest.fixture
def adapted(llama):
    """A peft model whose adapter moves it."""
    peft = pytest.importorskip("peft", reason="adapters need the extra `train`")
    torch.manual_seed(0)
    how = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
        return peft.get_peft_model(llama, peft.LoraConfig(task_type="CAUSAL_LM", **how))


@pytest.mark.parametrize("engine", ["cascade", "dense"])
def test_the_base_of_an_adapted_model_can_be_itself_without_adapters(adapted, characters, engine):
    babbler = Babbler(adapted, characters, base=adapted, mixture=0.2, span=2, max_new_tokens=6, engine=engine)
    graph = babbler.start(PROMPTS)
    for _ in range(2):
        ids = graph.frontier()
        graph.add(babbler.expand(graph, Chosen(ids, np.full(len(ids), 4)), Rng(0), meter_of(graph)))
    assert np.abs(graph.log_p_f - graph.log_p_g).max() > 1e-3
    for i in range(graph.trees, graph.size):
        path, start = graph.path_tokens(i), int(graph.length[graph.root[i]])
        log_g = plain_logits(adapted, path).double().log_softmax(-1)
        with adapted.disable_adapter():
            log_f = plain_logits(adapted, path).double().log_softmax(-1)
        for log_p, found in ((log_f, graph.log_p_f[i]), (log_g, graph.log_p_g[i])):
            assert found == pytest.approx(
                sum(float(log_p[at - 1, path[at]]) for at in range(start, len(path))), abs=2e-4
            )


def test_what_a_base_cannot_be_is_refused_in_one_line(llama, characters):
    wide = tiny_model("gpt2", vocab_size=40, n_embd=32, n_layer=1, n_head=2)
    refused = [
        ({"mixture": 0.2}, "needs the base"),
        ({"base": llama}, "has adapters"),
        ({"base": wide}, "tokens"),
        ({"base": moved_from(llama), "mixture": 1.5}, "above 0 and below 1"),
        ({"base": moved_from(llama), "mixture": 0.5, "temperature": 0.7}, "as they are"),
    ]
    for options, said in refused:
        with pytest.raises(BadInput, match=said) as error:
            Babbler(llama, characters, **options)
        assert "\n" not in str(error.value)


def test_splitting_refuses_a_generator_with_a_base(llama, characters):
    babbler = Babbler(moved_from(llama), characters, base=llama)
    with pytest.raises(BadInput, match="no base"):
        multilevel(babbler, "7", score=None, threshold=0.5)


def test_the_tables_differ_and_have_all_texts():
    lm = TableLM(3, 4, seed=2, moved=9)
    assert set(lm.texts) == set(product(range(3), repeat=4))
    assert max(abs(lm.log_p[t] - lm.moved.log_p[t]) for t in lm.texts) > 0.5
