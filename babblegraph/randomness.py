"""Random numbers keyed by what they decide, never by when: (seed, prompt, path, draw, position).

A prompt alone and the same prompt among others see the same uniforms, and a search that is resumed goes on
with the numbers it would have had. The mixer is SplitMix64's finaliser (Steele, Lea & Flood, 2014), applied
once for each word of the key.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

U64 = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(keys: U64, draws: ArrayLike, positions: ArrayLike) -> NDArray[np.float64]:
    """One number in [0, 1) for every (key, draw, position); shapes broadcast.

    >>> keys = np.array([7, 7, 8], np.uint64)
    >>> u = uniforms(keys, [0, 0, 0], [3, 3, 3])
    >>> bool(u[0] == u[1] != u[2]) and bool((0 <= u).all() and (u < 1).all())
    True
    """
    return (chain(chain(keys, draws), positions) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def chain(keys: U64, words: ArrayLike) -> U64:
    """The keys of the places one step further on: a hash of each key with a word (token, draw, round)."""
    step = (np.atleast_1d(words).astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return _mix(np.atleast_1d(np.asarray(keys, np.uint64)) + step)


def prompt_key(seed: int, prompt: str, occurrence: int) -> int:
    """The key of a prompt's root: the same text twice in one forest gives two different trees."""
    digest = hashlib.blake2b(
        f"{seed}|{occurrence}|{prompt}".encode(errors="surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "little")


def text_key(text: str) -> int:
    """A 63-bit key of a state's text, never negative, so that -1 can mean "no state"."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Rng:
    """The source of all randomness of one search.

    Args:
        seed: a non-negative integer.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def uniforms(self, keys: U64, draws: ArrayLike, positions: ArrayLike) -> NDArray[np.float64]:
        """Uniforms for sampling tokens; the seed is already in every root's key."""
        return uniforms(keys, draws, positions)

    def generator(self, *words: int) -> np.random.Generator:
        """A numpy generator for one decision, such as pruning one tree in one round."""
        digest = hashlib.blake2b(repr((self.seed, *map(int, words))).encode(), digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def _mix(x: U64) -> U64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
