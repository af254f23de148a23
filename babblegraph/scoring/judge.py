"""The model judging itself: P(good words) / (P(good words) + P(bad words)) after a text and some words."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.budget import Budget, Meter
from babblegraph.errors import BadInput
from babblegraph.lm.doubles import doubled
from babblegraph.scoring.contain import note_failure

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.babbler import Babbler

Ids = NDArray[np.intp]
TEXT = "1"  # stands for the text that words stand behind
PUSHED = ("forwarded", "prefilled", "scored")  # tokens that went through the model


class JudgeValue:
    """Asks the generator itself.

    Only the first token in which the words differ is looked at, and the text's own token ids are kept as
    generated: with a template that only appends words, the tree's keys and values are used again. With words before
    the text they are of no use; then texts that begin alike share what the judge reads, also from round to round.

    With `frozen`, the judge is the base model even while adapters are trained: they are switched off, and the base
    has keys and values of its own. Then all that it computes is counted as scored.

    Args:
        babbler: the judge.
        template: words around the text. `"{text} This is"` and `"This is"` mean the same; an empty one asks
            for the very next token, as the embedded generator's verdict wants it.
        good: words that speak for the text.
        bad: words that speak against it.
        frozen: whether the judge is the model without its adapters.

    Raises:
        BadInput: no words, a word without tokens, or words of both sides that begin with the same token.
    """

    def __init__(
        self,
        babbler: Babbler,
        template: str = "",
        good: Sequence[str] = ("y",),
        bad: Sequence[str] = ("n",),
        *,
        frozen: bool = False,
    ) -> None:
        self.babbler, self.frozen = _base(babbler) if frozen else babbler, frozen
        self._held: weakref.WeakKeyDictionary[BabbleGraph, Ids] = weakref.WeakKeyDictionary()
        before, after = _around(template)
        self.before, self.after = self._ids(before), self._ids(after, TEXT)
        both_sides = [self._word_ids(words, after) for words in (good, bad)]
        shared = _shared_beginning([ids for side in both_sides for ids in side])
        self.after += shared  # such as a space that is a token of its own
        self.good, self.bad = (sorted({ids[len(shared)] for ids in side}) for side in both_sides)
        if both := set(self.good) & set(self.bad):
            names = babbler.tokenizer.convert_ids_to_tokens(sorted(both))
            raise BadInput(
                f"good and bad words must begin with different tokens, both have {names}: choose others"
            )

    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        """Values of nodes, [M] in [0, 1]; NaN where the words leave the model's context, or it gives no numbers."""
        values = np.full(len(ids), np.nan)
        fits = graph.length[ids] + len(self.before) + len(self.after) <= self.babbler.context
        for i in ids[~fits].tolist():
            note_failure(
                graph, i, f"the judge's words leave the context of {self.babbler.context} tokens", ""
            )
        if fits.any():
            judged = self._judged_by_base if self.frozen else self._judged
            values[fits] = judged(graph, ids[fits], meter)
        for i in ids[fits & np.isnan(values)].tolist():
            note_failure(graph, i, "the judge's logits are no numbers", "")
        return values

    def _judged_by_base(self, graph: BabbleGraph, ids: Ids, meter: Meter) -> NDArray[np.float64]:
        """Keeps what was judged last, whose tokens the next texts begin with, and gives up what was before."""
        own = Meter(Budget(seconds=np.inf), graph.trees)
        values = self._judged(graph, ids, own)
        meter.count("scored", np.arange(graph.trees), np.sum([own.counts[name] for name in PUSHED], 0))
        before = self._held.get(graph, ids[:0])
        self._held[graph] = ids
        self.babbler.release(graph, np.setdiff1d(before, ids))
        return values

    def _judged(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        if self.before or self.after:
            logits = self.babbler.logits_after(graph, ids, self.after, meter, self.before)
        else:
            logits = self.babbler.next_logits(graph, ids, meter)
        good, bad = (torch.logsumexp(doubled(logits[:, words]), -1) for words in (self.good, self.bad))
        return torch.sigmoid(good - bad).cpu().numpy()

    def _ids(self, text: str, behind: str = "") -> list[int]:
        """Tokens of a text as it stands behind another: alone, some tokenizers let it begin with a space."""
        before, whole = (
            list(self.babbler.tokenizer(some, add_special_tokens=False)["input_ids"]) if some else []
            for some in (behind, behind + text)
        )
        if whole[: len(before)] != before:  # the two run into each other
            return self._ids(text)
        return whole[len(before) :]

    def _word_ids(self, words: Sequence[str], after: str) -> list[list[int]]:
        words = [words] if isinstance(words, str) else list(words)
        spaced = bool(after) and not after[-1].isspace()
        found = []
        for word in words:
            ids = self._ids(" " + word if spaced and not word.startswith(" ") else word, TEXT + after)
            if not ids:
                raise BadInput(f"a judge's word must have at least one token, got {word!r}: choose another")
            found.append(ids)
        if not found:
            raise BadInput("a judge needs at least one good and one bad word, got none: give both")
        return found


def _base(babbler: Babbler) -> Babbler:
    from babblegraph.lm.frozen import Frozen

    return Frozen(babbler)


def _shared_beginning(words: list[list[int]]) -> list[int]:
    """The tokens with which all words begin, leaving at least one of each."""
    shared = 0
    while min(map(len, words)) > shared + 1 and len({ids[shared] for ids in words}) == 1:
        shared += 1
    return words[0][:shared]


def _around(template: str) -> tuple[str, str]:
    """What comes before and after the text."""
    if "{text}" in template:
        before, _, after = template.partition("{text}")
        return before, after
    return "", f" {template}" if template and not template[0].isspace() else template
