"""The processes of one run: who takes which part, and how parts come together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from babblegraph.processes import place


class Ranks:
    """One process, or the processes that `accelerate launch` started.

    Every process computes the same decisions from the same joined data; only searches and batches are shared out.

    Args:
        accelerator: an `accelerate.Accelerator`, or None for a single process.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self.accelerator = accelerator
        self.rank = 0 if accelerator is None else int(accelerator.process_index)
        self.world = 1 if accelerator is None else int(accelerator.num_processes)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def mine(self, items: Any) -> Any:
        """Every world-th of some items, beginning at this process's rank."""
        return items[self.rank :: self.world]

    def gathered(self, item: Any) -> list[Any]:
        """What all processes have, in the order of their ranks; objects are pickled between them, never to a file."""
        if self.world == 1:
            return [item]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, item)
        return found

    def sum(self, number: float) -> float:
        """The sum over processes."""
        return number if self.world == 1 else float(sum(self.gathered(number)))

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Leaves in each process the sum of all processes' gradients; a process without any adds nothing."""
        if self.world == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat(
            [p.grad.reshape(-1) for p in parameters if p.grad is not None]
        )  # one message for all
        flat = self.accelerator.reduce(flat, reduction="sum")
        for parameter, grad in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def launched() -> Ranks:
    """The processes that `accelerate launch` (or torchrun) started; this one alone where nothing was launched."""
    if place().world < 2:
        return Ranks()
    from accelerate import Accelerator

    return Ranks(Accelerator())
