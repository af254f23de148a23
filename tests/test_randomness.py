"""Keyed random numbers: uniform, independent of their neighbours, and of nothing but their key.

The seeds are fixed, so nothing here is ever flaky. Each bound is one that a truly random source would break
once in 10^9 runs: Z = 6 standard deviations for every single comparison.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from babblegraph.randomness import Rng, chain, prompt_key, text_key, uniforms

Z = 6.0
N = 1 << 16
AXES = ("keys", "hashed keys", "draws", "positions")
WORDS = st.integers(0, 2**63 - 1)
KEY, TEXT = 17607020322919914073, 6520050896752413802
UNIFORMS = [0.3024927849172162, 0.5383856427033022]
GENERATOR = 0.8713188825699815


def along(axis: str, n: int = N) -> NDArray[np.float64]:
    """Numbers whose neighbours differ by one in one word of the key, and in nothing else."""
    steps, key = np.arange(n), np.array([prompt_key(0, "p", 0)], np.uint64)
    if axis == "keys":  # the hardest case: keys that are no hashes
        return uniforms(steps.astype(np.uint64), 0, 0)
    if axis == "hashed keys":  # as siblings have them: their parent's key and their first token
        return uniforms(chain(key, steps), 0, 0)
    return uniforms(key, steps, 3) if axis == "draws" else uniforms(key, 3, steps)


@pytest.mark.parametrize("axis", AXES)
def test_numbers_are_uniform(axis: str) -> None:
    counts = np.bincount((along(axis) * 256).astype(int), minlength=256)
    assert chi_square(counts, N / 256) < chi_square_bound(255)


@pytest.mark.parametrize("axis", AXES)
def test_low_bits_are_uniform_too(axis: str) -> None:
    low = (along(axis) * 2.0**53).astype(np.uint64) & np.uint64(255)
    assert chi_square(np.bincount(low.astype(int), minlength=256), N / 256) < chi_square_bound(255)


@pytest.mark.parametrize("lag", [1, 2, 64])
@pytest.mark.parametrize("axis", AXES)
def test_neighbours_are_independent(axis: str, lag: int) -> None:
    u = along(axis)
    pairs = (u[:-lag] * 16).astype(int) * 16 + (u[lag:] * 16).astype(int)
    assert chi_square(np.bincount(pairs, minlength=256), len(pairs) / 256) < chi_square_bound(255)
    correlation = np.corrcoef(u[:-lag], u[lag:])[0, 1]
    assert abs(correlation) < Z / math.sqrt(len(u) - lag)


def test_draws_of_one_node_and_positions_of_one_draw_are_independent_together() -> None:
    keys = chain(np.array([1], np.uint64), np.arange(16))
    u = uniforms(keys[:, None, None], np.arange(64)[None, :, None], np.arange(64)[None, None, :])
    assert u.shape == (16, 64, 64)
    assert len(np.unique(u)) == u.size
    for axis in range(3):
        means = u.mean(axis=tuple(a for a in range(3) if a != axis))
        bound = Z * math.sqrt(1 / 12 / (u.size / u.shape[axis]))
        assert np.abs(means - 0.5).max() < bound


def test_one_bit_of_a_word_changes_half_of_the_bits() -> None:
    keys = chain(np.array([5], np.uint64), np.arange(1000))
    for bit in range(48):
        words = np.arange(1000)
        flips = np.bitwise_count(chain(keys, words) ^ chain(keys, words ^ (1 << bit)))
        assert abs(flips.mean() - 32) < Z * math.sqrt(16 / 1000)


def test_keys_do_not_repeat() -> None:
    keys = chain(chain(np.array([0], np.uint64), np.arange(300))[:, None], np.arange(300)[None, :])
    assert len(np.unique(keys)) == 90_000


def test_the_order_of_words_matters() -> None:
    key = np.array([9], np.uint64)
    assert chain(chain(key, 1), 2)[0] != chain(chain(key, 2), 1)[0]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), WORDS, WORDS), min_size=1, max_size=20))
def test_numbers_are_those_of_plain_python(rows: list[tuple[int, int, int]]) -> None:
    keys, draws, positions = zip(*rows, strict=True)
    found = uniforms(np.array(keys, np.uint64), draws, positions)
    assert found.tolist() == [plain_uniform(*row) for row in rows]
    assert all(0 <= u < 1 for u in found)


@given(st.permutations(range(12)), st.integers(1, 12))
def test_numbers_do_not_depend_on_the_batch(order: list[int], size: int) -> None:
    keys, draws, positions = (
        chain(np.array([7], np.uint64), np.arange(12)),
        np.arange(12) % 3,
        np.arange(12) % 5,
    )
    whole, some = uniforms(keys, draws, positions), np.array(order[:size])
    assert uniforms(keys[some], draws[some], positions[some]).tolist() == whole[some].tolist()


def test_single_words_broadcast_over_keys() -> None:
    keys = np.array([1, 2, 2**64 - 1], np.uint64)
    assert uniforms(keys, 3, 4).tolist() == uniforms(keys, [3] * 3, [4] * 3).tolist()
    assert chain(keys, np.int32(3)).tolist() == chain(keys, np.array([3], np.uint8)).tolist()


def test_numbers_stay_what_they_are_in_every_version() -> None:
    """A seed that someone wrote down must give the same graph later; change this only with a release note."""
    key = prompt_key(0, "2 3 5 7>24", 0)
    assert (key, text_key("6 7")) == (KEY, TEXT)
    assert uniforms(np.array([key], np.uint64), [0, 1], [0, 9]).tolist() == UNIFORMS
    assert Rng(0).generator(1, 2).random() == GENERATOR


def test_a_prompt_key_depends_on_seed_text_and_occurrence() -> None:
    keys = {prompt_key(s, p, o) for s in range(3) for p in ("", "a", "b", "|", "0|") for o in range(3)}
    assert len(keys) == 45
    assert all(0 <= key < 2**64 for key in keys)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_key_is_never_the_sentinel(text: str) -> None:
    assert 0 <= text_key(text) < 2**63


def test_a_generator_is_that_of_its_words() -> None:
    rng = Rng(3)
    first = rng.generator(1, 2).random(4).tolist()
    rng.generator(9).random(100)
    assert rng.generator(1, 2).random(4).tolist() == first
    assert Rng(3).generator(np.int64(1), np.int32(2)).random(4).tolist() == first


def test_generators_of_other_words_are_independent() -> None:
    u = np.array([Rng(s).generator(a, b).random() for s in range(8) for a in range(32) for b in range(64)])
    assert len(set(u)) == len(u)
    assert chi_square(np.bincount((u * 64).astype(int), minlength=64), len(u) / 64) < chi_square_bound(63)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < Z / math.sqrt(len(u) - 1)


def test_a_generator_tells_apart_how_words_are_grouped() -> None:
    firsts = [Rng(1).generator(*w).random() for w in [(), (1,), (1, 1), (11,), (1, 1, 1), (-1,)]]
    assert len(set(firsts)) == len(firsts)


def chi_square(counts: NDArray[np.intp], expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def chi_square_bound(df: int) -> float:
    """What a chi-square variable exceeds once in 10^9 (Wilson & Hilferty, 1931)."""
    return df * (1 - 2 / (9 * df) + Z * math.sqrt(2 / (9 * df))) ** 3


def plain_uniform(key: int, draw: int, position: int) -> float:
    for word in (draw, position):
        key = splitmix((key + (word + 1) * 0x9E3779B97F4A7C15) % 2**64)
    return (key >> 11) / 2**53


def splitmix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31
