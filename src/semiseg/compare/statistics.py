"""Differences with intervals, from integer counts alone: seeds and images are resampled, nothing is predicted again.

The bootstrap is crossed (Owen, Annals of Applied Statistics 1(2), 2007): the same draw of test images is used for every seed
and arm, so arms stay paired. Of S seeds S - 1 are drawn, which makes the variance of their mean unbiased (Rao and Wu,
JASA 83, 1988): drawing S of S would make intervals too short by a factor of sqrt((S - 1) / S), 0.7 for two seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DRAWS = 2000
LEVEL = 0.95
ERRORS, LEAST = 3.0, 0.03
"""A gap is one when it is that many standard errors wide, and at least so much mIoU."""


def counts(matrices: Array, multilabel: bool) -> Array:
    """(…,K,K) confusion (rows = truth), or (…,L,2,2) per label, to (…,C,3): hits, false alarms, misses."""
    m = np.asarray(matrices, np.int64)
    if multilabel:
        return np.stack([m[..., 1, 1], m[..., 0, 1], m[..., 1, 0]], -1)
    hit = np.diagonal(m, axis1=-2, axis2=-1)
    return np.stack([hit, m.sum(-2) - hit, m.sum(-1) - hit], -1)


def iou(found: Array) -> Array:
    """(…,C,3) counts to IoU per class (…,C); nan where a class is neither there nor predicted."""
    union = found.sum(-1)
    return np.where(union > 0, found[..., 0] / np.maximum(union, 1), np.nan)


def mean(values: Array) -> Array:
    """Mean over the last axis without nan; nan where nothing is left."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(-1)
    return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan)


def miou(found: Array) -> Array:
    """(…,C,3) counts to the mean IoU over the classes that occur."""
    return mean(iou(found))


def dice(found: Array) -> Array:
    """(…,C,3) counts to the mean Dice over the classes that occur."""
    each = iou(found)
    return mean(2 * each / (1 + each))


@dataclass(frozen=True)
class Draws:
    """Weights of one crossed bootstrap. seeds (D,S) with rows that sum to 1; images (D,N) whole numbers, rows sum to N."""

    seeds: Array
    images: Array

    def miou(self, found: Array) -> Array:
        """(S,N,C,3) counts to the pooled mIoU of every draw and seed, (D,S)."""
        s, n, c, _ = found.shape
        flat = np.moveaxis(found, 1, 0).reshape(n, -1).astype(np.float64)
        return miou((self.images @ flat).reshape(-1, s, c, 3))

    def mean(self, values: Array) -> Array:
        """(D,S) to one value a draw."""
        total: Array = (self.seeds * values).sum(1)
        return total


@lru_cache(maxsize=8)
def draw(seeds: int, images: int, draws: int = DRAWS, blocks: int = 1, key: int = 0) -> Draws:
    """The weights. blocks: length of runs of neighbouring images that are drawn together (video, serial sections)."""
    rng = np.random.default_rng(key)
    length = max(1, min(blocks, images))
    starts = rng.integers(0, images, (draws, -(-images // length)))
    chosen = ((starts[..., None] + np.arange(length)) % images).reshape(draws, -1)[:, :images]
    of_images = _tally(chosen, images)
    if seeds < 2:
        return Draws(np.ones((draws, seeds)), of_images)
    picked = rng.integers(0, seeds, (draws, seeds - 1))
    return Draws(_tally(picked, seeds) / (seeds - 1), of_images)


def _tally(chosen: Array, n: int) -> Array:
    """How often each of n things is in each row."""
    rows = np.arange(len(chosen))[:, None] * n
    return np.bincount((chosen + rows).ravel(), minlength=len(chosen) * n).reshape(len(chosen), n).astype(np.float64)


@dataclass(frozen=True)
class Interval:
    """A figure with its interval (95 %) and standard error. per_seed in the order of the seeds."""

    value: float
    low: float
    high: float
    error: float
    per_seed: tuple[float, ...] = ()


def between(values: Array, point: float, per_seed: Array | None = None) -> Interval:
    """The percentile interval of bootstrap values (D,); draws in which nothing could be scored are left out."""
    known = values[np.isfinite(values)]
    each = () if per_seed is None else tuple(float(v) for v in per_seed)
    if not len(known) or not np.isfinite(point):
        return Interval(point, float("nan"), float("nan"), float("nan"), each)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(point), float(low), float(high), float(known.std()), each)


def difference(arm: Array, base: Array, draws: Draws) -> Interval:
    """Δ mIoU of two arms on the same seeds and images, counts (S,N,C,3) each."""
    per_seed = miou(arm.sum(1)) - miou(base.sum(1))
    return between(draws.mean(draws.miou(arm) - draws.miou(base)), float(per_seed.mean()), per_seed)


@dataclass(frozen=True)
class Recovered:
    """The share of the gap between labels only and full labels that an arm closes; None and `why` where there is none."""

    share: Interval | None
    gap: Interval
    why: str


def recovered(arm: Array, base: Array, full: Array, draws: Draws) -> Recovered:
    """Mean Δ / mean (full - base), from the same draws. No share below 3 standard errors or 0.03 of gap."""
    gap = difference(full, base, draws)
    if not np.isfinite(gap.value) or gap.value < max(LEAST, ERRORS * gap.error):
        return Recovered(None, gap, "no headroom")
    start = draws.miou(base)
    rise, room = draws.mean(draws.miou(arm) - start), draws.mean(draws.miou(full) - start)
    ratio = np.where(room > 0, rise / np.where(room > 0, room, 1), np.nan)
    point = difference(arm, base, draws).value / gap.value
    return Recovered(between(ratio, point), gap, "")
