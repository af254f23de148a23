"""Countdown: the verifier against an independent recheck, the split, the solver, Game of 24."""

import random
import re
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from babblegraph.errors import BadInput
from babblegraph.tasks import Countdown, countdown_puzzles
from babblegraph.tasks.countdown import key, legal_lines
from babblegraph.tasks.countdown_puzzles import SPLITS, distinct, play, puzzles, split_of
from babblegraph.tasks.countdown_solver import solvable, solve
from babblegraph.tasks.training import task_prompts

TASK = Countdown()
PROMPT = "3 5 7 11>24\n"
ALPHABET = "0123456789+-*/=: \nyn>"


def recheck(prompt: str, text: str) -> bool:
    """The verifier again, by regular expressions, multisets and eval on fractions: shares no code with it."""
    numbers, target = prompt.rstrip("\n").split(">")
    hand = [int(n) for n in numbers.split(" ")]
    if text and text[-1] in "yn":
        text = text[:-1]
    if text and not text.endswith("\n"):
        return False
    for line in text.split("\n")[:-1]:
        number = "([1-9][0-9]*)"
        match = re.fullmatch(f"{number}([-+*/]){number}={number}:({number}( {number})*)", line)
        if not match:
            return False
        exact = eval(f"Fraction({match[1]}){match[2]}Fraction({match[3]})", {"Fraction": Fraction})
        if exact != int(match[4]):
            return False
        for operand in (match[1], match[3]):
            if int(operand) not in hand:
                return False
            hand.remove(int(operand))
        hand.append(int(match[4]))
        if [int(n) for n in match[5].split(" ")] != sorted(hand):
            return False
    return hand == [int(target)]


def played(seed: int, count: int = 4) -> tuple[str, str]:
    """A random puzzle with the solution it was made by."""
    numbers, lines, target = play(random.Random(seed), count, 20)
    return TASK.prepare(key(numbers, target)), "".join(lines)


seeds = st.integers(0, 2**32)


@given(seeds, st.integers(2, 5), st.sampled_from(["", "y", "n"]))
def test_every_random_play_is_a_solution_of_its_own_puzzle(seed, count, verdict):
    prompt, text = played(seed, count)
    assert TASK.verify(prompt, text + verdict) == 1.0
    assert recheck(prompt, text + verdict)
    assert TASK.done(prompt, text)


@given(seeds, st.data())
@settings(max_examples=400)
def test_the_verifier_agrees_with_the_recheck_on_mutants(seed, data):
    prompt, text = played(seed)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 2))
        text = text[:at] + data.draw(st.text(ALPHABET, max_size=2)) + text[at + cut :]
    assert TASK.verify(prompt, text) == float(recheck(prompt, text))


@given(seeds, st.data())
def test_changing_one_digit_makes_a_solution_fail(seed, data):
    # One digit alone cannot be changed consistently: operands, result and what is left depend on one another.
    prompt, text = played(seed)
    at = data.draw(st.sampled_from([i for i, c in enumerate(text) if c.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[at]]))
    assert TASK.verify(prompt, text[:at] + digit + text[at + 1 :]) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "y",
        "3*8=24:24\n",  # 8 is not at hand
        "05*7=35:3 11 35\n",
        "+5*7=35:3 11 35\n",
        "5*7=35:3 35 11\n",
        "5*7=35: 3 11 35\n",
        "5*7=35:3  11 35\n",
        "5*7=35:3 11 35 \n",
        "5*7=35:3 11 35\r\n",
        "5 * 7=35:3 11 35\n",
        "5-5=0:0 3 7 11\n",
        "3-5=-2:-2 7 11\n",
        "5/3=1:1 7 11\n",
        "5/7=0:0 3 11\n",
        "٥*7=35:3 11 35\n",
        "5*7=35:11 35\n",
        "\n",
    ],
)
def test_a_line_that_breaks_the_rules_is_dead_and_fails(text):
    assert TASK.verify(PROMPT, text) == 0.0
    if "\n" in text:
        assert TASK.value(PROMPT, text) == 0.0
        assert TASK.state(PROMPT, text) is None
        assert not TASK.done(PROMPT, text)


@pytest.mark.parametrize("after", ["yy", "y\n", "ny", " ", "\n", "24", "<eos>"])
def test_nothing_but_one_verdict_may_follow_the_last_line(after):
    text = next(solve([3, 5, 7, 11], 24))
    assert TASK.verify(PROMPT, text) == 1.0
    assert TASK.verify(PROMPT, text + after) == 0.0
    assert TASK.value(PROMPT, text + after) == 0.0


@given(seeds, st.data())
def test_every_prefix_of_a_solution_is_alive_and_only_line_borders_have_a_state(seed, data):
    prompt, text = played(seed)
    cut = data.draw(st.integers(0, len(text)))
    prefix = text[:cut]
    border = cut == 0 or prefix.endswith("\n")
    assert TASK.value(prompt, prefix) == 1.0
    assert (TASK.state(prompt, prefix) is not None) == border
    if border:
        assert solvable(TASK.state(prompt, prefix))


@given(seeds, st.data())
def test_a_dead_prefix_has_no_correct_continuation(seed, data):
    # Any prefix that value calls dead must differ from every solution there is.
    prompt, text = played(seed, 3)
    at = data.draw(st.integers(0, len(text) - 1))
    prefix = text[:at] + data.draw(st.sampled_from(ALPHABET))
    assume(TASK.value(prompt, prefix) == 0.0)
    numbers, target = prompt.strip().split(">")
    every = solve([int(n) for n in numbers.split(" ")], int(target))
    assert not any((solution + "y").startswith(prefix) for solution in every)


