"""Contrast with remembered negatives, all of fixed shapes: draws from masks, a ring of keys per class, InfoNCE.

Q classes, P pixels, D dimensions, M anchors, N negatives. Source: U2PL (see u2pl.py), whose code keeps the keys of each
class in a list on the CPU and gathers them one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semiseg.batch import send


def draw(mask: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Of each row of a mask (Q,P) bool, `number` of its True columns, drawn with replacement: (Q,number) long.

    Column 0 where a row has none. The cumulative count is inverted, so that no shape depends on how many there are.
    """
    total = mask.cumsum(1, dtype=torch.int32)
    last = total[:, -1:]
    share = send(torch.rand(len(mask), number, generator=generator), mask.device)
    rank = torch.minimum((share * last).to(torch.int32), last - 1)
    return torch.searchsorted(total, rank + 1)


def info_nce(positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """-log of the positive's share among it and its negatives: cosines (Q,M) and (Q,M,N) to a loss (Q,M)."""
    cosines = torch.cat([positive.unsqueeze(2), negative], 2).float() / temperature
    return cosines.logsumexp(2) - cosines[:, :, 0]


class Bank(nn.Module):
    """The last `size` keys of each class, unit vectors; the oldest are overwritten. Equal in all processes."""

    keys: Tensor
    written: Tensor

    def __init__(self, classes: int, size: int, dims: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(classes, size, dims))
        self.register_buffer("written", torch.zeros(classes, dtype=torch.int64))

    @property
    def filled(self) -> Tensor:
        """How many keys each class has, (Q,)."""
        return self.written.clamp(max=self.keys.shape[1])

    @torch.no_grad()
    def add(self, keys: Tensor, real: Tensor) -> None:
        """Remember the keys (Q,A,D) that are `real` (Q,A) bool, those of all processes; at most `size` of them."""
        keys, real = gathered(keys.to(self.keys.dtype), real)
        size = self.keys.shape[1]
        order = real.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :size]
        real = real.gather(1, order)
        keys = keys.gather(1, order.unsqueeze(2).expand(-1, -1, keys.shape[2]))
        slots = (self.written.unsqueeze(1) + torch.arange(order.shape[1], device=order.device)) % size
        slots = slots.unsqueeze(2).expand_as(keys)  # no slot twice: there are at most `size` keys
        self.keys.scatter_(1, slots, torch.where(real.unsqueeze(2), keys, self.keys.gather(1, slots)))
        self.written += real.sum(1)

    def negatives(self, query: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Cosines (Q,M,number) of unit vectors (Q,M,D) with keys of their class drawn with replacement; 0 without keys."""
        last = self.filled.view(-1, 1, 1) - 1
        share = send(torch.rand(*query.shape[:2], number, generator=generator), query.device)
        chosen = torch.minimum((share * (last + 1)).long(), last).clamp(min=0)
        return (query @ self.keys.mT).gather(2, chosen)


def gathered(keys: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Keys (Q,A,D) and which of them count (Q,A), those of all processes side by side."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return keys, real
    mine = torch.cat([keys, real.unsqueeze(2).to(keys.dtype)], 2)
    parts = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, mine)
    every = torch.cat(parts, 1)
    return every[:, :, :-1], every[:, :, -1] > 0.5
