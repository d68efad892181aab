"""The vocabulary every other module speaks: what a step is given, and what we believe about an unlabeled image.

B labeled, U unlabeled images; C image channels; K classes or labels; H, W pixels. Images are floats in unit range
(0 = black, 1 = white of the data set); networks normalise inside. Label maps hold class ids; 255 (`IGNORE`) means no label.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

IGNORE = 255


def seed_of(*key: object) -> int:
    """A 63-bit seed from a key such as (seed, generation, member, stream, step): equal keys, equal draws, anywhere."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_of(*key: object) -> torch.Generator:
    """A CPU generator seeded by `seed_of(*key)`; draws are made on the CPU so that they equal on every device."""
    return torch.Generator().manual_seed(seed_of(*key))


def send(x: Tensor, device: torch.device | str) -> Tensor:
    """`x` on a device, for use inside a step: out of pinned memory a copy is queued, where `.to` waits for all kernels."""
    if torch.device(device).type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@dataclass(frozen=True)
class Labeled:
    """Images with masks. mask: (B,H,W) long, or (B,K,H,W) uint8 when labels overlap; 255 = ignore."""

    image: Tensor  # (B,C,H,W)
    mask: Tensor
    weight: Tensor | None = None  # (B,1|K,H,W) in [0,1]; None = 1 everywhere


@dataclass(frozen=True)
class Planes:
    """What a frozen committee said about the images, stored once and warped with them."""

    label: Tensor  # (U,H,W) long | (U,K,H,W) uint8
    agree: Tensor  # (U,1|K,H,W) bool


@dataclass(frozen=True)
class Unlabeled:
    """Images without masks: one clean (weak) view and the pixel-aligned views that the method asked for."""

    weak: Tensor  # (U,C,H,W)
    strong: tuple[Tensor, ...]  # each (U,C,H,W)
    valid: Tensor  # (U,1,H,W) bool: False where the crop reached beyond the image
    planes: Planes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.weak.shape[-2], self.weak.shape[-1]

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Target:
    """What we believe about unlabeled images, and how much."""

    prob: Tensor  # (U,K,H,W) in [0,1], detached
    label: Tensor  # (U,H,W) long, or (U,K,H,W) uint8 when labels overlap
    weight: Tensor  # (U,1|K,H,W) in [0,1]
    valid: Tensor  # (U,1,H,W) bool

    @property
    def multilabel(self) -> bool:
        """True when labels may overlap: the label map has a channel for each."""
        return self.label.ndim == 4

    @property
    def confidence(self) -> Tensor:
        """max p (U,1,H,W); per label max(p, 1-p) (U,K,H,W) when labels may overlap."""
        if self.multilabel:
            return torch.maximum(self.prob, 1 - self.prob)
        return self.prob.amax(1, keepdim=True)

    def keep(self, rule: Callable[[Target], Tensor]) -> Target:
        """The same belief, with weight 0 where `rule(target)` (U,1|K,H,W) bool is False."""
        return self.replace(weight=self.weight * rule(self))

    def replace(self, **changes: Any) -> Target:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def as_labeled(self, image: Tensor) -> Labeled:
        """The belief used as a mask: its labels, weighted, ignored (255) outside the image."""
        outside = ~(self.valid if self.multilabel else self.valid.squeeze(1))
        return Labeled(image, self.label.masked_fill(outside, IGNORE), self.weight * self.valid)


@dataclass(frozen=True)
class Clock:
    """Where training stands. Schedules and draws read this and nothing else."""

    step: int
    total: int
    key: tuple[object, ...] = (0,)

    @property
    def progress(self) -> float:
        """Share of the training that is done, in [0, 1)."""
        return self.step / max(self.total, 1)

    def ramp(self, share: float, after: float = 0.0) -> float:
        """0 for the first `after` of the training, exp(-5 (1-t)²) over `share` of it (Laine and Aila 2017), then 1."""
        if self.progress < after:
            return 0.0
        t = min(1.0, (self.progress - after) / share) if share > 0 else 1.0
        return math.exp(-5.0 * (1 - t) ** 2)

    def generator(self, name: str) -> torch.Generator:
        """The generator of the stream `name` at this step."""
        return generator_of(*self.key, name, self.step)
