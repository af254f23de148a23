"""The search of a level: what the current generator babbles, and what the base adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from babblegraph.budget import Budget
from babblegraph.learning.held_out import passing
from babblegraph.learning.leaves import Leaves, gather, joined
from babblegraph.loop import Round, search
from babblegraph.side_by_side import SideBySide
from babblegraph.strategies import babble, best_of_n, frontier

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.learning.generators import Generators
    from babblegraph.learning.ranks import Ranks
    from babblegraph.learning.settings import Settings
    from babblegraph.lm import Babbler
    from babblegraph.protocols import Scorer

Say = Callable[[str, int, int], None]  # what is going on, steps done, steps in all (0: unknown)


class Grown(NamedTuple):
    """What a level's search brought.

    Args:
        leaves: of all prompts, each searched alike: what estimates are made of.
        tokens: sampled.
        graph: of the current generator's trees; of the first prompts, where they are many. None in a process that had
            none to search.
        failures: how often the verifier or the value failed.
        failure: the first of these, in one line.
        late: leaves of prompts that were drawn again since none of theirs had passed; None where nothing was.
        late_share: of these in all samples of such a prompt.
    """

    leaves: Leaves
    tokens: int
    graph: BabbleGraph | None
    failures: int = 0
    failure: str = ""
    late: Leaves | None = None
    late_share: float = 0.0

    @property
    def all(self) -> Leaves:
        """What the elite is chosen from; every sample of a prompt counts the same, whenever it was drawn."""
        if self.late is None:
            return self.leaves
        both = joined([self.leaves, self.late], self.leaves.prompts)
        late = np.arange(len(both.trees)) >= len(self.leaves.trees)
        again = np.isin(both.trees, both.trees[late])
        part = np.where(again, np.where(late, self.late_share, 1 - self.late_share), 1.0)
        return replace(both, share=part * both.share, log_share=both.log_share + np.log(part)[both.tree])


def grow(
    generators: Generators,
    prompts: Sequence[Any],
    settings: Settings,
    *,
    score: Scorer,
    score_base: Scorer,
    threshold: float | None,
    seed: int,
    ranks: Ranks,
    say: Say,
    side_by_side: SideBySide | None = None,
) -> Grown:
    """Searches a batch of prompts from the current generator, and a share ε of the trees from the base.

    Prompts of which no sample passes are drawn again, more often, where the settings say so: else whoever learns from
    what passes learns from easy prompts alone. Many prompts are searched some hundred at a time, which bounds the
    memory and makes no other samples.
    """
    mine = ranks.mine(prompts)

    def forest(some: slice) -> Grown:
        part, of = mine[some], len(mine)
        which = "" if len(part) == of else f"prompts {some.start + 1:,}–{some.stop:,} of {of:,}, "
        through = (some.start, of) if which else (0, 0)

        def saying(what: str, *_: int) -> None:
            say(what.replace(": ", f": {which}", 1), *through)

        return _forest(generators, part, settings, score, score_base, threshold, seed, saying)

    done: list[Grown] = []
    for one, _ in (side_by_side or SideBySide()).parts(forest, len(mine)) if mine else ():
        done.append(one._replace(graph=done[0].graph) if done else one)  # one graph is enough to look at
    ours = [_together(done, [p for one in done for p in one.leaves.prompts])] if done else []
    parts = [one for some in ranks.gathered([one._replace(graph=None) for one in ours]) for one in some]
    in_turn = zip_longest(*(one.leaves.prompts for one in parts))  # as `Ranks.mine` took them apart
    whole = _together(parts, [prompt for some in in_turn for prompt in some if prompt is not None])
    return whole._replace(graph=ours[0].graph if ours else None)


def _together(parts: Sequence[Grown], prompts: Sequence[Any]) -> Grown:
    """What several searches brought that share no prompt, one of the first one's graph."""
    late = [one.late for one in parts if one.late is not None]
    return Grown(
        joined([one.leaves for one in parts], prompts),
        sum(one.tokens for one in parts),
        parts[0].graph,
        sum(one.failures for one in parts),
        next((one.failure for one in parts if one.failure), ""),
        joined(late, prompts) if late else None,
        max(one.late_share for one in parts),
    )


