"""Masked losses. Each says which pixels its mean runs over; an empty mean is 0, never NaN. All compute in float32.

logits (B,K,H,W); class masks (B,H,W) long; overlapping labels (B,K,H,W); weight (B,1|K,H,W) in [0,1] or None.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.batch import IGNORE


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


def masked_mean(loss: Tensor, known: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of weight * loss over the known elements / number of known elements; 0 when there are none.

    known (B,1|K,H,W) bool is broadcast to the loss, and counted after broadcasting.
    """
    known = known.expand_as(loss)
    weighted = loss if weight is None else loss * weight
    return (weighted * known).sum() / known.sum().clamp(min=1)


def dice_loss(prob: Tensor, truth: Tensor, known: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - soft Dice pooled over the batch, averaged over channels that occur in `truth` (all of them if none does).

    prob, truth (B,K,H,W) in [0,1]; known (B,1|K,H,W) in [0,1] weighs each pixel. Dice = (2 Σpt + s) / (Σp + Σt + s),
    Milletari et al. 2016 without squares; pooled over the batch as nnU-Net's batch Dice.
    """
    dims = (0, 2, 3)
    known = known.to(prob.dtype).expand_as(prob)
    both = (prob * truth * known).sum(dims)
    total = ((prob + truth) * known).sum(dims)
    seen = (truth * known).sum(dims) > 0
    loss = 1 - (2 * both + smooth) / (total + smooth)
    return (loss * seen).sum() / seen.sum().clamp(min=1)


def ohem_cross_entropy(logits: Tensor, label: Tensor, *, threshold: float = 0.7, min_kept: int = 200_000) -> Tensor:
    """Cross-entropy over hard pixels: truth probability <= max(threshold, the min_kept-th smallest), UniMatch `ohem.py`.

    Plain cross-entropy when fewer than `min_kept` pixels are valid; 0 when none is.
    """
    loss = cross_entropy_map(logits, label).flatten()
    known = label.flatten() != IGNORE
    if int(known.sum()) < max(min_kept, 1):
        return masked_mean(loss, known)
    prob = torch.exp(-loss.detach())
    limit = prob[known].kthvalue(max(min_kept, 1)).values.clamp(min=threshold)
    return masked_mean(loss, known & (prob <= limit))


def one_hot(label: Tensor, classes: int) -> Tensor:
    """Class ids (B,H,W) to (B,K,H,W) float; ignored pixels are all zero."""
    known = label != IGNORE
    return F.one_hot(label.long().masked_fill(~known, 0), classes).permute(0, 3, 1, 2).float() * known.unsqueeze(1)
