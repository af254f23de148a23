"""The update: weighted maximum likelihood on what was sampled, held near the generators before."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.learning.optimiser import Optimiser
from babblegraph.learning.ranks import Ranks
from babblegraph.learning.rows import Passes, as_sampled, logits_of, pad
from babblegraph.lm.doubles import most_precise
from babblegraph.randomness import Rng

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.learning.rows import Batch

WARMUP, LAST_RATE = 0.1, 0.1  # shares of the steps and of the learning rate
RETRIES = 3  # with half the learning rate each, when learning makes the elite less likely
MEASURED = 2048  # texts, at most, whose loss says whether learning helped


class Lessons(NamedTuple):
    """E texts to learn.

    Args:
        tokens: exactly the sampled ids, the prompt's in front, E arrays.
        start: how many of each are the prompt's, [E].
        weight: ≥ 0, [E]; only their ratios matter.
    """

    tokens: list[NDArray[np.int32]]
    start: NDArray[np.int64]
    weight: NDArray[np.float64]


class Learned(NamedTuple):
    """What an update did.

    Args:
        before, after: weighted mean of −log g per generated token; of two thousand texts, where there are more.
        steps: of the optimiser.
        rate: the learning rate that it came to in the end.
        retries: how often the learning rate had to be halved.
    """

    before: float
    after: float
    steps: int
    rate: float
    retries: int


class Anchor(NamedTuple):
    """A generator to stay near: `share` times its KL to the new one is added to the loss.

    KL(anchor ‖ g) is taken at each token of the elite texts, weighted as they are.

    Args:
        model: a frozen model, or with adapters the generator itself.
        share: α or β.
        inside: the state of the model meanwhile, such as adapters off.
    """

    model: PreTrainedModel
    share: float
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext


def update(
    model: PreTrainedModel,
    lessons: Lessons,
    *,
    learning_rate: float = 3e-4,
    epochs: int = 3,
    steps: int | None = None,
    batch: int = 64,
    anchors: tuple[Anchor, ...] = (),
    weight_decay: float = 0.0,
    rng: Rng,
    ranks: Ranks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Learned:
    """Moves the model toward the lessons, in place: maximises Σ w log g over the tokens that were generated.

    AdamW with a short warm-up and a cosine; gradients are clipped. Where the elite is less likely afterwards, or
    a number is not finite, the old weights come back and the learning rate is halved.

    Args:
        model: its parameters that need gradients are changed; it runs without dropout.
        lessons: texts and weights.
        learning_rate: at its peak.
        epochs: passes over the lessons.
        steps: of the optimiser, in place of `epochs`; the last pass may be a part of one.
        batch: texts a step.
        anchors: generators to stay near.
        rng: of the order of the lessons.
        ranks: processes among which each batch is shared out; the result is the same up to rounding.
        progress: called with the steps done and all.

    Raises:
        BadInput: no lessons, or a number that is not above zero.

    Source: design/statistics.md, "The objective".
    """
    _check(lessons, learning_rate, epochs, batch, steps)
    steps = epochs * -(-len(lessons.tokens) // batch) if steps is None else steps
    ranks = ranks or Ranks()
    before = weights_of(model)
    for retry in range(RETRIES + 1):
        rate = learning_rate / 2**retry
        with as_sampled(model, *(anchor.model for anchor in anchors)), torch.enable_grad():
            first, last = _descend(
                model, lessons, rate, steps, batch, anchors, weight_decay, rng, ranks, progress
            )
        if math.isfinite(last) and last <= first and _finite(model):
            return Learned(first, last, steps, rate, retry)
        model.load_state_dict(before, strict=False)
    return Learned(first, first, 0, rate, retry)


def loss(
    model: PreTrainedModel, batch: Batch, weight: torch.Tensor, anchors: tuple[Anchor, ...] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ w · (−log g) over the generated tokens of a batch; and the same with the anchors' shares of KL.

    Args:
        weight: of each text, [B].
    """
    log_g = logits_of(model, batch).log_softmax(-1)  # [B, L − 1, V]
    each = torch.where(batch.learned, weight[:, None], 0.0)  # [B, L − 1]
    plain = -(each * log_g.gather(-1, batch.ids[:, 1:, None])[..., 0]).sum()
    whole = plain
    for anchor in anchors:
        with torch.no_grad(), anchor.inside():
            log_a = logits_of(anchor.model, batch).log_softmax(-1)
        whole = whole + anchor.share * (each * (log_a.exp() * (log_a - log_g)).sum(-1)).sum()
    return plain, whole


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Copies of the weights that learn; in the CPU's memory, since a GPU's is dear."""
    learning = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    return {name: p.detach().to("cpu", copy=True) for name, p in learning}


def _descend(
    model: PreTrainedModel,
    lessons: Lessons,
    rate: float,
    steps: int,
    size: int,
    anchors: tuple[Anchor, ...],
    weight_decay: float,
    rng: Rng,
    ranks: Ranks,
    progress: Callable[[int, int], None] | None,
) -> tuple[float, float]:
    """The mean loss before and after."""
    learning = [p for p in model.parameters() if p.requires_grad]
    device = learning[0].device
    optimiser = Optimiser(learning, weight_decay)
    n = len(lessons.tokens)
    weight = lessons.weight / lessons.weight.mean()
    generated = np.array([len(t) for t in lessons.tokens]) - lessons.start
    unit = float((weight * generated).sum())  # of the loss: a weighted token
    passes = Passes(model)
    before = _measured(model, lessons, weight, ranks, passes)
    for done, some in enumerate(_batches(n, size, steps, rng)):
        mine = ranks.mine(some)

        def learn(places: NDArray[np.intp], mine: NDArray[np.intp] = mine) -> None:
            rows, each = _rows(lessons, weight, mine[places], device)
            (loss(model, rows, each, anchors)[1] * (n / unit / size)).backward()

        passes.over([lessons.tokens[i] for i in mine], learn, begin=optimiser.zero_grad)
        ranks.add_gradients(learning)
        optimiser.step(rate * _schedule(done, steps))
        if progress is not None:
            progress(done + 1, steps)
    optimiser.zero_grad()  # as much memory as the weights, which a search has use for
    return before, _measured(model, lessons, weight, ranks, passes)


def _batches(n: int, size: int, steps: int, rng: Rng) -> Iterator[NDArray[np.intp]]:
    """So many batches of the n lessons' places, each once in every pass, in a new order."""
    per_pass = -(-n // size)
    for step in range(steps):
        if step % per_pass == 0:
            order = rng.generator(step // per_pass).permutation(n)
        first = step % per_pass * size
        yield order[first : first + size]


@torch.no_grad()
def _measured(
    model: PreTrainedModel, lessons: Lessons, weight: NDArray[np.float64], ranks: Ranks, passes: Passes
) -> float:
    """The mean loss of a generated token; of many texts some, evenly spaced, are enough to tell."""
    n, device = len(lessons.tokens), next(model.parameters()).device
    mine = ranks.mine(np.arange(n) if n <= MEASURED else np.linspace(0, n - 1, MEASURED).astype(np.intp))
    found: list[tuple[float, float]] = []  # the loss and the weighted tokens of each pass

    def run(places: NDArray[np.intp]) -> None:
        rows, each = _rows(lessons, weight, mine[places], device)
        found.append((float(loss(model, rows, each)[0]), float((each[:, None] * rows.learned).sum())))

    passes.over([lessons.tokens[i] for i in mine], run, begin=found.clear)
    return ranks.sum(sum(total for total, _ in found)) / ranks.sum(sum(tokens for _, tokens in found))


def _rows(
    lessons: Lessons, weight: NDArray[np.float64], some: NDArray[np.intp], device: torch.device
) -> tuple[Batch, torch.Tensor]:
    """Some texts side by side, and their weights."""
    rows = pad([lessons.tokens[i] for i in some], lessons.start[some], device)
    return rows, torch.as_tensor(weight[some], dtype=most_precise(device), device=device)


def _schedule(step: int, steps: int) -> float:
    """A linear warm-up, then a cosine down to a tenth."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    through = (step - warmup) / max(1, steps - warmup)
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * through))


@torch.no_grad()
def _finite(model: PreTrainedModel) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters() if p.requires_grad)


def _check(lessons: Lessons, learning_rate: float, epochs: int, batch: int, steps: int | None) -> None:
    if not len(lessons.tokens):
        raise BadInput("an update needs texts to learn from, got none: skip the level")
    if not (np.isfinite(lessons.weight).all() and (lessons.weight >= 0).all() and lessons.weight.sum() > 0):
        raise BadInput("weights must be finite and not negative, with a sum above zero: check the elite")
    given = (("learning_rate", learning_rate), ("epochs", epochs), ("batch", batch), ("steps", steps))
    for name, number in given:
        if number is not None and not 0 < number < math.inf:
            raise BadInput(f"{name} must be above zero, got {number:g}: give a positive number")