def _forest(
    generators: Generators,
    prompts: Sequence[Any],
    settings: Settings,
    score: Scorer,
    score_base: Scorer,
    threshold: float | None,
    seed: int,
    say: Say,
) -> Grown:
    """The search of some prompts side by side."""
    of_base, of_current = _shares(settings)
    last = [_search(generators.current, prompts, settings, of_current, score, seed, say)]
    if of_base:
        last.append(_search(generators.base, prompts, settings, of_base, score_base, seed + 1, say))
    samples = [of_current, of_base][: len(last)] if settings.sampler == "independent" else None
    leaves = _weighed(gather(*(one.graph for one in last), samples=samples), generators, settings)
    late, late_share = None, 0.0
    if settings.more is not None and (failed := _failed([one.graph for one in last], threshold)):
        last.append(_search(generators.current, failed, settings, settings.more, score, seed + 2, say))
        late = gather(last[-1].graph, samples=[settings.more])
        late_share = settings.more / (settings.draws + settings.more)
    failures = sum(int(one.graph.meta.get("scorer_failures", 0)) for one in last)
    first = next((str(some["error"]) for one in last for some in one.graph.failures), "")
    tokens = sum(one.spent.sampled for one in last)
    return Grown(leaves, tokens, last[0].graph, failures, first, late, late_share)


def _shares(settings: Settings) -> tuple[int, int]:
    """Samples (of each tree) or trees that grow from the base, and from the current generator."""
    total = settings.draws if settings.sampler == "independent" else settings.trees
    of_base = min(math.ceil(settings.epsilon * total - 1e-9), total - 1)  # 0.1 · 30 is a little above 3
    return of_base, total - of_base


def _failed(graphs: Sequence[BabbleGraph], threshold: float | None) -> list[Any]:
    """Prompts without a leaf that passes in any of their trees."""
    passed = set()
    for graph in graphs:
        leaves = np.flatnonzero(graph.is_leaf())
        found = graph.root[leaves[passing(graph, leaves, threshold)]]
        passed |= {graph.prompts[i] for i in found.tolist()}
    return [prompt for prompt in dict.fromkeys(graphs[0].prompts) if prompt not in passed]


def _search(
    babbler: Babbler, prompts: Sequence[Any], settings: Settings, n: int, score: Scorer, seed: int, say: Say
) -> Round:
    copies, close = n, False
    if settings.sampler == "independent":
        strategy, copies = best_of_n(n=n, width=n), settings.trees
    elif settings.sampler == "frontier":
        strategy, close = frontier(width=settings.draws, keep=settings.keep), True
    else:
        strategy = babble(threshold=None)
    trees = [prompt for prompt in prompts for _ in range(copies)]
    for one in search(
        babbler,
        trees,
        score=score,
        strategy=strategy,
        budget=Budget(tokens=settings.most_tokens),
        seed=seed,
        close=close,
    ):
        say(f"babbling: {one.spent.sampled:,} tokens", 0, 0)
    return one


def _weighed(leaves: Leaves, generators: Generators, settings: Settings) -> Leaves:
    """With both log-probabilities, where they matter."""
    if not leaves.unbiased or (settings.power == 0 and not leaves.of_base.any()):
        return leaves
    base = leaves.of_base[leaves.tree]
    log_f, log_g = leaves.log_f.copy(), leaves.log_g.copy()
    for theirs, into, ask in ((~base, log_f, generators.log_f), (base, log_g, generators.log_g)):
        ids = np.flatnonzero(theirs)
        if len(ids):
            into[ids] = ask([leaves.tokens[i] for i in ids], leaves.start[ids])
    return replace(leaves, log_f=log_f, log_g=log_g)
