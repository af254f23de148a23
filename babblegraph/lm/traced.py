"""A decoding step as one program: the operators that a model's modules call, written down once and run without Python.

A step of a few rows through a small model takes less time in its operators than Python takes to call them. PyTorch's
tracer writes down what the modules do, whatever they are; attention along the trie, which is another for every tree, is
compiled from `cascade`. TorchScript runs both.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as _every

from babblegraph.errors import first_line
from babblegraph.lm.cascade import How, Pass, Pool, Seen, StepAttention
from babblegraph.lm.coast import Ahead, Coast, Coasted
from babblegraph.lm.hidden import CAPTURING
from babblegraph.lm.invert import BLOCK
from babblegraph.lm.layout import Layout
from babblegraph.lm.modules import modules_of
from babblegraph.lm.plan import Plan
from babblegraph.lm.roundings import alike
from babblegraph.lm.samples import NOISE
from babblegraph.lm.sizes import EqualSizes
from babblegraph.lm.store import Store
from babblegraph.lm.weights import at_work

if TYPE_CHECKING:
    from babblegraph.lm.attention import Attending

ROWS = 3  # of the step that is written down
TRIED = (1, 2, 5)  # rows of the steps that it is tried on
KNOWN = 6  # tokens before them
WAIT = 32  # steps of the modules before a program is made: about as many as one costs, so that a few pay for none

Tensors = tuple[torch.Tensor, ...]


class Out(NamedTuple):
    """What a step gives, named as in a model's own output."""

    logits: torch.Tensor  # [B, 1, V]
    hidden_states: torch.Tensor | None  # [layers, B, 1, H], where they were asked for


class Untraceable(Exception):
    """What the modules do cannot be written down, and why."""


class Traced:
    """The steps of one model as it is: of one new token a row, on a CPU, along one trie.

    Programs are made when steps go on coming: one for each set of adapters at work, with and without hidden states.
    The weights are given to them at every step. TorchScript never forgets a program: it keeps no tensors alive so, and
    weights that have changed need no new one.

    Args:
        model: a causal language model inside `attention.attending`, whose layers may have stand-ins.
        copies: what stand-ins multiply with.

    Attributes:
        reason: why the last program that was wanted is none; None where it is one.
    """

    def __init__(self, model: nn.Module, copies: Sequence[torch.Tensor] = ()) -> None:
        self._weights = [*copies, *_weights_of(model)]
        self._modules = [weakref.ref(module) for module in modules_of(model)]
        self._adapted = [layer for layer in modules_of(model) if hasattr(type(layer), "merged_adapters")]
        self._programs: dict[Hashable, Program | None] = {}
        self._waited = 0  # steps
        self.reason: str | None = None

    @property
    def made(self) -> bool | None:
        """Whether the last program that was wanted is one; None before the first."""
        return self.reason is None if self._programs else None

    def goes_on(self, model: nn.Module, copies: Sequence[torch.Tensor]) -> bool:
        """Takes other weights instead; False where they are of other kinds, or of other modules.

        Programs have what modules do written down, not only their weights: how much an adapter counts, for one.
        """
        modules = modules_of(model)
        if len(modules) != len(self._modules) or any(
            known() is not module for known, module in zip(self._modules, modules, strict=True)
        ):
            return False
        before, now = self._weights, [*copies, *_weights_of(model)]
        if [(w.shape, w.dtype) for w in before] != [(w.shape, w.dtype) for w in now]:
            return False
        self._weights = now
        return True

    def step(self, model: nn.Module, plan: Plan, given: dict[str, Any]) -> Out | None:
        """A step of the model; None where there is no program for it.

        Args:
            model: the same one.
            plan: where keys and values are.
            given: what the model is called with: `input_ids` and `position_ids`, [B, 1], and how.
        """
        hidden = bool(given.get("output_hidden_states"))
        kind = self._kind(hidden)
        if kind not in self._programs:
            if self._waited < WAIT:
                self._waited += 1
                return None
            self._programs[kind] = self._made(model, hidden)
        program = self._programs[kind]
        if program is None or not plan.store.keys:
            return None
        logits, states = program(plan, given["input_ids"], given["position_ids"], self._weights)
        return Out(logits, states if hidden else None)

    def coasts(self, hidden: bool) -> int:
        """How many tokens texts may have for steps to go by without the host; 0 where there is no program."""
        program = self._programs.get(self._kind(hidden))
        return 0 if program is None else program.reach

    def coast(self, plan: Plan, logits: torch.Tensor, ahead: Ahead, hidden: bool) -> Coasted:
        """As many steps as go by without the host; see `coast`.

        Args:
            plan: of the first step.
            logits: after the tokens before it, [R, V].
        """
        program = self._programs[self._kind(hidden)]
        assert program is not None  # since it `coasts`
        return program.coast(plan, logits, ahead, self._weights)

    def _kind(self, hidden: bool) -> Hashable:
        return hidden, tuple([at_work(layer) for layer in self._adapted])

    def _made(self, model: nn.Module, hidden: bool) -> Program | None:
        """A program that gives what the modules give; None where there is none."""
        self.reason = None
        try:
            program = Program(model, self._weights, hidden)
            for rows in TRIED:
                program.compare(model, self._weights, rows)
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # models do what they like
            self.reason = first_line(problem.__cause__ or problem)
            return None
        return program


