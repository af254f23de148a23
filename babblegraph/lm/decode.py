"""Steps of one new token a row over tables of fixed size; on a GPU each kind of step becomes a CUDA graph.

Below a billion parameters a step's kernels take less time than Python needs to launch them. A captured graph launches
them all at once, sampling included, so that a whole span is drawn before the host looks at it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from babblegraph.errors import first_line
from babblegraph.lm.gpu import has_kernels
from babblegraph.lm.invert import Inverse
from babblegraph.lm.layout import Ints, Layout
from babblegraph.lm.offloaded import comes_and_goes
from babblegraph.lm.tables import Filling, Room, Tables
from babblegraph.lm.warp import Warp, warped

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from babblegraph.lm.cascade import How
    from babblegraph.lm.store import Store

Attend = Callable[..., torch.Tensor]  # as `kernels.attend`
Pick = Callable[..., tuple[torch.Tensor, ...]]  # as `sampling_kernels.pick`
AHEAD = 64  # steps that tables and draws have room for at once


class Drawn(NamedTuple):
    """What S steps drew for R rows, each [S, R]."""

    tokens: Ints
    log_g: np.ndarray
    log_q: np.ndarray
    passed: Ints  # next tokens that truncation let through; 0 where nothing truncates


class Sampler(NamedTuple):
    """Draws the next token of each row, on the device."""

    warp: Warp | None  # as in `expand.Rules`

    def __call__(self, logits: torch.Tensor, row: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tokens, their log g and log q, and how many tokens were possible, [D] each, of draws in rows of [R, V]."""
        log_g = torch.log_softmax(logits, -1)
        log_q = warped(self.warp, log_g)
        token, _ = Inverse(log_q.exp()).find(row, u)
        passed = torch.zeros_like(token) if self.warp is None else (log_q > -torch.inf).sum(-1)[row]
        return token, log_g[row, token].double(), log_q[row, token].double(), passed


@dataclass
class Setting:
    """What the steps of one store have in common.

    Args:
        model: inside `attention.attending`, compiled or not.
        store: its keys and values; the pools of all layers exist.
        attend: as `kernels.attend`.
        tile: rows of an item, at most.
        enough: items that keep the device busy.
        pick: as `sampling_kernels.pick`; None where draws are made by operators of torch.
        graphs: whether steps are captured.
    """

    model: Callable[..., Any]
    store: Store
    attend: Attend
    tile: int
    enough: int
    pick: Pick | None = None
    graphs: bool = False
    windows: set[int | None] = field(default_factory=set)  # sliding windows that the layers told of


