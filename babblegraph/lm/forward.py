"""Forward passes: batches of rows, each some new tokens at the end of a path of the trie."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import isqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import is_lack_of_memory
from babblegraph.lm.coast import Ahead, Coasted
from babblegraph.lm.decode import decoder_of
from babblegraph.lm.layout import LEAST, Ints, Layout
from babblegraph.lm.packed import Whole
from babblegraph.lm.plan import Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.lm.hidden import HiddenStates
    from babblegraph.lm.store import Slots, Store


# new tokens × tokens before them, of the rows of one pass: what a mask of them takes is bounded
MASK = 1 << 24
PADDED = 1.25  # new tokens of a pass with its padding ÷ without, at most


class Row(NamedTuple):
    """New tokens at the end of a path: `path` has the slots of all of them, the last `len(tokens)` are new."""

    path: Slots
    tokens: Ints
    tree: int
    kind: str  # how the meter counts it: forwarded, prefilled or scored

    def first(self, n: int) -> Row:
        """Its first new tokens alone."""
        return self._replace(path=self.path[: len(self.path) - len(self.tokens) + n], tokens=self.tokens[:n])

    def rest(self, n: int) -> Row:
        """The others, once the first are computed."""
        return self._replace(tokens=self.tokens[n:])


class Flying(NamedTuple):
    """Rows that have one new token each, all in slots of their own; numbers are in the batch's order."""

    layout: Layout
    tokens: Ints  # [R]
    slots: Slots  # [R]
    trees: Ints  # [R]


class Turn(NamedTuple):
    """What rows do next by themselves; as of `coast.Ahead`, in the batch's order."""

    row: Ints
    lead: Ints
    slots: Slots
    pausing: torch.Tensor
    temperature: float


