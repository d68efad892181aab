"""The 1x1 U-Net of Inconsistency Masks: a 3x3 and a 1x1 convolution per block, additive skips.

[0] Vorndran, Roeck: Inconsistency Masks (unet.py of the authors' repository). Keras conventions are kept where they
change results: convolution -> ReLU -> batch norm, epsilon 1e-3, he_normal with a truncated
normal whose realised deviation is sqrt(2 / fan_in) for every convolution including the head, zero biases.
Differs from [0]: logits instead of a sigmoid or softmax; full precision unless the caller asks for less; running
statistics follow with 0.1 a step instead of 0.01, which after a few hundred steps would still remember the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semiseg.networks.base import Features, Network

WIDTHS = (16, 32, 64, 128)
DECODER = ((128, 64), (64, 32), (32, 16), (16, 16))
TRUNCATED = 0.87962566103423978
"""Standard deviation of a unit normal truncated at two deviations."""


def conv(inside: int, outside: int, kernel: int) -> nn.Conv2d:
    """A "same" convolution, he_normal as Keras draws it, zero bias."""
    layer = nn.Conv2d(inside, outside, kernel, padding=kernel // 2)
    std = math.sqrt(2.0 / (inside * kernel * kernel)) / TRUNCATED
    nn.init.trunc_normal_(layer.weight, std=std, a=-2.0 * std, b=2.0 * std)
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the epsilon of Keras."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def block(inside: int, middle: int, outside: int) -> nn.Sequential:
    """3x3 convolution, ReLU, 1x1 convolution, ReLU, norm."""
    return nn.Sequential(conv(inside, middle, 3), nn.ReLU(), conv(middle, outside, 1), nn.ReLU(), norm(outside))


class Encoder(nn.Module):
    """Stem, four blocks and the bottleneck; gives the four skips and the bottleneck, at strides 1, 2, 4, 8 and 16."""

    def __init__(self, channels: int, widths: list[int], bottleneck: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(channels, widths[0], 1), nn.ReLU(), norm(widths[0]))
        pairs = zip([widths[0], *widths[:-1]], widths, strict=True)
        self.blocks = nn.ModuleList(block(a, b, b) for a, b in pairs)
        self.bottleneck = block(widths[-1], bottleneck, widths[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B,C,H,W) -> five levels, fine to coarse."""
        levels = []
        x = self.stem(x)
        for step in self.blocks:
            levels.append(step(x))
            x = F.max_pool2d(levels[-1], 2)
        return [*levels, self.bottleneck(x)]


class Up(nn.Module):
    """Twice as large (nearest), plus the skip, 1x1 convolution, ReLU, norm, block."""

    def __init__(self, inside: int, middle: int, outside: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(conv(inside, middle, 1), nn.ReLU(), norm(middle))
        self.block = block(middle, middle, outside)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B,c,h,w) and a skip (B,c,2h,2w) -> (B,outside,2h,2w)."""
        return self.block(self.mix(F.interpolate(x, scale_factor=2.0, mode="nearest") + skip))


class UNet1x1(Network):
    """The network of the paper. `alpha` scales all widths; the paper uses 0.5 (ISIC) and 1.0, and 0.75 to 2.0 later.

    Raises ValueError when `alpha` leaves a layer without channels.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        alpha: float = 0.5,
        mean: Iterable[float] | None = None,
        std: Iterable[float] | None = None,
    ) -> None:
        super().__init__(channels, classes, 2 ** len(WIDTHS), mean, std)
        if not 1 / WIDTHS[0] <= alpha <= 64:  # also false for nan
            raise ValueError(f"alpha between {1 / WIDTHS[0]} and 64 expected, got {alpha}")
        self.alpha = alpha
        widths = [int(w * alpha) for w in WIDTHS]
        self.encoder = Encoder(channels, widths, int(2 * WIDTHS[-1] * alpha))
        pairs = [(int(a * alpha), int(b * alpha)) for a, b in DECODER]
        self.ups = nn.ModuleList(Up(skip, a, b) for skip, (a, b) in zip(reversed(widths), pairs, strict=True))
        self.last = conv(pairs[-1][1], classes, 1)
        self.decoded_channels = pairs[-1][1]
        self.level_channels = (*widths, widths[-1])

    def extract(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The four skips and the bottleneck."""
        # its few channels lie better last on a CPU (results/step.csv)
        return self.encoder(x.contiguous(memory_format=torch.channels_last)), {}

    def decode(self, features: Features) -> Tensor:
        """(B, 16 alpha, H, W) at full (padded) resolution."""
        *skips, x = features.levels
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip)
        return x

    def head(self, decoded: Tensor) -> Tensor:
        """The last 1x1 convolution."""
        return self.last(decoded)

    def backbone(self) -> nn.Module:
        """Stem, blocks and bottleneck."""
        return self.encoder
