"""Budgets bound what a search spends; meters count it tree by tree."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babblegraph import budget as budget_module
from babblegraph.budget import COUNTS, Budget, Meter
from babblegraph.errors import BadInput

ENDLESS = np.iinfo(np.int64).max
CALLS = st.lists(
    st.tuples(
        st.sampled_from(COUNTS),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), min_size=1, max_size=5),
    ),
    max_size=10,
)


class Clock:
    """Time that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(budget_module, "time", found)
    return found


@pytest.mark.parametrize("name", ["tokens", "nodes"])
def test_tokens_and_nodes_are_whole_numbers(name: str) -> None:
    with pytest.raises(BadInput, match=f"a budget of {name} must be a whole number, got 2.5"):
        Budget(**{name: 2.5})
    assert Budget(seconds=2.5).seconds == 2.5


@pytest.mark.parametrize("name", ["tokens", "nodes", "seconds"])
@pytest.mark.parametrize("bound", [0, -1, math.nan])
def test_a_bound_that_is_not_positive_is_refused_by_name(name: str, bound: float) -> None:
    with pytest.raises(BadInput, match=f"above zero, got {name}={bound}: give"):
        Budget(**{name: bound})


def test_a_bound_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="a budget must be a number, got tokens='400'"):
        Budget(tokens="400")  # type: ignore[arg-type]


def test_a_budget_without_any_bound_is_refused() -> None:
    with pytest.raises(BadInput, match="needs a bound, got none: give"):
        Budget()


@given(CALLS)
def test_counts_are_those_of_plain_python(calls: list[tuple[str, list[tuple[int, int]]]]) -> None:
    meter = Meter(Budget(tokens=10**6), trees=4)
    plain = {name: [0] * 4 for name in COUNTS}
    for name, amounts in calls:
        trees, numbers = zip(*amounts, strict=True)
        meter.count(name, list(trees), list(numbers))
        for tree, number in amounts:
            plain[name][tree] += number
    assert {name: meter.counts[name].tolist() for name in COUNTS} == plain
    spent = meter.read()
    assert {name: getattr(spent, name) for name in COUNTS} == {name: sum(plain[name]) for name in COUNTS}


def test_a_tree_named_more_than_once_is_counted_each_time() -> None:
    meter = Meter(Budget(tokens=9), trees=3)
    meter.count("sampled", [0, 2, 0, 0])
    meter.count("sampled", np.array([2, 2]), np.array([3, 4]))
    meter.count("sampled", 1, 5)
    assert meter.counts["sampled"].tolist() == [3, 5, 8]


def test_an_unknown_count_is_no_count() -> None:
    with pytest.raises(KeyError):
        Meter(Budget(tokens=9), trees=1).count("smiles", 0)


def test_meters_do_not_share_their_counts() -> None:
    budget = Budget(tokens=9)
    first, second = Meter(budget, 1), Meter(budget, 1)
    first.count("sampled", 0)
    assert second.counts["sampled"].tolist() == [0]


def test_tokens_are_bounded_tree_by_tree_and_never_negative() -> None:
    meter = Meter(Budget(tokens=10), trees=3)
    meter.count("sampled", [0, 1], [4, 12])
    assert meter.tokens_left().tolist() == [6, 0, 10]
    assert meter.nodes_left().tolist() == [ENDLESS] * 3


def test_only_sampled_tokens_count_against_the_bound() -> None:
    meter = Meter(Budget(tokens=10), trees=1)
    for name in ("forwarded", "prefilled", "scored", "nodes"):
        meter.count(name, 0, 99)
    assert meter.tokens_left().tolist() == [10]


def test_a_tree_without_nodes_left_has_no_tokens_left() -> None:
    meter = Meter(Budget(nodes=2, tokens=10), trees=3)
    meter.count("nodes", [0, 1], [2, 1])
    assert meter.nodes_left().tolist() == [0, 1, 2]
    assert meter.tokens_left().tolist() == [0, 10, 10]


def test_nodes_alone_leave_tokens_endless() -> None:
    meter = Meter(Budget(nodes=2), trees=2)
    meter.count("nodes", 0, 5)
    assert meter.nodes_left().tolist() == [0, 2]
    assert meter.tokens_left().tolist() == [0, ENDLESS]


def test_when_time_is_up_no_tree_has_tokens_left(clock: Clock) -> None:
    meter = Meter(Budget(seconds=5.0, tokens=10), trees=2)
    clock.now += 4.9
    assert meter.tokens_left().tolist() == [10, 10]
    clock.now += 0.2
    assert meter.tokens_left().tolist() == [0, 0]
    assert meter.seconds == pytest.approx(5.1)


def test_asking_what_is_left_spends_nothing() -> None:
    meter = Meter(Budget(tokens=10), trees=1)
    meter.tokens_left()[:] = 0
    meter.nodes_left()[:] = 0
    assert meter.tokens_left().tolist() == [10]


def test_the_share_is_that_of_the_tightest_bound(clock: Clock) -> None:
    meter = Meter(Budget(tokens=10, nodes=4, seconds=100.0), trees=2)
    assert meter.share() == 0
    meter.count("sampled", [0, 1], [5, 1])
    assert meter.share() == pytest.approx(0.3)
    meter.count("nodes", 0, 3)
    assert meter.share() == pytest.approx(0.375)
    clock.now += 50
    assert meter.share() == 0.5
    clock.now += 500
    assert meter.share() == 1


def test_a_tree_beyond_its_bound_does_not_hide_one_that_has_spent_nothing() -> None:
    meter = Meter(Budget(tokens=10), trees=2)
    meter.count("sampled", 0, 1000)
    assert meter.share() == 0.5


def test_a_resumed_meter_goes_on_from_the_saved_one(clock: Clock) -> None:
    budget = Budget(tokens=50, nodes=9, seconds=100.0)
    meter = Meter(budget, trees=3)
    for i, name in enumerate(COUNTS):
        meter.count(name, [0, 2, 2], [i, 2, 3])
    meter.peak_slots = 77
    clock.now += 30
    saved = json.loads(json.dumps(meter.to_json(), allow_nan=False))
    clock.now += 10_000  # the time between two sittings is nobody's
    resumed = Meter.resumed(budget, 3, saved)
    assert resumed.seconds == pytest.approx(30)
    clock.now += 12
    assert resumed.seconds == pytest.approx(42)
    clock.now -= 12
    assert (resumed.to_json(), resumed.peak_slots) == (saved, 77)
    assert resumed.tokens_left().tolist() == [50, 50, 45]
    assert resumed.read().share == pytest.approx(1 / 3)
    resumed.count("sampled", 1, 7)
    assert resumed.counts["sampled"].tolist() == [0, 7, 5]


def test_a_resumed_meter_may_have_a_larger_budget() -> None:
    meter = Meter(Budget(tokens=5), trees=1)
    meter.count("sampled", 0, 5)
    assert Meter.resumed(Budget(tokens=8), 1, meter.to_json()).tokens_left().tolist() == [3]
