"""A value head: a few small networks on what the generator has in mind, put together and calibrated."""

from __future__ import annotations

import torch
from torch import nn


class Head(nn.Module):
    """P(a text from here passes), from the features of a node.

    Args:
        features: their number D.
        hidden: units of each of two layers.
        members: networks whose log-odds are averaged.
        dropout: while it is fitted.
    """

    mean: torch.Tensor  # [D]
    deviation: torch.Tensor  # [D]
    slope: torch.Tensor  # [] of the calibration
    offset: torch.Tensor  # []

    def __init__(self, features: int, hidden: int = 256, members: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        self.members = nn.ModuleList(_network(features, hidden, dropout) for _ in range(members))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("slope", torch.tensor(1.0))
        self.register_buffer("offset", torch.tensor(0.0))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Probabilities, [M, D] -> [M]."""
        return torch.sigmoid(self.slope * self.log_odds(features).mean(0) + self.offset)

    def log_odds(self, features: torch.Tensor) -> torch.Tensor:
        """What each member says before calibration, [members, M]."""
        x = (features.float() - self.mean) / self.deviation
        return torch.stack([member(x)[:, 0] for member in self.members])

    def standardise(self, features: torch.Tensor) -> None:
        """Takes mean and deviation of each feature from a sample, [M, D]."""
        x = features.float()
        self.mean.copy_(x.mean(0))
        self.deviation.copy_(x.std(0).clamp_min(1e-4))


def _network(features: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 1),
    )
