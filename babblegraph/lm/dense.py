"""The engine for models that cannot attend along a trie: every text has a cache of its own, the model's.

Recurrent and hybrid models, and families with attention of their own, run as `generate` runs them. Rows that are
as long as each other are one batch, so nothing is padded; a row that splits forks its cache. Texts share no memory
here and forks copy, which is why this engine is for those that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import NoRoom
from babblegraph.lm.flights import Flights
from babblegraph.lm.steps import After, Cached, Step
from babblegraph.lm.text_passes import NOTHING, Row, TextPasses, stacked
from babblegraph.lm.texts import Text, Texts
from babblegraph.lm.trie import open_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph

Ints = NDArray[np.integer[Any]]


class Dense:
    """Caches and logits of one graph's nodes, and the rows that are in flight during an expansion.

    Args:
        model: a transformers causal language model that passed `selfcheck.check` with this engine.
        most_bytes: memory for the caches of nodes; those that it cannot hold are computed again, counted as
            prefilled.
        strict: whether the texts that are worked on have to fit into it too, as under a memory limit.
        forward_tokens: at most this many new tokens (rows × length) in one forward pass, a longer row in pieces;
            halved whenever the device has no memory for them.
        step: how tokens go through the model.

    Source: design/engine.md, "Choices".
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        most_bytes: int = 1 << 30,
        strict: bool = False,
        forward_tokens: int = 8192,
        step: Callable[[PreTrainedModel], Step] = Cached,
    ) -> None:
        self.step = step(model)
        self._passes = TextPasses(model, self.step, forward_tokens)
        self.store, self.strict = Texts(most_bytes), strict
        self.windows: set[int | None] | None = None  # windows are the model's own business here
        self._kept: list[int] = []  # nodes that the last expansion promised to the graph
        self._flights = Flights()
        self._trees = np.zeros(0, np.int64)  # [R] of the rows in flight

    @property
    def held(self) -> dict[int, Text]:
        """Node -> its text; the last token may not be computed yet."""
        return self.store.of

    @property
    def forgets(self) -> bool:
        """Whether every text goes through the model from its beginning."""
        return self.step.forgets

    def record(self, layers: Sequence[int]) -> None:
        """Nothing: these caches keep no hidden states."""

    def hidden(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> tuple[NDArray[np.bool_], None]:
        """No states are kept here, [F]."""
        return np.zeros(len(ids), np.bool_), None

    def begin(self, graph: BabbleGraph) -> None:
        """A new expansion of a graph: promised nodes that it did not get are given up."""
        self.release(np.array([i for i in self._kept if i >= graph.size], np.int64))
        self._kept = []

    def open(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor:
        """Puts one row in flight at the end of each node; returns the logits of what follows, [F, V]."""
        texts = self._completed(graph, ids, graph.length[ids], meter)
        self._trees = graph.root[ids].astype(np.int64)
        self._flights.board(texts)
        self._make_room()
        self._note_peak(meter)
        return stacked(texts)

    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> torch.Tensor:
        """Replaces the rows in flight: new row i is old row `rows[i]` with `tokens[i]` appended.

        Rows with the same text are computed once.

        Returns:
            The logits of what follows each new row, [R, V].
        """
        trees = self._trees[rows]

        def run(cache: Any, new: Ints, length: int, first: Ints) -> After:
            after = self._passes.run(cache, new, length)
            self._passes.count(meter, "forwarded", trees[first], length, 1)
            return after

        logits = self._flights.advance(rows, tokens, run)
        self._trees = trees
        self._make_room()
        self._note_peak(meter)
        return logits

    def keep(self, node: int, row: int) -> None:
        """Holds the text of a row in flight for a node that ends one token further on."""
        self.store.put(node, self._flights.text(row))
        self._kept.append(node)

    def close(self) -> None:
        """Ends the expansion, or a part of it: what no node holds is free again."""
        self._flights.land()
        self.store.reserve(0)

    def renumber(self, first: int, order: Ints) -> None:
        """Promised node `first` + i is from now on what was `first` + `order[i]`; what is not named is given up."""
        number = {first + old: first + new for new, old in enumerate(order.tolist())}
        self.release(np.array([i for i in self._kept if i not in number], np.int64))
        self.store.renumber(number)
        self._kept = list(number.values())

    def crowded(self, ids: Ints) -> bool:
        """Whether these nodes' texts take more than a third of the room; True where nobody knows."""
        texts = {id(text): text for i in ids.tolist() if (text := self.held.get(i)) is not None}
        taken = sum(text.nbytes for text in texts.values())
        return (
            not self.strict
            or any(i not in self.held for i in ids.tolist())
            or 3 * taken > self.store.most_bytes
        )

    def restore(self, size: int) -> None:
        """After an interruption: keeps the texts of nodes below `size`, which are never changed, frees the rest."""
        self.close()
        for node in [i for i in self.held if i >= size]:
            del self.held[node]
        self.store.recount()

    def release(self, ids: Ints) -> None:
        """Gives up the texts of nodes."""
        for i in ids.tolist():
            self.store.drop(i)

    def next_logits(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor:
        """The logits of what follows each node, [F, V]; computes what is not there."""
        return stacked(self._completed(graph, ids, graph.length[ids], meter))

    def after(self, graph: BabbleGraph, ids: Ints, words: Sequence[int], meter: Meter) -> torch.Tensor:
        """The logits that would follow if each node went on with some words, [F, V]; nothing of it is kept."""
        texts = self._completed(graph, ids, open_length(graph, ids), meter, logits=False)
        new, trees = np.asarray(words, np.int64), graph.root[ids].tolist()
        rows = [Row(text, new, tree, "scored") for text, tree in zip(texts, trees, strict=True)]
        return stacked(self._passes(rows, meter))

    def around(
        self,
        graph: BabbleGraph,
        ids: Ints,
        before: Sequence[int],
        after: Sequence[int],
        meter: Meter,
        first: int | None = None,
    ) -> torch.Tensor:
        """The logits that follow words, a node's whole text, and words, [F, V]; nothing of it is kept.

        A text that begins with the token `first` (the beginning of text) leaves it to the words before.
        """
        rows = []
        for i, n in zip(ids.tolist(), open_length(graph, ids).tolist(), strict=True):
            tokens = graph.path_tokens(i)[:n].tolist()
            head = tokens[: tokens[0] == first]
            words = [*head, *before, *tokens[len(head) :], *after]
            rows.append(Row(NOTHING, np.array(words), int(graph.root[i]), "scored"))
        return stacked(self._passes(rows, meter))

    def _completed(
        self, graph: BabbleGraph, ids: Ints, lengths: Ints, meter: Meter, logits: bool = True
    ) -> list[Text]:
        """The first `lengths` tokens of the nodes' texts; computes the same text once, from where it is known."""
        texts: list[Text | int] = []  # an index into the rows where it has to be computed
        rows: list[Row] = []
        seen: dict[tuple[int, bytes], int] = {}
        for i, n in zip(ids.tolist(), lengths.tolist(), strict=True):
            text, tree = self._longest(graph, i, n, logits), int(graph.root[i])
            if text.length == n:
                texts.append(text)
                continue
            tokens = graph.path_tokens(i)[:n]
            key = tree, tokens.tobytes()
            if key not in seen:
                kind = "forwarded" if self.held.get(i) is text else "prefilled"
                rows.append(Row(text, tokens[text.length :], tree, kind))
            texts.append(seen.setdefault(key, len(rows) - 1))
        taken = 0

        def weigh(text: Text) -> None:
            nonlocal taken
            taken += text.nbytes
            self._make_room(taken)

        computed = self._passes(rows, meter, caching=True, made=weigh)
        self._make_room()
        found = [computed[text] if isinstance(text, int) else text for text in texts]
        for i, text in zip(ids.tolist(), found, strict=True):
            self.store.put(i, text)
        self._note_peak(meter)
        return found

    def _longest(self, graph: BabbleGraph, node: int, most: int, logits: bool) -> Text:
        """The longest text of at most so many tokens that is known of a node: its own or that of one above."""
        for i in reversed(graph.path(node)):
            text = self.store.get(i)
            if text and (
                text.length < most or (text.length == most and (text.logits is not None or not logits))
            ):
                return text
        return NOTHING

    def _make_room(self, more: int = 0) -> None:
        """Gives up texts for those in flight and some more bytes, where all together must fit.

        Raises:
            NoRoom: these alone do not.
        """
        if not self.strict:
            return
        if (taken := self._flights.nbytes + more) > self.store.most_bytes:
            raise NoRoom(
                "the memory limit must hold a text and what is drawn below it, got room for "
                f"{self.store.most_bytes:,} bytes: raise it, or keep texts shorter"
            )
        self.store.reserve(taken)

    def _note_peak(self, meter: Meter) -> None:
        meter.peak_slots = max(meter.peak_slots, self.store.in_use + self._flights.slots)