class Forward:
    """Runs rows through the model.

    Args:
        model: a transformers causal language model, inside `attention.attending`.
        store: where keys, values and logits go.
        tokens: at most this many new tokens (rows × length) in one pass, a longer row in pieces; halved whenever the
            device has no memory for them.
        least: rows × tokens from which on a segment is shared; by default as was measured.
        decode: whether passes of one token a row are steps of a `decode.Decoder`, where the device has one.
    """

    def __init__(
        self, model: PreTrainedModel, store: Store, tokens: int, least: int | None = None, decode: bool = True
    ) -> None:
        self.model, self.store, self.tokens, self._given = model, store, tokens, tokens
        window = getattr(model.config.get_text_config(), "sliding_window", None)
        self._masks = window is not None  # even where there is nothing but the new tokens
        self._told = False  # that the device has no memory for a pass
        self.least = least or LEAST.get(model.device.type, LEAST["cuda"])
        self.windows: set[int | None] = set()  # sliding windows that the layers told of
        self.hidden: HiddenStates | None = None  # keeps hidden states of all new tokens, where that is wanted
        self.decoder = decoder_of(model, store) if decode else None

    def __call__(self, rows: list[Row], meter: Meter, remember: bool = True) -> torch.Tensor:
        """Runs rows in order and in batches; returns the logits after each, [B, V].

        Args:
            rows: what to compute; a row may rely on those before it, since a pass writes all keys before it reads.
            meter: counts each row as its kind.
            remember: whether the logits are kept in the store.
        """
        logits: list[torch.Tensor] = []
        rows = list(rows)
        while rows:
            most = self._most(rows[0])
            piece = len(rows[0].tokens) > most
            batch = [rows[0].first(most)] if piece else rows[: self._batch(rows)]
            try:
                found = self._pass(batch)
            except RuntimeError as problem:
                self._halve(problem, len(batch) * max(len(row.tokens) for row in batch))
                continue
            for row in batch:
                meter.count(row.kind, row.tree, len(row.tokens))
            if piece:
                rows[0] = rows[0].rest(most)
                continue
            rows = rows[len(batch) :]
            logits.append(found)
            if remember:
                self.store.put_logits(np.array([r.path[-1] for r in batch]), logits[-1])
        meter.peak_slots = max(meter.peak_slots, self.store.peak)
        if len(logits) == 1:
            return logits[0]
        return torch.cat(logits) if logits else torch.zeros(0, 0, device=self.model.device)

    def step(self, flying: Flying, rows: Callable[[], list[Row]], meter: Meter) -> torch.Tensor:
        """One token more in every row; returns the logits after each, [R, V], which are kept.

        Args:
            flying: the rows.
            rows: the same, as `__call__` takes them, for where they do not fit into one pass.
            meter: counts each row as forwarded.
        """
        count = len(flying.tokens)
        if count > self.tokens:
            return self(rows(), meter)
        try:
            logits = self._step(*flying[:3])
        except RuntimeError as problem:
            self._halve(problem, count)
            return self(rows(), meter)
        meter.count("forwarded", flying.trees)
        meter.peak_slots = max(meter.peak_slots, self.store.peak)
        self.store.put_logits(flying.slots, logits)
        return logits

    def known_or_computed(
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
        computed = self(rows, meter)
        if fresh is not None and len(fresh):
            computed = torch.cat([fresh, computed]) if rows else fresh
        if kept is None:
            return computed[place]
        logits = kept.new_empty(len(known), kept.shape[1])
        logits[torch.as_tensor(known)] = kept
        if len(place):
            logits[torch.as_tensor(~known)] = computed[place]
        return logits

    @property
    def coasts(self) -> int:
        """How many tokens rows may have to go on without the host; 0 where there is no program for that."""
        whole = self.model.__dict__.get("forward")
        return whole.coasts(self.hidden is not None) if isinstance(whole, Whole) else 0

    @torch.no_grad()
    def coast(self, layout: Layout, logits: torch.Tensor, u: np.ndarray, ahead: Turn) -> Coasted:
        """As many steps as go by without the host, where the model `coasts`.

        Args:
            layout: of the rows as they are.
            logits: after their newest tokens, [R, V].
            u: what is drawn by, [S, D].
            ahead: the rest.
        """
        whole: Whole = self.model.__dict__["forward"]
        order, steps = layout.order, len(u)
        back = np.argsort(order)
        slots = ahead.slots[:, order]
        tails = np.pad(layout.slots, ((0, 0), (0, steps)))
        tails[np.arange(len(order))[:, None], layout.sizes[:, None] + np.arange(steps)] = slots.T
        later = layout.ahead(ahead.slots[0])
        plan = Plan(self.store, later, slots[0][:, None], later.lengths[:, None] - 1)
        tensor = torch.as_tensor
        given = Ahead(
            tensor(u),
            tensor(back[ahead.row]),
            tensor(ahead.lead[order]),
            tensor(slots),
            tensor(layout.lengths),
            tensor(tails),
            tensor(layout.sizes),
            ahead.pausing,
            ahead.temperature,
        )
        found = whole.coast(plan, logits[tensor(order)], given, self.hidden is not None)
        self.windows |= plan.windows
        if self.hidden is not None:
            for step, states in enumerate(found.states):
                self.hidden.write(given.slots[step], states, len(self.store.references))
        place = tensor(back)
        tokens, log_g, log_q, after = ([numbers[place] for numbers in kind] for kind in found[:4])
        return Coasted(tokens, log_g, log_q, after, [], found.passed)

    def _halve(self, problem: RuntimeError, tokens: int) -> None:
        """The device has no memory for so many tokens: from now on half as many go into one pass.

        Raises:
            RuntimeError: the problem is another, or the pass was of one token: then something else takes the memory.
        """
        if not is_lack_of_memory(problem):
            raise problem
        if tokens == 1:
            self.tokens = self._given
            raise problem
        self.tokens = tokens // 2
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if not self._told:
            self._told = True
            warnings.warn(
                f"no memory for {tokens} tokens in one forward pass: going on with half as many",
                RuntimeWarning,
                stacklevel=3,
            )

    def _most(self, row: Row) -> int:
        """How many of a row's new tokens go into one pass: the mask of a piece has no more than so many numbers."""
        known = len(row.path) - len(row.tokens)
        if not known and not self._masks:
            return self.tokens
        return max(1, min(self.tokens, (isqrt(known**2 + 4 * MASK) - known) // 2))

    def _pass(self, batch: list[Row]) -> torch.Tensor:
        new = np.array([len(r.tokens) for r in batch])
        paths = [r.path for r in batch]
        layout = Layout(padded(paths), np.array([len(p) for p in paths]), new, self.least)
        if self._decodes and _apart(batch, new, len(self.store.references)):
            logits = self._step(layout, *np.array([(r.tokens[0], r.path[-1]) for r in batch], np.int64).T)
            return logits.clone()  # the next batch's step writes over the decoder's
        ids, slots, positions = (np.zeros((len(batch), int(new.max())), np.int64) for _ in range(3))
        for b, i in enumerate(layout.order.tolist()):
            path, tokens, _, _ = batch[i]
            ids[b] = tokens[0]  # as padding; a padding id would make some families warn of a missing mask
            ids[b, -len(tokens) :] = tokens
            slots[b, -len(tokens) :] = path[len(path) - len(tokens) :]
            positions[b, -len(tokens) :] = np.arange(len(path) - len(tokens), len(path))
        return self._run(layout, ids, slots, positions)

    def _step(self, layout: Layout, tokens: Ints, slots: Slots) -> torch.Tensor:
        """The same where every row has one new token, which no other row reads; both [B]."""
        ids, slots = tokens[layout.order], slots[layout.order]
        if not self._decodes:
            return self._run(layout, ids[:, None], slots[:, None], layout.lengths[:, None] - 1)
        assert self.decoder is not None
        logits = self.decoder(layout, ids, slots)
        self.windows |= self.decoder.setting.windows
        return in_order(logits, layout)

    @property
    def _decodes(self) -> bool:
        """Whether steps go through the decoder."""
        return self.decoder is not None and self.hidden is None and bool(self.store.keys)

    @torch.no_grad()
    def _run(self, layout: Layout, ids: Ints, slots: Ints, positions: Ints) -> torch.Tensor:
        """The model on new tokens, [B, L] each in the order of the layout."""
        plan, device = Plan(self.store, layout, slots, positions), self.model.device
        out = self.model(
            input_ids=torch.as_tensor(ids, device=device),
            position_ids=torch.as_tensor(positions, device=device),
            use_cache=False,
            logits_to_keep=1,
            tree=plan,
            **({} if self.hidden is None else {"output_hidden_states": True}),
        )
        self.windows |= plan.windows
        if self.hidden is not None:
            self.hidden.write(plan.slots, out.hidden_states, len(self.store.references))
        return in_order(out.logits[:, -1].float(), layout)

    def _batch(self, rows: list[Row]) -> int:
        """How many of the first rows go into one pass: similar lengths, so that little is padding."""
        most = longest = tokens = 0
        for n, row in enumerate(rows):
            most, longest = max(most, len(row.tokens)), max(longest, len(row.path))
            tokens, new = tokens + len(row.tokens), (n + 1) * most
            if n and (new > PADDED * tokens or new > self.tokens or new * longest > MASK):
                return n
        return len(rows)


def padded(paths: Sequence[Slots]) -> NDArray[np.int64]:
    """Paths as rows, padded with 0 on the right."""
    out = np.zeros((len(paths), max(map(len, paths))), np.int64)
    for row, path in zip(out, paths, strict=True):
        row[: len(path)] = path
    return out


def in_order(logits: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The rows of a layout, [B, V], as the batch has them."""
    if np.array_equal(layout.order, np.arange(len(layout.order))):
        return logits
    return logits[torch.as_tensor(np.argsort(layout.order), device=logits.device)]


def _apart(batch: list[Row], new: Ints, slots: int) -> bool:
    """Whether each row has one new token, and no row reads that of another."""
    if (new != 1).any():
        return False
    read = np.zeros(slots, np.bool_)
    read[np.concatenate([r.path[:-1] for r in batch])] = True
    last = np.array([r.path[-1] for r in batch])
    return len(np.unique(last)) == len(last) and not read[last].any()
