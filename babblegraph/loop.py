"""The loop: select, expand, score, prune; and a round for whoever watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter, Spent
from babblegraph.closing import Closing
from babblegraph.errors import BadInput
from babblegraph.given import need_seed
from babblegraph.graph import OPEN, BabbleGraph
from babblegraph.protocols import Chosen, Generator, Scorer, Strategy
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Gate, Status


class Round(NamedTuple):
    """One pass of the loop. The graph is the live one: it grows on in the next round."""

    graph: BabbleGraph
    chosen: Chosen
    born: NDArray[np.int32]  # ids of the new nodes, [M]
    stopped: NDArray[np.intp]  # ids that a gate stopped
    spent: Spent


def search(
    generator: Generator,
    prompts: Sequence[Any] | None = None,
    *,
    score: Scorer,
    strategy: Strategy,
    budget: Budget,
    seed: int = 0,
    graph: BabbleGraph | None = None,
    close: bool = False,
) -> Iterator[Round]:
    """Searches a forest of babble, one round at a time.

    Stop consuming at any round and the graph is valid (anytime). Everything random is keyed by the seed and
    the path, so the same arguments give the same graph.

    Args:
        generator: what babbles.
        prompts: one tree each.
        score: fills the values of new nodes, and marks finished and dead ones.
        strategy: whom to expand and whom to stop.
        budget: what may be spent; sampled tokens and nodes count for each prompt.
        seed: a non-negative integer; a graph that goes on has its own.
        graph: go on with this graph instead of starting one for prompts; a round in which it was cut off, as by
            Ctrl-C while it was scored, is scored anew and pruned first. One that was searched to solve keeps that
            aim, whatever goes on with it: what biased its weights stays in them.
        close: leave no weight on unfinished nodes, so that an estimate is possible: a quarter of the budget is
            kept back, what is unfinished then is pruned without bias to what that can pay, and rolled out. A tree
            may go over its budget of tokens, only to finish such rollouts; `graph.meta["closing"]` counts it.

    Yields:
        A `Round` after each pass.

    Raises:
        BadInput: what is no generator, scorer, strategy or budget; a strategy that chooses what it may not; neither
            prompts nor a graph, or both; a seed that is negative, no whole number, or not the graph's; `close` with a
            strategy whose aim is not `estimate`.
    """
    _check(generator, score, strategy, budget, seed)
    if close and strategy.aim != "estimate":
        raise BadInput(f"only an estimate can be closed, got {strategy.name!r} that solves: take frontier()")
    graph, meter, rng = _begin(generator, prompts, budget, seed, graph)
    aim = strategy.aim if strategy.aim == "solve" else graph.meta.get("aim", strategy.aim)
    graph.meta |= {"strategy": strategy.name, "aim": aim, "budget": _bounds(budget)}
    closing = Closing(meter, rng, graph.meta.get("closing")) if close else None
    paying = meter if closing is None else closing.unbounded
    try:
        if opened := graph.meta.pop(OPEN, None):  # an earlier search was cut off in the middle of a round
            again = np.flatnonzero(graph.born == graph.round).astype(np.int32)
            if opened == "score":
                _settle(graph, again, score, strategy, rng, paying)
            else:
                score(graph, again[graph.status[again] != Status.PRUNED], paying)
                graph.flags[again] |= np.uint8(Flag.BIASED)
        while len(chosen := _choose(graph, meter, strategy, closing)):
            graph.round += 1
            born = graph.add(generator.expand(graph, chosen, rng, paying, strategy.draws))
            meter.count("nodes", graph.root[born])
            graph.meta["spent"] = meter.to_json()  # whatever becomes of this round, it is spent
            stopped = _settle(graph, born, score, strategy, rng, paying)
            if closing is not None:
                stopped = np.concatenate([stopped, closing.note(graph)])
            over = chosen.ids if strategy.aim == "estimate" else chosen.ids[:0]  # never expanded again
            generator.release(graph, np.concatenate([stopped, born[graph.is_leaf(born)], over]))
            graph.meta["spent"] = meter.to_json()
            yield Round(graph, chosen, born, stopped, meter.read())
    finally:
        generator.release(graph, np.arange(graph.size))


def _settle(
    graph: BabbleGraph,
    born: NDArray[np.int32],
    score: Scorer,
    strategy: Strategy,
    rng: Rng,
    meter: Meter,
) -> NDArray[np.intp]:
    """Scores a round's new nodes and prunes; returns whom a gate stopped.

    Scorers are slow, and may raise: where this is cut off, the graph says whether the round can be finished later.
    Scoring can be done again; pruning, which changes weights, cannot, nor is there a contest without its numbers.
    """
    graph.meta[OPEN] = "weights" if strategy.contest else "score"
    lost = graph.status[born] == Status.PRUNED  # in a contest, before they were worth a score
    graph.stop_nodes(born[lost], Status.PRUNED, Gate.NODE)
    score(graph, born[~lost], meter)
    graph.meta[OPEN] = "weights"
    stopped = np.concatenate([born[lost], strategy.prune(graph, rng)])
    del graph.meta[OPEN]
    return stopped


def _choose(graph: BabbleGraph, meter: Meter, strategy: Strategy, closing: Closing | None) -> Chosen:
    chosen = strategy.select(graph, meter) if closing is None else closing.select(graph, strategy)
    if not isinstance(chosen, Chosen):
        raise BadInput(f"a strategy must choose a Chosen(ids, draws), got {chosen!r:.80}: make one")
    ids, draws = np.asarray(chosen.ids), np.asarray(chosen.draws)
    if ids.shape != draws.shape or ((ids < 0) | (ids >= graph.size)).any() or (draws < 0).any():
        raise BadInput(
            f"a strategy must choose nodes 0 to {graph.size - 1}, each with its number of draws (or ALL), got "
            f"ids {ids.tolist()!r:.40} with draws {draws.tolist()!r:.40}: see protocols.Chosen"
        )
    return chosen


def _begin(
    generator: Generator,
    prompts: Sequence[Any] | None,
    budget: Budget,
    seed: int,
    graph: BabbleGraph | None,
) -> tuple[BabbleGraph, Meter, Rng]:
    if (prompts is None) == (graph is None):
        raise BadInput(
            "a search needs either prompts or a graph to go on with, got both or neither: give one"
        )
    if graph is None:
        graph = generator.start(prompts or (), seed)
        return graph, Meter(budget, graph.trees), Rng(seed)
    if not isinstance(graph, BabbleGraph):
        raise BadInput(f"a graph to go on with must be a BabbleGraph, got {graph!r:.80}: BabbleGraph.load it")
    if seed not in (0, own := int(graph.meta["seed"])):  # 0 is what nobody asked for
        raise BadInput(f"a graph goes on with its own seed, {own}, got {seed}: leave it out")
    rng = Rng(own)
    if "spent" not in graph.meta:
        return graph, Meter(budget, graph.trees), rng
    return graph, Meter.resumed(budget, graph.trees, graph.meta["spent"]), rng


def _check(generator: Generator, score: Scorer, strategy: Strategy, budget: Budget, seed: int) -> None:
    if not isinstance(generator, Generator):
        raise BadInput(
            f"a generator must be a Babbler, or have its methods, got {generator!r:.80}: "
            "pass Babbler.from_pretrained(name) or Babbler(model, tokenizer)"
        )
    need_seed(seed)
    if not callable(score):
        raise BadInput(
            f"a scorer must be a function (graph, ids, meter), got {score!r:.80}: pass Score(task, value)"
        )
    if not isinstance(strategy, Strategy):
        raise BadInput(
            f"a strategy must be made by a function of babblegraph.strategies, got {strategy!r:.80}: "
            "pass best_of_n(), say"
        )
    if not isinstance(budget, Budget):
        raise BadInput(f"a search needs a Budget, got {budget!r:.80}: pass Budget(tokens=400), say")


def _bounds(budget: Budget) -> dict[str, float | None]:
    """What the graph remembers of a budget; an endless bound is none, for which files have no number."""
    return {name: None if bound == np.inf else bound for name, bound in asdict(budget).items()}