def test_a_wrong_last_number_is_dead_and_done():
    text = "11-5=6:3 6 7\n7-6=1:1 3\n1+3=4:4\n"
    assert TASK.value(PROMPT, text) == 0.0
    assert TASK.done(PROMPT, text)
    assert TASK.state(PROMPT, text) == "4>24"
    assert TASK.state(PROMPT, "") == "3 5 7 11>24"
    assert not TASK.done(PROMPT, "11-5=6:3 6 7\n7-6=1:1 3\n")


def test_two_orders_of_play_meet_in_one_state():
    orders = ("3+5=8:7 8 11\n11-7=4:4 8\n", "11-7=4:3 4 5\n5+3=8:4 8\n")
    assert {TASK.state(PROMPT, text) for text in orders} == {"4 8>24"}


@given(st.lists(st.integers(1, 999), min_size=2, max_size=6), st.integers(1, 9999), st.randoms())
def test_prepare_sorts_and_repeats_itself(numbers, target, rng):
    shuffled = rng.sample(numbers, len(numbers))
    prompt = TASK.prepare(f"  {'  '.join(map(str, shuffled))} > {target}\n")
    assert prompt == f"{key(sorted(numbers), target)}\n"
    assert TASK.prepare(prompt) == prompt


NO_PUZZLES = """
3 5 7;3 5 7>;>24;24>24;3 5>0;0 5>5;-3 5>2;3.5 5>8;3,5>8;a b>c;1 2>3>4;1 2 3 4 5 6 7>28;1000 1>1001
1 2>10000;1 2>99999999999999999999;٣ 5>8
"""


@pytest.mark.parametrize(
    "prompt", ["", " ", "3 5 7>38\n5*7=35:3 35\n", *re.split("[;\n]", NO_PUZZLES.strip())]
)
def test_what_is_no_puzzle_is_refused_in_one_line(prompt):
    with pytest.raises(BadInput) as caught:
        TASK.prepare(prompt)
    assert "\n" not in str(caught.value)
    assert ", got " in str(caught.value)


def test_an_unprepared_prompt_is_refused():
    with pytest.raises(BadInput, match="prepared"):
        TASK.verify("3 5 7 11>24", "")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 200))
def test_a_puzzle_is_in_exactly_one_split_whatever_its_order(numbers, target):
    assert split_of(tuple(numbers), target) == split_of(tuple(reversed(numbers)), target)
    assert split_of(tuple(numbers), target) in SPLITS


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 5))
def test_splits_share_no_puzzle_and_keep_to_their_ranges(seed, count):
    drawn = {split: list(puzzles(split, 60, seed, numbers=count)) for split in SPLITS}
    assert all(len(set(some)) == 60 for some in drawn.values())
    assert len({puzzle for some in drawn.values() for puzzle in some}) == 180
    for puzzle in drawn["test"]:
        numbers, target = puzzle.split(">")
        assert len(numbers.split(" ")) == count
        assert all(1 <= int(n) <= 20 for n in numbers.split(" "))
        assert 10 <= int(target) <= 100
    assert drawn["test"] == list(puzzles("test", 60, seed, numbers=count))


def test_split_shares_are_80_10_10():
    # 10,500 hashes: 0.016 is four standard errors of the 80 %, five of the 10 %.
    keys = [((a, b, 7), t) for a, b in product(range(1, 21), repeat=2) for t in range(50) if a <= b]
    shares = [sum(split_of(numbers, t) == split for numbers, t in keys) / len(keys) for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.016)


def test_puzzles_refuses_an_unknown_split_and_ranges_too_small():
    with pytest.raises(BadInput, match="split"):
        next(puzzles("tset", 1, seed=0))
    with pytest.raises(BadInput, match="numbers up to 0: raise them"):
        next(puzzles("test", 1, seed=0, largest=0))
    with pytest.raises(BadInput, match=r"got \(100, 10\): exchange them"):
        next(puzzles("test", 1, seed=0, targets=(100, 10)))


def test_ranges_too_small_say_how_many_puzzles_they_hold(monkeypatch):
    monkeypatch.setattr(countdown_puzzles, "MOST_MISSES", 1000)
    small = {"numbers": 2, "largest": 3, "targets": (1, 9)}
    found = list(distinct("train", 0, **small))
    assert len(found) == len(set(found)) == 14
    assert set(found) == set(distinct("train", 1, **small))  # all that there are
    with pytest.raises(BadInput, match="the 50 train puzzles asked for, got 14: ask for no more"):
        list(puzzles("train", 50, seed=0, **small))


def test_where_fewer_prompts_will_do_what_there_is_is_taken(monkeypatch):
    monkeypatch.setattr(countdown_puzzles, "MOST_MISSES", 5)  # so that the split is used up soon
    few = task_prompts("countdown", "train", 10_000, fewer=True)
    assert 0 < len(few) < 10_000
    with pytest.raises(BadInput, match=f"got {len(few)}: ask for no more"):
        task_prompts("countdown", "train", 10_000)


def test_the_list_of_legal_lines_cannot_be_changed_by_a_caller():
    with pytest.raises(TypeError):
        legal_lines((2, 3))["2+3=6:6"] = (6,)
