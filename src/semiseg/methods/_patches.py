"""Hiding square patches of an image, as masked modelling does: what is hidden must be inferred from what is left."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from semiseg.batch import send


def patch_side(size: tuple[int, int]) -> int:
    """Side of a patch for a crop (H,W): a sixteenth of its longer side up to 256, 32 above, 64 from 800 on; at least 1.

    Our reading of MaskMatch (arXiv 2312.08631); MIC (CVPR 2023) uses 64 on large crops.
    """
    longer = max(size)
    if longer <= 256:
        return max(longer // 16, 1)
    return 32 if longer < 800 else 64


def patches(
    batch: int, size: tuple[int, int], generator: torch.Generator, *, side: int = 0, share: float = 0.7
) -> Tensor:
    """Hidden pixels (B,1,H,W) bool: every patch of a grid is hidden with probability `share`, independently.

    The grid starts at the upper left; patches at the other edges are cut off. side: of a patch, 0 = `patch_side(size)`.
    """
    side = side or patch_side(size)
    rows, cols = (-(-length // side) for length in size)
    hidden = torch.rand(batch, 1, rows, cols, generator=generator) < share
    return hidden.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., : size[0], : size[1]]


def hide(image: Tensor, where: Tensor, network: nn.Module) -> Tensor:
    """(B,C,H,W) with the pixels at `where` (B,1,H,W) bool in the mean colour, which `network` normalises to 0."""
    return torch.where(send(where, image.device), cast(Tensor, network.mean).to(image.dtype), image)
