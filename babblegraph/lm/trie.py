"""One forest's token trie in the model: which tokens were computed, and how the next ones are.

A forward pass is a batch of rows; each row is new tokens at the end of a path. Prompts, decoding steps, revived
nodes and a judge's words are all such rows, so there is one way through the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import is_lack_of_memory
from babblegraph.lm.coast import Coasted
from babblegraph.lm.decode import Decoder, Drawn, Sampler
from babblegraph.lm.forward import Flying, Forward, Row, Turn, padded
from babblegraph.lm.hidden import HiddenStates, SpanStates, span_length
from babblegraph.lm.layout import Ints, Layout
from babblegraph.lm.pace import Pace
from babblegraph.lm.paths import Paths, last_token
from babblegraph.lm.store import UNKNOWN, Slots, Store, edges_of
from babblegraph.status import Status

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph

ROOM = 8  # what part of the slots in use may be taken ahead
MANY = 64  # slots that may in any case
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
            logit_bytes = _memory(model.device) // 64
        self.store = Store(model.device, logit_bytes, cache_bytes, most_slots=most_slots)
        self._forward = Forward(model, self.store, forward_tokens, least, decode)
        self._paths = Paths(self.store)
        self._flight = np.zeros((0, 0), np.int64)  # [R, S] slots of the rows in flight
        self._lengths = np.zeros(0, np.int64)  # [R]
        self._trees = np.zeros(0, np.int64)  # [R]
        self._layout: Layout | None = None  # of the rows in flight, as long as they are the same
        self._new = False  # whether their newest tokens were in no text before
        self._pace = Pace()

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
        self._lengths = np.array([len(p) for p in paths])
        self._trees = graph.root[ids].astype(np.int64)
        self._flight, self._layout = padded(paths), None
        return logits

    def advance(self, rows: Ints, tokens: Ints, meter: Meter) -> torch.Tensor:
        """Replaces the rows in flight: new row i is old row `rows[i]` with `tokens[i]` appended.

        A token that is already in the trie is not computed again.

        Returns:
            The logits of what follows each new row, [R, V].
        """
        if not np.array_equal(rows, np.arange(len(self._flight))):
            self._flight, self._layout = self._flight[rows], None
            self._lengths, self._trees = self._lengths[rows], self._trees[rows]
        row, at = np.arange(len(rows)), self._lengths
        self._widen(1)
        before = self._flight[row, at - 1]
        slots = self.store.find_all(before, tokens)
        self._new = bool((slots == UNKNOWN).all())
        if (there := slots != UNKNOWN).any():
            found = np.unique(slots[there])
            self.store.pin(found)
            self._paths.fly(found)
        self._fill(slots, before, tokens)
        self._flight[row, at] = slots
        self._lengths = at + 1
        return self._newest_logits(slots, tokens, meter)

    def may_coast(self, steps: int) -> int:
        """How many of the next steps the rows in flight may try to go by themselves; 0 where the host sees to each."""
        rows = len(self._flight)
        if self._layout is None or not self._new or rows > self._forward.tokens or not self._forward.coasts:
            return 0
        steps = self._pace.steps(min(steps, max(MANY, self.store.in_use // ROOM) // rows), rows)
        self.store.reserve(steps * rows)
        return min(steps, self.store.blank // rows)

    def coast(
        self,
        logits: torch.Tensor,
        u: NDArray[np.float64],
        row: Ints,
        pausing: torch.Tensor,
        temperature: float,
        meter: Meter,
    ) -> Coasted | None:
        """The rows in flight go on by themselves, step after step, until the host has to look; see `coast`.

        Args:
            logits: after their newest tokens, [R, V].
            u: what is drawn by, [S, D], in as many steps as they `may_coast`.
            row: of each draw, [D]; every row has one.
            pausing: tokens after which somebody has to look, [V].
            temperature: of what is drawn from.

        Returns:
            What happened in up to S steps; None where there was no memory for it.
        """
        steps, rows = len(u), len(self._flight)
        assert self._layout is not None
        peak, start = self.store.peak, time.perf_counter()
        slots = self.store.take(steps * rows).reshape(steps, rows)
        lead = np.unique(row, return_index=True)[1]
        turn = Turn(row, lead, slots, pausing, temperature)
        try:
            found = self._forward.coast(self._layout, logits, u, turn)
        except RuntimeError as problem:
            if not is_lack_of_memory(problem):
                raise
            self.store.sweep(slots.reshape(-1))
            return None  # a step at a time takes less
        made = len(found.tokens)
        self.store.sweep(slots[made:].reshape(-1))
        self.store.peak = max(peak, self.store.in_use)
        self._pace.note(made, rows, time.perf_counter() - start)
        if made:
            self._gone(slots[:made], found, meter)
        return found

    def _widen(self, tokens: int) -> None:
        """Room for so many more tokens of every row in flight."""
        longest = int(self._lengths.max())
        if longest + tokens > self._flight.shape[1]:
            self._flight = np.pad(self._flight, ((0, 0), (0, longest // 4 + 16 + tokens)))

    def _gone(self, slots: Slots, found: Coasted, meter: Meter) -> None:
        """Takes note of the steps that the rows in flight have gone by themselves; slots are [S, R]."""
        assert self._layout is not None
        steps, rows = slots.shape
        self._paths.fly(slots.reshape(-1))
        row, at = np.arange(rows), self._lengths
        self._widen(steps)
        for step, tokens in enumerate(found.tokens):
            self.store.connect(slots[step], self._flight[row, at + step - 1], tokens.numpy())
            self._flight[row, at + step] = slots[step]
            self._layout.append(slots[step])
            self.store.put_logits(slots[step], found.logits[step])
        self._lengths = at + steps
        meter.count("forwarded", self._trees, steps)
        meter.peak_slots = max(meter.peak_slots, self.store.peak)

    @property
    def decoder(self) -> Decoder | None:
        """What runs many steps without the host; None where each needs it."""
        return None if self._forward.hidden is not None or not self.store.keys else self._forward.decoder

    @property
    def serves_again(self) -> bool:
        """Whether its memory and its steps, which take long to capture, should wait for another graph."""
        kept = self._forward.decoder is not None
        return kept and self.store.nbytes <= _memory(self.store.device) // SPARE

    def clear(self) -> None:
        """Forgets its graph: it is as good as new for another one."""
        self.store.clear()
        self._paths, self._forward.hidden = Paths(self.store), None
        self.close()

    def compile(self, call: Callable[..., Any]) -> None:
        """Decoding steps call this, the compiled model, instead of the model."""
        if self._forward.decoder is not None:
            self._forward.decoder.setting.model = call

    def glide(
        self, rows: Ints, tokens: Ints, u: NDArray[np.float64], sampler: Sampler, meter: Meter
    ) -> tuple[Drawn, Slots]:
        """Replaces the rows in flight as `advance` does, and goes on drawing for as many steps as there is room for.

        Every row has slots of its own, also where rows agree; nothing of it can be found later.

        Args:
            u: what the next draws are taken by, [S, R].

        Returns:
            What was drawn in up to S steps, and the slots of the tokens that were computed, [S', R].
        """
        decoder, flight, lengths = self.decoder, self._flight[rows], self._lengths[rows]
        assert decoder is not None  # as `may_fly` has made sure
        self.store.reserve(u.size)
        steps = max(min(len(u), self.store.free // len(rows)), 1)
        slots = self._paths.take(steps * len(rows)).reshape(steps, len(rows))
        self._paths.fly(slots.reshape(-1))
        at = np.arange(len(rows))
        flight = np.pad(flight, ((0, 0), (0, max(int(lengths.max()) + steps - flight.shape[1], 0))))
        for step in range(steps):
            flight[at, lengths + step] = slots[step]
        layout = Layout(flight, lengths + 1, np.ones_like(lengths), self._forward.least)
        order = layout.order
        drawn = decoder.draw(layout, tokens[order], slots[:, order], u[:steps, order], sampler)
        back = np.argsort(order)
        self._flight, self._lengths, self._trees = flight, lengths + steps, self._trees[rows]
        self._layout = None
        meter.count("forwarded", self._trees, steps)
        meter.peak_slots = max(meter.peak_slots, self.store.peak)
        return Drawn(*(table[:, back] for table in drawn)), slots

    def land(self, node: int, path: Slots, tokens: Ints, known: int) -> None:
        """Holds a path for a node that ends one token further on; from `known` on its slots become findable."""
        self.store.connect(path[known:], path[known - 1 : -1], tokens)
        self._paths.hold(node, path)

    def path(self, row: int) -> Slots:
        """The slots of a row in flight, [S]."""
        return self._flight[row, : self._lengths[row]].copy()

    def keep(self, node: int, row: int) -> None:
        """Holds the path of a row in flight for a node that ends one token further on."""
        self._paths.hold(node, self.path(row))

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
        self._flight, self._layout = np.zeros((0, 0), np.int64), None

    def restore(self, size: int) -> None:
        """After an interruption: keeps the nodes below `size` whose keys and values are complete, frees the rest."""
        self._flight, self._layout = np.zeros((0, 0), np.int64), None
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
        return self._known_or_computed(last[known], known, again, meter, place, fresh)[which]

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

    def _newest_logits(self, slots: Slots, tokens: Ints, meter: Meter) -> torch.Tensor:
        """The logits after the newest token of each row in flight, [R, V]; rows may share it."""
        if not _distinct(slots) or self.store.has_logits(slots).any():
            return self._some_logits(slots, tokens, meter)
        if self._layout is None:
            lengths = self._lengths
            self._layout = Layout(self._flight, lengths, np.ones_like(lengths), self._forward.least)
        else:
            self._layout.append(slots)
        flying = Flying(self._layout, tokens, slots, self._trees)
        return self._forward.step(flying, lambda: self._rows(np.arange(len(slots)), tokens), meter)

    def _some_logits(self, slots: Slots, tokens: Ints, meter: Meter) -> torch.Tensor:
        """The same where rows share tokens, or the logits of some are remembered."""
        unique, first, which = np.unique(slots, return_index=True, return_inverse=True)
        known = self.store.has_logits(unique)
        missing = np.sort(first[~known])
        self._layout = None
        place = np.searchsorted(missing, first)  # of a slot's row among the missing
        rows = self._rows(missing, tokens)
        return self._known_or_computed(unique[known], known, rows, meter, place[~known])[which]

    def _rows(self, which: Ints, tokens: Ints) -> list[Row]:
        """Some rows in flight with their newest tokens."""
        return [
            Row(self._flight[r, : self._lengths[r]], tokens[r : r + 1], int(self._trees[r]), "forwarded")
            for r in which.tolist()
        ]

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

    def _fill(self, slots: Slots, before: Slots, tokens: Ints) -> None:
        """Fills in slots for the tokens that are not in the trie, the same one for the same token."""
        new = np.flatnonzero(slots == UNKNOWN)
        edges = edges_of(before[new], tokens[new])
        if _distinct(edges):
            first = which = np.arange(len(new))
        else:
            _, first, which = np.unique(edges, return_index=True, return_inverse=True)
        taken = self._paths.take(len(first))
        self.store.connect(taken, before[new[first]], tokens[new[first]])
        slots[new] = taken[which]
        self._paths.fly(taken)

    def _known_or_computed(
        self,
        remembered: Slots,
        known: NDArray[np.bool_],
        rows: list[Row],
        meter: Meter,
        place: Ints,
        fresh: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits of `len(known)` slots: remembered ones where known, elsewhere the next of `[*fresh, *rows][place]`."""
        kept = self.store.logits(remembered) if len(remembered) else None  # before the rows push them out
        computed = self._forward(rows, meter)
        if fresh is not None and len(fresh):
            computed = torch.cat([fresh, computed]) if rows else fresh
        if kept is None:
            return computed[place]
        logits = kept.new_empty(len(known), kept.shape[1])
        logits[torch.as_tensor(known)] = kept
        if len(place):
            logits[torch.as_tensor(~known)] = computed[place]
        return logits


def _memory(device: torch.device) -> int:
    """Bytes of a GPU; elsewhere, where others need memory too, 4 GB."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 1 << 32


def _final(graph: BabbleGraph) -> bool:
    """Whether what is given up is never asked for again: an estimate expands every node once, and no stem waits."""
    return graph.meta.get("aim") == "estimate" and not bool((graph.status == Status.STEM).any())


def _distinct(numbers: Ints) -> bool:
    """Whether no two are the same; for the few rows of a step several times as fast as `np.unique`."""
    return len(set(numbers.tolist())) == len(numbers)


def open_length(graph: BabbleGraph, ids: Ints) -> Ints:
    """Tokens of each text without the one that ended it, since no word can follow that, [F]."""
    return graph.length[ids] - (graph.status[ids] == Status.LEAF_END)
