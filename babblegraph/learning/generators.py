"""The two generators of a run: f, the base, which stays as it is, and g, which learns."""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from babblegraph.errors import BadInput
from babblegraph.learning.merged import check_merging, merged
from babblegraph.learning.rows import log_p
from babblegraph.learning.update import Anchor, weights_of
from babblegraph.lm.base import without_adapters
from babblegraph.lm.fingerprint import fingerprint
from babblegraph.lm.frozen import Frozen
from babblegraph.lm.offloaded import comes_and_goes
from babblegraph.lm.quantized import is_quantized

if TYPE_CHECKING:
    from babblegraph.learning.settings import Settings
    from babblegraph.lm import Babbler

Weights = dict[str, torch.Tensor]
NOW, BEFORE = "default", "before"  # adapters: what learns, and what it was before an update
# the adapters of a base's last run
_put_in: weakref.WeakKeyDictionary[Babbler, Any] = weakref.WeakKeyDictionary()


class Generators:
    """f and g as babblers, and the weights that learn.

    With all weights learning, g is a copy of the base. With adapters one set of weights is both: the base is the
    model with its adapters off, and they are put into the user's own model. `begin_anew` takes them out again, for
    another run of the same babbler.

    Args:
        base: f; its way of sampling is g's too.
        settings: `mode` and what belongs to it.

    Raises:
        BadInput: adapters are asked for and peft is not installed, f has a base or adapters of its own, layers that
            are elsewhere, or quantized weights where all are to learn.
    """

    def __init__(self, base: Babbler, settings: Settings) -> None:
        if "base" in base.sampling:
            raise BadInput(
                "the babbler that learns is its own base, got one with a base: make it without one"
            )
        if without_adapters(base.model) is not None:
            raise BadInput(
                "a generator that learns must have no adapters yet, got one with some, which the base would lack: "
                "merge them into its weights (peft's merge_and_unload), or load it anew"
            )
        if comes_and_goes(base.model):
            raise BadInput(
                "a generator that learns must be on its device as a whole, got layers that come from elsewhere when "
                "they are called: load it without offloading, quantized if need be"
            )
        self.adapters: Any = None
        if settings.mode == "lora":
            self.adapters = _put_in[base] = _with_adapters(base.model, settings)
            self.learner: Any = base.model
            self._like = base.again(model=self.learner)
            self.base: Babbler = Frozen(self._like)
        elif is_quantized(base.model):
            raise BadInput(
                "all weights can learn only where none is quantized, got a quantized model: let adapters learn "
                "(mode 'lora', or --lora 16), or load it in full"
            )
        else:
            self.learner, self.base, self._like = copy.deepcopy(base.model), base, base
            self.learner.requires_grad_(True)
        self._current: Babbler | None = None

    @property
    def current(self) -> Babbler:
        """g as it is now."""
        if self._current is None:
            self._current = self._like = self._like.again(model=self.learner)  # which is checked once
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
            found.append(self._previous(settings.kl_previous))
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

    def check_saving(self) -> None:
        """Whether `save` can write this generator.

        Raises:
            BadInput: it cannot; see `merged.check_merging`.
        """
        if self.adapters is not None:
            check_merging(self.adapters)

    def save(self, folder: Path) -> str:
        """g as a folder that any transformers program loads, adapters beside it.

        Returns:
            The fingerprint of what is written there.
        """
        model = self.learner
        if self.adapters is not None:
            self.adapters.save_pretrained(folder / "adapter", selected_adapters=[NOW])
            model = merged(self.adapters, NOW)
        _let_sampling_be_saved(model)
        model.save_pretrained(folder)
        if self.base.tokenizer is not None:
            self.base.tokenizer.save_pretrained(folder)
        return fingerprint(model)

    def load(self, folder: Path) -> None:
        """The weights of g from a folder that `save` wrote, to the bit."""
        if self.adapters is not None:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.adapters, load_peft_weights(str(folder / "adapter"), device="cpu"))
        else:
            kind = type(self.learner)  # known, so that no code has to come from the folder
            loaded = kind.from_pretrained(folder, dtype=self.learner.dtype, use_safetensors=True)
            self.learner.load_state_dict(loaded.state_dict())
        self.moved()

    def _previous(self, share: float) -> Anchor:
        """g as it is before the update: a frozen copy, or with adapters one of these alone."""
        if self.adapters is None:
            return Anchor(copy.deepcopy(self.learner).requires_grad_(False), share)
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        if BEFORE not in self.adapters.peft_config:
            with torch.random.fork_rng(devices=[]):  # what it draws is overwritten at once
                self.adapters.add_adapter(BEFORE, self.adapters.peft_config[NOW])
        now = get_peft_model_state_dict(self.adapters, adapter_name=NOW)
        set_peft_model_state_dict(self.adapters, now, adapter_name=BEFORE)
        return Anchor(self.learner, share, self._as_before)

    @contextmanager
    def _as_before(self) -> Iterator[None]:
        self.adapters.set_adapter(BEFORE)
        try:
            yield
        finally:
            self.adapters.set_adapter(NOW)


def begin_anew(base: Babbler) -> None:
    """Takes the adapters of an earlier run of this babbler out of its model."""
    if base in _put_in:
        _put_in.pop(base).unload()


def averaged(now: Weights, before: Weights, share: float) -> Weights:
    """The mean of two generators' weights; of adapters that of their factors.

    Where an adapter did nothing before, since one of its factors was zero, the other is left as it is: then their
    product is the mean of the products, which it is to first order otherwise.

    Args:
        share: of those before.
    """

    def alone(name: str) -> bool:
        return ".lora_A." in name and not before[name.replace(".lora_A.", ".lora_B.")].any()

    return {n: w if alone(n) else (1 - share) * w + share * before[n] for n, w in now.items()}


def ways_of(babbler: Babbler) -> dict[str, Any]:
    """How a babbler samples, plain, for a run to remember: another way would be another run."""
    span = babbler.span
    return babbler.sampling | {
        "span": span.tokens,
        "stop": list(span.stop),
        "until": list(span.until),
        "end_ids": sorted(span.end_ids),
        "max_new_tokens": babbler.max_new_tokens,
    }


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


def _let_sampling_be_saved(model: Any) -> None:
    """Turns sampling on where the options that came with a model are of sampling and it is off.

    transformers loads such a model, as many are, and refuses to save it.
    """
    config = getattr(model, "generation_config", None)
    if config is not None and not config.do_sample:
        try:
            config.validate(strict=True)
        except ValueError:
            config.do_sample = True


def _with_adapters(model: Any, settings: Settings) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as missing:
        raise BadInput("mode 'lora' needs peft, got none: install babblegraph[train]") from missing
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # peft draws the adapters' first weights from torch's own generator
        warnings.simplefilter("ignore", FutureWarning)  # it asks transformers by a name that is going away
        return get_peft_model(model, config)
