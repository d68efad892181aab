"""What is measured on one predicted image, as counts that can be pooled, and the figures made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from semiseg.batch import IGNORE
from semiseg.compare.statistics import iou, mean, miou
from semiseg.task import Task

Array = np.ndarray[Any, Any]
BINS = 15
COVERAGE = tuple(round(0.1 * k, 1) for k in range(1, 11))
"""Shares of the images that are kept, least inconsistent first."""


def boundary_width(height: int, width: int) -> int:
    """d of Boundary IoU: 2 % of the image's diagonal, at least 1 px."""
    return max(1, round(0.02 * (height**2 + width**2) ** 0.5))


def boundary(plane: Array, d: int) -> Array:
    """Pixels of a plane (H,W) bool that are less than d + 1 (chessboard) away from its outside or from the image's border.

    Cheng et al., CVPR 2021 (arXiv 2103.16562), `mask_to_boundary`: d erosions by 3 x 3 after padding with zeros, taken off
    the mask. Here as one erosion by a square of 2d + 1, by sums over the square.
    """
    side = 2 * d + 1
    sums = np.pad(plane, d).astype(np.int64).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    full = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    inner: Array = plane & (full < side * side)
    return inner


def boundary_counts(label: Array, mask: Array, task: Task) -> Array:
    """(C,3) hits, false alarms and misses among the boundary pixels of each class; ignored pixels are outside of both."""
    found = np.zeros((task.channels, 3), np.int64)
    d = boundary_width(*mask.shape[-2:])
    for k in range(task.channels):
        known = (mask[k] if task.multilabel else mask) != IGNORE
        mine = ((label[k] == 1) if task.multilabel else label == k) & known
        theirs = ((mask[k] == 1) if task.multilabel else mask == k) & known
        if mine.any() or theirs.any():
            a, b = boundary(mine, d), boundary(theirs, d)
            found[k] = (a & b).sum(), (a & ~b).sum(), (b & ~a).sum()
    return found


def calibration_bins(prob: Tensor, mask: Tensor, task: Task) -> Array:
    """(BINS+1,3) pixels, summed confidence and hits by confidence, binned as torchmetrics does (1.0 has its own bin).

    prob (K,H,W). Confidence is the largest probability; for labels that may overlap max(p, 1 - p) of each of them.
    """
    if task.multilabel:
        confidence, hit = torch.maximum(prob, 1 - prob), (prob > 0.5) == (mask == 1)
    else:
        confidence, best = prob.max(0)
        hit = best == mask
    known = mask != IGNORE
    sure, right = confidence[known].double(), hit[known].double()
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=sure.device)
    place = torch.bucketize(sure, edges, right=True) - 1
    rows = [torch.bincount(place, w, minlength=BINS + 1).double() for w in (torch.ones_like(sure), sure, right)]
    return torch.stack(rows, -1).cpu().numpy()


def calibration_error(bins: Array) -> float:
    """Expected calibration error from bins (BINS+1,3): the mean |hits - confidence| over pixels; nan without pixels."""
    pixels = bins[:, 0].sum()
    return float(np.abs(bins[:, 2] - bins[:, 1]).sum() / pixels) if pixels else float("nan")


def iou_per_image(found: Array, multilabel: bool) -> float:
    """Mean over images of the mean IoU over the classes of each, from (N,C,3); as `task.Metrics.iou_per_image`.

    A class belongs to an image when its truth has it (the IM paper's rule); a label also when it was predicted.
    """
    each = mean(iou(found, found.sum(-1) > 0 if multilabel else None))
    return float(mean(each))


def risk_coverage(found: Array, share: Array) -> list[float]:
    """1 - pooled mIoU of the images kept at each COVERAGE, (N,C,3) counts sorted by inconsistent share (N,)."""
    risks = _risks(found, share)
    return [float(risks[max(1, round(c * len(risks))) - 1]) for c in COVERAGE]


def mean_risk(found: Array, share: Array) -> float:
    """The area under the risk-coverage curve: the mean risk over every number of images kept, without the empty ones."""
    return float(mean(_risks(found, share)))


def _risks(found: Array, share: Array) -> Array:
    """1 - pooled mIoU of the first 1, 2, … images, least inconsistent first, (N,); nan where their truth is empty."""
    order = np.argsort(share, kind="stable")
    risks: Array = 1 - miou(found[order].cumsum(0))
    return risks
