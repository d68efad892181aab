"""Pasting one image into another, with everything that belongs to it: label, weight, validity, planes."""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.batch import Target, send


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
    box lies inside. Here 100 draws are made at once, and each sample takes its first that fits.
    """
    height, width = size
    share = torch.rand(batch, generator=generator) * (area[1] - area[0]) + area[0]
    use = torch.rand(batch, generator=generator) < p
    draw = torch.rand(100, batch, 3, generator=generator)
    r = draw[..., 0] * (ratio[1] - ratio[0]) + ratio[0]
    h, w = (share * height * width * r).sqrt().floor(), (share * height * width / r).sqrt().floor()
    y, x = (draw[..., 1] * height).floor(), (draw[..., 2] * width).floor()
    fits = (y + h <= height) & (x + w <= width)
    boxes = torch.stack([y, x, y + h, x + w], -1) * fits.unsqueeze(-1)  # where none fits, none is left
    box = boxes[fits.int().argmax(0), torch.arange(batch)]
    return rectangles(box, size) & use.view(-1, 1, 1, 1)


def rectangles(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,4) corners y0, x0, y1, x1 (the last two exclusive) to filled boxes (B,1,H,W) bool."""
    rows = torch.arange(size[0]).view(1, -1, 1)
    cols = torch.arange(size[1]).view(1, 1, -1)
    y0, x0, y1, x1 = (corners[:, i].view(-1, 1, 1) for i in range(4))
    return ((rows >= y0) & (rows < y1) & (cols >= x0) & (cols < x1)).unsqueeze(1)


def partners(batch: int) -> Tensor:
    """Which image is pasted into which: the next one, cyclically."""
    return (torch.arange(batch) + 1) % max(batch, 1)


def paste(box: Tensor, into: Tensor, source: Tensor) -> Tensor:
    """`source` inside the box (B,1,H,W), `into` elsewhere; both (B,H,W) or (B,*,H,W)."""
    return torch.where(box.squeeze(1) if into.ndim == 3 else box, source, into)


def cutmix(image: Tensor, target: Target, box: Tensor, partner: Tensor | None = None) -> tuple[Tensor, Target]:
    """Paste each sample's partner into its box: image, probabilities, label, weight and validity together."""
    order = send(partners(len(image)) if partner is None else partner, image.device)
    theirs = target.replace(**{name: part[order] for name, part in vars(target).items()})
    return paste_both(box, image, target, image[order], theirs)


def paste_both(box: Tensor, image: Tensor, target: Target, source: Tensor, belief: Target) -> tuple[Tensor, Target]:
    """`source` and what is believed about it inside the box (B,1,H,W), `image` and `target` elsewhere."""
    box = send(box, image.device)
    ours, theirs = target.weight, belief.weight  # one may be per pixel where the other is per label
    channels = max(ours.shape[1], theirs.shape[1])
    weights = [w.expand(-1, channels, -1, -1) for w in (ours, theirs)]
    told = not target.prob.shape[1]  # labels alone: nobody here has probabilities to paste into
    mixed = target.replace(
        prob=target.prob if told else paste(box, target.prob, belief.prob),
        label=paste(box, target.label, belief.label),
        weight=paste(box, *weights),
        valid=paste(box, target.valid, belief.valid),
    )
    return paste(box, image, source), mixed


def class_regions(label: Tensor, classes: int, generator: torch.Generator, *, background: bool = True) -> Tensor:
    """ClassMix masks (B,1,H,W) bool: the pixels of half of the classes that occur in each label map.

    label (B,H,W) long with 255 = ignore, or (B,K,H,W) uint8 when labels overlap. Half is rounded down, as in
    `trainSSL.py:396-458` of WilhelmT/ClassMix @aa85291; with background=False class 0 is never chosen, and half is
    rounded up, as it always is for overlapping labels (which have no background), so that a lone class is chosen.
    """
    if label.ndim == 4:
        on, background = label == 1, False
    else:
        on = label.unsqueeze(1) == torch.arange(classes, device=label.device).view(1, -1, 1, 1)
        if not background:
            on = on & (torch.arange(classes, device=label.device) > 0).view(1, -1, 1, 1)
    present = on.flatten(2).any(2)
    count = present.sum(1, keepdim=True)
    take = count // 2 if background else (count + 1) // 2
    draw = send(torch.rand(present.shape, generator=generator), label.device).masked_fill(~present, 2.0)
    chosen = (draw.argsort(1).argsort(1) < take) & present
    return (on & chosen[:, :, None, None]).any(1, keepdim=True)
