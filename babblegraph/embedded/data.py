"""Training rows of the embedded generator: random correct solutions, and attempts labelled right or wrong.

Everything comes from forward play and from the strict verifier; no solver is involved. Puzzles come from the
`train` split alone.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from babblegraph.tasks.countdown import Numbers, key, legal_lines, parse
from babblegraph.tasks.countdown_puzzles import play, random_step, split_of

PAD, EOS, UNKNOWN = 0, 1, 2
SPECIALS = ("<pad>", "<eos>", "<unk>")
CHARACTERS = "\n 0123456789>:=+-*/yn"
VOCABULARY = {token: i for i, token in enumerate((*SPECIALS, *CHARACTERS))}
YES, NO = VOCABULARY["y"], VOCABULARY["n"]

NOTHING, GENERATE, JUDGE = 0, 1, 2  # what the loss at a position is for
LONGEST_ROW = 112
COUNTS = (3, 4, 4, 4, 4, 4, 4, 4, 4, 5)  # numbers in a puzzle, in the proportions they are trained in
LARGEST = 20
TARGETS = range(10, 101)


@dataclass
class Rows:
    """Padded texts with what each position learns.

    Attributes:
        ids: Token ids, padded at the right. `[N, L]`
        aim: NOTHING, GENERATE or JUDGE: what predicting the *next* token is for. `[N, L]`
        value: At the line ends of an attempt, 1 if it ends right and 0 if wrong; -1 elsewhere. `[N, L]`
        length: Tokens in each row. `[N]`
    """

    ids: np.ndarray
    aim: np.ndarray
    value: np.ndarray
    length: np.ndarray


def solutions(rng: random.Random, n: int) -> Rows:
    """Draw random correct solutions of training puzzles: what the model learns to babble.

    Example:
        >>> rows = solutions(random.Random(0), 3)
        >>> rows.ids.shape[0], int((rows.value >= 0).sum())
        (3, 0)
    """
    return pack(_solution(rng) for _ in range(n))


def wrong_attempts(rng: random.Random, n: int) -> Rows:
    """Draw attempts that fail: a false result, wrong numbers left, or another end than the target.

    Example:
        >>> int(wrong_attempts(random.Random(0), 2).value.max())
        0
    """
    return pack(_wrong(rng) for _ in range(n))


def pack(examples: Iterable[tuple[str, str, bool | None]]) -> Rows:
    """Lay (prepared prompt, attempt without verdict, outcome) out as rows.

    An outcome of None marks a correct solution to learn to generate; with True or False nothing but the
    verdict and the values at line ends are learned, so that attempts do not spoil the babbling.

    Example:
        >>> rows = pack([("1 2>3\\n", "1+2=3:3\\n", None)])
        >>> "".join(str(aim) for aim in rows.aim[0, :18])
        '000001111111122000'
    """
    texts = [(prompt, text, outcome) for prompt, text, outcome in examples]
    ids = np.full((len(texts), LONGEST_ROW), PAD, dtype=np.int64)
    aim = np.zeros_like(ids)
    value = np.full_like(ids, -1)
    length = np.zeros(len(texts), dtype=np.int64)
    for row, (prompt, text, outcome) in enumerate(texts):
        verdict = "n" if outcome is False else "y"
        tokens = [*(VOCABULARY[c] for c in prompt + text + verdict), EOS]
        end = len(prompt) + len(text) - 1  # the position that predicts the verdict
        ids[row, : len(tokens)] = tokens
        length[row] = len(tokens)
        if text.endswith("\n"):  # an attempt cut off within a line has no place for a verdict
            aim[row, end : end + 2] = JUDGE
        if outcome is None:
            aim[row, len(prompt) - 1 : end] = GENERATE
        else:
            value[row, :end] = np.where(ids[row, :end] == VOCABULARY["\n"], int(outcome), -1)
    return Rows(ids, aim, value, length)


def join(*parts: Rows) -> Rows:
    """Put rows together."""
    fields = ("ids", "aim", "value", "length")
    return Rows(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def take(rows: Rows, chosen: Sequence[int] | np.ndarray) -> Rows:
    """Choose rows."""
    return Rows(rows.ids[chosen], rows.aim[chosen], rows.value[chosen], rows.length[chosen])


def training_puzzles(rng: random.Random, n: int) -> list[str]:
    """Draw prepared prompts of training puzzles, in the proportions of the training set."""
    return [_solution(rng)[0] for _ in range(n)]


def _solution(rng: random.Random) -> tuple[str, str, None]:
    """Play until a training puzzle comes out."""
    while True:
        start, lines, target = play(rng, rng.choice(COUNTS), LARGEST)
        if target in TARGETS and split_of(start, target) == "train":
            return f"{key(start, target)}\n", "".join(lines), None


def _wrong(rng: random.Random) -> tuple[str, str, bool]:
    """Play a training puzzle with one false line, or honestly to another end."""
    while True:
        prompt, _, _ = _solution(rng)
        numbers, target = parse(prompt)
        false_line = rng.choice((None, *range(len(numbers) - 1), len(numbers) - 2))
        text, right = "", True
        while len(numbers) > 1:
            line, left = _line(rng, numbers, target, false=false_line == text.count("\n"))
            right = right and legal_lines(numbers).get(line) == left
            text, numbers = f"{text}{line}\n", left
        if not (right and numbers == (target,)):
            return prompt, text, False


def _line(rng: random.Random, numbers: Numbers, target: int, *, false: bool) -> tuple[str, Numbers]:
    """Play one line, honestly or with one slip in its result or in the numbers left."""
    operation, result, others = random_step(rng, numbers)
    if false and not others:
        result = target  # the slip that looks best: the last result forced to be the target
    elif false and rng.random() < 0.5:
        result = max(1, result + rng.choice((-10, -2, -1, 1, 2, 10)))
    elif false:
        slip = rng.randrange(len(others))
        others = (*others[:slip], max(1, others[slip] + rng.choice((-2, -1, 1, 2))), *others[slip + 1 :])
    left = tuple(sorted((*others, result)))
    return f"{operation}={result}:{' '.join(map(str, left))}", left