class Program:
    """One TorchScript program; arguments as of `Traced`.

    Raises:
        Exception: whatever the tracer or the model says where that depends on a step's numbers or sizes.
    """

    def __init__(self, model: nn.Module, weights: list[torch.Tensor], hidden: bool) -> None:
        self._hidden, noted = hidden, _Noting()
        plan, ids, positions = _example(model, ROWS, noted)
        self._kinds = list(dict.fromkeys(noted.layers.values()))
        kind_of = {layer: self._kinds.index(kind) for layer, kind in noted.layers.items()}
        asking = [model]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript's age, above all
            attention = torch.jit.script(StepAttention(*self._seen_in(plan, plan.tails)))
            warnings.simplefilter("error", torch.jit.TracerWarning)
            steps = _steps(attention, kind_of, asking, hidden)
            with EqualSizes():
                self._run = torch.jit.trace(steps, (ids, positions, weights), check_trace=False)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            self._coast = torch.jit.script(Coast(self._run, BLOCK, NOISE))
        asking.clear()  # the program must not keep the model alive
        self._attention = self._run.attention

    @property
    def reach(self) -> int:
        """Of how many tokens every layer sees the whole text: a window that text has outgrown moves at every step."""
        return min((window for window, _ in self._kinds if window is not None), default=sys.maxsize)

    def __call__(
        self, plan: Plan, ids: torch.Tensor, positions: torch.Tensor, weights: list[torch.Tensor]
    ) -> Tensors:
        """Logits, and hidden states where the program is of those, after new tokens, [B, 1] each."""
        self._look(plan, plan.tails)
        with torch.jit.optimized_execution(False):  # which takes seconds, and finds nothing to gain
            found: Tensors = self._run(ids, positions, weights)
        return found

    def coast(self, plan: Plan, logits: torch.Tensor, ahead: Ahead, weights: list[torch.Tensor]) -> Coasted:
        """Steps without the host, within what is in `reach`."""
        rows, tokens = ahead.tails.shape
        self._look(plan, (rows, tokens))
        with torch.jit.optimized_execution(False):
            return Coasted(*self._coast(logits, ahead, weights))

    def _look(self, plan: Plan, tails: tuple[int, int]) -> None:
        """Tells attention where the pass is; `tails` as of `Plan`, that there is room for."""
        attention = self._attention
        attention.pools, attention.here, attention.seen = self._seen_in(plan, tails)

    def compare(self, model: nn.Module, weights: list[torch.Tensor], rows: int) -> None:
        """Tries the program on another step than the one that was written down.

        Raises:
            Untraceable: it does not give what the modules give.
        """
        plan, ids, positions = _example(model, rows)
        told = _called(model, ids, positions, plan, self._hidden)
        for ours, theirs in list(zip(self(plan, ids, positions, weights), told, strict=True))[
            : 1 + self._hidden
        ]:
            if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
                raise Untraceable("its sizes depend on those of the step")
            if not alike(ours, theirs):
                raise Untraceable("its operators depend on the numbers of the step")

    def _seen_in(self, plan: Plan, tails: tuple[int, int]) -> tuple[list[Pool], Pass, list[Seen]]:
        """What attention has to know of a pass."""
        plan.windows.update(window for window, _ in self._kinds)
        return plan.store.pools(tails), plan.here, [plan.sight(*kind) for kind in self._kinds]


