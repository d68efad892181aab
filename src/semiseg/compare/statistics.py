"""Differences with intervals, from integer counts alone: seeds and images are resampled, nothing is predicted again.

The bootstrap is crossed (Owen, Annals of Applied Statistics 1(2), 2007): the same draw of test images is used for every seed
and arm, so arms stay paired. Of S seeds S - 1 are drawn, which makes the variance of their mean unbiased (Rao and Wu,
JASA 83, 1988): drawing S of S would make intervals too short by a factor of sqrt((S - 1) / S), 0.7 for two seeds.

A class is scored where the truth has a pixel of it, whatever was predicted: of all images, or of all that a draw took. The
truth is the same for every arm, so every arm is a mean over the same classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DRAWS = 2000
LEVEL = 0.95
BLOCKS = 5
"""Fewer images than that (runs of them, with blocks) give no interval: what is drawn from so few hardly varies."""
NORMAL = 1.96
ERRORS, LEAST = 3.0, 0.03
"""A gap is one when it is that many standard errors wide, and at least so much mIoU."""
NOTHING = 1e-9
"""A standard error up to here is 0: rounding, not evidence."""
TOO_FEW = "too few images for an interval"


def counts(matrices: Array, multilabel: bool) -> Array:
    """(…,K,K) confusion (rows = truth), or (…,L,2,2) per label, to (…,C,3): hits, false alarms, misses."""
    m = np.asarray(matrices, np.int64)
    if multilabel:
        return np.stack([m[..., 1, 1], m[..., 0, 1], m[..., 1, 0]], -1)
    hit = np.diagonal(m, axis1=-2, axis2=-1)
    return np.stack([hit, m.sum(-2) - hit, m.sum(-1) - hit], -1)


def present(found: Array) -> Array:
    """(…,C,3) counts to (…,C) bool: does the truth have a pixel of the class?"""
    there: Array = found[..., 0] + found[..., 2] > 0
    return there


def iou(found: Array, scored: Array | None = None) -> Array:
    """(…,C,3) counts to IoU per class (…,C); nan where a class is not scored: where the truth does not have it."""
    known = present(found) if scored is None else scored
    return np.where(known, found[..., 0] / np.maximum(found.sum(-1), 1), np.nan)


def mean(values: Array) -> Array:
    """Mean over the last axis without nan; nan where nothing is left."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(-1)
    return np.where(known.any(-1), total / np.maximum(known.sum(-1), 1), np.nan)


def miou(found: Array) -> Array:
    """(…,C,3) counts to the mean IoU over the classes of the truth."""
    return mean(iou(found))


def dice(found: Array) -> Array:
    """(…,C,3) counts to the mean Dice over the classes of the truth."""
    each = iou(found)
    return mean(2 * each / (1 + each))


