"""Hidden states of tokens: kept from the forward passes that run anyway, computed anew only where none was kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from babblegraph.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.store import Slots

ROWS = 64  # texts in one forward pass, where states have to be computed
CAPTURING = "transformers.utils.output_capturing"


class SpanStates(NamedTuple):
    """What a model has in mind at the end of some nodes; layer 0 is the embedding."""

    last: torch.Tensor  # [F, layers, H] after the last token
    mean: torch.Tensor  # [F, layers, H] over the tokens of the node's own span
    prompt: torch.Tensor  # [F, layers, H] after the last token of its tree's prompt

    def of(self, places: Sequence[int]) -> SpanStates:
        """Those of some layers, by their places among these."""
        return SpanStates(*(states[:, places] for states in self))

    @classmethod
    def joined(cls, parts: Sequence[SpanStates], order: NDArray[np.integer]) -> SpanStates:
        """Several as one; `order` says, for each of theirs in turn, which one of all it is, [F]."""
        place = torch.as_tensor(np.argsort(order))
        return cls(*(torch.cat(states)[place] for states in zip(*parts, strict=True)))


class HiddenStates:
    """The hidden states of a trie's tokens, one row a slot, beside its keys and values.

    Args:
        layers: which are kept, ascending.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        self.known = np.zeros(0, np.bool_)  # [slots]
        self.pool: torch.Tensor | None = None  # [slots, layers, H]

    @property
    def nbytes(self) -> int:
        """Bytes of the pool."""
        return 0 if self.pool is None else self.pool.numel() * self.pool.element_size()

    def write(self, slots: torch.Tensor, states: Sequence[torch.Tensor] | torch.Tensor, size: int) -> None:
        """Keeps what a forward pass computed.

        Args:
            slots: of the new tokens, [B · L].
            states: the model's hidden states, [B, L, H] for each layer, that of the embedding first.
            size: slots that there are.
        """
        new = of_layers(states, self.layers).flatten(0, 1)  # [B · L, layers, H]
        if self.pool is None or len(self.pool) < size:
            grown = new.new_empty(size, *new.shape[1:])
            if self.pool is not None:
                grown[: len(self.pool)] = self.pool
            self.pool = grown
            self.known = np.r_[self.known, np.zeros(size - len(self.known), np.bool_)]
        self.pool.index_copy_(0, slots, new)
        self.known[slots.cpu().numpy()] = True

    def has(self, slots: Slots) -> bool:
        """Whether the states of all these tokens were kept."""
        return bool(len(self.known) > slots.max(initial=0) and self.known[slots].all())

    def read(self, spans: Sequence[Slots], prompts: Sequence[int]) -> SpanStates:
        """States at the ends of nodes' spans, means over them, and states at the ends of prompts; F slots or lists."""
        assert self.pool is not None
        device = self.pool.device
        ends = torch.as_tensor([[span[-1] for span in spans], prompts], device=device)
        last, prompt = self.pool[ends].float()
        lengths = torch.as_tensor([len(span) for span in spans], device=device)
        row = torch.repeat_interleave(torch.arange(len(spans), device=device), lengths)
        every = self.pool[torch.as_tensor(np.concatenate(spans), device=device)].float()
        total = every.new_zeros(len(spans), *every.shape[1:]).index_add_(0, row, every)
        return SpanStates(last, total / lengths[:, None, None], prompt)


def of_layers(states: Sequence[torch.Tensor] | torch.Tensor, layers: Sequence[int]) -> torch.Tensor:
    """A model's hidden states of some layers, [B, L, layers, H].

    Args:
        states: [B, L, H] for each layer, that of the embedding first.

    Raises:
        BadInput: they are more than one vector a token, as gemma3n's are.
    """
    if states[layers[0]].dim() != 3:
        raise BadInput(
            "a token's hidden state must be one vector, this model has several streams of shape "
            f"{tuple(states[layers[0]].shape)}: use a value that needs none"
        )
    return torch.stack([states[layer] for layer in layers], 2)


@torch.no_grad()
def computed(
    model: PreTrainedModel,
    graph: BabbleGraph,
    ids: NDArray[np.integer],
    layers: Sequence[int],
    meter: Meter,
) -> SpanStates:
    """The same from plain forward passes over whole texts, counted as scored; texts of equal length are a batch."""
    texts = [graph.path_tokens(i) for i in ids.tolist()]
    order = sorted(range(len(texts)), key=lambda b: len(texts[b]))
    last: list[torch.Tensor] = [torch.zeros(0)] * len(texts)
    mean, prompt = list(last), list(last)
    for length, alike in groupby(order, lambda b: len(texts[b])):
        group = list(alike)
        for at in range(0, len(group), ROWS):
            batch = group[at : at + ROWS]
            tokens = torch.as_tensor(np.stack([texts[b] for b in batch]), device=model.device).long()
            ones = torch.ones_like(tokens)
            out = model(input_ids=tokens, attention_mask=ones, use_cache=False, output_hidden_states=True)
            states = of_layers(out.hidden_states, layers).float()
            for place, b in enumerate(batch):
                last[b] = states[place, -1]
                mean[b] = states[place, length - span_length(graph, int(ids[b])) :].mean(0)
                prompt[b] = states[place, int(graph.length[graph.root[ids[b]]]) - 1]
            meter.count("scored", graph.root[ids[batch]], length)
    return SpanStates(*map(torch.stack, (last, mean, prompt)))


def span_length(graph: BabbleGraph, node: int) -> int:
    """Tokens of a node's own span; of a stem, which has none, its last token counts."""
    return max(int(graph.stop[node] - graph.start[node]), 1)


def unhooked(model: nn.Module) -> None:
    """Takes away the hooks by which transformers notes hidden states: they cannot be pickled.

    transformers puts them in again when it is next asked for hidden states.
    """
    for module in model.modules():
        for number, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__module__", None) == CAPTURING:
                del module._forward_hooks[number]
        module.__dict__.pop("_output_capturing_hooks_installed", None)
