"""The Countdown solver against brute force on fractions; Game of 24 puzzles that are known."""

import random
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babblegraph.errors import BadInput
from babblegraph.tasks import TASKS, Countdown, Game24
from babblegraph.tasks.countdown import key
from babblegraph.tasks.countdown_puzzles import play
from babblegraph.tasks.countdown_solver import solvable, solve


def reachable(numbers: list[Fraction], whole: bool) -> set[Fraction]:
    """Everything that can be left at the end, by recursion over ordered pairs."""
    if len(numbers) == 1:
        return set(numbers)
    found = set()
    for i, j in permutations(range(len(numbers)), 2):
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        a, b = numbers[i], numbers[j]
        for result in (a + b, a - b, a * b, a / b):
            if result > 0 and (not whole or result.denominator == 1):
                found |= reachable([*rest, result], whole)
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=2, max_size=4))
def test_the_solver_finds_exactly_the_targets_that_brute_force_reaches(numbers):
    expected = reachable([Fraction(n) for n in numbers], whole=True)
    for target in range(1, 120):
        assert solvable(key(sorted(numbers), target)) == (Fraction(target) in expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_every_solution_of_the_solver_verifies_and_none_is_given_twice(seed):
    numbers, lines, target = play(random.Random(seed), 4, 20)
    prompt = f"{key(numbers, target)}\n"
    solutions = list(solve(numbers, target))
    assert "".join(lines) in solutions
    assert len(set(solutions)) == len(solutions)
    assert all(Countdown().verify(prompt, solution) == 1.0 for solution in solutions)


@pytest.mark.parametrize("puzzle", ["4 4 6 8", "1 2 3 4", "4 6 7 8>24", "2 3 4 12", "6 6 6 6", "13 1 2 12"])
def test_game24_puzzles_known_to_be_solvable_are(puzzle):
    game = Game24()
    prompt = game.prepare(puzzle)
    numbers = [int(n) for n in prompt.split(">")[0].split(" ")]
    assert game.verify(prompt, next(solve(numbers, 24))) == 1.0


@pytest.mark.parametrize("puzzle", ["1 1 1 1", "1 1 1 2", "2 3 5 12", "3 3 8 8", "1 5 5 5", "13 13 13 13"])
def test_game24_puzzles_without_whole_number_solution_have_none(puzzle):
    assert not solvable(Game24().prepare(puzzle).strip())


def test_3_3_8_8_has_a_solution_in_fractions_alone():
    assert 24 in reachable([Fraction(n) for n in (3, 3, 8, 8)], whole=False)


def test_game24_refuses_another_target():
    with pytest.raises(BadInput, match="24"):
        Game24().prepare("4 4 6 8>25")


def test_every_registered_task_accepts_its_own_prompts_and_they_are_solvable():
    for name, make in TASKS.items():
        task = make()
        assert task.name == name
        assert task.stop == ("\n",)
        for prompt in task.prompts:
            prepared = task.prepare(prompt)
            assert not isinstance(task, Countdown) or solvable(prepared.strip())


def test_what_is_no_state_is_refused():
    with pytest.raises(BadInput, match="state"):
        solvable("3 5 7 11")
