"""Composed values: what they are, and whom they ask."""

from __future__ import annotations

import numpy as np
import pytest
from test_score import words

from babblegraph.errors import BadInput
from babblegraph.scoring import cascade, geometric_mean, likelihood, product


def lengths(texts):
    return [len(t) / 10 for t in texts]


def firsts(texts):
    return [(ord(t[1]) - 96) / 26 for t in texts]


def values(value, *texts):
    graph, ids, meter = words(*texts)
    return value(graph, ids, meter), graph, ids


def test_a_product_multiplies():
    found, graph, ids = values(product(lengths, firsts, likelihood), "a", "bcd", "z")
    by_hand = np.array([0.2 * 1, 0.4 * 2, 0.2 * 26]) / 26 * likelihood(graph, ids, None)
    np.testing.assert_allclose(found, by_hand)


def test_a_geometric_mean_weighs():
    found, *_ = values(geometric_mean([lengths, firsts], weights=[1, 3]), "a", "bcd")
    np.testing.assert_allclose(found, [0.2**0.25 * (1 / 26) ** 0.75, 0.4**0.25 * (2 / 26) ** 0.75])
    found, *_ = values(geometric_mean([lengths, lengths]), "a", "bcd")
    np.testing.assert_allclose(found, [0.2, 0.4])


def test_a_cascade_asks_the_expensive_value_only_about_what_may_still_pass():
    asked = []

    def costly(texts):
        asked.extend(texts)
        return [0.5] * len(texts)

    found, *_ = values(cascade(firsts, costly, least=0.3), "a", "h", "z", "b")
    assert asked == ["ph", "pz"]
    np.testing.assert_allclose(found, np.array([1, 8 * 0.5, 26 * 0.5, 2]) / 26)


@pytest.mark.parametrize("least", [0.0, 0.2, 0.6])
def test_a_cascade_ranks_what_it_cut_short_below_all_that_passed(least):
    texts = [chr(97 + i) * (1 + i % 5) for i in range(26)]
    found, *_ = values(cascade(firsts, lengths, least=least), *texts)
    whole, *_ = values(product(firsts, lengths), *texts)
    passed = np.array(firsts(["p" + t for t in texts])) >= least
    np.testing.assert_allclose(found[passed], whole[passed])
    kept = found[found >= least]
    assert not len(kept) or found[~passed].max(initial=0) < kept.min()


def test_a_composed_value_is_that_of_each_node_alone():
    texts = [chr(97 + i) * (1 + i % 5) for i in range(26)]
    value = cascade(firsts, product(lengths, firsts), least=0.3)
    together, graph, ids = values(value, *texts)
    alone = [value(graph, ids[k : k + 1], None)[0] for k in range(len(ids))]
    np.testing.assert_array_equal(together, alone)


def test_a_failed_part_fails_the_node_and_goes_no_further():
    asked = []

    def sometimes(texts):
        return [np.nan if "b" in t else 0.5 for t in texts]

    found, graph, _ = values(
        cascade(sometimes, lambda texts: asked.extend(texts) or [1.0] * len(texts)), "a", "b"
    )
    np.testing.assert_allclose(found, [0.5, np.nan])
    assert asked == ["pa"]
    assert graph.meta["scorer_failures"] == 1
    np.testing.assert_allclose(values(product(sometimes, lengths), "a", "b")[0], [0.1, np.nan])


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: product(), "at least one value"),
        (lambda: cascade(), "at least one value"),
        (lambda: cascade(lengths, least=1.5), r"in \[0, 1\]"),
        (lambda: geometric_mean([lengths], weights=[1, 2]), "weight above zero"),
        (lambda: geometric_mean([lengths], weights=[0]), "weight above zero"),
        (lambda: product(3), "must be a function"),
    ],
)
def test_wrong_compositions_are_refused_in_one_line(make, rule):
    with pytest.raises(BadInput, match=rule) as error:
        make()
    assert "\n" not in str(error.value)
