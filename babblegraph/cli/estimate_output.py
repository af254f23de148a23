"""What `babblegraph estimate` prints: a table or one JSON object; and the names of a graph's prompts there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from babblegraph.cli.lines import complain, one_line
from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.estimates import Estimate
    from babblegraph.graph import BabbleGraph

NO_THRESHOLD = "an estimate needs a threshold, got none: add --threshold"


def print_estimate(
    graph: BabbleGraph, prompt: str | None, threshold: float | None, ratio: bool, k: int | None, json: bool
) -> int:
    """Prints an estimate of a graph as a table or as one JSON object; returns the exit status.

    Raises:
        BadInput: its weights allow none, there is no threshold, or no text has a score.
    """
    from babblegraph.estimates import probability
    from babblegraph.outcome import failed
    from babblegraph.passes import pass_at
    from babblegraph.why_not import why_not

    if reason := why_not(graph):
        raise BadInput(f"an estimate needs unbiased weights of finished texts, got none: {reason}")
    if threshold is None:
        threshold = graph.meta.get("threshold")
    if threshold is None:
        raise BadInput(NO_THRESHOLD)
    found = probability(graph, threshold, prompt=prompt, ratio=ratio)
    failure = failed(graph)
    if found.value is None and found.high is None:
        raise BadInput(f"an estimate needs finished texts with a score, got none: {failure}")
    if failure is not None:
        complain(str(failure))
    one_of = None if k is None else (k, pass_at(graph, threshold, k, prompt=prompt))
    said = _said(graph, prompt)
    if json:
        print(one_line(_as_json(graph, said, threshold, found, one_of)))
        return 0
    from babblegraph.view.console import PlainConsole
    from babblegraph.view.estimates import estimate_report
    from babblegraph.view.signs import signs_of

    console = PlainConsole()
    signs = signs_of(console.encoding)
    console.print(estimate_report(said, threshold, found, width=console.width, signs=signs, one_of=one_of))
    return 0


def as_read(graph: BabbleGraph, prompt: str) -> str:
    """A prompt of a graph as the model reads it, by that or by what is shown of it; a task adds a line's end, say.

    Raises:
        BadInput: it has no such prompt.
    """
    if prompt in graph.prompts:
        return prompt
    found = [each for each in dict.fromkeys(graph.prompts) if _shown(graph, each) == prompt.strip()]
    if len(found) != 1:
        raise BadInput(f"PROMPT must be one of the graph's, got {prompt!r}: leave it out for all of them")
    return found[0]


def _said(graph: BabbleGraph, prompt: str | None) -> str:
    """Whose estimate it is: the prompt's, or that of so many together."""
    prompts = list(dict.fromkeys(graph.prompts)) if prompt is None else [prompt]
    return _shown(graph, prompts[0]) if len(prompts) == 1 else f"{len(prompts)} prompts, their mean"


def _shown(graph: BabbleGraph, prompt: str) -> str:
    asked: str = graph.meta.get("asked", {}).get(prompt, prompt)
    return asked.strip()


def _as_json(
    graph: BabbleGraph, prompt: str, threshold: float, found: Estimate, one_of: tuple[int, Estimate] | None
) -> dict[str, Any]:
    names = (
        *("value", "error", "effective", "reason", "low", "high", "trees", "hits", "heaviest"),
        *("tokens", "independent_tokens", "warnings", "log_evidence", "divergence"),
    )
    fields = {name: getattr(found, name) for name in names}
    if one_of is not None:
        k, passes = one_of
        fields["pass_at"] = {"k": k} | {name: getattr(passes, name) for name in ("value", "low", "high")}
    run = {name: graph.meta.get(name) for name in ("model", "task", "seed")}
    return {"prompt": prompt, "threshold": threshold, **fields, **run}
