"""One forest's token trie in the model: which tokens were computed, and how the next ones are.

A forward pass is a batch of rows; each row is new tokens at the end of a path. Prompts, decoding steps, revived
nodes and a judge's words are all such rows, so there is one way through the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.lm.decode import Decoder
from babblegraph.lm.forward import Forward, Row
from babblegraph.lm.gpu import memory_of
from babblegraph.lm.hidden import HiddenStates, SpanStates, span_length
from babblegraph.lm.layout import Ints
from babblegraph.lm.paths import Paths, last_token
from babblegraph.lm.store import Slots, Store
from babblegraph.lm.trie_rows import TrieRows
from babblegraph.status import Status

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph

SPARE = 16  # what part of a GPU's memory may be kept for the next graph


class Trie:
    """Keys, values and logits of one graph's tokens, and the rows that are in flight during an expansion.

    Args:
        model: a transformers causal language model that passed `selfcheck.check`.
        logit_bytes: memory for remembered logits; by default 64 MB, or a sixty-fourth of a GPU's.
        cache_bytes: memory in which keys and values that were given up stay findable.
        forward_tokens: at most this many new tokens (rows × length) in one forward pass; halved whenever the
            device has no memory for them.
        most_slots: tokens whose keys and values there is room for; None for no bound. The paths that were used
            longest ago are given up for new ones, and computed again when they are needed.
        least: rows × tokens from which on a segment is shared; by default as was measured, `layout.LEAST`.
        decode: whether steps of one token a row go through a `decode.Decoder`, where the device has one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        logit_bytes: int | None = None,
        cache_bytes: int = 1 << 26,
        forward_tokens: int = 8192,
        most_slots: int | None = None,
        least: int | None = None,
        decode: bool = True,
    ) -> None:
        if logit_bytes is None:
            logit_bytes = memory_of(model.device) // 64
        self.store = Store(model.device, logit_bytes, cache_bytes, most_slots=most_slots)
        self._forward = Forward(model, self.store, forward_tokens, least, decode)
        self._paths = Paths(self.store)
        self.in_flight = TrieRows(self.store, self._forward, self._paths)

    @property
    def held(self) -> dict[int, Slots]:
        """Slots of each node's path; its last token may not be computed yet."""
        return self._paths.held

    @property
    def evicted(self) -> int:
        """Paths given up for want of memory."""
        return self._paths.evicted

    @property
    def windows(self) -> set[int | None]:
        """The sliding windows that the layers told of."""
        return self._forward.windows

    @property
    def forgets(self) -> bool:
        """Whether every text goes through the model from its beginning: no, keys and values are kept."""
        return False

    def record(self, layers: Sequence[int]) -> None:
        """From now on keeps the hidden states of some layers, for every token that is computed."""
        self._forward.hidden = HiddenStates(layers)

    def hidden(
        self, graph: BabbleGraph, ids: Ints, meter: Meter
    ) -> tuple[NDArray[np.bool_], SpanStates | None]:
        """Which nodes' states were kept, [F], and the states of those; computes a last token that is not there.

        What is computed for this is kept, and not computed again when a node is expanded.
        """
        if (states := self._forward.hidden) is None:
            return np.zeros(len(ids), np.bool_), None
        self._paths.touch(ids)
        self._compute_paths(graph, ids, meter)
        spans = [self.held[i][-span_length(graph, i) :] for i in ids.tolist()]
        ends = (graph.length[graph.root[ids]] - 1).tolist()  # of the prompts
        prompts = np.array([self.held[i][end] for i, end in zip(ids.tolist(), ends, strict=True)], np.int64)
        whole = map(np.append, spans, prompts)
        known = np.array([states.has(slots) for slots in whole], np.bool_)
        spans = [span for span, there in zip(spans, known, strict=True) if there]
        return known, states.read(spans, prompts[known].tolist()) if spans else None

    def begin(self, graph: BabbleGraph) -> None:
        """A new expansion of a graph: promised nodes that it did not get are given up."""
        self._paths.begin(graph.size)
        self.store.hoards = not _final(graph)

    def open(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor:
        """Puts one row in flight at the end of each node; returns the logits of what follows, [F, V]."""
        logits = self.next_logits(graph, ids, meter)
        paths = [self.held[int(i)] for i in ids]
        self.in_flight.open(paths, graph.root[ids])
        return logits

    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> torch.Tensor:
        """As of `TrieRows`."""
        return self.in_flight.advance(rows, tokens, meter)

    @property
    def decoder(self) -> Decoder | None:
        """What runs many steps without the host; None where each needs it."""
        return None if self._forward.hidden is not None or not self.store.keys else self._forward.decoder

    @property
    def serves_again(self) -> bool:
        """Whether its memory and its steps, which take long to capture, should wait for another graph."""
        kept = self._forward.decoder is not None
        return kept and self.store.nbytes <= memory_of(self.store.device) // SPARE

    def clear(self) -> None:
        """Forgets its graph: it is as good as new for another one."""
        self.store.clear()
        self._paths, self._forward.hidden = Paths(self.store), None
        self.in_flight = TrieRows(self.store, self._forward, self._paths)

    def compile(self, call: Callable[..., Any]) -> None:
        """Decoding steps call this, the compiled model, instead of the model."""
        if self._forward.decoder is not None:
            self._forward.decoder.setting.model = call

    def land(self, first: int, paths: Sequence[Slots], tokens: Sequence[Ints]) -> None:
        """Holds paths for the nodes from `first` on, which end one token further on.

        Args:
            tokens: of each node the last of its path, which become findable.
        """
        known = [len(path) - len(new) for path, new in zip(paths, tokens, strict=True)]
        new = [path[k:] for path, k in zip(paths, known, strict=True)]
        before = [path[k - 1 : -1] for path, k in zip(paths, known, strict=True)]
        self.store.connect(np.concatenate(new), np.concatenate(before), np.concatenate(tokens))
        self._paths.hold([*range(first, first + len(paths))], paths)

    def keep(self, node: int, row: int) -> None:
        """Holds the path of a row in flight for a node that ends one token further on."""
        self._paths.hold([node], [self.in_flight.path(row)])

    def renumber(self, first: int, order: Ints) -> None:
        """Promised node `first` + i is from now on what was `first` + `order[i]`; what is not named is given up."""
        self._paths.renumber(first, order)

    def crowded(self, ids: Ints) -> bool:
        """Whether these nodes' paths take more than a third of the room that there is."""
        paths = [self.held[i] for i in ids.tolist() if i in self.held]
        return len(paths) < len(ids) or 3 * len(np.unique(np.concatenate(paths))) > self.store.most

    def close(self) -> None:
        """Ends the expansion, or a part of it: what no node holds is free again."""
        self._paths.end()
        self.in_flight.close()

    def restore(self, size: int) -> None:
        """After an interruption: keeps the nodes below `size` whose keys and values are complete, frees the rest."""
        self.in_flight.close()
        self._paths.restore(size)

    def release(self, ids: Ints) -> None:
        """Gives up the paths of nodes."""
        self._paths.release(ids)

    def next_logits(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> torch.Tensor:
        """The logits of what follows each node, [F, V]; computes what is not there."""
        self._paths.touch(ids)
        newest, fresh = self._compute_paths(graph, ids, meter)
        paths = [self.held[int(i)] for i in ids]
        ends = np.array([p[-1] for p in paths], np.int64)
        last, first, which = np.unique(ends, return_index=True, return_inverse=True)
        known = self.store.has_logits(last)
        lost = ~known & ~np.isin(last, newest)
        again = [
            Row(paths[i], last_token(graph, int(ids[i])), int(graph.root[ids[i]]), "prefilled")
            for i in first[lost]
        ]
        computed = np.concatenate([newest, last[lost]])
        order = np.argsort(computed)
        place = order[np.searchsorted(computed, last[~known], sorter=order)]
        return self._forward.known_or_computed(last[known], known, again, meter, place, fresh)[which]

    def after(self, graph: BabbleGraph, ids: Ints, words: Sequence[int], meter: Meter) -> torch.Tensor:
        """The logits that would follow if each node went on with some words, [F, V]; nothing of it is kept."""
        self._paths.touch(ids)
        length = open_length(graph, ids)
        short = [len(self.held.get(i, ())) < n for i, n in zip(ids.tolist(), length.tolist(), strict=True)]
        self._compute_paths(graph, ids[short], meter)
        taken = [self._paths.take(len(words)) for _ in ids]
        rows = [
            Row(np.concatenate([self.held[i][:n], slots]), np.asarray(words), int(graph.root[i]), "scored")
            for i, n, slots in zip(ids.tolist(), length.tolist(), taken, strict=True)
        ]
        logits = self._forward(rows, meter, remember=False)
        self.store.sweep(np.concatenate(taken))
        return logits

    def around(
        self,
        graph: BabbleGraph,
        ids: Ints,
        before: Sequence[int],
        after: Sequence[int],
        meter: Meter,
        first: int | None = None,
    ) -> torch.Tensor:
        """The logits that follow words, a node's whole text, and words, [F, V].

        What begins alike goes through the model once, also in later calls, as long as it can be found. A text that
        begins with the token `first` (the beginning of text) leaves it to the words before.
        """
        self._paths.touch(ids)
        rows = []
        for i, n in zip(ids.tolist(), open_length(graph, ids).tolist(), strict=True):
            tokens = graph.path_tokens(i)[:n]
            head = int(tokens[0] == first)
            begin = np.concatenate([tokens[:head], before]).astype(tokens.dtype)
            text = np.concatenate([begin, tokens[head:], after]).astype(tokens.dtype)
            rows.append(self._paths.aside(begin, text, int(graph.root[i])))
        logits = self._forward(rows, meter, remember=False)
        for row in rows:
            self.store.drop(row.path)
        return logits

    def _compute_paths(self, graph: BabbleGraph, ids: Ints, meter: Meter) -> tuple[Slots, torch.Tensor]:
        """Makes sure that every token of the nodes' paths has its keys and values, and holds them.

        Returns:
            The slots of last tokens that had to be computed, [B], and the logits that follow, [B, V], which are more
            than the store may remember.
        """
        rows = list(self._paths.completing(graph, ids))
        logits = self._forward(rows, meter)
        self._paths.completed()
        return np.array([row.path[-1] for row in rows], np.int64), logits


def _final(graph: BabbleGraph) -> bool:
    """Whether what is given up is never asked for again: an estimate expands every node once, and no stem waits."""
    return graph.meta.get("aim") == "estimate" and not bool((graph.status == Status.STEM).any())


def open_length(graph: BabbleGraph, ids: Ints) -> Ints:
    """Tokens of each text without the one that ended it, since no word can follow that, [F]."""
    return graph.length[ids] - (graph.status[ids] == Status.LEAF_END)
