"""What a search prints at its end: the report, only the answers, or one JSON object; its exit status; what it saves."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from babblegraph.cli.lines import complain, one_line
from babblegraph.cli.loading import Prompt
from babblegraph.errors import BadInput
from babblegraph.graph import BabbleGraph
from babblegraph.outcome import begun, chosen, failed, settled
from babblegraph.status import Status

if TYPE_CHECKING:
    from babblegraph.cli.build import Plan
    from babblegraph.view.live import View

TOKENS = ("sampled", "forwarded", "prefilled", "scored")
DONE, NONE_PASSES = 0, 1


def aside(only_answers: bool) -> AbstractContextManager[Any]:
    """Where standard output has only the answers, what a user's functions print goes to standard error."""
    return redirect_stdout(sys.stderr) if only_answers else nullcontext()


def show(graph: BabbleGraph | None, plan: Plan, json: bool, quiet: bool, view: View) -> None:
    """Prints what came of a search, in the way that was asked for."""
    from babblegraph import __version__

    if graph is None:
        return
    if (json or quiet) and (failure := failed(graph)) is not None:  # the report tells it itself
        complain(str(failure))
    if json:
        seconds = graph.meta.get("spent", {}).get("seconds", 0.0)
        run = {"seconds": seconds, "seed": plan.seed, "strategy": plan.strategy}
        run |= {"model": graph.meta.get("model", plan.model), "engine": graph.meta.get("engine")}
        print(as_json(graph, plan.prompts, **run, version=__version__))
    elif quiet:
        nodes = [chosen(graph, tree) for tree in range(graph.trees)]
        texts = [None if node is None else _safe(graph.text(node)) for node in nodes]
        if len(texts) > 1:  # a line for each prompt, in their order; empty where there is no answer
            texts = [(text or "").replace("\n", "\\n") for text in texts]
        for text in texts:
            if text is not None:
                print(text)
    else:
        view.report(graph)


def as_json(graph: BabbleGraph, prompts: Sequence[Prompt] | None, **run: Any) -> str:
    """The object that `--json` prints; see the contracts of the command line.

    Args:
        graph: what was found.
        prompts: as the user gave them; None where only the graph knows how, or what was asked in them.
        run: seconds, seed, model, strategy, engine, version.
    """
    asked = graph.meta.get("asked", {})  # where a chat template made the prompts
    known = graph.meta.get("given") or [asked.get(prompt, prompt) for prompt in graph.prompts]
    given = known if prompts is None else prompts
    results = [_result(graph, tree, given[tree]) for tree in range(graph.trees)]
    whole = {"results": results, "summary": _summary(graph), **run}
    return one_line(whole)


def status(graph: BabbleGraph | None, plan: Plan) -> int:
    """The exit status: whether every prompt has an answer, one that passes where there is a threshold."""
    if graph is None:
        return NONE_PASSES
    floor = -math.inf if plan.threshold is None else plan.threshold
    every = all(_passed(graph, tree, floor) for tree in range(graph.trees))
    return DONE if every else NONE_PASSES


def saved(graph: BabbleGraph | None, file: str | None) -> BadInput | None:
    """Saves the graph, and gives back what went wrong: the answer is printed all the same."""
    from babblegraph.graph_file import save

    if graph is not None and file is not None:
        try:
            save(graph, file)
        except BadInput as problem:
            return problem
    return None


def _result(graph: BabbleGraph, tree: int, prompt: Prompt) -> dict[str, Any]:
    node, threshold, member = chosen(graph, tree), graph.meta.get("threshold"), graph.root == tree
    score = math.nan if node is None else float(graph.score[node])
    counts = graph.meta.get("spent", {}).get("counts", {})
    found = {
        "prompt": prompt,
        "answer": None if node is None else graph.text(node),
        "score": score if math.isfinite(score) else None,
        "passed": None if threshold is None else _passed(graph, tree, threshold),
        "tokens": {name: int(counts[name][tree]) if name in counts else 0 for name in TOKENS},
        "nodes": int(member.sum()) - 1,
        "pruned": int((member & (graph.status == Status.PRUNED)).sum()),
    }
    if (vote := graph.meta.get("vote")) is not None:
        found["vote"] = {"answer": vote["answer"][tree], "share": vote["share"][tree]}
    if (right := graph.meta.get("right")) is not None:
        found["right"] = right[tree]
    return found


def _summary(graph: BabbleGraph) -> dict[str, Any]:
    """How many prompts came out well, by what, how often a score failed, and what a prompt cost on average."""
    word, tally = settled(graph)
    sampled = sum(graph.meta.get("spent", {}).get("counts", {}).get("sampled", ()))
    counted = (
        {} if tally is None else {word: tally.hits, "share": tally.share, "interval": [tally.low, tally.high]}
    )
    return {
        "prompts": graph.trees,
        "begun": int(begun(graph).sum()),
        **counted,
        "failures": int(graph.meta.get("scorer_failures", 0)),
        "first_failure": graph.failures[0].get("error") if graph.failures else None,
        "tokens_per_prompt": sampled / graph.trees,
    }


def _passed(graph: BabbleGraph, tree: int, threshold: float) -> bool:
    best = graph.best(1, tree=tree)
    return bool(best) and bool(graph.reaches(threshold, best[0]))


def _safe(text: str) -> str:
    """The text as it is for a pipe that can hold it; on a terminal without anything that the terminal would obey."""
    from babblegraph.view.signs import signs_of
    from babblegraph.view.text import visible

    if not sys.stdout.isatty():
        encoding = sys.stdout.encoding or "utf-8"
        return text.rstrip("\n").encode(encoding, "backslashreplace").decode(encoding)
    signs = signs_of(sys.stdout.encoding)
    return "\n".join(visible(line, signs) for line in text.rstrip("\n").split("\n"))
