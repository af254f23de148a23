"""Expansion without the host in between: every draw is a row of its own, and the device draws token after token.

The draws are those of `expand.expand`: the same uniforms, the same spans, the same nodes in the same order. Draws that
agree are computed beside each other and counted as one afterwards, since on a GPU a wider step takes hardly longer
than a narrow one, and a look at the host takes longer than the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.decode import Drawn, Sampler
from babblegraph.lm.emitted import count_token_gate
from babblegraph.lm.flock import Flock
from babblegraph.protocols import ALL, Draws

if TYPE_CHECKING:
    from babblegraph.born import Born
    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.expand import Rules
    from babblegraph.lm.parts import Earlier
    from babblegraph.lm.trie import Trie
    from babblegraph.protocols import Chosen
    from babblegraph.randomness import Rng

Ints = NDArray[np.integer[Any]]
MOST_ROWS = 1024


def may_fly(trie: Any, graph: BabbleGraph, chosen: Chosen, rules: Rules, draws: Draws) -> TypeGuard[Trie]:
    """Whether an expansion needs the host only at its end: draws with replacement below nodes without children."""
    ids, made = np.asarray(chosen.ids), np.asarray(chosen.draws)
    return (
        getattr(trie, "decoder", None) is not None
        and draws in (Draws.MULTINOMIAL, Draws.FRESH)
        and rules.constraint is None
        and rules.mixture is None
        and len(ids) > 0
        and not (made == ALL).any()
        and 0 < made.sum() <= MOST_ROWS
        and not any(len(graph.children(int(i))) for i in ids)
    )


def fly(
    trie: Trie,
    graph: BabbleGraph,
    chosen: Chosen,
    rng: Rng,
    meter: Meter,
    rules: Rules,
    draws: Draws,
    earlier: Earlier,
) -> Born:
    """Draws spans below nodes; arguments and result are those of `expand.expand`."""
    left, sampler, decoder = earlier.left, Sampler(rules.warp), trie.decoder
    assert decoder is not None  # as `may_fly` has made sure
    logits = trie.open(graph, chosen.ids, meter)
    paths = [trie.in_flight.path(i) for i in range(len(chosen))]
    flock = Flock(graph, chosen, rng, rules, draws, earlier, paths, logits.shape[1])
    row, flying = flock.origin.copy(), np.arange(len(flock.origin))
    given = (torch.as_tensor(x, device=logits.device) for x in (row, flock.uniforms(1)[0]))
    flock.look(Drawn(*(t.cpu().numpy()[None] for t in sampler(logits, *given))), trie, flying)
    while len(flying := np.flatnonzero(flock.group >= 0)):
        u = flock.uniforms(flock.steps())[:, flying]
        drawn, slots = trie.in_flight.glide(decoder, row[flying], flock.newest[flying], u, sampler, meter)
        flock.own(slots, flying)
        flock.look(drawn, trie, flying)
        row[flying] = np.arange(len(flying))
    trie.close()
    if rules.warp is not None:
        count_token_gate(graph, flock.offered, flock.passed)
    meter.count("sampled", np.arange(len(left)), left - flock.left)
    return flock.out.born(chosen, flock.rows)
