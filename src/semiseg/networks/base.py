"""The shape of a network: `encode`, `decode`, `head`, `logits`; the package knows nothing else about one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

Level = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Features:
    """What an encoder hands to its decoder: opaque, but it can be perturbed, sliced and joined.

    `levels`: the feature maps a perturbation may touch, (B,c,h,w) each, fine to coarse.
    `size`: height and width of the input; `padded`: the same after padding to the stride of the network.
    `rest`: whatever else the decoder needs (the input itself, empty levels, prefix tokens); batch first as well.
    """

    levels: list[Tensor]
    size: tuple[int, int]
    padded: tuple[int, int]
    rest: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.levels[0])

    def __getitem__(self, index: slice | Tensor) -> Features:
        """Some of the images: `features[b:]`, or an index or boolean tensor of the batch."""
        return self._each(lambda x: x[index])

    def map(self, fn: Level) -> Features:
        """`fn(level index, tensor)` on every level; nothing else changes."""
        return replace(self, levels=[fn(i, x) for i, x in enumerate(self.levels)])

    def detach(self) -> Features:
        """The same values, cut from the graph."""
        return self._each(Tensor.detach)

    def _each(self, fn: Callable[[Tensor], Tensor]) -> Features:
        return replace(self, levels=[fn(x) for x in self.levels], rest={k: fn(x) for k, x in self.rest.items()})

    @staticmethod
    def cat(parts: Sequence[Features]) -> Features:
        """The images of all parts, in order. Raises ValueError when the parts are not of one size."""
        if len({part.size for part in parts}) != 1:
            raise ValueError(f"features of one size expected, got {[part.size for part in parts]}")
        levels = [torch.cat(same) for same in zip(*(part.levels for part in parts), strict=True)]
        return replace(parts[0], levels=levels, rest={k: torch.cat([p.rest[k] for p in parts]) for k in parts[0].rest})


class Network(nn.Module):
    """An encoder, a decoder and a head; (B,C,H,W) in the unit range in, logits (B,K,H,W) out, for any H and W.

    A subclass sets `decoded_channels` and `level_channels`, and writes `extract`, `decode`, `head` and `backbone`.
    `weights` says what was loaded into the encoder, and is empty from scratch.
    `mean` and `std`: one number per channel, of inputs in the unit range; the network normalises by itself.
    """

    mean: Tensor
    std: Tensor
    decoded_channels: int
    level_channels: tuple[int, ...]
    weights: str = ""
    frozen = False

    def __init__(
        self,
        channels: int,
        classes: int,
        stride: int,
        mean: Iterable[float] | None = None,
        std: Iterable[float] | None = None,
    ) -> None:
        super().__init__()
        if channels < 1 or classes < 1:
            raise ValueError(f"at least one channel and one class expected, got {channels} and {classes}")
        self.channels, self.classes, self.stride = channels, classes, stride
        self.least = stride  # pixels a side below which the decoder has nothing to work on
        self.register_buffer("mean", _per_channel(mean, channels, 0.0))
        self.register_buffer("std", _per_channel(std, channels, 1.0))
        if not self.std.is_meta and not bool((self.std > 0).all()):
            raise ValueError(f"std must be positive, got {self.std.flatten().tolist()}")

    def extract(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """`levels` and `rest` of a normalised, padded input."""
        raise TypeError(f"{type(self).__name__} has no extract")

    def decode(self, features: Features) -> Tensor:
        """Decoder map (B, decoded_channels, h, w): what the head sees, and what a representation head may see."""
        raise TypeError(f"{type(self).__name__} has no decode")

    def head(self, decoded: Tensor) -> Tensor:
        """Logits (B,K,h,w) at the resolution of the decoder map."""
        raise TypeError(f"{type(self).__name__} has no head")

    def backbone(self) -> nn.Module:
        """The part that pretrained weights go into."""
        raise TypeError(f"{type(self).__name__} has no backbone")

    def encode(self, x: Tensor) -> Features:
        """Normalise, pad right and bottom to a multiple of the stride, and run the encoder on (B,C,H,W)."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"images (B,{self.channels},H,W) expected, got {tuple(x.shape)}")
        height, width = x.shape[-2:]
        x = (x - self.mean) / self.std
        bottom, right = self._padding(height), self._padding(width)
        if bottom or right:  # replicated, because reflection needs images larger than the padding
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        levels, rest = self.extract(x)
        return Features(levels, (height, width), (height + bottom, width + right), rest)

    def _padding(self, length: int) -> int:
        return max(-length % self.stride, self.least - length)

    def resize(self, low: Tensor, features: Features, size: tuple[int, int] | None = None) -> Tensor:
        """A map at the decoder's resolution -> input size, or `size`: bilinear to the padded size, then cropped."""
        full = bilinear(low, features.padded)[..., : features.size[0], : features.size[1]]
        return full if size is None else bilinear(full, size)

    def logits(self, features: Features, size: tuple[int, int] | torch.Size | None = None) -> Tensor:
        """Logits (B,K,H,W) at the size of the input, or at `size`."""
        return self.resize(self.head(self.decode(features)), features, None if size is None else (size[0], size[1]))

    def forward(self, x: Tensor) -> Tensor:
        """`logits(encode(x))`."""
        return self.logits(self.encode(x))

    def freeze(self) -> Self:
        """Keep the encoder as it is: no gradient, and eval mode whatever the network is put into. Returns itself."""
        self.frozen = True
        self.backbone().requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; a frozen encoder stays in eval."""
        super().train(mode)
        if self.frozen:
            self.backbone().eval()
        return self


def _per_channel(values: Iterable[float] | None, channels: int, default: float) -> Tensor:
    numbers = [default] * channels if values is None else [float(v) for v in values]
    if len(numbers) != channels:
        raise ValueError(f"{channels} numbers expected, one per channel, got {len(numbers)}")
    return torch.tensor(numbers, dtype=torch.float32).view(1, channels, 1, 1)


def bilinear(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map at another size."""
    # corners aligned, as in the heads of smp and in the code of UniMatch
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


@contextmanager
def batch_stats(module: nn.Module, track: bool = False, *, use_batch: bool = False) -> Iterator[None]:
    """The one place that touches batch normalisation.

    `track=False`: layers in train mode normalise by the batch, but leave running statistics and counters alone.
    `use_batch=True`: layers in eval mode (a teacher) normalise by the batch too, for as long as the context lasts. Those of
    a frozen encoder stay as they are.
    """
    frozen = {
        m for net in module.modules() if isinstance(net, Network) and net.frozen for m in net.backbone().modules()
    }
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and m not in frozen]
    before = [(m.training, m.track_running_stats) for m in norms]
    try:
        for m in norms:
            m.training = m.training or use_batch
            if m.training and not track:
                m.track_running_stats = False
        yield
    finally:
        for m, (training, tracking) in zip(norms, before, strict=True):
            m.training, m.track_running_stats = training, tracking


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for as long as the context lasts; afterwards every layer is in the mode it was in."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training


def parameters_count(module: nn.Module, statistics: bool = True) -> int:
    """Numbers in a network: parameters, and (`statistics`) the running mean and variance of batch normalisation."""
    count = sum(p.numel() for p in module.parameters())
    if statistics:
        norms = (m for m in module.modules() if isinstance(m, _NormBase))
        count += sum(b.numel() for m in norms for b in (m.running_mean, m.running_var) if b is not None)
    return count
