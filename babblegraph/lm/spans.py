"""Where a span ends, and where a text ends."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from babblegraph.errors import BadInput
from babblegraph.status import Status

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph


@dataclass(frozen=True)
class SpanRule:
    """When a row of new tokens stops being continued.

    Args:
        tokens: a span has at most so many tokens; None for no such end.
        stop: strings that end a span (one step, one line, one sentence). They may lie across token borders;
            the token that completes one is still part of the span.
        until: strings that end the whole text.
        end_ids: token ids that end the whole text.

    Raises:
        BadInput: `tokens` below one, an empty string among `stop` or `until`.
    """

    tokens: int | None = None
    stop: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    end_ids: Collection[int] = ()

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise BadInput(f"a span needs at least one token, got {self.tokens}: use 1 or more")
        for name in ("stop", "until"):
            if not all(getattr(self, name)):
                raise BadInput(f"{name} strings must not be empty, got {getattr(self, name)}: leave '' out")

    def ends(
        self, tokens: Sequence[int], tails: Sequence[bytes], length: int, room: Sequence[int]
    ) -> list[Status | None]:
        """How each row ends with its newest token; None where it goes on, `FRONTIER` at the end of a span.

        Args:
            tokens: the newest token of each row, [R].
            tails: the row's bytes with the newest token's, at least the last `reach` of them, [R].
            length: tokens of the span so far, the newest included.
            room: how many more tokens each text may have, [R].
        """
        if not self.strings and (self.tokens is None or length < self.tokens) and min(room, default=1) > 0:
            return [Status.LEAF_END if token in self.end_ids else None for token in tokens]
        stop, until = [s.encode() for s in self.stop], [s.encode() for s in self.until]
        found: list[Status | None] = []
        for token, tail, left in zip(tokens, tails, room, strict=True):
            if token in self.end_ids:
                found.append(Status.LEAF_END)
            elif any(s in tail for s in until):
                found.append(Status.LEAF_STOP)
            elif left <= 0:
                found.append(Status.LEAF_LENGTH)
            elif any(s in tail for s in stop) or (self.tokens is not None and length >= self.tokens):
                found.append(Status.FRONTIER)
            else:
                found.append(None)
        return found

    @property
    def strings(self) -> bool:
        """Whether the bytes of tokens matter."""
        return bool(self.stop or self.until)

    @property
    def reach(self) -> int:
        """How many bytes before the newest token can still matter to a stop string."""
        return max((len(s.encode()) for s in (*self.stop, *self.until)), default=1) - 1

    def tail_of(self, graph: BabbleGraph, node: int) -> bytes:
        """The bytes before a new span below a node that can still matter: what a stop string has not closed.

        Only what was generated counts, so a prompt never ends a span.
        """
        data, up = b"", int(node)
        while len(data) < 4 * self.reach and (parent := int(graph.parent[up])) >= 0:
            data = b"".join(graph.vocabulary[int(t)] for t in graph.span(up)) + data
            up = parent
        if not self.reach:
            return b""
        strings = sorted({s.encode() for s in (*self.stop, *self.until)}, key=len, reverse=True)
        return re.split(b"|".join(map(re.escape, strings)), data)[-1][-self.reach :]

    def tail(self, before: bytes, token: int, vocabulary: Mapping[int, bytes]) -> bytes:
        """The bytes in which a stop string that ends with this token would lie."""
        return (before[-self.reach :] if self.reach else b"") + vocabulary[token]