def _weights_of(model: nn.Module) -> list[torch.Tensor]:
    """Every weight and buffer of a model once."""
    found = (t for m in modules_of(model) for t in (*m._parameters.values(), *m._buffers.values()))
    return list({id(tensor): tensor for tensor in found if tensor is not None}.values())


def plain(model: nn.Module) -> bool:
    """Whether a model's modules are on a CPU, and nothing but what their classes say: a program calls no hooks.

    Hooks may come and go, and forward functions be put in (as by what reads layers from a disk).
    """
    for module in modules_of(model):
        if "forward" in module.__dict__ or module._forward_pre_hooks:
            return False
        for hook in module._forward_hooks.values():
            if getattr(hook, "__module__", None) != CAPTURING:  # those only note what a layer gives
                return False
        if any(w is not None and w.device.type != "cpu" for w in module._parameters.values()):
            return False
    return not (_every._global_forward_hooks or _every._global_forward_pre_hooks)


class _Noting:
    """Notes what kinds of attention the layers ask for, and asks a plan."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[int | None, int]] = {}
        self.plan: Plan | None = None

    def attention(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: How,
        window: int | None,
    ) -> torch.Tensor:
        self.layers[layer] = window, query.shape[1] // key.shape[1]
        assert self.plan is not None
        return self.plan.attention(layer, query, key, value, how, window)


def _steps(attention: nn.Module, kind_of: dict[int, int], asking: list[nn.Module], hidden: bool) -> nn.Module:
    """A step of the model as a module, in which attention is one of its own."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, ids: torch.Tensor, positions: torch.Tensor, weights: list[torch.Tensor]) -> Tensors:
            return _called(asking[0], ids, positions, _Recorded(self.attention, kind_of), hidden)

    return Steps().eval()


class _Recorded:
    """Attention as it is written down."""

    def __init__(self, attention: nn.Module, kind_of: dict[int, int]) -> None:
        self._attention, self._kind_of = attention, kind_of

    def attention(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: How,
        window: int | None,
    ) -> torch.Tensor:
        softcap = None if how.softcap is None else float(how.softcap)
        out: torch.Tensor = self._attention(
            query, key, value, layer, self._kind_of[layer], float(how.scale), softcap, how.sinks
        )
        return out


def _called(
    model: nn.Module, ids: torch.Tensor, positions: torch.Tensor, tree: Attending, hidden: bool
) -> Tensors:
    """The modules on a step."""
    how: dict[str, Any] = {"output_hidden_states": True} if hidden else {}
    out = type(model).forward(
        model,
        input_ids=ids,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=1,
        tree=tree,
        **how,
    )
    return out.logits, torch.stack(out.hidden_states) if hidden else out.logits.new_zeros(0)


def _example(
    model: nn.Module, rows: int, noting: _Noting | None = None
) -> tuple[Plan, torch.Tensor, torch.Tensor]:
    """A step of some rows below tokens that all of them share, whose keys and values are drawn.

    Returns:
        Where they are; and the new tokens and their positions, [rows, 1] each.
    """
    draw, store = torch.Generator().manual_seed(rows), Store(torch.device("cpu"), cache_bytes=0)
    lengths = KNOWN + 1 + np.arange(rows) % 2  # own tails have one token or two
    slots = store.take(KNOWN + 2 * rows)
    paths = np.concatenate([np.tile(slots[:KNOWN], (rows, 1)), slots[KNOWN:].reshape(rows, 2)], 1)
    layout = Layout(paths, lengths, np.ones(rows, np.int64), least=2)
    newest = paths[np.arange(rows), lengths - 1]
    at = (lengths[layout.order] - 1)[:, None]
    plan = Plan(store, layout, newest[layout.order][:, None], at)
    words = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    ids, positions = torch.randint(words, (rows, 1), generator=draw), torch.as_tensor(at)
    if noting is not None:
        noting.plan = plan
    _called(model, ids, positions, noting or plan, False)  # now there are pools
    for pool in (*store.keys.values(), *store.values.values()):
        pool.normal_(generator=draw)
    return plan, ids, positions