@dataclass(frozen=True)
class Draws:
    """Weights of one crossed bootstrap. seeds (D,S) with rows that sum to 1; images (D,N) whole numbers, rows sum to N.

    blocks: how many runs of images there are that do not overlap.
    """

    seeds: Array
    images: Array
    blocks: int

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
        return Draws(np.ones((draws, seeds)), of_images, images // length)
    picked = rng.integers(0, seeds, (draws, seeds - 1))
    return Draws(_tally(picked, seeds) / (seeds - 1), of_images, images // length)


def _tally(chosen: Array, n: int) -> Array:
    """How often each of n things is in each row."""
    rows = np.arange(len(chosen))[:, None] * n
    return np.bincount((chosen + rows).ravel(), minlength=len(chosen) * n).reshape(len(chosen), n).astype(np.float64)


@dataclass(frozen=True)
class Interval:
    """A figure with its interval (95 %) and standard error, nan where there is none. per_seed in the order of the seeds.

    values: those of the draws (D,), with which figures of the same draws are compared.
    """

    value: float
    low: float
    high: float
    error: float
    per_seed: tuple[float, ...] = ()
    values: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def __neg__(self) -> Interval:
        """The difference the other way round."""
        each = tuple(0.0 - v for v in self.per_seed)  # 0 - 0 is 0, and -0.0 would be printed as a loss
        return Interval(0.0 - self.value, 0.0 - self.high, 0.0 - self.low, self.error, each, 0.0 - self.values)


def between(values: Array, point: float, per_seed: Array | None = None) -> Interval:
    """The percentile interval of bootstrap values (D,); draws in which nothing could be scored are left out."""
    known = values[np.isfinite(values)]
    each = () if per_seed is None else tuple(float(v) for v in per_seed)
    if not len(known) or not np.isfinite(point):
        return Interval(point, float("nan"), float("nan"), float("nan"), each)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(point), float(low), float(high), float(known.std()), each, values)


def difference(arm: Array, base: Array, draws: Draws) -> Interval:
    """Δ mIoU of two arms on the same seeds and images, counts (S,N,C,3) each; without an interval from too few images."""
    per_seed = miou(arm.sum(1)) - miou(base.sum(1))
    few = draws.blocks < BLOCKS
    values = np.empty(0) if few else draws.mean(draws.miou(arm) - draws.miou(base))
    return between(values, float(per_seed.mean()), per_seed)


def jointly(found: Sequence[Interval], blocks: int) -> list[tuple[float, float]]:
    """Intervals that hold for all these differences at once (95 %): from the same draws, of two or more seeds each.

    The half-width is the 95 % quantile of the largest standardised deviation over the differences (max-T: Romano and Wolf,
    Econometrica 73(4), 2005). Two or three seeds tell their own variance badly, so no standard error is smaller than the
    mean (of squares) over the differences, and the quantile is stretched to Student's t.
    """
    values = np.stack([f.values for f in found])
    values = values[:, np.isfinite(values).all(0)]
    seeds = np.array([len(f.per_seed) for f in found])
    variance, of_seeds = values.var(1), np.array([np.var(f.per_seed, ddof=1) for f in found]) / seeds
    errors = np.sqrt(np.maximum(variance, NOTHING**2))[:, None]
    largest = (np.abs(values - values.mean(1, keepdims=True)) / errors).max(0)
    variance, of_seeds = np.maximum(variance, variance.mean()), np.maximum(of_seeds, of_seeds.mean())
    rest = np.maximum(variance - of_seeds, 0)
    # degrees of freedom of a sum of two estimated variances (Satterthwaite, Biometrics Bulletin 2, 1946)
    freedom = variance**2 / np.maximum(of_seeds**2 / (seeds - 1) + rest**2 / (blocks - 1), NOTHING**4)
    wide = stretched(max(NORMAL, float(np.quantile(largest, LEVEL))), np.maximum(freedom, 1)) * np.sqrt(variance)
    half = np.where(variance > NOTHING**2, wide, np.nan)
    return [(f.value - h, f.value + h) for f, h in zip(found, half.tolist(), strict=True)]


def stretched(z: float, freedom: Array) -> Array:
    """Student's t at the level of a standard normal z (Wallace, Annals of Mathematical Statistics 30(4), 1959).

    Within 5 % from two degrees of freedom on, too large below.
    """
    bent = z * (8 * freedom + 3) / (8 * freedom + 1)
    t: Array = np.sqrt(freedom * np.expm1(np.minimum(bent**2 / freedom, 100)))
    return t


@dataclass(frozen=True)
class Recovered:
    """The share of the gap between labels only and full labels that an arm closes; None and `why` where there is none."""

    share: Interval | None
    gap: Interval
    why: str


def recovered(arm: Array, base: Array, full: Array, draws: Draws) -> Recovered:
    """Mean Δ / mean (full - base), from the same draws. No share below 3 standard errors (or without) or 0.03 of gap."""
    gap = difference(full, base, draws)
    if draws.blocks < BLOCKS:
        return Recovered(None, gap, TOO_FEW)
    if not (gap.error > NOTHING and gap.value >= max(LEAST, ERRORS * gap.error)):
        return Recovered(None, gap, "no headroom" if gap.value < LEAST else "gap uncertain")
    start = draws.miou(base)
    rise, room = draws.mean(draws.miou(arm) - start), draws.mean(draws.miou(full) - start)
    ratio = np.where(room > 0, rise / np.where(room > 0, room, 1), np.nan)
    point = difference(arm, base, draws).value / gap.value
    return Recovered(between(ratio, point), gap, "")
