"""What becomes of a search's answers when it is over: the texts vote, and a verifier that was kept away marks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from babblegraph.cli.loading import choose, load_function
from babblegraph.errors import THEIRS, BadInput
from babblegraph.extract import BALLOTS
from babblegraph.graph import BabbleGraph
from babblegraph.protocols import Strategy, verifies
from babblegraph.scoring.contain import note_failure, raised
from babblegraph.status import Flag
from babblegraph.tasks import Blind

if TYPE_CHECKING:
    from babblegraph.cli.build import Plan
    from babblegraph.cli.options import SearchOptions

VOTING_STRATEGY = "best-of-n"
DEFAULT_TOKENS = 4000  # for each prompt
LONGEST = 1024  # tokens of a text, where the user does not say
Ballot = Callable[[str], str | None]


def settle(graph: BabbleGraph, plan: Plan) -> None:
    """Holds the vote and marks the answers, as far as the plan has either; the graph remembers both."""
    from babblegraph.outcome import elect, mark

    if plan.ballot is not None:
        elect(graph, plan.ballot, weighted=is_weighted(plan))
        if isinstance(plan.ballot, OwnBallot):
            plan.ballot.tell(graph)
    if plan.marker is not None:
        threshold, verify = plan.options.threshold, plan.marker.verify

        def failed(node: int, problem: BaseException) -> None:  # the search is over, and is not lost for it
            note_failure(graph, node, raised(verify, problem), graph.text(node))

        mark(graph, plan.marker, threshold=1.0 if threshold is None else threshold, failed=failed)


def forget(graph: BabbleGraph) -> None:
    """Takes back what `settle` found out: the search goes on."""
    graph.meta.pop("vote", None)
    graph.meta.pop("right", None)


def blinded(task: Any, options: SearchOptions) -> tuple[Any, Any]:
    """The task as the search sees it, and the one that marks the answers at the end, if that is another one.

    Raises:
        BadInput: there is no verifier to keep away.
    """
    if options.blind and not verifies(task):
        raise BadInput(
            "--blind keeps a verifier out of the search, got no task: add --task or leave --blind out"
        )
    if verifies(task) and (options.blind or options.vote is not None):
        return Blind(task), task
    return task, None


def ballot_of(name: str) -> Ballot:
    """What of a text a vote compares.

    Raises:
        BadInput: no such name, or no such function.
    """
    if ".py:" not in name and not name.endswith(".py"):
        return BALLOTS[choose(name, BALLOTS, "--vote")]
    return OwnBallot(load_function(name, "--vote"))


class OwnBallot:
    """A user's function of texts, whose failures are no votes.

    Args:
        function: f(text) -> an answer, or None that abstains.

    Attributes:
        failures: what went wrong, by the text that it went wrong on.
    """

    def __init__(self, function: Callable[[str], Any]) -> None:
        self.function = function
        self.failures: dict[str, str] = {}

    def __call__(self, text: str) -> str | None:
        try:
            said = self.function(text)
        except THEIRS as problem:
            self.failures[text] = raised(self.function, problem)
            return None
        if said is not None and not isinstance(said, str):
            name = getattr(self.function, "__name__", "--vote")
            self.failures[text] = f"{name} must return a text or None, got {said!r:.80}"
            return None
        return said

    def tell(self, graph: BabbleGraph) -> None:
        """Notes the failures at the graph's nodes, once each, as those of values and tasks are."""
        told = graph.flags & Flag.SCORER_FAILED != 0
        for node in np.flatnonzero(graph.is_leaf() & ~told).tolist() if self.failures else ():
            if (problem := self.failures.get(text := graph.text(node))) is not None:
                note_failure(graph, node, problem, text)


def stopped_by_votes(strategy: Strategy, plan: Plan) -> Strategy:
    """The strategy, which ends a prompt's search when its vote is decided, where that can be told.

    Only independent texts of one vote each tell how the others would vote; --all goes on.
    """
    if plan.ballot is None or plan.options.every or is_weighted(plan) or strategy.name != VOTING_STRATEGY:
        return strategy
    from babblegraph.strategies.stops import converged, stopping

    return stopping(strategy, converged(plan.ballot))


def usual_tokens(options: SearchOptions) -> int:
    """The budget where none is given: all the texts of best-of-n that were asked for must find room in it."""
    sampling = (options.strategy or (options.vote and VOTING_STRATEGY)) == VOTING_STRATEGY
    texts = options.width if sampling and options.width is not None else 0
    return max(DEFAULT_TOKENS, texts * (options.max_new_tokens or LONGEST))


def is_weighted(plan: Plan) -> bool:
    """Whether votes count as much as their scores: where the user said who gives scores."""
    from babblegraph.cli.options import JUDGES

    return any(getattr(plan.options, name) is not None for name in JUDGES)
