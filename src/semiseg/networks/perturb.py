"""Perturbations between encoder and decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.errors import usage
from semiseg.networks.base import Features

LEVELS = ("ends", "deepest", "all")


def chosen_levels(features: Features, levels: str) -> set[int]:
    """Which levels a name means: "ends" the one at stride 4 (or the next finer) and the deepest, "deepest", "all"."""
    last = len(features.levels) - 1
    if levels == "all":
        return set(range(last + 1))
    if levels == "deepest":
        return {last}
    if levels == "ends":
        strides = [round(features.padded[0] / level.shape[-2]) for level in features.levels]
        fine = [i for i, stride in enumerate(strides) if stride <= 4]
        return {fine[-1] if fine else 0, last}
    raise usage("levels", f"is '{levels}'", expected=" or ".join(LEVELS))


def channel_dropout(
    features: Features, generator: torch.Generator, *, p: float = 0.5, levels: str = "ends"
) -> Features:
    """Whole channels of the chosen levels set to 0 with probability p, the others scaled by 1/(1-p); per image and level.

    Dropout2d of UniMatch's `deeplabv3plus.py:44-47`, drawn from `generator` (on the CPU) instead of the global one.
    """
    touched = chosen_levels(features, levels)

    def drop(index: int, level: Tensor) -> Tensor:
        if index not in touched or p == 0:
            return level
        keep = torch.rand(level.shape[:2], generator=generator) >= p
        return level * (keep[:, :, None, None].to(level) / (1 - p) if p < 1 else 0.0)

    return features.map(drop)


def complementary_dropout(features: Features, generator: torch.Generator, *, spared: float = 0.5) -> Features:
    """Two views of the same n images, (2n, ...): each channel reaches one of the two, doubled; per image.

    A random int(spared · n) of the pairs is left alone. Levels with equally many channels share one mask, as the blocks
    of a ViT do in UniMatch V2 (`dpt.py:148-161`); others have their own, its author's answer for a ResNet (issue 7).
    All levels are touched. Raises ValueError for an odd number of images.
    """
    pairs, odd = divmod(len(features), 2)
    if odd:
        raise ValueError(f"two views of each image expected, got {len(features)} images")
    alone = torch.zeros(pairs, 1, dtype=torch.bool)
    alone[torch.randperm(pairs, generator=generator)[: int(pairs * spared)]] = True
    masks: dict[int, Tensor] = {}
    for level in features.levels:
        channels = level.shape[1]
        if channels not in masks:
            first = 2.0 * (torch.rand(pairs, channels, generator=generator) < 0.5)
            masks[channels] = torch.cat([first, 2 - first]).masked_fill(alone.repeat(2, 1), 1.0)

    def drop(index: int, level: Tensor) -> Tensor:
        return level * masks[level.shape[1]][:, :, None, None].to(level)

    return features.map(drop)
