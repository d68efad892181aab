"""Position discs: every object of a mask redrawn as a disc about its centre, smaller where neighbours are near.

[0] Vorndran and Roeck, Inconsistency Masks, HeLa   [1] MichaelVorndran/InconsistencyMasks, functions.py:2954
Differs from [1]: the centre is the mean of the object's pixels, not of its outline (holes make no second object), and
a pixel belongs to the disc when its centre lies within the radius, not by the drawing routine of a library.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST, MOST, LONELY = 3, 8, 99.0
"""Radii in px, and the distance that a lone object has to its neighbours."""


def components(mask: Tensor) -> Tensor:
    """8-connected objects of (H,W) bool: (H,W) long, 0 outside, 1 + the largest flat index of the object inside.

    Every pixel takes over the largest number around it and then the number of the pixel of that number, so that numbers
    travel far in few rounds; rounds end when nothing changes.
    """
    ids = torch.arange(1, mask.numel() + 1, device=mask.device).view(mask.shape) * mask
    while True:
        near = F.max_pool2d(ids[None, None].double(), 3, stride=1, padding=1)[0, 0].long() * mask
        far = near.flatten()[(near - 1).clamp(min=0)] * mask
        if torch.equal(far, ids):
            return ids
        ids = far


def centres(mask: Tensor) -> Tensor:
    """(N,2) float64 rows and columns of the objects' centres in (H,W) bool, in the order of their last pixels."""
    ids = components(mask)
    y, x = mask.nonzero(as_tuple=True)
    if not len(y):
        return torch.zeros(0, 2, dtype=torch.float64, device=mask.device)
    names, index = torch.unique(ids[y, x], return_inverse=True)
    total = torch.zeros(len(names), 3, dtype=torch.float64, device=mask.device)
    total.index_add_(0, index, torch.stack([y, x, torch.ones_like(y)], 1).double())
    return total[:, :2] / total[:, 2:]


def radii(points: Tensor) -> Tensor:
    """(N,) radii in px of (N,2) centres: a quarter of the distance to the nearest other, rounded down, 3 to 8."""
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distance.fill_diagonal_(float("inf"))
    nearest = distance.amin(1) if len(points) > 1 else torch.full((len(points),), LONELY)
    return (nearest.to(points) / 4).floor().clamp(LEAST, MOST)


def position_discs(mask: Tensor) -> Tensor:
    """(H,W) bool or 0/1 -> (H,W) bool: a filled disc for every object."""
    mask = mask.bool()
    points = centres(mask)
    radius = radii(points)
    side = torch.arange(-MOST - 1, MOST + 2, device=mask.device)
    near = torch.cartesian_prod(side, side)
    pixels = points.round().long().unsqueeze(1) + near  # (N, window, 2)
    inside = (pixels - points.unsqueeze(1)).square().sum(2) <= radius.unsqueeze(1) ** 2
    height, width = mask.shape
    y, x = pixels[inside].unbind(1)
    fits = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    out = torch.zeros_like(mask)
    out[y[fits], x[fits]] = True
    return out
