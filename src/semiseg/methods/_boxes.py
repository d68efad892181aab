"""Boxes drawn by area and aspect, one or several in a mask: what CutMix-Seg pastes, and CPS after it.

[1] Britefury/cutmix-semisup-seg @af6183a, mask_gen.py (TorchSemiSeg @5e0c29c uses the same rule)
"""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.data.mixing import rectangles


def box_masks(
    batch: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.25, 0.5),
    boxes: int = 3,
) -> Tensor:
    """Masks (B,1,H,W) bool, True inside an odd number of `boxes` boxes: where two overlap, the second undoes the first.

    Of each box the share p ~ U(area); its height is p^u of the image's and its width p^(1-u), u ~ U(0,1), both scaled
    by sqrt(1/boxes), so that the boxes of a mask have p of the area between them; rounded, and placed inside the image.
    """
    share, aspect = torch.rand(2, batch, boxes, generator=generator)
    share = area[0] + (area[1] - area[0]) * share
    height = share**aspect
    whole = torch.tensor(size)
    sides = (torch.stack([height, share / height], -1) * boxes**-0.5 * whole).round()
    corner = ((whole - sides) * torch.rand(batch, boxes, 2, generator=generator)).round()
    filled = rectangles(torch.cat([corner, corner + sides], -1).flatten(0, 1), size)
    return filled.unflatten(0, (batch, boxes)).sum(1) % 2 == 1
