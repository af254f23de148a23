"""What stands above a drawn graph: what it is, what came of the search and for how much, what the signs mean."""

from __future__ import annotations

import numpy as np
from rich.text import Text

from babblegraph.budget import Budget, Spent
from babblegraph.estimates import probability
from babblegraph.graph import BabbleGraph
from babblegraph.outcome import Tally, settled
from babblegraph.status import Status
from babblegraph.subtrees import expansions, passing
from babblegraph.view import figures
from babblegraph.view.estimates import interval
from babblegraph.view.signs import (
    AGAIN,
    BEST,
    FAILED,
    MEANINGS,
    PASSED,
    QUIET,
    STRONG,
    STYLES,
    TITLE,
    UNICODE,
    WORDS,
    Signs,
)
from babblegraph.view.text import fit_figures
from babblegraph.why_not import why_not

ENDS = (  # of branches, before what is still open
    *(Status.LEAF_DEAD, Status.PRUNED, Status.MERGED, Status.LEAF_END, Status.LEAF_LENGTH),
    *(Status.FRONTIER, Status.EXPANDED, Status.STEM),
)


def title(graph: BabbleGraph, width: int, signs: Signs = UNICODE, more: str = "") -> Text:
    """One line on what the graph is: the model, the task, the strategy, the seed."""
    meta = graph.meta
    if "at_round" in meta and not more:
        more = "as of round {} of {}".format(*meta["at_round"])
    parts = [meta.get("task"), meta.get("model"), meta.get("strategy"), f"seed {meta.get('seed', 0)}", more]
    said = fit_figures(f" {signs.dot} ".join(str(p) for p in parts if p), max(width - 14, 1), signs)
    return line_of(("babblegraph", TITLE), ("  ", ""), (said, QUIET))


def verdict(
    graph: BabbleGraph, spent: Spent | None, budget: Budget | None, width: int, signs: Signs = UNICODE
) -> Text:
    """One line on what came of the search, and what that cost; two where the first alone is longer than the view."""
    line = _outcome(graph, width, signs)
    nodes, rounds = graph.size - graph.trees, graph.round
    costs = [
        f"{figures.count(nodes)} node{'s' * (nodes != 1)}",
        f"{rounds} round{'s' * (rounds != 1)}",
    ]
    if spent is not None:
        bound = budget.tokens * graph.trees if budget is not None and budget.tokens else 0
        of = f" of {figures.count(bound)}" if bound else ""
        total = f"{figures.count(spent.sampled)}{of} tokens"
        each = f"{figures.count(spent.sampled / graph.trees)} tokens a {figures.tree_name(graph)}"
        first = [f"cost {total}"] if graph.trees == 1 else [f"cost {each}", f"{total} in all"]
        costs = [*first, *costs, f"{spent.seconds:.1f} s"]
    for i, cost in enumerate(costs):
        said = f" {signs.dot} {cost}"
        if line.cell_len + len(said) > width:
            break
        line.append(said, "" if i else STRONG)
    return line


def legend(graph: BabbleGraph, width: int, signs: Signs = UNICODE, *, guides: bool = True) -> list[Text]:
    """What the signs mean, of those that occur, and how many there are; as many lines as that takes.

    Args:
        graph: any.
        width: in cells.
        signs: what is drawn with.
        guides: those of the lines between nodes too.
    """
    hits = passing(graph)  # also of those that ran out of room: each node is counted once
    passed = int(hits.sum())
    counts = np.bincount(graph.status[~hits], minlength=len(Status))
    counts[Status.LEAF_END] += counts[Status.LEAF_STOP]
    threshold = graph.meta.get("threshold")
    named = [(signs.passed, f"{figures.count(passed)} passed", PASSED)] if passed else []
    if guides and graph.best():
        named.append((signs.branch[4].strip(), "way to the best", BEST))
    for status in ENDS:
        if n := int(counts[status]):
            word = WORDS[status] if threshold is None else MEANINGS.get(status, WORDS[status])
            named.append((signs.status[status], f"{figures.count(n)} {word}", STYLES[status]))
    if guides and (np.diff(expansions(graph)[:, 0]) == 0).any():
        named.append((signs.again, "expanded again later", AGAIN))
    lines = [Text(no_wrap=True)]
    for sign, word, style in named:
        word = fit_figures(word.replace("→", signs.arrow), max(width - len(sign) - 1, 1), signs)
        gap = 3 if lines[-1].cell_len else 0
        if lines[-1].cell_len + gap + len(sign) + len(word) + 1 > width:
            lines.append(Text(no_wrap=True))
            gap = 0
        lines[-1].append(" " * gap).append(sign, style).append(f" {word}", QUIET)
    return lines


