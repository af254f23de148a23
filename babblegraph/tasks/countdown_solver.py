"""Exact answers about Countdown: for tests, and for telling afterwards which branches were trapped.

Never a value in a search that is measured, and never a label in training: whoever may ask the solver needs no
search.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from babblegraph.errors import BadInput
from babblegraph.tasks.countdown import Numbers, legal_lines, parse


def solve(numbers: Sequence[int], target: int) -> Iterator[str]:
    """Yield every solution, each as the text a model would have to write after the prompt.

    Both orders of a sum or product count as different texts. Branches without a solution are left out early.

    Args:
        numbers: The numbers, in any order.
        target: What must be left at the end.

    Example:
        >>> list(solve([3, 5, 7], 38))
        ['5*7=35:3 35\\n3+35=38:38\\n', '5*7=35:3 35\\n35+3=38:38\\n', '7*5=35:3 35\\n3+35=38:38\\n', \
'7*5=35:3 35\\n35+3=38:38\\n']
    """
    at_hand = tuple(sorted(numbers))
    if at_hand == (target,):
        yield ""
        return
    for line, left in legal_lines(at_hand).items():
        if _reachable(left, target):
            for rest in solve(left, target):
                yield f"{line}\n{rest}"


def solvable(state: str) -> bool:
    """Tell whether a state, as `Countdown.state` names it, still has a solution; if not, it is trapped.

    Args:
        state: Numbers ascending, `>`, target.

    Raises:
        BadInput: The text is not a state.

    Example:
        >>> solvable("3 6 7>24"), solvable("1 1 1 1>24")
        (True, False)
    """
    try:
        numbers, target = parse(f"{state}\n")
    except BadInput as error:
        raise BadInput(f"a state is numbers>target, got {state!r}; take it from Countdown.state") from error
    return _reachable(tuple(sorted(numbers)), target)


@lru_cache(maxsize=65536)
def _reachable(numbers: Numbers, target: int) -> bool:
    """Search all ways of play, each set of numbers once."""
    if len(numbers) == 1:
        return numbers[0] == target
    return any(_reachable(left, target) for left in set(legal_lines(numbers).values()))
