"""Pasting one image into another, with everything that belongs to it: label, weight, validity, planes."""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Target


def cut_boxes(
    batch: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    ratio: tuple[float, float] = (0.3, 1 / 0.3),
) -> Tensor:
    """CutMix boxes (B,1,H,W) bool; with probability 1-p a sample has none.

    As UniMatch's `transform.py:66`: the area is drawn once; ratio h/w ~ U(ratio) and the corner are redrawn until the
    box lies inside. Redrawing is a rejection step, so it is done for all samples at once, up to 100 times.
    """
    height, width = size
    share = torch.rand(batch, generator=generator) * (area[1] - area[0]) + area[0]
    use = torch.rand(batch, generator=generator) < p
    box = torch.zeros(batch, 4)
    todo = torch.ones(batch, dtype=torch.bool)
    for _ in range(100):
        draw = torch.rand(batch, 3, generator=generator)
        r = draw[:, 0] * (ratio[1] - ratio[0]) + ratio[0]
        h, w = (share * height * width * r).sqrt().floor(), (share * height * width / r).sqrt().floor()
        y, x = (draw[:, 1] * height).floor(), (draw[:, 2] * width).floor()
        fits = todo & (y + h <= height) & (x + w <= width)
        box = torch.where(fits[:, None], torch.stack([y, x, y + h, x + w], 1), box)
        todo &= ~fits
        if not todo.any():
            break
    rows = torch.arange(height).view(1, -1, 1)
    cols = torch.arange(width).view(1, 1, -1)
    y0, x0, y1, x1 = (box[:, i].view(-1, 1, 1) for i in range(4))
    inside = (rows >= y0) & (rows < y1) & (cols >= x0) & (cols < x1)
    return (inside & use.view(-1, 1, 1)).unsqueeze(1)


def partners(batch: int) -> Tensor:
    """Which image is pasted into which: the next one, cyclically."""
    return (torch.arange(batch) + 1) % max(batch, 1)


def paste(box: Tensor, into: Tensor, source: Tensor) -> Tensor:
    """`source` inside the box (B,1,H,W), `into` elsewhere; both (B,H,W) or (B,*,H,W)."""
    return torch.where(box.squeeze(1) if into.ndim == 3 else box, source, into)


def cutmix(image: Tensor, target: Target, box: Tensor, partner: Tensor | None = None) -> tuple[Tensor, Target]:
    """Paste each sample's partner into its box: image, probabilities, label, weight and validity together."""
    box = box.to(image.device)
    order = (partners(len(image)) if partner is None else partner).to(image.device)
    mixed = {name: paste(box, part, part[order]) for name, part in vars(target).items()}
    return paste(box, image, image[order]), target.replace(**mixed)
