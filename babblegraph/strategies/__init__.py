"""Ways to search: each only makes a `select` and a `prune` for the one loop."""

from collections.abc import Callable

from babblegraph.protocols import Strategy
from babblegraph.strategies.babble import babble
from babblegraph.strategies.best_of_n import best_of_n
from babblegraph.strategies.frontier import frontier
from babblegraph.strategies.stochastic_beam import stochastic_beam

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "babble": babble,
    "best-of-n": best_of_n,
    "frontier": frontier,
    "stochastic-beam": stochastic_beam,
}

__all__ = ["STRATEGIES", "babble", "best_of_n", "frontier", "stochastic_beam"]
