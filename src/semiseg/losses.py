"""Masked losses. Each says which pixels its mean runs over; an empty mean is 0, never NaN. All compute in float32.

logits (B,K,H,W); class masks (B,H,W) long; overlapping labels (B,K,H,W); weight (B,1|K,H,W) in [0,1] or None.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.batch import IGNORE

OHEM_KEPT = 0.156
"""The least share of pixels OHEM counts: UniMatch's 200,000 of 2 crops of 801 x 801 on each device.

A share, because authors give pixels of a device: the same number for any number of devices, batch and crop.
"""


def cross_entropy_map(logits: Tensor, label: Tensor) -> Tensor:
    """-log softmax at the label, (B,1,H,W); 0 where the label is 255."""
    return F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="none").unsqueeze(1)


def bce_map(logits: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy per label channel, (B,K,H,W); 0 where the label is 255."""
    known = label != IGNORE
    loss = F.binary_cross_entropy_with_logits(logits.float(), (label == 1).float(), reduction="none")
    return loss * known


def mse_map(logits: Tensor, target: Tensor, multilabel: bool) -> Tensor:
    """Squared difference of probabilities summed over classes, (B,1,H,W); per label (B,K,H,W) when they overlap."""
    if multilabel:
        return (logits.float().sigmoid() - target) ** 2
    return ((logits.float().softmax(1) - target) ** 2).sum(1, keepdim=True)


def count(elements: Tensor, least: float = 1.0) -> Tensor:
    """A denominator: the sum of a mask or weight, at least `least`.

    With several processes it is the mean of their sums: gradients are averaged over processes, and only then is that
    average the gradient of the mean over all pixels of the global batch.
    """
    total = elements.sum().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
        total = total / torch.distributed.get_world_size()
    return total.clamp(min=least)


def masked_mean(loss: Tensor, known: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of weight * loss over the known elements / number of known elements; 0 when there are none.

    known (B,1|K,H,W) bool is broadcast to the loss, and counted after broadcasting.
    """
    known = known.expand_as(loss)
    weighted = loss if weight is None else loss * weight
    return (weighted * known).sum() / count(known)


def dice_loss(prob: Tensor, truth: Tensor, known: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice pooled over the batch, averaged over channels that occur in `truth` (0 if none does).

    prob, truth (B,K,H,W) in [0,1]; known (B,1|K,H,W) in [0,1] weighs each pixel. Dice = (2 Σpt + s) / (Σp + Σt + s),
    Milletari et al. 2016 without squares; pooled over the batch as nnU-Net's batch Dice.
    """
    dims = (0, 2, 3)
    known = known.to(prob.dtype)
    counted = truth * known
    there = counted.sum(dims)
    both, total = (prob * counted).sum(dims), (prob * known).sum(dims) + there
    seen = there > 0
    loss = 1 - (2 * both + smooth) / (total + smooth)
    return (loss * seen).sum() / seen.sum().clamp(min=1)


def ohem(
    loss: Tensor, known: Tensor, weight: Tensor | None = None, *, threshold: float = 0.7, kept: float = OHEM_KEPT
) -> Tensor:
    """Mean over the hard elements of a cross-entropy map: truth probability exp(-loss) <= max(threshold, k-th smallest).

    UniMatch `util/ohem.py`. k = `kept` of all elements of the batch on this device, ignored ones included; all known
    elements count when fewer than k are known, and the mean is 0 when none is. Nothing waits for the device. What has
    no weight (a pixel that a committee disputes) has no label to be hard at: it is not among them, and the mean counts by
    the share of known elements that have a weight, as a mean over all of them would.
    """
    known = known.expand_as(loss)
    trusted = known if weight is None else known & (weight > 0).expand_as(loss)
    prob = torch.exp(-loss.detach()).masked_fill(~trusted, torch.inf)
    least = min(loss.numel(), max(1, round(kept * loss.numel())))
    limit = prob.flatten().kthvalue(least).values.clamp(min=threshold)
    mean = masked_mean(loss, trusted & (prob <= limit), weight)
    return mean if weight is None else mean * trusted.sum() / known.sum().clamp(min=1)


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Class ids (B,H,W) to (B,K,H,W) float; ignored pixels are all zero, because no class has the id 255."""
    return (label.unsqueeze(1) == torch.arange(classes, device=label.device).view(1, -1, 1, 1)).float()


def squared_dice_loss(
    prob: Tensor, truth: Tensor, known: Tensor, smooth: float = 1e-4, *, absent: bool = True
) -> Tensor:
    """1 - soft Dice with squares, pooled over the batch, averaged over channels; 0 when nothing is known.

    prob, truth (B,K,H,W) in [0,1]; known (B,1|K,H,W) in [0,1] weighs each pixel. Dice = (2 Σpt + s) / (Σp² + Σt² + s),
    Milletari et al. 2016, `soft_dice_loss.py` of AiEson/CrossMatch. absent: channels that do not occur in the known part
    of `truth` count as well (their loss is near 1, and 0 when `prob` is 0 too), or else the mean leaves them out.
    """
    dims = (0, 2, 3)
    known = known.to(prob.dtype)
    there = truth * known
    both = (prob * there).sum(dims)
    total = (prob * prob * known).sum(dims) + (truth * there).sum(dims)
    loss = 1 - (2 * both + smooth) / (total + smooth)
    counted = torch.ones_like(loss) if absent else (there.sum(dims) > 0).to(loss)
    return (loss * counted).sum() / counted.sum().clamp(min=1)
