"""Ways to search: each only makes a `select` and a `prune` for the one loop.

A new strategy is one file, and one line in `STRATEGIES`: the command, the benchmarks and the tests take it from there.
"""

from collections.abc import Callable

from babblegraph.protocols import Strategy
from babblegraph.strategies.adaptive import adaptive
from babblegraph.strategies.babble import babble
from babblegraph.strategies.best_first import a_star, best_first
from babblegraph.strategies.best_of_n import best_of_n
from babblegraph.strategies.dvts import dvts
from babblegraph.strategies.frontier import frontier
from babblegraph.strategies.greedy import greedy
from babblegraph.strategies.halving import halving
from babblegraph.strategies.lookahead import lookahead
from babblegraph.strategies.particle_filter import particle_filter
from babblegraph.strategies.puct import puct
from babblegraph.strategies.restarts import with_restarts
from babblegraph.strategies.step_beam import step_beam
from babblegraph.strategies.stochastic_beam import stochastic_beam
from babblegraph.strategies.together import together
from babblegraph.strategies.token_beam import token_beam

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "babble": babble,
    "best-of-n": best_of_n,
    "frontier": frontier,
    "stochastic-beam": stochastic_beam,
    "greedy": greedy,
    "token-beam": token_beam,
    "step-beam": step_beam,
    "dvts": dvts,
    "lookahead": lookahead,
    "best-first": best_first,
    "a-star": a_star,
    "puct": puct,
    "halving": halving,
    "adaptive": adaptive,
    "particle-filter": particle_filter,
}
EVERY_TOKEN = ("greedy", "token-beam", "a-star")  # they look at every next token: give the generator a top_k

__all__ = [
    "EVERY_TOKEN",
    "STRATEGIES",
    "a_star",
    "adaptive",
    "babble",
    "best_first",
    "best_of_n",
    "dvts",
    "frontier",
    "greedy",
    "halving",
    "lookahead",
    "particle_filter",
    "puct",
    "step_beam",
    "stochastic_beam",
    "together",
    "token_beam",
    "with_restarts",
]
