"""Our verifiers against those of reasoning-gym (extra `bench`); skipped where it is not installed.

Left out where the two tasks differ: their sums have no clock, so chains are compared without products, modulo 100.
"""

from __future__ import annotations

import random
import re

import pytest

from babblegraph.errors import BadInput
from babblegraph.tasks import Chain, Countdown, Queens
from babblegraph.tasks.chain import solution
from babblegraph.tasks.countdown import legal_lines
from babblegraph.tasks.countdown_solver import solve

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # the other library's
reasoning_gym = pytest.importorskip("reasoning_gym", reason="needs the extra 'bench'", exc_type=ImportError)


def expression(numbers, text):
    """The lines of a Countdown text as one expression over the numbers that were given."""
    known = [(n, str(n)) for n in numbers]
    for line in text.splitlines():
        a, operator, b = re.fullmatch(r"(\d+)([-+*/])(\d+)=.*", line).groups()
        parts = []
        for number in (int(a), int(b)):
            parts.append(known.pop([n for n, _ in known].index(number))[1])
        known.append((int(line.split("=")[1].split(":")[0]), f"({parts[0]}{operator}{parts[1]})"))
    return known[0][1] if len(known) == 1 else " + ".join(e for _, e in known)


def test_countdown_attempts_are_right_for_both_or_for_neither():
    task, rng = Countdown(), random.Random(3)
    theirs = reasoning_gym.create_dataset(
        "countdown", size=15, seed=2, min_numbers=4, max_numbers=4, max_value=20, min_target=10, max_target=99
    )
    right = 0
    for entry in theirs:
        numbers, target = entry["metadata"]["numbers"], entry["metadata"]["target"]
        prompt = task.prepare(f"{' '.join(map(str, numbers))}>{target}")
        texts = [text for text, _ in zip(solve(numbers, target), range(5), strict=False)]
        for _ in range(15):  # and random games
            hand, text = tuple(sorted(numbers)), ""
            while len(hand) > 1:
                line, hand = rng.choice(sorted(legal_lines(hand).items()))
                text += f"{line}\n"
            texts.append(text)
        for text in texts:
            score = theirs.score_answer(expression(numbers, text), entry)
            assert (score == 1.0) == (task.verify(prompt, text) == 1.0)
            right += score == 1.0
    assert right > 20


def test_queens_boards_are_right_for_both_or_for_neither():
    task, rng = Queens(), random.Random(4)
    theirs = reasoning_gym.create_dataset("n_queens", size=12, seed=5, n=8, min_remove=3, max_remove=6)
    right = 0
    for entry in theirs:
        rows = entry["metadata"]["puzzle"]
        prompt = "".join(chr(97 + row.index("Q")) if "Q" in row else "." for row in rows)
        prompt = task.prepare(prompt)
        boards = [s.split("\n") for s in entry["metadata"]["valid_answers"]]
        wrong = [list(b) for b in boards]
        for board in wrong:  # two rows change places
            i, j = rng.sample(range(8), 2)
            board[i], board[j] = board[j], board[i]
        for board in [*boards, *wrong]:
            text = "".join(f"{chr(97 + row.replace(' ', '').index('Q'))}\n" for row in board)
            score = theirs.score_answer("\n".join(board), entry)
            assert (score == 1.0) == (task.verify(prompt, text) == 1.0)
            right += score == 1.0
    assert right >= 12


def test_sums_end_where_theirs_do_on_the_clock():
    task, checked = Chain(), 0
    theirs = reasoning_gym.create_dataset(
        "chain_sum", size=40, seed=6, min_terms=3, max_terms=9, max_digits=2
    )
    for entry in theirs:
        try:
            prompt = task.prepare(entry["metadata"]["expression"])
        except BadInput:
            continue
        assert int(task.answer(solution(prompt))) == int(entry["answer"]) % 100
        checked += 1
    assert checked > 20
