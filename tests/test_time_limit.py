"""A value function that hangs costs the node it hangs on, and is ended."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from test_score import words

from babblegraph.errors import BadInput
from babblegraph.scoring import Score, function_value
from babblegraph.scoring.time_limit import TimeLimit, TimeUp
from babblegraph.status import Flag


def spin():
    while True:
        pass


def workers():
    return [t for t in threading.enumerate() if t.name == "babblegraph value function"]


def test_a_function_that_hangs_once_costs_that_node_only():
    graph, ids, meter = words("a", "b", "c", "d")
    calls = []

    def value(texts):
        calls.append(len(texts))
        if any("b" in text for text in texts):
            spin()
        return [0.5] * len(texts)

    score = Score(value=function_value(value, seconds=0.2))
    score(graph, ids, meter)
    np.testing.assert_allclose(graph.value[ids], [0.5, np.nan, 0.5, 0.5])
    assert ((graph.flags[ids] & Flag.SCORER_FAILED) != 0).tolist() == [False, True, False, False]
    assert graph.failures[0]["error"] == "value hung: no answer within 0.2 s"
    assert graph.failures[0]["text"] == "pb"
    assert calls == [4, 1, 1, 1, 1]
    score(graph, ids[2:], meter)
    assert calls[5:] == [1, 1]  # a function that has hung is not given many texts again


def test_python_code_that_hangs_is_ended():
    limit, before = TimeLimit(0.1), set(workers())
    with pytest.raises(TimeUp, match=r"no answer within 0\.1 s"):
        limit(spin)
    (stuck,) = set(workers()) - before
    stuck.join(timeout=10)
    assert not stuck.is_alive()
    assert limit(lambda: 7) == 7


def test_an_except_clause_of_its_own_does_not_keep_a_function_going():
    def stubborn():
        while True:
            try:
                spin()
            except Exception:
                continue

    before = set(workers())
    with pytest.raises(TimeUp):
        TimeLimit(0.1)(stubborn)
    for thread in set(workers()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_what_cannot_be_ended_is_left_behind():
    release, limit = threading.Event(), TimeLimit(0.1)
    started = time.monotonic()
    with pytest.raises(TimeUp):
        limit(release.wait, 60)
    assert time.monotonic() - started < 10
    assert limit(sum, [1, 2]) == 3
    release.set()


def test_one_thread_serves_all_calls_that_come_back():
    limit = TimeLimit(5)
    assert len({limit(threading.get_ident) for _ in range(20)}) == 1


def test_what_a_function_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        TimeLimit(5)(lambda: 1 / 0)


def test_exit_is_a_failure_at_once_and_not_a_function_that_hangs():
    graph, ids, meter = words("a")
    assert np.isnan(function_value(lambda texts: exit(3), seconds=60)(graph, ids, meter)).all()
    assert graph.failures[0]["error"] == "<lambda> raised SystemExit: 3"


def test_without_a_limit_the_function_runs_where_it_is_called():
    graph, ids, meter = words("a")
    seen = []
    value = function_value(lambda texts: seen.append(threading.get_ident()) or [0.5], seconds=None)
    value(graph, ids, meter)
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_is_none_is_refused(seconds):
    with pytest.raises(BadInput, match="time limit must be above zero"):
        function_value(len, seconds=seconds)


def test_the_thread_ends_with_its_limit():
    limit = TimeLimit(5.0)
    thread = limit(threading.current_thread)
    assert thread.is_alive()
    del limit
    thread.join(5.0)
    assert not thread.is_alive()
