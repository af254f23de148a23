"""Where spans and texts end. The slow twin looks at the whole text after every token."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import tiny_llama

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.lm import Babbler
from babblegraph.lm.spans import SpanRule
from babblegraph.protocols import Chosen
from babblegraph.randomness import Rng
from babblegraph.status import Status

VOCABULARY = {0: b"a", 1: b"b", 2: b"\n", 3: b"\n\n", 4: b"ab\nc", 5: b"", 6: b"\xe6\xbc", 7: b"\xa2"}


def end_of(rule, tokens, room=100, before=b""):
    """How many of the tokens the span takes, and how it ends."""
    tail = before
    for n, token in enumerate(tokens, 1):
        tail = rule.tail(tail, token, VOCABULARY)
        (end,) = rule.ends([token], [tail], n, [room - n])
        if end is not None:
            return n, end
    return len(tokens), None


@pytest.mark.parametrize(
    ("rule", "tokens", "taken", "end"),
    [
        (SpanRule(), [0, 1, 2, 3], 4, None),
        (SpanRule(tokens=2), [0, 1, 2], 2, Status.FRONTIER),
        (SpanRule(stop=("\n",)), [0, 2, 1], 2, Status.FRONTIER),
        (SpanRule(stop=("\n\n",)), [0, 2, 2, 1], 3, Status.FRONTIER),  # over a token border
        (SpanRule(stop=("\n\n",)), [2, 0, 2, 0, 3], 5, Status.FRONTIER),
        (SpanRule(stop=("\n",)), [0, 4, 0], 2, Status.FRONTIER),  # inside a longer token, which stays whole
        (SpanRule(stop=("b\nca",)), [4, 0], 2, Status.FRONTIER),
        (SpanRule(stop=("aba",)), [0, 1, 5, 0, 1], 4, Status.FRONTIER),  # a token without bytes between
        (SpanRule(stop=("漢",)), [0, 6, 7, 0], 3, Status.FRONTIER),  # half a character a token
        (SpanRule(until=("\n",)), [0, 2, 1], 2, Status.LEAF_STOP),
        (SpanRule(stop=("\n",), until=("\n\n",)), [0, 3], 2, Status.LEAF_STOP),  # the text's end comes first
        (SpanRule(stop=("\n\n",), until=("\n",)), [0, 3], 2, Status.LEAF_STOP),
        (SpanRule(end_ids={5}), [0, 5, 1], 2, Status.LEAF_END),
        (SpanRule(end_ids={1, 5}), [0, 1, 5], 2, Status.LEAF_END),
        (SpanRule(tokens=2, end_ids={5}), [0, 5], 2, Status.LEAF_END),
        (SpanRule(tokens=1, until=("a",)), [0], 1, Status.LEAF_STOP),
    ],
)
def test_a_span_ends_where_the_rule_says(rule, tokens, taken, end):
    assert end_of(rule, tokens) == (taken, end)


@pytest.mark.parametrize("rule", [SpanRule(), SpanRule(tokens=9), SpanRule(stop=("zz",))])
def test_no_room_makes_a_leaf_by_length(rule):
    assert end_of(rule, [0, 1, 0, 1], room=3) == (3, Status.LEAF_LENGTH)


def test_an_end_that_needs_the_last_token_of_the_room_is_still_an_end():
    assert end_of(SpanRule(until=("ab",)), [0, 1], room=2) == (2, Status.LEAF_STOP)
    assert end_of(SpanRule(end_ids={1}), [0, 1], room=2) == (2, Status.LEAF_END)
    assert end_of(SpanRule(stop=("ab",)), [0, 1], room=2) == (2, Status.LEAF_LENGTH)


def test_spans_end_where_a_look_at_the_whole_text_says():
    draw = np.random.default_rng(0)
    strings = ("\n", "\n\n", "ab", "b\nc", "aab\n")
    for _ in range(400):
        stop = tuple(draw.choice(strings, draw.integers(0, 3), replace=False).tolist())
        until = tuple(draw.choice(strings, draw.integers(0, 2), replace=False).tolist())
        tokens, text = draw.integers(0, 6, 12).tolist(), b""
        told = len(tokens), None
        for n, token in enumerate(tokens, 1):
            text += VOCABULARY[token]
            if any(s.encode() in text for s in until):
                told = n, Status.LEAF_STOP
            elif any(s.encode() in text for s in stop):
                told = n, Status.FRONTIER
            if told[1] is not None:
                break
        assert end_of(SpanRule(stop=stop, until=until), tokens) == told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "0"),
        ({"tokens": -2}, "-2"),
        ({"stop": ("",)}, "stop"),
        ({"until": ("a", "")}, "until"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        SpanRule(**options)


def chain_of(spans):
    graph = BabbleGraph(["x\n"], [[2]], VOCABULARY)
    for parent, span in enumerate(spans):
        graph.add(Born.of_spans([parent], spans=[span], log_q=[-1.0]))
    return graph


@pytest.mark.parametrize(
    ("spans", "left"),
    [
        ([], b""),  # the prompt ends with a newline, but only what was generated counts
        ([[0, 2]], b"\n"),  # cut in the middle of a stop string
        ([[0, 2, 2]], b""),  # the stop string is complete and used up
        ([[0], [2]], b"\n"),
        ([[0, 3], [2]], b"\n"),
        ([[0, 3], [2, 2]], b""),
        ([[0, 1]], b"b"),
    ],
)
def test_a_new_span_knows_the_open_end_of_the_one_before(spans, left):
    graph = chain_of(spans)
    assert SpanRule(stop=("\n\n",)).tail_of(graph, graph.size - 1) == left


def test_a_rule_without_long_strings_looks_back_at_nothing():
    assert SpanRule(tokens=3, stop=("\n",)).tail_of(chain_of([[0, 1], [1]]), 2) == b""


def grow(babbler, prompts, rounds, draws=6):
    graph = babbler.start(prompts)
    for _ in range(rounds):
        ids = graph.frontier()[:30]
        if len(ids):
            chosen = Chosen(ids, np.full(len(ids), draws))
            graph.add(babbler.expand(graph, chosen, Rng(0), Meter(Budget(tokens=10**6), graph.trees)))
    return graph


def test_the_end_of_the_text_is_found_over_node_borders(llama, characters):
    until = [a + b for a in "0123456789+" for b in "0123456789+"]  # common, and two characters long
    graph = grow(Babbler(llama, characters, span=1, until=until, max_new_tokens=12), ["7"], rounds=6)
    stopped = [graph.text(int(i)) for i in np.flatnonzero(graph.status == Status.LEAF_STOP)]
    assert len(stopped) > 20
    assert all(t[-2:] in until for t in stopped)
    for i in range(graph.size):
        text = graph.text(i)
        if graph.status[i] != Status.LEAF_STOP:
            assert not any(u in text for u in until), "no text goes on after its end"


def test_several_end_ids_all_end_a_text(llama, characters):
    one, two = characters.convert_tokens_to_ids(["y", "n"])
    llama.generation_config.eos_token_id = [one, two]
    babbler = Babbler(llama, characters, span=8, max_new_tokens=16)
    assert set(babbler.span.end_ids) == {one, two, characters.eos_token_id}
    graph = grow(babbler, ["7"], rounds=3, draws=20)
    ended = np.flatnonzero(graph.status == Status.LEAF_END)
    assert {int(graph.span(int(i))[-1]) for i in ended} >= {one, two}
    for i in range(1, graph.size):
        last = int(graph.span(i)[-1])
        assert (graph.status[i] == Status.LEAF_END) == (last in babbler.span.end_ids)


def test_texts_stop_at_the_context_of_the_model(characters):
    babbler = Babbler(tiny_llama(characters, context=24), characters, span=5)
    graph = grow(babbler, ["1 2 3>6\n"], rounds=6, draws=3)
    assert graph.length.max() == 24
    assert (graph.length[graph.status == Status.LEAF_LENGTH] == 24).all()


def test_spans_have_the_tokens_that_were_asked_for(llama, characters):
    babbler = Babbler(llama, characters, span=3, max_new_tokens=9)
    graph = grow(babbler, ["7"], rounds=4)
    lengths = graph.stop - graph.start
    assert (lengths[1:][graph.status[1:] != Status.LEAF_END] == 3).all()
    assert (graph.length[graph.status == Status.LEAF_LENGTH] == 10).all()
