"""EvalNet: how good is this mask of this image? A small classifier of (image, mask) pairs.

[0] Vorndran and Roeck, Inconsistency Masks, evalnet.py of the authors' repository: two stems (1x1 convolution, ReLU,
norm, block), joined, five blocks, global average, one output or two heads; Keras initialisation as `unet1x1`.
Differs from [0]: logits instead of sigmoids; images of any size (pooling rounds up), although [0]'s are multiples of 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semiseg.networks.unet1x1 import block, conv, norm

WIDTHS = (16, 32, 64, 128, 256)


def _stage(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(block(inside, outside, outside), nn.MaxPool2d(2, ceil_mode=True))


class EvalNet(nn.Module):
    """(B,C,H,W) images in unit range and (B,K,H,W) masks 0/1 -> logits (B,K) of each class's IoU, and of "it is there".

    alpha scales all widths; [0] takes 1 for one class and 2 for more. With one class there is no second head.
    """

    def __init__(self, channels: int, classes: int, alpha: float = 1.0) -> None:
        super().__init__()
        widths = [int(w * alpha) for w in WIDTHS]
        first = widths[0]
        self.stems = nn.ModuleList(
            nn.Sequential(conv(c, first, 1), nn.ReLU(), norm(first), _stage(first, first)) for c in (channels, classes)
        )
        pairs = zip([2 * first, *widths[:-1]], widths, strict=True)
        self.body = nn.Sequential(*(_stage(a, b) for a, b in pairs))
        self.iou = nn.Linear(widths[-1], classes)
        self.seen = nn.Linear(widths[-1], classes) if classes > 1 else None

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits of the IoUs (B,K), and of the classes' presence (B,K) or None."""
        both = [stem(x) for stem, x in zip(self.stems, (image, mask), strict=True)]
        x = self.body(torch.cat(both, 1)).mean((2, 3))
        return self.iou(x), None if self.seen is None else self.seen(x)
