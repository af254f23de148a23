"""Forward passes of the dense engine: new tokens behind texts, as many at once as the memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.at_once import AtOnce
from babblegraph.lm import caches
from babblegraph.lm.steps import After, Step
from babblegraph.lm.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter

Ints = NDArray[np.integer[Any]]
NOTHING = Text(None, 0, None)


class Row(NamedTuple):
    """New tokens after a text."""

    text: Text
    tokens: Ints
    tree: int
    kind: str  # how the meter counts it: forwarded, prefilled or scored


class TextPasses:
    """Runs rows through a model with its own cache.

    Args:
        model: a transformers causal language model.
        step: how tokens go through it.
        tokens: at most this many new tokens (rows × length) in one pass, a longer row in pieces; halved whenever the
            device has no memory for them.
    """

    def __init__(self, model: PreTrainedModel, step: Step, tokens: int) -> None:
        self.model, self.step = model, step
        self._at_once = AtOnce(tokens, "tokens in one forward pass")

    def __call__(
        self,
        rows: Sequence[Row],
        meter: Meter,
        caching: bool = False,
        made: Callable[[Text], None] = lambda text: None,
    ) -> list[Text]:
        """Runs rows, those of the same lengths together; the texts that they become, in order.

        Args:
            rows: what to compute.
            meter: counts each row as its kind.
            caching: whether the texts keep their caches.
            made: told of each text when there is one more.
        """
        texts: list[Text] = [NOTHING] * len(rows)
        for alike in _alike(rows):
            length, new = rows[alike[0]].text.length, len(rows[alike[0]].tokens)
            least = new if self.step.forgets else 1  # pieces of what is read anew would save nothing
            while alike:
                run = partial(self._pass, [rows[b] for b in alike])
                logits, cache = self._at_once(run, most=new * len(alike), least=least)
                for place, b in enumerate(alike[: len(logits)]):
                    self.count(meter, rows[b].kind, rows[b].tree, length, new)
                    own = caches.take(cache, [place], len(logits)) if caching else None
                    texts[b] = Text(own, length + new, logits[place].clone())
                    made(texts[b])
                alike = alike[len(logits) :]
        return texts

    @torch.no_grad()
    def run(self, cache: Any, tokens: Ints, length: int) -> After:
        """Puts tokens, [B, L], behind texts of some length; their cache is used up, None for no token."""
        return self.step(cache, torch.as_tensor(tokens, device=self.model.device, dtype=torch.long), length)

    def count(self, meter: Meter, kind: str, trees: Ints | int, length: int, new: int) -> None:
        """Counts rows of so many known and new tokens."""
        meter.count(kind, trees, new)
        if self.step.forgets:
            meter.count("scored" if kind == "scored" else "prefilled", trees, length)

    def _pass(self, alike: Sequence[Row], tokens: int) -> After:
        """The first of some rows of the same lengths, so many new tokens of them at once."""
        length, new = alike[0].text.length, len(alike[0].tokens)
        batch = alike[: max(1, tokens // new)]
        after = After(torch.zeros(0), caches.join([row.text.cache for row in batch]) if length else None)
        ids = np.stack([row.tokens for row in batch])
        piece = new if self.step.forgets else min(new, tokens)
        for at in range(0, new, piece):
            after = self.run(after.cache, ids[:, at : at + piece], length + at)
        return after


def stacked(texts: Iterable[Text]) -> torch.Tensor:
    """The logits after each text, [F, V]."""
    known = [text.logits for text in texts if text.logits is not None]
    return torch.stack(known) if known else torch.zeros(0, 0)


def _alike(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Places of rows with as many tokens, known and new."""
    lengths = [(row.text.length, len(row.tokens)) for row in rows]
    for _, group in groupby(sorted(range(len(rows)), key=lengths.__getitem__), lengths.__getitem__):
        yield list(group)