def _outcome(graph: BabbleGraph, width: int, signs: Signs) -> Text:
    """Whether something passed, and how good the best is."""
    word, found = settled(graph)
    if found is not None and graph.trees > 1:
        return _of_trees(graph, word, found, width, signs)
    passed = len(np.unique(graph.root[passing(graph)]))
    best, threshold = [float(graph.score[node]) for node in graph.best(1)], graph.meta.get("threshold")
    if found is not None and word == "right":
        said, style = (f"{signs.passed} right", PASSED) if found.hits else ("not right", FAILED)
        return line_of((said, style))
    if passed:
        return line_of((f"{signs.passed} passed", PASSED), (f" with score {best[0]:.2f}", STRONG))
    if not best:
        return line_of((_without_score(graph), FAILED))
    if threshold is not None:
        short = figures.short_of(best[0], threshold)
        return line_of(("no leaf passes", FAILED), (f", the best has {short}", ""))
    return line_of((f"{signs.status[Status.LEAF_END]} best {best[0]:.2f}", STRONG))


def _without_score(graph: BabbleGraph) -> str:
    """How a search stands that has no leaf with a score but dead ones."""
    if graph.size == graph.trees:
        return "nothing was tried"
    if (graph.is_leaf() & (graph.status != Status.LEAF_DEAD)).any():
        return "no finished leaf has a score"
    still = np.isin(graph.status, (Status.FRONTIER, Status.STEM)).any()
    return "no leaf is finished" if still else "no leaf passes, every branch is over"


def _of_trees(graph: BabbleGraph, word: str, found: Tally, width: int, signs: Signs) -> Text:
    """How many prompts came out well, their share and its interval as far as there is room.

    Trees that repeat a prompt are no sample of prompts, and how many have a hit says little of how likely one is: there
    the estimate stands in the share's place.
    """
    name = figures.tree_name(graph)
    line = line_of(
        (f"{signs.passed} {found.hits} of {found.of} {name}s {word}", PASSED if found.hits else FAILED)
    )
    low, high = 100 * found.low, 100 * found.high
    share = f" {100 * found.share:.1f} % (95 %: {low:.1f} to {high:.1f})"
    waiting = graph.trees - found.of
    more = f" {signs.dot} {waiting} not begun" if waiting else ""
    for part, style in ((share if name == "prompt" else _chance(graph, signs), STRONG), (more, "")):
        if line.cell_len + len(part) <= width:
            line.append(part, style)
    return line


def _chance(graph: BabbleGraph, signs: Signs) -> str:
    """What a forest of repetitions estimates, as `babblegraph estimate` says it; nothing where weights are biased."""
    threshold = graph.meta.get("threshold")
    if threshold is None or why_not(graph):
        return ""
    found = probability(graph, threshold)
    if found.value is None and found.high is None:
        return ""
    said = interval(found, signs) if found.value is not None else f"at most {found.high:.2g} (95 %)"
    return f" {signs.dot} P(score reaches {threshold:g}) {' '.join(said.split())}"


def line_of(*parts: tuple[str, str]) -> Text:
    """A line of parts with a style each, none of which is inherited by the next; narrow views break it at words."""
    return Text.assemble(*parts)
