"""A full-screen explorer of a saved graph, on Textual, which is an extra: pip install babblegraph[explore]."""

from __future__ import annotations

from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph


def explore(graph: BabbleGraph) -> None:
    """Opens the explorer in this terminal; it comes back when the user quits.

    Args:
        graph: what to look at.
    Raises:
        BadInput: Textual is not installed.
    """
    try:
        from babblegraph.explore.app import Explorer
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "textual":
            raise
        rule = "--interactive needs the extra 'explore'"
        raise BadInput(f"{rule}, got no Textual: pip install 'babblegraph[explore]'") from error
    Explorer(graph).run()
