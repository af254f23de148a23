"""Stems: shares of weight held back, and expanded later as if they were other places."""

from __future__ import annotations

import numpy as np
import pytest
from table_lm import TableLM
from tiny_models import plain_logits

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm import Babbler
from babblegraph.lm.trie import Trie
from babblegraph.protocols import ALL, Chosen, Draws
from babblegraph.randomness import Rng
from babblegraph.status import Status
from babblegraph.stem import hold_back


def grow(lm, graph, ids, draws, rng=None, way=Draws.MULTINOMIAL):
    """Expands nodes without a bound; returns the ids of the new ones."""
    meter = Meter(Budget(seconds=1e9), graph.trees)
    chosen = Chosen(np.asarray(ids, np.intp), np.full(len(ids), draws, np.intp))
    graph.round += 1
    return graph.add(lm.expand(graph, chosen, rng or Rng(0), meter, way))


def test_a_stem_takes_its_share_and_leaves_the_rest():
    lm = TableLM()
    graph = lm.start(["p"])
    first = grow(lm, graph, [0], ALL)
    before = graph.log_weight(first).copy()
    graph.value[first] = [0.1, 0.2, 0.3]
    stems = hold_back(graph, first, 0.25)
    np.testing.assert_allclose(graph.log_weight(stems), before + np.log(0.25), atol=1e-14)
    np.testing.assert_allclose(graph.log_weight(first), before + np.log(0.75), atol=1e-14)
    assert (graph.status[stems] == Status.STEM).all()
    assert (graph.status[first] == Status.FRONTIER).all()
    assert graph.value[stems].tolist() == graph.value[first].tolist()
    assert [graph.text(i) for i in stems] == [graph.text(i) for i in first]
    assert graph.length[stems].tolist() == graph.length[first].tolist()


def test_stems_of_stems_and_second_stems_all_have_keys_of_their_own():
    graph = TableLM().start(["p", "q"])
    hold_back(graph, [0, 1], 0.5)
    hold_back(graph, [0, 1], 0.5)
    hold_back(graph, [2, 3], 0.5)
    assert len(set(graph.key.tolist())) == graph.size == 8
    weights = np.bincount(graph.root, np.exp(graph.log_weight()))
    np.testing.assert_allclose(weights, 1.0, atol=1e-14)


def test_a_stem_draws_other_texts_than_its_node():
    """300 trees draw once from each: equal draws are as rare as chance makes them, z < 6 (odds 1e-9)."""
    lm = TableLM(3, 4, seed=1, span=4)
    graph = lm.start(["p"] * 300)
    stems = hold_back(graph, np.arange(300), 0.5)
    one, two = grow(lm, graph, np.arange(300), 1), grow(lm, graph, stems, 1)
    same = np.mean([graph.text(a) == graph.text(b) for a, b in zip(one, two, strict=True)])
    chance = sum(np.exp(2 * p) for p in lm.log_p.values())
    assert abs(same - chance) < 6 * np.sqrt(chance * (1 - chance) / 300)


def test_a_node_that_is_expanded_or_named_twice_cannot_be_held_back():
    lm = TableLM()
    graph = lm.start(["p"])
    grow(lm, graph, [0], 2)
    for bad, share, said in (([0], 0.5, "expanded"), ([1, 1], 0.5, "twice"), ([1], 1.0, "share")):
        with pytest.raises(BadInput, match=said) as error:
            hold_back(graph, bad, share)
        assert "\n" not in str(error.value)
    assert graph.size == 1 + len(graph.children(0))


def test_a_saved_graph_keeps_its_stems(tmp_path):
    lm = TableLM()
    graph = lm.start(["p"])
    stems = hold_back(graph, [0], 0.5)
    grow(lm, graph, [0], 3)
    graph.save(tmp_path / "graph.safetensors")
    again = BabbleGraph.load(tmp_path / "graph.safetensors")
    assert again.status[stems].tolist() == [Status.STEM]
    np.testing.assert_array_equal(again.log_weight(), graph.log_weight())
    assert len(grow(lm, again, stems, 2))


@pytest.mark.parametrize("logit_bytes", [1, 1 << 26])
def test_a_model_goes_on_from_a_stem_as_from_its_node(llama, characters, logit_bytes):
    """Stems of roots, of inner nodes and of stems, with logits remembered and forgotten, against plain passes."""
    babbler = Babbler(llama, characters, span=2, max_new_tokens=8)
    graph = babbler.start(["12+3", "7*"], 0)
    babbler._engines._of[graph] = Trie(llama, logit_bytes)
    roots = hold_back(graph, [0, 1], 0.5)
    first = grow(babbler, graph, [0, 1], 40)
    inner = hold_back(graph, first[graph.status[first] == Status.FRONTIER], 0.5)
    deeper = hold_back(graph, inner, 0.5)
    second = grow(babbler, graph, roots, 2)
    third = grow(babbler, graph, np.r_[inner, deeper], 1)
    for i in np.r_[second, third]:
        tokens = graph.path_tokens(i)
        log_p = plain_logits(llama, tokens).double().log_softmax(-1).numpy()
        new = len(tokens) - graph.length[graph.parent[i]]
        expected = sum(log_p[t - 1, tokens[t]] for t in range(len(tokens) - new, len(tokens)))
        found = graph.log_p_f[i] - graph.log_p_f[graph.parent[i]]
        assert abs(found - expected) < 1e-4
