"""The only moving average in the house: over state, not parameters, with a warm-up and a window that fits the training."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import nn

WINDOW = 0.02
"""Largest share of the training that a moving average looks back; 0: as far as its decay says."""


class Average(nn.Module):
    """An exponential moving average of a network; always in eval mode, never trained.

    Floating-point parameters *and* buffers are averaged (as in UniMatch V2's code), integers are copied (averaging
    `num_batches_tracked` truncates). The decay warms up as min(1 - 1/(n+1), decay) after n updates: 0, 1/2, 2/3, …
    Papers set it for tens of thousands of steps. Where the training is shorter it is lowered, so that the window
    1/(1 - decay) is at most `window` of all steps: with .99 and 500 steps a teacher would lag a fifth of them behind.
    window = 0 leaves it as papers have it. reach: that largest window to this power (0 to 1), so that several averages of
    one short training, which would all be lowered to the same, stay apart.
    """

    updates: torch.Tensor
    window = WINDOW

    def __init__(self, network: nn.Module, decay: float = 0.996, reach: float = 1.0) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.decay, self.reach = decay, reach
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.done = 0  # `updates`, known without a look at the device
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """A teacher stays in eval mode, whatever its parent does."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, total: int = 0, *, follow: bool = False) -> None:
        """Move towards `network` by one step of `total` (0: no window). follow: become it."""
        longest = max(1.0, self.window * total) ** self.reach if total and self.window else float("inf")
        decay = 0.0 if follow else min(1 - 1 / (self.done + 1), self.decay, 1 - 1 / longest)
        mine, theirs = self.network.state_dict(), network.state_dict()
        floats = [k for k, v in mine.items() if v.is_floating_point()]
        if floats:
            torch._foreach_lerp_([mine[k] for k in floats], [theirs[k] for k in floats], 1 - decay)
        for key in mine.keys() - set(floats):
            mine[key].copy_(theirs[key])
        self.updates += 1
        self.done += 1

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.done = int(self.updates)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The averaged network's logits."""
        return self.network(x)
