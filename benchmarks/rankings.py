"""Which unlabeled image to label next: orders of images, from what a committee and one model make of each.

`plain` is the order of label_next.csv. The others are what label_next.py tries against it: members disagree along
every outline, so a plain share prefers images with large or many objects, and it puts images that are alike side by side;
docs/explanation/what-to-label-next.md has what came of it.

[0] Sener and Savarese, core-set, arXiv 1708.00489: distances between deep features, images chosen greedily
Differs from [0]: a distance counts as much as the image's own score, so an image must be disputed and new.
[1] Hacohen, Dekel and Weinshall, TypiClust, arXiv 2202.02794: with few labels typical images teach more than doubtful ones
Differs from [1]: no clusters; images are chosen greedily so that every other one has a labeled one near it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semiseg.networks.base import Network
from semiseg.task import Task
from semiseg.training.inference import TILE, tiled

Array = np.ndarray[Any, Any]
FIRST, POOL = 100, 2000
"""Images that are chosen one after the other, and those that they are chosen from: only these need features."""
LEAST = 0.01
"""Objects and outlines that cover less than that share of an image count as that much: nothing is divided by nothing."""


@dataclass(frozen=True)
class Facts:
    """One image. score: its inconsistent share, or another doubt, in [0, 1].

    foreground: share of its pixels that a model gives to an object; outline: share of them where two labels meet; feature:
    the model's deep features, averaged over the image (F,).
    """

    image: str
    score: float
    foreground: float = 0.0
    outline: float = 0.0
    feature: Array = field(default_factory=lambda: np.zeros(0))


def plain(facts: Sequence[Facts], labeled: Sequence[Array]) -> list[int]:
    """Rows by score, most first; equal ones by name."""
    return _by(facts, [f.score for f in facts])


def per_foreground(facts: Sequence[Facts], labeled: Sequence[Array]) -> list[int]:
    """Rows by disputed pixels for each pixel of an object."""
    return _by(facts, [f.score / max(f.foreground, LEAST) for f in facts])


def per_outline(facts: Sequence[Facts], labeled: Sequence[Array]) -> list[int]:
    """Rows by disputed pixels for each pixel of outline: the mean width of what is disputed along it."""
    return _by(facts, [f.score / max(f.outline, LEAST) for f in facts])


def diverse(facts: Sequence[Facts], labeled: Sequence[Array]) -> list[int]:
    """Greedily the row with the largest score times distance to the nearest labeled or chosen image.

    labeled: features (F,) of the labeled images; without any the first row is that of the largest score.
    """
    ranked = plain(facts, labeled)  # the first of equals is the one with the larger score
    if not ranked:
        return []
    scores, features = np.array([facts[i].score for i in ranked]), np.stack([facts[i].feature for i in ranked])
    chosen: list[int] = [] if len(labeled) else [0]
    near = np.full(len(ranked), np.inf)
    for known in [*labeled, *features[chosen]]:
        near = np.minimum(near, np.linalg.norm(features - known, axis=1))
    while len(chosen) < len(ranked):
        worth = scores * near
        worth[chosen] = -1
        chosen.append(int(worth.argmax()))
        near = np.minimum(near, np.linalg.norm(features - features[chosen[-1]], axis=1))
    return [ranked[i] for i in chosen]


def typical(facts: Sequence[Facts], labeled: Sequence[Array]) -> list[int]:
    """Greedily the row that brings all rows nearest to a labeled or chosen image. Bounds as of `typical_doubt`."""
    return _covering(facts, labeled, np.ones(len(facts)))


def typical_doubt(facts: Sequence[Facts], labeled: Sequence[Array]) -> list[int]:
    """As `typical`, and a row's distance counts by its score: what is chosen stands for many disputed images.

    So are the first 100 chosen, among the 2,000 with the largest scores; the others follow by score.
    """
    return _covering(facts, labeled, np.array([f.score for f in facts]))


def _covering(facts: Sequence[Facts], labeled: Sequence[Array], weight: Array) -> list[int]:
    ranked = plain(facts, labeled)
    pool = ranked[:POOL]
    if not pool:
        return []
    features, weight = _finite([facts[i].feature for i in pool]), weight[pool].astype(np.float32)
    apart = _distances(features, features)
    home = _finite(labeled) if len(labeled) else features.mean(0, keepdims=True)
    near = _distances(features, home).min(1)
    chosen: list[int] = []
    for _ in pool[:FIRST]:
        gain = weight @ np.maximum(near[:, None] - apart, 0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        near = np.minimum(near, apart[:, chosen[-1]])
    first = dict.fromkeys(pool[i] for i in chosen)
    return [*first, *(i for i in ranked if i not in first)]


def _finite(features: Sequence[Array]) -> Array:
    """(N,F) in double precision, in which differences of large features last; what is not finite is 0."""
    return np.nan_to_num(np.stack(features).astype(np.float64), posinf=0, neginf=0)


def _distances(a: Array, b: Array) -> Array:
    """Euclidean, (N,F) and (M,F) to (N,M)."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0)).astype(np.float32)


def drawn(facts: Sequence[Facts], key: str) -> list[int]:
    """Rows in an order drawn by `key` from the names alone."""
    ranked = sorted(range(len(facts)), key=lambda i: facts[i].image)
    random.Random(key).shuffle(ranked)
    return ranked


RANKINGS: dict[str, Callable[[Sequence[Facts], Sequence[Array]], list[int]]] = {
    "plain": plain, "per_foreground": per_foreground, "per_outline": per_outline, "diverse": diverse,
    "typical": typical, "typical_doubt": typical_doubt,
}  # fmt: skip


def _by(facts: Sequence[Facts], worth: Sequence[float]) -> list[int]:
    return sorted(range(len(facts)), key=lambda i: (-worth[i], facts[i].image))


@torch.inference_mode()
def measure(network: Network, task: Task, image: Tensor) -> tuple[list[float], list[float], Array]:
    """foreground, outline and feature (B,F) of images (B,C,h,w) in unit range. No object is class 0 of several."""
    label = task.label(tiled(lambda part: task.prob(network(part)), image))
    planes = label if task.multilabel else label.unsqueeze(1)
    objects = (planes != 0).any(1)
    edge = torch.zeros_like(objects)
    edge[:, :, :-1] |= (planes[..., 1:] != planes[..., :-1]).any(1)
    edge[:, :-1] |= (planes[..., 1:, :] != planes[..., :-1, :]).any(1)
    return _shares(objects), _shares(edge), feature(network, image)


@torch.inference_mode()
def feature(network: Network, image: Tensor) -> Array:
    """The deepest features (B,F) of images (B,C,h,w) in unit range, averaged over all places, tile by tile."""
    total, area = None, image.shape[-2] * image.shape[-1]
    for part in (p for row in image.split(TILE, -2) for p in row.split(TILE, -1)):
        mean = network.encode(part).levels[-1].float().mean((-2, -1)) * (part.shape[-2] * part.shape[-1] / area)
        total = mean if total is None else total + mean
    assert total is not None
    found: Array = total.cpu().numpy()
    return found


def _shares(plane: Tensor) -> list[float]:
    shares: list[float] = plane.flatten(1).double().mean(1).tolist()
    return shares