class Decoder:
    """Runs decoding steps of one store; arguments are those of `Setting`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._steps: dict[tuple[int, Sampler | None], Step] = {}  # by rows
        # what the last single step was of, and the length of its first text
        self._last: tuple[Layout, int, Step] | None = None

    def __call__(self, layout: Layout, ids: Ints, slots: Ints) -> torch.Tensor:
        """Logits after one new token in each row, [R, V], all in the order of the layout; good until the next call."""
        self.setting.store.settle()
        length = int(layout.lengths[0])
        last, before, step = self._last or (None, 0, None)
        goes_on = last is layout and before == length - 1
        if step is None or not goes_on or int(layout.sizes.max()) > step.tables.room.tail:
            step = self._begin(layout, AHEAD, None)
        step.tables.step(ids, slots)
        logits = step.run()
        self._last = (layout, length, step)
        return logits[: len(ids)]

    def draw(self, layout: Layout, ids: Ints, slots: Ints, u: np.ndarray, sampler: Sampler) -> Drawn:
        """Pushes a token of each row and draws the next one, again and again.

        Args:
            layout: of the rows, their first new tokens included.
            ids: those tokens, [R] in the order of the layout.
            slots: where the new tokens of each step go, [S, R].
            u: uniforms that say what is drawn, [S, R].
        """
        self.setting.store.settle()
        steps, rows = slots.shape
        step, self._last = self._begin(layout, steps, sampler), None
        step.tables.step(ids, slots[0])
        step.load(slots, u)
        for _ in range(steps):
            step.run()
        return step.drawn(steps, rows)

    def _begin(self, layout: Layout, steps: int, sampler: Sampler | None) -> Step:
        """A step whose tables have this layout."""
        filling = Filling.of(layout, self.setting.tile, self.setting.enough)
        needed = filling.room(layout, steps)
        kind = needed.grown().rows, sampler
        step = self._steps.get(kind)
        if step is None or not step.tables.room.holds(needed):
            step = self._steps[kind] = Step(self.setting, least_room(needed), sampler)
        step.tables.fill(layout, filling)
        return step


class Step:
    """One pass of the model over its tables, and with a sampler the draw of what is next."""

    def __init__(self, setting: Setting, room: Room, sampler: Sampler | None) -> None:
        self.setting, self.sampler, device = setting, sampler, setting.store.device
        self.tables = Tables(room, device, setting.tile)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._moved = -1  # the state of the pools that the graph knows
        self._warm = False
        self._logits = torch.zeros(0)
        if sampler is not None:
            shape = (AHEAD, room.rows)
            self._u = torch.zeros(shape, dtype=torch.float64, device=device)
            self._slots = torch.zeros(shape, dtype=torch.int32, device=device)
            self._tokens, self._passed = (
                torch.zeros(shape, dtype=torch.int64, device=device) for _ in range(2)
            )
            self._log_g, self._log_q = torch.zeros_like(self._u), torch.zeros_like(self._u)
            self._row = torch.arange(room.rows, device=device)
            self._at = torch.zeros(1, dtype=torch.int64, device=device)

    def load(self, slots: Ints, u: np.ndarray) -> None:
        """What the next draws need, [S, R] each; rows of padding write where nothing is read."""
        steps, rows = u.shape
        self._u[:steps, :rows] = torch.as_tensor(u, device=self._u.device)
        self._slots[:steps, :rows] = torch.as_tensor(slots.astype(np.int32), device=self._u.device)
        self._slots[:, rows:] = 0
        self._at.zero_()

    def drawn(self, steps: int, rows: int) -> Drawn:
        """What was drawn since `load`; waits for the device."""
        found = (self._tokens, self._log_g, self._log_q, self._passed)
        return Drawn(*(t[:steps, :rows].cpu().numpy() for t in found))

    def run(self) -> torch.Tensor:
        """One step; returns its logits, [rows, V], which the next one may overwrite."""
        if not self.setting.graphs or not self._warm:
            self._warm = True  # the first run compiles kernels, which a capture may not
            self._logits = self._pass()
            return self._logits
        if self._graph is None or self._moved != self.setting.store.moved:
            self._capture()
        if self._graph is None:
            return self._pass()
        self._graph.replay()
        return self._logits

    def _capture(self) -> None:
        self._graph, graph = None, torch.cuda.CUDAGraph()
        try:
            with _as_before(self.setting.store.device), torch.cuda.graph(graph):
                self._logits = self._pass()
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:  # models do what they like: experts that are looked up on the host, say
            self.setting.graphs = False
            warnings.warn(
                f"the model cannot be captured as a CUDA graph, so every step is launched anew: {first_line(problem)}",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        self._graph, self._moved = graph, self.setting.store.moved

    @torch.no_grad()
    def _pass(self) -> torch.Tensor:
        tables = self.tables
        out = self.setting.model(
            input_ids=tables.ids[:, None].long(),
            position_ids=tables.positions[:, None].long(),
            use_cache=False,
            logits_to_keep=1,
            tree=self,
        )
        logits: torch.Tensor = out.logits[:, -1]
        tables.advance()
        if self.sampler is None:
            return logits.float()
        self._draw(self.sampler, logits)
        return logits

    def _draw(self, sampler: Sampler, logits: torch.Tensor) -> None:
        """The next token of each row, and where it goes."""
        u = self._u.index_select(0, self._at)[0]
        found = self._pick(sampler, logits, u)
        for record, new in zip((self._tokens, self._log_g, self._log_q, self._passed), found, strict=True):
            record.index_copy_(0, self._at, new[None])
        self._at += 1
        self.tables.ids.copy_(found[0])
        self.tables.slots.copy_(self._slots.index_select(0, self._at % AHEAD)[0])

    def _pick(self, sampler: Sampler, logits: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What `Sampler` says, by one kernel where nothing is cut off."""
        warp = sampler.warp
        if self.setting.pick is None or (warp is not None and warp.truncates):
            return sampler(logits.float(), self._row, u)
        return self.setting.pick(logits, u, 1.0 if warp is None else warp.temperature)

    def attention(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        how: How,
        window: int | None,
    ) -> torch.Tensor:
        """What the attention function of `attention.attending` gives for this step, [R, 1, H, d_v]."""
        setting = self.setting
        setting.windows.add(window)
        one = (query[:, :, 0], key[:, :, 0], value[:, :, 0])
        pools = setting.store.keys[layer], setting.store.values[layer]
        return setting.attend(*one, *pools, self.tables, window=window, **how._asdict())[:, None]


@contextmanager
def _as_before(device: torch.device) -> Iterator[None]:
    """A capture that fails would leave torch on the capture's stream, and its generator unable to draw."""
    stream, generator = torch.cuda.current_stream(device), torch.cuda.default_generators[_index(device)]
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(stream)
        generator.graphsafe_set_state(generator.clone_state())
        raise


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def least_room(needed: Room) -> Room:
    """Tables that many trees fit into, so that few graphs have to be captured.

    Two rows at least: one is a case of its own for `torch.compile`, which would compile the model once more.
    """
    return Room(*(max(a, b) for a, b in zip(needed.grown(), Room(2, 1024, 64, 8, 2 * AHEAD), strict=True)))


def decoder_of(model: PreTrainedModel, store: Store) -> Decoder | None:
    """A decoder with the kernels; None where they cannot run."""
    if not has_kernels(model.device, model.dtype):
        return None
    from babblegraph.lm import kernels, sampling_kernels

    config = model.config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    setting = Setting(
        model,
        store,
        kernels.attend,
        kernels.rows_of_an_item(heads // kv_heads),
        kernels.items_enough(kv_heads),
        sampling_kernels.pick,
        graphs=not comes_and_goes(model),  # a graph would go on with weights that have left
    )
    return Decoder(setting)
