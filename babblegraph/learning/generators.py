"""The two generators of a run: f, the base, which stays as it is, and g, which learns."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from babblegraph.errors import BadInput
from babblegraph.learning.rows import log_p
from babblegraph.learning.update import Anchor, weights_of

if TYPE_CHECKING:
    from babblegraph.learning.settings import Settings
    from babblegraph.lm import Babbler

Weights = dict[str, torch.Tensor]


class Generators:
    """f and g as babblers, and the weights that learn.

    With all weights learning, g is a copy of the base. With adapters one set of weights is both: the base is the
    model with its adapters off, and they are put into the user's own model.

    Args:
        base: f; its way of sampling is g's too.
        settings: `mode` and what belongs to it.

    Raises:
        BadInput: adapters are asked for and peft is not installed.
    """

    def __init__(self, base: Babbler, settings: Settings) -> None:
        self.adapters: Any = None
        if settings.mode == "lora":
            self.adapters = _with_adapters(base.model, settings)
            self.learner: Any = base.model
            with self.as_base():
                self.base = base.again(model=self.learner)
        else:
            self.learner, self.base = copy.deepcopy(base.model), base
            self.learner.requires_grad_(True)
        self._current: Babbler | None = None

    @property
    def current(self) -> Babbler:
        """g as it is now."""
        if self._current is None:
            self._current = self.base.again(model=self.learner)
        return self._current

    def as_base(self) -> AbstractContextManager[Any]:
        """The state in which the base's model is the base."""
        return nullcontext() if self.adapters is None else self.adapters.disable_adapter()

    def log_f(self, tokens: Any, start: NDArray[Any]) -> NDArray[np.float64]:
        """log-probabilities of texts under the base, [M]."""
        with self.as_base():
            return log_p(self.base.model, tokens, start)

    def log_g(self, tokens: Any, start: NDArray[Any]) -> NDArray[np.float64]:
        """And under g."""
        return log_p(self.learner, tokens, start)

    def anchors(self, settings: Settings) -> tuple[Anchor, ...]:
        """What the next update is to stay near."""
        found = []
        if settings.kl_base > 0:
            found.append(Anchor(self.base.model, settings.kl_base, self.as_base))
        if settings.kl_previous > 0:
            found.append(Anchor(self._previous(), settings.kl_previous))
        return tuple(found)

    def weights(self) -> Weights:
        """Copies of the weights that learn."""
        return weights_of(self.learner)

    @torch.no_grad()
    def put(self, weights: Weights) -> None:
        """Makes these the weights of g."""
        for name, parameter in self.learner.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
        self.moved()

    def moved(self) -> None:
        """Says that g is another one now."""
        self._current = None

    def save(self, folder: Path) -> Babbler:
        """g as a folder that any transformers program loads, adapters beside it; returns it as it is written there."""
        model = self.learner
        if self.adapters is not None:
            self.adapters.save_pretrained(folder / "adapter")
            model = copy.deepcopy(self.adapters).merge_and_unload()
        model.save_pretrained(folder)
        if self.base.tokenizer is not None:
            self.base.tokenizer.save_pretrained(folder)
        return self.current if self.adapters is None else self.base.again(model=model)

    def load(self, folder: Path) -> None:
        """The weights of g from a folder that `save` wrote, to the bit."""
        if self.adapters is not None:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.adapters, load_peft_weights(str(folder / "adapter"), device="cpu"))
        else:
            loaded = AutoModelForCausalLM.from_pretrained(
                folder, dtype=self.learner.dtype, use_safetensors=True
            )
            self.learner.load_state_dict(loaded.state_dict())
        self.moved()

    def _previous(self) -> Any:
        """A frozen copy of g as it is before the update."""
        return copy.deepcopy(self.learner).requires_grad_(False)


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Without transformers' own progress bars, which would be drawn across ours."""
    from transformers.utils import logging

    was = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was:
            logging.enable_progress_bar()


def _with_adapters(model: Any, settings: Settings) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as missing:
        raise BadInput("mode 'lora' needs peft, got none: install babblegraph[train]") from missing
    torch.manual_seed(0)  # peft draws the adapters' first weights from torch's own generator
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that is going away
        return get_peft_model(model, config)
