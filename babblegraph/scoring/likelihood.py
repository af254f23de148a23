"""Likelihood as a value: the baseline that every other one has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from babblegraph.budget import Meter
from babblegraph.graph import BabbleGraph


def likelihood(graph: BabbleGraph, ids: NDArray[np.intp], meter: Meter) -> NDArray[np.float64]:
    """The geometric mean of the generated tokens' probabilities under g, [M] in [0, 1]."""
    generated = graph.length[ids] - graph.length[graph.root[ids]]
    return np.exp(graph.log_p_g[ids] / np.maximum(generated, 1))
