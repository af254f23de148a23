"""Fitting a value head: weighted cross-entropy, labels smoothed by what the head says one step further on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.scoring.collect import Collected
from babblegraph.scoring.head import Head
from babblegraph.scoring.reliability import Reliability, by_depth

Floats = NDArray[np.float64]


class Fitted(NamedTuple):
    """A head, and how good it is on prompts that it was not fitted on."""

    head: Head
    held_out: dict[int, Reliability]  # by depth
    prompts: tuple[int, int]  # fitted on, held out


def fit(
    data: Collected,
    *,
    hidden: int = 384,
    members: int = 1,
    epochs: int = 12,
    dropout: float = 0.2,
    weight_decay: float = 0.05,
    rate: float = 1e-3,
    batch: int = 512,
    bootstrap: Sequence[float] = (0.8, 0.9),
    held_out: float = 0.1,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Fits a head in three passes, and calibrates it on held-out prompts.

    The first pass learns from outcomes alone. In each later one a node's label is mixed with the mean of what the
    pass before says of its children, leaves counting as what they are: near the root, where an outcome is mostly
    luck still to come, that label has the same expectation as far as the head is right, and far less variance.
    All passes but the last make labels only, with half the units in half the time.

    Args:
        data: of training prompts.
        hidden, members, dropout: of the head.
        epochs: of the last pass.
        weight_decay, rate, batch: of AdamW; the rate rises and falls once in a pass.
        bootstrap: the share of the children's values in the labels of each later pass, in [0, 1].
        held_out: share of the prompts that only calibrate and measure.
        seed: of the split, the weights and the order.
        say: told what goes on, line by line.

    Raises:
        BadInput: too few prompts for a split, or only one outcome.

    Source: design/scoring.md, "Value", 4; Sutton, 1988 (temporal differences); Guo et al., 2017 (calibration).
    """
    train = _split(data, held_out, seed)
    label, weight = data.label, data.weight
    head = Head(data.features.shape[1], hidden, members, dropout)
    head.standardise(data.features[torch.as_tensor(np.flatnonzero(train))])
    how: dict[str, Any] = {"weight_decay": weight_decay, "rate": rate, "batch": batch}
    target = label
    for k, share in enumerate(bootstrap, 1):
        teacher = Head(data.features.shape[1], (hidden + 1) // 2, 1, dropout)
        teacher.mean, teacher.deviation = head.mean, head.deviation
        loss = _train(teacher, 0, data, train, target, seed + 1000 * k, epochs=(epochs + 1) // 2, **how)
        target = (1 - share) * label + share * _ahead(data, _values(teacher, data))
        say(f"pass {k} of {len(bootstrap) + 1}, for labels: loss {loss:.4f}")
    for k in range(members):
        loss = _train(head, k, data, train, target, seed + k, epochs=epochs, **how)
        say(f"network {k + 1} of {members}: loss {loss:.4f}")
    _calibrate(head, data, ~train)
    head.eval()
    value, test = _values(head, data), ~train
    figures = by_depth(*(x[test] for x in (value, label, weight, data.prompt, data.depth)))
    fitted_on, kept = (len(np.unique(data.prompt[some])) for some in (train, test))
    return Fitted(head, figures, (fitted_on, kept))


def _split(data: Collected, held_out: float, seed: int) -> NDArray[np.bool_]:
    """Which examples are fitted on, [M]; all of a prompt, or none."""
    prompts = np.unique(data.prompt)
    held = np.random.default_rng(seed).permutation(prompts)[: round(held_out * len(prompts))]
    train = ~np.isin(data.prompt, held)
    for some, name in ((train, "fitted on"), (~train, "held out")):
        good = data.weight[some] @ data.label[some]
        if not 0 < good < data.weight[some].sum():
            raise BadInput(
                f"a value needs texts that pass and texts that fail, got one kind in the prompts {name}: "
                "collect more rollouts"
            )
    return train


def _ahead(data: Collected, value: Floats) -> Floats:
    """The mean over a node's draws of its children's values; leaves count as what they are, [M]."""
    inner = data.parent >= 0
    below = np.bincount(data.parent[inner], (data.share * value)[inner], minlength=len(value))
    return np.clip(data.settled + below, 0.0, 1.0)


@torch.no_grad()
def _values(head: Head, data: Collected) -> Floats:
    """What a head says of every example, [M]."""
    head.eval()
    return torch.cat([head(some) for some in data.features.split(8192)]).double().numpy()


def _train(
    head: Head,
    k: int,
    data: Collected,
    train: NDArray[np.bool_],
    target: Floats,
    seed: int,
    *,
    epochs: int,
    weight_decay: float,
    rate: float,
    batch: int,
) -> float:
    """Fits one member anew; returns the last epoch's loss."""
    draw = torch.Generator().manual_seed(seed)
    network = head.members[k]
    _begin_anew(network, draw)
    rows = torch.as_tensor(np.flatnonzero(train))
    labels = torch.as_tensor(target, dtype=torch.float32)
    weights = torch.as_tensor(data.weight / data.weight[train].mean(), dtype=torch.float32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
    steps = epochs * -(-len(rows) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    network.train()
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout has no generator of its own
        for _ in range(epochs):
            total = 0.0
            for some in rows[torch.randperm(len(rows), generator=draw)].split(batch):
                x = (data.features[some].float() - head.mean) / head.deviation
                losses = torch.nn.functional.binary_cross_entropy_with_logits(
                    network(x)[:, 0], labels[some], weights[some]
                )
                optimizer.zero_grad(set_to_none=True)
                losses.backward()
                optimizer.step()
                schedule.step()
                total += float(losses.detach()) * len(some) / len(rows)
    return total


def _begin_anew(network: torch.nn.Module, draw: torch.Generator) -> None:
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            bound = layer.in_features**-0.5
            torch.nn.init.uniform_(layer.weight, -bound, bound, generator=draw)
            torch.nn.init.uniform_(layer.bias, -bound, bound, generator=draw)


def _calibrate(head: Head, data: Collected, held: NDArray[np.bool_]) -> None:
    """Slope and offset of the averaged log-odds that fit held-out outcomes best."""
    rows = torch.as_tensor(np.flatnonzero(held))
    head.eval()
    with torch.no_grad():
        z = head.log_odds(data.features[rows]).mean(0).double()
    labels, weights = (torch.as_tensor(x[held]) for x in (data.label, data.weight))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = torch.nn.functional.binary_cross_entropy_with_logits(line[0] * z + line[1], labels, weights)
        found.backward()
        return found

    optimizer.step(loss)
    head.slope.copy_(line[0].detach())
    head.offset.copy_(line[1].detach())
