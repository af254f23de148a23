"""What the dense engine remembers: caches of whole texts, one for each node, within a bound of memory."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import torch

from babblegraph.lm import caches


class Text:
    """The state of a model after some tokens.

    Args:
        cache: the model's own, of one row; None for no token at all.
        length: how many tokens.
        logits: of the token that follows, [V]; None where they were never asked for.
    """

    def __init__(self, cache: Any, length: int, logits: torch.Tensor | None) -> None:
        self.cache, self.length, self.logits = cache, length, logits
        self.slots = caches.slots(cache)
        self.nbytes = caches.nbytes(cache) + (0 if logits is None else logits.numel() * logits.element_size())


class Texts:
    """Texts of nodes; nodes may share one. Beyond the bound those that were used longest ago are given up.

    Args:
        most_bytes: of all texts together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self._reserved = most_bytes, 0
        self.of: OrderedDict[int, Text] = OrderedDict()  # node -> its text, the longest unused first
        self.evicted = 0  # texts given up for want of memory
        self.in_use = 0  # slots: tokens whose keys and values are held, copies counted
        self.allocated_bytes = 0
        self._holders: Counter[int] = Counter()  # id of a text -> nodes that have it

    @property
    def token_bytes(self) -> int:
        """Bytes of a token, on average over what is held; 0 where nothing is."""
        return self.allocated_bytes // self.in_use if self.in_use else 0

    def put(self, node: int, text: Text) -> None:
        """Remembers a node's text, instead of what was known of it."""
        self.drop(node)
        self.of[node] = text
        self._hold(text)
        self._give_up()

    def reserve(self, nbytes: int) -> None:
        """So much of the bound is from now on for something else."""
        self._reserved = nbytes
        self._give_up()

    def get(self, node: int) -> Text | None:
        """What is known of a node's text: all of it, or all but its last token."""
        if node in self.of:
            self.of.move_to_end(node)
        return self.of.get(node)

    def drop(self, node: int) -> None:
        """Forgets a node's text."""
        if (text := self.of.pop(node, None)) is None:
            return
        self._holders[id(text)] -= 1
        if not self._holders[id(text)]:
            del self._holders[id(text)]
            self.in_use -= text.slots
            self.allocated_bytes -= text.nbytes

    def renumber(self, number: dict[int, int]) -> None:
        """Some nodes get other numbers."""
        self.of = OrderedDict((number.get(node, node), text) for node, text in self.of.items())

    def recount(self) -> None:
        """Counts anew what is held, whatever an interruption left behind."""
        self._holders.clear()
        self.in_use = self.allocated_bytes = 0
        for text in self.of.values():
            self._hold(text)

    def _give_up(self) -> None:
        while self.allocated_bytes + self._reserved > self.most_bytes and self.of:
            self.drop(next(iter(self.of)))
            self.evicted += 1

    def _hold(self, text: Text) -> None:
        if not self._holders[id(text)]:
            self.in_use += text.slots
            self.allocated_bytes += text.nbytes
        self._holders[id(text)] += 1
