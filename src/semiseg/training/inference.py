"""Networks on whole images of any size: tiles with overlap, of which only the middle is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from semiseg.task import Task

TILE, HALO = 512, 64
"""Images up to TILE px go through whole; larger ones in tiles of TILE px whose outer HALO px serve as context."""


def starts(length: int, tile: int = TILE, halo: int = HALO) -> list[int]:
    """First pixels of the tiles along one side; multiples of 32 but for the last, which ends at the border."""
    if length <= tile:
        return [0]
    step = (tile - 2 * halo) // 32 * 32
    return [*range(0, length - tile, step), length - tile]


@torch.inference_mode()
def tiled(function: Callable[[Tensor], Tensor], image: Tensor, tile: int = TILE, halo: int = HALO) -> Tensor:
    """`function` of (B,C,h,w) to (B,K,h,w) applied to tiles of any (B,C,H,W); memory grows with the output only."""
    height, width = image.shape[-2:]
    if height <= tile and width <= tile:
        return function(image)
    out: Tensor | None = None
    rows, cols = starts(height, tile, halo), starts(width, tile, halo)
    for i, y in enumerate(rows):
        for j, x in enumerate(cols):
            part = function(image[..., y : y + tile, x : x + tile])
            if out is None:
                out = part.new_empty(*part.shape[:-2], height, width)
            top = 0 if i == 0 else _middle(rows[i - 1], y, tile)
            left = 0 if j == 0 else _middle(cols[j - 1], x, tile)
            out[..., y + top : y + part.shape[-2], x + left : x + part.shape[-1]] = part[..., top:, left:]
    assert out is not None
    return out


def _middle(before: int, here: int, tile: int) -> int:
    """Where this tile takes over from the one before: half-way through their overlap."""
    return (before + tile - here) // 2


@torch.inference_mode()
def probability(networks: Sequence[nn.Module], task: Task, image: Tensor) -> Tensor:
    """(B,K,H,W) mean probability of the networks on unit-range images (B,C,H,W); those of one at a time are held."""
    total = image.new_zeros(())
    for net in networks:
        total = total + tiled(lambda x, net=net: task.prob(net(x)), image)  # type: ignore[misc]
    return total / len(networks)
