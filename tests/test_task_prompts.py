"""Prompts of a task to learn on: disjoint splits, whole where a task has few, and what happens where they run out."""

from itertools import combinations_with_replacement

import pytest

from babblegraph.errors import BadInput
from babblegraph.tasks.countdown import parse
from babblegraph.tasks.countdown_solver import solve
from babblegraph.tasks.training import task_prompts

SPLITS = ("train", "validation", "test")


def test_the_splits_of_the_game_of_24_are_all_hands_that_whole_numbers_solve_each_once():
    found = [prompt for split in SPLITS for prompt in task_prompts("game24", split, 5000, fewer=True)]
    every = combinations_with_replacement(range(1, 14), 4)
    solved = {hand for hand in every if next(iter(solve(hand, 24)), None) is not None}
    assert len(found) == len(set(found)) == len(solved)
    assert {parse(f"{prompt}\n")[0] for prompt in found} == solved


@pytest.mark.parametrize("task", ["countdown", "game24"])
def test_the_same_seed_gives_the_same_prompts_and_more_of_them_begin_with_the_fewer(task):
    few, more = (task_prompts(task, "validation", n, seed=3) for n in (20, 60))
    assert more[:20] == few
    assert task_prompts(task, "validation", 20, seed=4) != few


def test_a_split_that_holds_too_few_says_how_many_it_holds():
    with pytest.raises(BadInput, match="200 test prompts, got 119"):
        task_prompts("game24", "test", 200)
    assert len(task_prompts("game24", "test", 200, fewer=True)) == 119
