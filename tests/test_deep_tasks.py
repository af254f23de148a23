"""Chains, queens, every Game of 24 and the hard split: verifiers against independent rechecks."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from babblegraph.embedded.deep import RECIPES, batches, recipe_of, train, vocabulary
from babblegraph.errors import BadInput
from babblegraph.tasks import TASKS, Chain, Game24, Queens
from babblegraph.tasks.chain import chains, random_chain, solution, split_of
from babblegraph.tasks.countdown_puzzles import hard_puzzles
from babblegraph.tasks.countdown_puzzles import split_of as split_of_puzzle
from babblegraph.tasks.countdown_solver import solvable, solve
from babblegraph.tasks.game24_puzzles import game24_puzzles
from babblegraph.tasks.queens import boards, hide, random_board

CHAIN, QUEENS = Chain(), Queens()
seeds = st.integers(0, 2**32)


def clock(prompt):
    """The chain again, by eval from left to right."""
    now, lines, rest = "", [], prompt.strip()
    while rest and not rest[0].isalpha():
        now, rest = now + rest[0], rest[1:]
    while rest:
        label, rest, step = rest[0], rest[1:], ""
        while rest and not rest[0].isalpha():
            step, rest = step + rest[0], rest[1:]
        result = eval(now + step) % 100
        lines.append(f"{label}{now}{step}={result}\n")
        now = str(result)
    return "".join(lines)


@given(seeds, st.integers(1, 26))
def test_the_one_right_text_of_a_chain_is_that_of_plain_evaluation(seed, steps):
    prompt = random_chain(random.Random(seed), steps)
    assert solution(prompt) == clock(prompt)
    assert CHAIN.prepare(prompt) == prompt
    assert CHAIN.verify(prompt, clock(prompt)) == 1.0
    assert CHAIN.done(prompt, clock(prompt))
    assert int(CHAIN.answer(clock(prompt))) == int(clock(prompt).strip().rsplit("=")[-1])


@given(seeds, st.data())
def test_a_chain_is_dead_from_its_first_wrong_character_on(seed, data):
    prompt = random_chain(random.Random(seed), 8)
    right = clock(prompt)
    at = data.draw(st.integers(0, len(right) - 1))
    wrong = data.draw(st.sampled_from([c for c in "0123456789+-*=abcz\n" if c != right[at]]))
    assert CHAIN.value(prompt, right[:at]) == 1.0
    assert CHAIN.value(prompt, right[:at] + wrong) == 0.0
    assert CHAIN.verify(prompt, right[:at] + wrong + right[at + 1 :]) == 0.0


def safe(columns):
    """No two queens attack: rows, columns and both diagonals are all different, as sets."""
    n = len(columns)
    return (
        len(set(columns))
        == len({c + r for r, c in enumerate(columns)})
        == len({c - r for r, c in enumerate(columns)})
        == n
    )


def board_text(columns):
    return "".join(f"{chr(97 + c)}\n" for c in columns)


@pytest.mark.parametrize(("size", "count"), [(4, 2), (5, 10), (6, 4)])
def test_the_verifier_finds_every_solution_and_no_other(size, count):
    prompt = "." * size + "\n"
    right = [c for c in product(range(size), repeat=size) if QUEENS.verify(prompt, board_text(c))]
    assert right == [c for c in permutations(range(size)) if safe(c)]
    assert len(right) == count  # the known numbers


@given(seeds, st.integers(4, 12), st.integers(0, 4))
def test_a_random_board_is_a_solution_of_its_own_prompt(seed, size, shown):
    rng = random.Random(seed)
    board = random_board(rng, size)
    prompt = hide(rng, board, shown)
    assert safe(board)
    assert QUEENS.prepare(prompt) == prompt
    assert QUEENS.verify(prompt, board_text(board)) == 1.0
    for cut in range(2 * size + 1):
        assert QUEENS.value(prompt, board_text(board)[:cut]) == 1.0


@given(seeds, st.data())
def test_a_dead_board_has_no_right_continuation(seed, data):
    rng = random.Random(seed)
    prompt = hide(rng, random_board(rng, 6), 2)
    text = data.draw(st.text("abcdef\n", max_size=8))
    assume(QUEENS.value(prompt, text) == 0.0)
    every = [c for c in permutations(range(6)) if safe(c)]
    fits = [c for c in every if all(p in (".", chr(97 + x)) for p, x in zip(prompt, c, strict=False))]
    assert not any(board_text(c).startswith(text) for c in fits)


@pytest.mark.parametrize(
    "text", ["", "\n", "b", "b\nd\na\nc", "b\nd\na\nc\n\n", "bd\na\nc\n", "B\nd\na\nc\n", "b\nd\na\nb\n"]
)
def test_what_is_no_full_board_fails(text):
    assert QUEENS.verify(".d..\n", text) == 0.0


@pytest.mark.parametrize(
    ("task", "prompt"),
    [("chain", p) for p in ("", "5", "5+", "+5+3", "100+1", "5/2", "5+-3", "1" + "+1" * 27)]
    + [("queens", p) for p in ("", "...", "." * 13, "..m.", "e...", "ab..", "a..d", "a.a.", "A...")],
)
def test_what_is_no_prompt_is_refused_in_one_line(task, prompt):
    with pytest.raises(BadInput, match="got") as error:
        TASKS[task]().prepare(prompt)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("draw", [chains, boards])
def test_splits_share_nothing_and_repeat_themselves(draw):
    drawn = {split: set(draw(split, 60, 3)) for split in ("train", "validation", "test")}
    assert len(set.union(*drawn.values())) == 180
    assert drawn["test"] == set(draw("test", 60, 3))
    assert {split_of(p) for p in drawn["validation"]} == {"validation"}
    with pytest.raises(BadInput, match="split"):
        next(draw("tset", 1, 0))


def test_every_game_of_24_with_whole_steps_is_listed_and_no_other():
    """1,362 of 1,820 hands can be solved with fractions; a second solver says for which of them whole steps do."""
    listed = {p.prompt for p in game24_puzzles()}
    whole = {k for k in hands() if solvable(k)}
    assert listed == whole
    assert len(whole) == 1346
    rng = random.Random(1)
    for prompt in rng.sample(sorted(set(hands()) - whole), 25):
        numbers = [Fraction(n) for n in prompt.split(">")[0].split(" ")]
        assert not with_whole_steps(numbers)


def hands():
    cards = range(1, 14)
    return [
        f"{a} {b} {c} {d}>24" for a in cards for b in range(a, 14) for c in range(b, 14) for d in range(c, 14)
    ]


def with_whole_steps(numbers):
    if len(numbers) == 1:
        return numbers[0] == 24
    for i, j in permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        for result in (a + b, a - b, a * b, a / b):
            if result > 0 and result.denominator == 1 and with_whole_steps([*rest, result]):
                return True
    return False


def test_the_ranking_is_by_the_chance_of_random_play():
    """20,000 random games of three hands: five standard errors."""
    ranked = game24_puzzles()
    assert [p.chance for p in ranked] == sorted((p.chance for p in ranked), reverse=True)
    rng, task = random.Random(0), Game24()
    for puzzle in (ranked[0], ranked[400], ranked[900]):
        assert task.prepare(puzzle.prompt)
        assert next(solve([int(n) for n in puzzle.prompt.split(">")[0].split(" ")], 24), None) is not None
        wins = sum(play(rng, puzzle.prompt) for _ in range(20_000)) / 20_000
        assert abs(wins - puzzle.chance) < 5 * np.sqrt(puzzle.chance / 20_000)


def play(rng, prompt):
    numbers = [int(n) for n in prompt.split(">")[0].split(" ")]
    while len(numbers) > 1:
        a, b = sorted(rng.sample(range(len(numbers)), 2))
        x, y = sorted((numbers[a], numbers[b]))
        options = [x + y, x * y] + ([y - x] if y > x else []) + ([y // x] if y % x == 0 else [])
        numbers = [n for i, n in enumerate(numbers) if i not in (a, b)] + [rng.choice(options)]
    return numbers == [24]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_hard_puzzles_are_held_out_and_can_be_solved(split):
    found = hard_puzzles(split)
    assert len(set(found)) == len(found) >= 100
    for puzzle in found:
        numbers, target = puzzle.split(">")
        assert split_of_puzzle(tuple(map(int, numbers.split())), int(target)) == split
        assert solvable(puzzle)
    with pytest.raises(BadInput, match="hard split"):
        hard_puzzles("train")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_draws_right_texts_of_training_prompts(name):
    recipe, task = recipe_of(name), TASKS[name]()
    letters = {i: c for c, i in vocabulary(recipe).items()}
    tokens, prompts = next(batches(recipe._replace(rows=8), random.Random(0), 10))
    for row, length in zip(tokens.tolist(), prompts.tolist(), strict=True):
        text = "".join(letters[i] for i in row[length:] if i > 2)
        prompt = "".join(letters[i] for i in row[:length])
        assert task.verify(prompt, text) == 1.0
        assert split_of(prompt) == "train"


def test_a_few_steps_of_a_recipe_lower_the_loss(capsys):
    recipe = RECIPES["queens"]._replace(rows=8, width=32, layers=1)
    train(recipe, seed=0, steps=100)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < losses[0] < 4
    assert torch.is_grad_enabled()


def test_an_unknown_recipe_is_refused():
    with pytest.raises(BadInput, match="deep task"):
        recipe_of("sudoku")


def test_more_boards_than_there_are_is_said_and_does_not_go_on_for_ever():
    """Boards of four rows have two solutions, so eight prompts with one queen given, over three splits."""
    rng = random.Random(0)
    prompts = {hide(rng, random_board(rng, 4), 1) for _ in range(400)}
    assert len(prompts) == 8
    with pytest.raises(BadInput, match="got 9 of 4 rows with 1 given and found"):
        list(boards("train", 9, seed=0, size=4, given=1))


def test_more_chains_than_there_are_are_said_and_do_not_go_on_for_ever():
    with pytest.raises(BadInput, match="got 3000 of 1 steps and found"):
        list(chains("test", 3000, seed=0, steps=1))
    for steps in (0, 27):
        with pytest.raises(BadInput, match=f"1 to 26 steps, got {steps}"):
            next(chains("test", 1, seed=0, steps=steps))
