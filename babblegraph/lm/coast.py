"""Token after token without Python in between, as long as nothing happens that the host has to look at.

TorchScript compiles these functions, so annotations are types here, and every argument is given.
"""

from typing import NamedTuple

import torch
from torch import nn

from babblegraph.lm.invert import drawn


class Ahead(NamedTuple):
    """What is drawn next: R rows, D draws that each belong to one, in up to S steps."""

    uniforms: torch.Tensor  # [S, D]
    row: torch.Tensor  # [D] of each draw
    lead: torch.Tensor  # [R] a draw of each row
    slots: torch.Tensor  # [S, R] of the new tokens
    positions: torch.Tensor  # [R] of the first of them
    tails: torch.Tensor  # [R, T] with the new tokens
    sizes: torch.Tensor  # [R] tokens of each tail before them
    pausing: torch.Tensor  # [V] tokens after which the host looks
    temperature: float


class Coasted(NamedTuple):
    """What happened in K ≤ S steps."""

    tokens: list[torch.Tensor]  # K times [R]
    log_g: list[torch.Tensor]  # of the tokens
    log_q: list[torch.Tensor]
    logits: list[torch.Tensor]  # K times [R, V], after each token
    states: list[torch.Tensor]  # K times [layers, R, 1, H] where hidden states are kept
    passed: int  # next tokens that could be drawn, in all


class Coast(nn.Module):
    """Draws and computes.

    Args:
        step: a step of the model, with `cascade.StepAttention` in it.
        block: as `invert.BLOCK`.
        noise: as `samples.NOISE`.
    """

    def __init__(self, step: nn.Module, block: int, noise: float) -> None:
        super().__init__()
        self.step, self.block, self.noise = step, block, noise

    def forward(self, logits: torch.Tensor, ahead: Ahead, weights: list[torch.Tensor]) -> Coasted:
        """Goes on with the rows after which there are logits, [R, V].

        It stops before a token on which the draws of a row do not agree, one after which the host looks, and where the
        model gives no numbers.
        """
        tokens: list[torch.Tensor] = []
        log_g: list[torch.Tensor] = []
        log_q: list[torch.Tensor] = []
        after: list[torch.Tensor] = []
        states: list[torch.Tensor] = []
        passed = 0
        longest = int(ahead.sizes.max())
        even = bool((ahead.sizes == longest).all())
        at = torch.arange(logits.shape[0])
        place = torch.arange(ahead.tails.shape[1])
        for step in range(ahead.uniforms.shape[0]):
            here_g = torch.log_softmax(logits, -1)
            here_q = here_g
            if ahead.temperature != 1.0:
                here_q = torch.log_softmax(here_g / ahead.temperature, -1)
            token, sure = drawn(here_q.exp(), ahead.row, ahead.uniforms[step], self.block, self.noise)
            newest = token[ahead.lead]
            if not sure or not bool((token == newest[ahead.row]).all()) or bool(ahead.pausing[newest].any()):
                break
            tokens.append(newest)
            log_g.append(here_g[at, newest].double())
            log_q.append(here_q[at, newest].double())
            if ahead.temperature != 1.0:
                passed += int((here_q > float("-inf")).sum())
            width = longest + 1 + step
            tails = ahead.tails[:, :width]
            unseen: torch.Tensor | None = None
            if not even:
                later = place[:width] > ahead.sizes.unsqueeze(1) + step
                tails = tails.masked_fill(
                    later, 0
                )  # what is there yet may be no number, which no bias would hide
                unseen = later
            self.step.attention.move(ahead.slots[step], tails, unseen)  # type: ignore
            found = self.step(newest.unsqueeze(1), (ahead.positions + step).unsqueeze(1), weights)
            logits = found[0][:, -1].float()
            after.append(logits)
            states.append(found[1])
        return Coasted(tokens, log_g, log_q, after, states, passed)
