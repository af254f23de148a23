"""transformers' logits processors and stopping criteria over the rows of an expansion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    LogitNormalization,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SynthIDTextWatermarkLogitsProcessor,
    TemperatureLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.rows import Rows

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ids [R, L], scores [R, V] -> scores [R, V]
Criterion = Callable[
    [torch.Tensor, Any], Any
]  # ids [R, L], None -> whether each text is done, [R] or one for all
Ints = NDArray[np.integer[Any]]

FULL_SUPPORT = (TemperatureLogitsWarper, LogitNormalization, RepetitionPenaltyLogitsProcessor)
STATEFUL = (UnbatchedClassifierFreeGuidanceLogitsProcessor, SynthIDTextWatermarkLogitsProcessor)


class Batch(NamedTuple):
    """The batch that a call of `generate` was made with: processors may know its prompts by their place in it."""

    prompts: Ints  # [trees, P] with their padding
    copies: int  # rows of each prompt, one after the other


@dataclass
class Constraint:
    """What processors and criteria say of rows in flight. One lives as long as one expansion.

    Each function sees whole texts, prompts included, of one length at a time; rows of several prompts come
    together, but for functions that know prompts by their place in the batch. They must be functions of their
    arguments alone: a tree asks in another order than a loop over tokens.

    Args:
        graph: whose nodes are expanded.
        processors: they change the logits, one after the other.
        criteria: any of them ends a text.
        batch: where a call of `generate` has one; texts then begin with its padded prompts.
    """

    graph: BabbleGraph
    processors: Sequence[Processor]
    criteria: Sequence[Criterion]
    batch: Batch | None = None
    _beginnings: dict[int, Ints] = field(default_factory=dict)  # of the nodes that are expanded

    def scores(self, rows: Rows, logits: torch.Tensor) -> torch.Tensor:
        """The processed logits of what follows each row, [R, V]; minus infinity where nothing may follow."""
        scores = logits.clone()  # processors may write into what they get
        for at, ids in self._by_length(rows, logits.device):
            some = scores[at]
            for processor in self.processors:
                copies = self._copies(processor)
                if copies:
                    some = self._as_batch(processor, ids, some, rows.tree[at.cpu().numpy()], copies)
                else:
                    some = processor(ids, some)
            scores[at] = some
        return scores

    def done(self, rows: Rows, device: torch.device) -> NDArray[np.bool_]:
        """Which rows are texts that a criterion ends with their newest token, [R]."""
        done = np.zeros(len(rows.node), np.bool_)
        for at, ids in self._by_length(rows, device) if self.criteria else ():
            for criterion in self.criteria:
                done[at.cpu().numpy()] |= np.asarray(torch.as_tensor(criterion(ids, None)).cpu(), np.bool_)
        return done

    def _by_length(self, rows: Rows, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Rows whose texts have the same length, and these texts, [R', L]."""
        beginnings = [self._beginning(int(i)) for i in rows.node]
        lengths = np.array([len(b) for b in beginnings])
        for length in np.unique(lengths):
            at = np.flatnonzero(lengths == length)
            texts = np.c_[np.stack([beginnings[r] for r in at]), rows.tokens[at]]
            yield torch.as_tensor(at, device=device), torch.as_tensor(texts, dtype=torch.long, device=device)

    def _beginning(self, node: int) -> Ints:
        """All tokens up to the end of a node, as the functions see them."""
        if node not in self._beginnings:
            tokens = self.graph.path_tokens(node)
            if self.batch is not None:
                root = int(self.graph.root[node])
                tokens = np.concatenate([self.batch.prompts[root], tokens[self.graph.length[root] :]])
            self._beginnings[node] = tokens
        return self._beginnings[node]

    def _copies(self, processor: Processor) -> int:
        """In how many rows a processor expects each prompt; 0 where it does not matter whose a row is."""
        if isinstance(processor, PrefixConstrainedLogitsProcessor):
            return 1 if self.batch is None else self.batch.copies
        if isinstance(
            processor, EncoderRepetitionPenaltyLogitsProcessor | EncoderNoRepeatNGramLogitsProcessor
        ):
            return 1
        ignored = getattr(processor, "prompt_ignore_length", None)
        return len(ignored) // self.graph.trees if isinstance(ignored, torch.Tensor) else 0

    def _as_batch(
        self, processor: Processor, ids: torch.Tensor, scores: torch.Tensor, tree: Ints, copies: int
    ) -> torch.Tensor:
        """Asks with every prompt in its place: its rows a few at a time, the places left over by any row."""
        order = np.argsort(tree, kind="stable")
        rank = np.arange(len(tree)) - np.searchsorted(tree[order], tree[order])
        scores = scores.clone()
        for turn in range(int(rank.max()) // copies + 1):
            mine = rank // copies == turn
            rows, place = order[mine], tree[order[mine]] * copies + rank[mine] % copies
            asked = np.full(self.graph.trees * copies, rows[0])
            asked[place] = rows
            where, some = (torch.as_tensor(x, device=scores.device) for x in (place, rows))
            scores[some] = processor(ids[asked], scores[asked])[where]
        return scores


def describe(processors: Sequence[Processor]) -> dict[str, Any]:
    """What a graph remembers of processors: their names, and whether they may leave out texts.

    Raises:
        BadInput: one that remembers its last call.
    """
    for processor in processors:
        if isinstance(processor, STATEFUL):
            name = type(processor).__name__
            raise BadInput(
                f"a logits processor must remember nothing between calls, got {name}: leave it out"
            )
    names = [getattr(p, "__name__", type(p).__name__) for p in processors]
    return {"processors": names, "truncates": not all(isinstance(p, FULL_SUPPORT) for p in processors)}
