"""Multilevel splitting: the probability of a rare event as a product of probabilities that are not rare.

Particles are finished texts of one tree. At each level those whose score reaches the threshold are copied until
there are as many as before; then each is cut at a random node of its path and written anew from there, and the new
text is taken if it reaches the threshold too. Cutting and writing leaves the generator's distribution, given that
the threshold is reached, as it is; so the product of the levels' shares is unbiased for P(S ≥ γ), provided that the
thresholds do not come from the same trees. They come from a pilot.

It needs a score with more than two values: with a verdict of right or wrong there is only one level.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.doubts import doubts
from babblegraph.errors import BadInput
from babblegraph.estimates import Estimate
from babblegraph.given import is_number, need_whole
from babblegraph.graph import BabbleGraph
from babblegraph.intervals import agreeing, all_agree, log_odds, spread, stratified
from babblegraph.particles import Particles
from babblegraph.protocols import Generator, Scorer
from babblegraph.thresholds import next_level

PILOT = 1 << 32  # added to the seed: the pilot shares no random number with the trees
MOST_LEVELS, MOST_GROWTHS = 100, 4


class Levels(NamedTuple):
    """What multilevel splitting found.

    Args:
        estimate: of P(S ≥ γ), its unit the tree; `tokens` counts the pilot too.
        thresholds: of the levels, the last is γ.
        shares: of each tree's particles that pass each level, [trees, levels]; 0 after a level that none passed.
        pilot_tokens: what the thresholds cost.
        graph: all that was written; its weights allow no other estimate.
    """

    estimate: Estimate
    thresholds: tuple[float, ...]
    shares: NDArray[np.float64]
    pilot_tokens: int
    graph: BabbleGraph


def multilevel(
    generator: Generator,
    prompt: Any,
    *,
    score: Scorer,
    threshold: float,
    trees: int = 32,
    particles: int = 64,
    moves: int = 2,
    share: float = 0.2,
    thresholds: tuple[float, ...] | None = None,
    seed: int = 0,
) -> Levels:
    """Estimates P(S ≥ γ) for a rare event, without bias, by multilevel splitting.

    Args:
        generator: what babbles, at temperature 1 and without truncation.
        prompt: of every tree.
        score: fills in the scores of finished texts.
        threshold: γ, where the levels end.
        trees: independent repetitions.
        particles: texts of each tree.
        moves: how often each is cut and written anew at each level; more moves make copies less alike.
        share: ρ, of the pilot's particles that pass a level; it shrinks, and then the pilot grows, where scores tie.
        thresholds: of the levels before the last, rising, from an earlier run; then there is no pilot.
        seed: the same seed gives the same estimate.

    Raises:
        BadInput: numbers out of range, a generator with another temperature or truncation, thresholds that do
            not rise.

    Source: Cérou, Del Moral, Furon & Guyader, "Sequential Monte Carlo for rare event estimation", 2012;
    design/statistics.md, "The objective".
    """
    _check(threshold, trees, particles, moves, share, seed)
    pilot_tokens = 0
    said: tuple[str, ...] = ()
    if thresholds is None:
        pilot = Particles(generator, prompt, score, 1, seed + PILOT)
        thresholds, said = _pilot(pilot, float(np.float32(threshold)), 2 * particles, moves, share)
        pilot_tokens = pilot.tokens
    elif not (np.diff([*thresholds, threshold]) > 0).all():
        raise BadInput(
            f"thresholds must rise up to {threshold:g}, got {thresholds}: sort them, drop equal ones"
        )
    levels = tuple(float(np.float32(x)) for x in (*thresholds, threshold))  # as the graph keeps scores
    forest = Particles(generator, prompt, score, trees, seed)
    at = forest.texts(particles)
    shares = np.zeros((trees, len(levels)))
    alive = np.arange(trees)
    for number, gamma in enumerate(levels):
        passed = forest.scores(at[alive]) >= gamma  # [alive, particles]
        shares[alive, number] = passed.mean(1)
        alive = alive[passed.any(1)]
        if number + 1 == len(levels) or not len(alive):
            break
        at[alive] = forest.copied(at[alive], passed[passed.any(1)], number)
        for move in range(moves):
            at[alive] = forest.moved(at[alive], gamma, number * moves + move)
        forest.release(at[alive])
    forest.release(at[:0])
    found = _estimate(forest, shares, said, pilot_tokens)
    return Levels(found, levels, shares, pilot_tokens, forest.graph)


def _pilot(
    forest: Particles, final: float, particles: int, moves: int, share: float
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Thresholds before the last one, each from the particles that reached the one before."""
    found: list[float] = []
    at, last, growths = forest.texts(particles), -np.inf, 0
    for number in range(MOST_LEVELS):
        level = next_level(forest.scores(at)[0], last, final, share=share)
        if level is not None and level.threshold >= final:
            return tuple(found), ()
        if level is None:
            growths += 1
            if growths > MOST_GROWTHS:
                break
            at = np.tile(at, 2)  # copies, which the moves tell apart
        else:
            last = level.threshold
            found.append(last)
            at = forest.copied(at, forest.scores(at) >= last, number)
        for move in range(moves):
            at = forest.moved(at, last, number * moves + move)
    reached = "any score" if not found else f"{last:.3g}"
    return tuple(found), (f"the pilot found too little above {reached}: the last level may be a rare event",)


def _estimate(
    forest: Particles, shares: NDArray[np.float64], said: tuple[str, ...], pilot_tokens: int
) -> Estimate:
    product = shares.prod(1)
    hits, tokens = int((product > 0).sum()), forest.tokens + pilot_tokens
    with np.errstate(divide="ignore"):
        effective, heaviest = spread(np.log(product)) if hits else (0.0, float("nan"))
    one = np.zeros(len(product), np.intp)
    if not hits:
        reason = f"no particle of {len(product)} trees reached the last threshold"
        return Estimate(None, None, 0.0, reason, trees=len(product), tokens=tokens, warnings=said)
    value, error, degrees = stratified(product, one)
    assert error is not None  # of two trees or more
    same = all_agree(error, value)
    low, high = agreeing(value, 0.0, 1.0, len(product)) if same else log_odds(value, error, degrees)
    ones = np.ones(len(product))
    return Estimate(
        value,
        error,
        effective,
        low=low,
        high=high,
        trees=len(product),
        hits=hits,
        heaviest=heaviest,
        log_value=float(np.log(value)),
        tokens=tokens,
        independent_tokens=value * (1 - value) / error**2 * forest.mean_length if not same else None,
        warnings=(*said, *doubts(np.inf, 0.0, hits, product, ones, np.array([len(product)]))),
        tree_ids=np.arange(len(product)),
        per_tree=product,
    )


def _check(threshold: float, trees: int, particles: int, moves: int, share: float, seed: int) -> None:
    least = {"trees": (trees, 2), "particles": (particles, 2), "moves": (moves, 1), "seed": (seed, 0)}
    for name, (number, fewest) in least.items():
        need_whole(name, number, fewest)
    if not is_number(threshold):
        raise BadInput(f"a threshold must be a number, got {threshold!r:.80}: it is where the levels end")
    if not 0 < share < 1:
        raise BadInput(f"share must be above 0 and below 1, got {share:g}: 0.2 is a fifth")
