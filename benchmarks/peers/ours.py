"""babblegraph, through its public interface: a fixed strategy that keeps the tree's shape."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch

import babblegraph as bg
from babblegraph.budget import Meter
from babblegraph.lm.traced import WAIT
from babblegraph.protocols import Chosen, Strategy
from babblegraph.randomness import Rng
from babblegraph.status import Flag, Gate, Status

from .machine import Shape
from .work import CHILDREN, Peer, Run, Setting, Work, logit_error


class Ours(Peer):
    """`bg.search`; draws that agree are one row, so less may be computed than is sampled."""

    forks: ClassVar[bool] = True
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, setting: Setting) -> None:
        self.setting, self.kv_bytes = setting, Shape.of(setting.model).kv_bytes
        self.babblers: dict[int, bg.Babbler] = {}

    def run(self, work: Work, check: bool) -> Run:
        babbler, budget = self._babbler(work), bg.Budget(tokens=work.tokens)
        graph = babbler.start([self.setting.tokenizer.decode(work.prompt)], work.seed)
        if tuple(graph.path_tokens(0).tolist()) != work.prompt:
            raise RuntimeError("the prompt's text must give the prompt's tokens")
        on_gpu = self.setting.model.device.type == "cuda"
        start = time.perf_counter()
        babbler.next_logits(graph, [0], Meter(budget, 1))
        if on_gpu:
            torch.cuda.synchronize()
        done = Run(0, 0.0, time.perf_counter() - start, work.levels * (work.span - 1))
        rounds = bg.search(
            babbler,
            score=lambda graph, ids, meter: None,
            strategy=fixed_tree(work),
            budget=budget,
            seed=work.seed,
            graph=graph,
        )
        for each in rounds:
            done.seconds, spent = time.perf_counter() - start, each.spent
            # the meter's word, since a step that is one program calls no hooks; one prompt has no padding
            done.computed = len(work.prompt) + spent.forwarded + spent.prefilled
            done.kv_bytes = each.spent.peak_slots * self.kv_bytes
            done.kv_allocated = babbler.trie(graph).store.allocated_bytes
            if check and graph.round == work.levels:
                done.error = self._error(babbler, graph, each.born[:4])
        length = graph.length[graph.born == work.levels] - len(work.prompt)
        if not (length == work.span * work.levels).all():
            raise RuntimeError(f"every row must have {work.span * work.levels} tokens, got {length}")
        done.sampled = int((graph.count * (graph.stop - graph.start))[1:].sum())
        return done

    def _babbler(self, work: Work) -> bg.Babbler:
        if work.span not in self.babblers:
            model, tokenizer, _, _ = self.setting
            babbler = bg.Babbler(model, tokenizer, span=work.span, max_new_tokens=4096, **self.options)
            self.babblers[work.span] = settled(babbler, work.prompt[:8])
        return self.babblers[work.span]

    def _error(self, babbler: bg.Babbler, graph: bg.BabbleGraph, nodes: np.ndarray) -> float:
        logits = babbler.next_logits(graph, nodes, Meter(bg.Budget(tokens=1), 1))
        return logit_error(self.setting.model, [graph.path_tokens(int(i)) for i in nodes], logits)


class Compiled(Ours):
    """The same with `torch.compile`; compiling is done in the warm-up, which tells nothing of later steps."""

    even: ClassVar[bool] = False
    options: ClassVar[dict[str, Any]] = {"compile": True}


class Unpacked(Ours):
    """The same with the weights as they lie: what their copies are worth."""

    options: ClassVar[dict[str, Any]] = {"pack_bytes": 0}


class Untraced(Ours):
    """The same with the model's modules: what a step that is one program is worth."""

    options: ClassVar[dict[str, Any]] = {"trace": False}


def settled(babbler: bg.Babbler, prompt: Sequence[int]) -> bg.Babbler:
    """A babbler after its first steps, which pay once for copies of weights and for a program."""
    graph, meter = babbler.start([list(prompt)]), Meter(bg.Budget(tokens=2 * WAIT), 1)
    while meter.tokens_left()[0]:
        newest = Chosen(graph.frontier()[-1:], np.ones(1, np.intp))
        graph.add(babbler.expand(graph, newest, Rng(0), meter))
    return babbler


def fixed_tree(work: Work) -> Strategy:
    """Draws `rows` spans below the root, then `CHILDREN` below each survivor, level by level.

    Its aim is `estimate`, so that no node is expanded twice and keys and values go as soon as they can.
    """

    def select(graph: bg.BabbleGraph, meter: Any) -> Chosen:
        live = graph.frontier() if graph.round < work.levels else np.zeros(0, np.intp)
        return Chosen(live, np.full(len(live), CHILDREN if graph.round else work.rows, np.intp))

    def prune(graph: bg.BabbleGraph, rng: Any) -> np.ndarray:
        live = graph.frontier()
        if graph.round == work.levels:
            return live[:0]
        stopped = np.delete(live, np.minimum(work.survivors(graph.round - 1), len(live) - 1))
        graph.stop_nodes(stopped, Status.PRUNED, Gate.NODE)
        graph.flags[stopped] |= np.uint8(Flag.BIASED)  # the weights are not corrected
        return stopped

    return Strategy("fixed tree", select, prune, "estimate")
