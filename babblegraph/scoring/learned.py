"""A learned value: a small head on the generator's own hidden states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from babblegraph.errors import BadInput, first_line
from babblegraph.scoring.collect import features_of
from babblegraph.scoring.head import Head

if TYPE_CHECKING:
    from babblegraph.budget import Meter
    from babblegraph.graph import BabbleGraph
    from babblegraph.lm.babbler import Babbler
    from babblegraph.scoring.fit import Fitted

WEIGHTS, CARD = "value.safetensors", "value.json"
FORMAT = 2  # 1 did not read the prompt


class LearnedValue:
    """P(a text from here passes) as a head reads it off the generator; it costs no forward pass.

    A node's last token is pushed through the model when the value is asked instead of when the node is expanded;
    apart from that everything was computed already.

    Args:
        babbler: the generator that the head was fitted on.
        head: see `fit`.
        layers: whose hidden states it reads, ascending.

    Source: design/scoring.md, "Value", 4.
    """

    def __init__(self, babbler: Babbler, head: Head, layers: Sequence[int]) -> None:
        self.babbler, self.head, self.layers = babbler, head.eval().to(babbler.model.device), tuple(layers)
        babbler.record(self.layers)

    @torch.no_grad()
    def __call__(self, graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
        """Values of nodes, [M] in [0, 1]."""
        if not len(ids):
            return np.zeros(0)
        features = features_of(self.babbler, graph, np.asarray(ids), self.layers, meter)
        return self.head(features).cpu().double().numpy()

    @classmethod
    def from_folder(cls, babbler: Babbler, folder: str | Path) -> LearnedValue:
        """Loads what `save` wrote.

        Raises:
            BadInput: there is no value, it cannot be read, or it was fitted on another generator.
        """
        folder = Path(folder)
        try:
            card = json.loads((folder / CARD).read_text("utf-8"))
            tensors = load_file(folder / WEIGHTS)
            if card["format"] != FORMAT:
                raise ValueError(f"format {card['format']}, not {FORMAT}")
            head = Head(**{name: int(card["head"][name]) for name in ("features", "hidden", "members")})
            head.load_state_dict({name: t.float() for name, t in tensors.items()})
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as problem:
            raise BadInput(
                f"a learned value is a folder with {CARD} and {WEIGHTS}, got {str(folder)!r}: {first_line(problem)}"
            ) from problem
        if card["generator"] != babbler.fingerprint:
            raise BadInput(
                f"a learned value must be used with the generator that it was fitted on, got {babbler.name!r} with "
                "other weights: fit it again with babblegraph train-value"
            )
        return cls(babbler, head, card["layers"])


def save(folder: str | Path, fingerprint: str, fitted: Fitted, layers: Sequence[int], **notes: Any) -> None:
    """Writes a fitted head beside its generator: weights in half precision, and a card in JSON.

    Args:
        folder: made if it is not there.
        fingerprint: of the generator.
        fitted: see `fit`.
        layers: whose hidden states the head reads.
        notes: plain JSON that the card keeps, such as how much data there was.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = fitted.head
    first = head.members[0]
    assert isinstance(first, torch.nn.Sequential)
    size = {"features": len(head.mean), "hidden": first[0].out_features, "members": len(head.members)}
    card = {
        "format": FORMAT,
        "generator": fingerprint,
        "layers": list(layers),
        "head": size,
        "prompts": {"fitted": fitted.prompts[0], "held_out": fitted.prompts[1]},
        "held_out": {str(depth): found.to_json() for depth, found in fitted.held_out.items()},
        **notes,
    }
    exact = {"mean", "deviation", "slope", "offset"}
    tensors = {n: t.cpu() if n in exact else t.half().cpu() for n, t in head.state_dict().items()}
    for name, write in (
        (WEIGHTS, lambda path: save_file(tensors, path)),
        (CARD, lambda path: path.write_text(json.dumps(card, indent=1) + "\n", "utf-8")),
    ):
        beside = folder / f"{name}.part"
        write(beside)
        beside.replace(folder / name)


def is_there(folder: str | Path) -> bool:
    """Whether a folder has a learned value.

    >>> is_there("nowhere")
    False
    """
    return all((Path(folder) / name).is_file() for name in (WEIGHTS, CARD))


def usual_layers(babbler: Babbler) -> tuple[int, ...]:
    """Four layers from a quarter of the way to the last: what a head reads where nothing else is said."""
    depth = int(babbler.model.config.get_text_config().num_hidden_layers)
    return tuple(sorted({max(1, round(depth * share)) for share in (0.25, 0.5, 0.75, 1.0)}))
