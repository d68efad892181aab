"""Crop, warp and augment in batches, on the device, for any number of channels. One geometry moves everything.

Geometry is a 2×2 matrix and a centre per sample; image pixels are read bilinearly, masks and planes from the nearest
pixel, both straight out of the flat store. Photometry works in unit range with parameters drawn per sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg.batch import IGNORE, send
from semiseg.data.cache import Store, Units, as_float


@dataclass(frozen=True)
class Geometry:
    """Ranges to draw from. scale: source pixels per output pixel; rotate: degrees; turn: right angles and up-down flips."""

    scale: tuple[float, float] = (1.0, 1.0)
    rotate: float = 0.0
    flip: bool = False
    turn: bool = False


@dataclass(frozen=True)
class Photometry:
    """Ranges to draw from; p is the probability of each group. All act per sample, on any number of channels."""

    jitter: float = 0.0  # probability of brightness, contrast, saturation and per-channel gain
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    gain: float = 0.0  # per channel: the n-channel stand-in for hue
    gray: float = 0.0  # probability of replacing all channels by their mean
    blur: float = 0.0  # probability of a Gaussian blur, sigma ~ U(.1, 2)
    noise: float = 0.0  # standard deviation ~ U(0, noise)


PLAIN = Geometry()
DEFAULT = Geometry(scale=(0.7, 1.4), rotate=15.0, flip=True)
VIEWS = {
    "train": Photometry(jitter=0.5, brightness=0.1, contrast=0.25, gain=0.05, saturation=0.2, blur=0.1, noise=0.03),
    "mild": Photometry(jitter=0.5, brightness=0.1, contrast=0.25, gain=0.05, saturation=0.2),
    "strong": Photometry(jitter=0.8, brightness=0.3, contrast=0.5, saturation=0.5, gain=0.15, gray=0.2, blur=0.5),
}
"""What each view does to the colours. "train" is what labeled images get; "strong" follows UniMatch's semi.py:51-60."""


@dataclass(frozen=True)
class Crop:
    """Where each output pixel comes from. x, y (B,S,S) source coordinates; index (B,) images of the store."""

    index: Tensor
    x: Tensor
    y: Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """U(low, high) on the CPU."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def draw_crop(store: Store, index: Tensor, size: int, geometry: Geometry, generator: torch.Generator) -> Crop:
    """Random crops of `size`² px, inside the image where it is large enough, centred where it is not.

    The corners of a rotated crop may reach beyond the image; `valid` says where.
    """
    n = len(index)
    height, width = (side[index].float() for side in store.sides)
    scale = uniform((n,), math.log(geometry.scale[0]), math.log(geometry.scale[1]), generator).exp()
    angle = uniform((n,), -geometry.rotate, geometry.rotate, generator) * math.pi / 180
    quarter = torch.randint(4, (n,), generator=generator) if geometry.turn else torch.zeros(n)
    mirror = 1 - 2 * (torch.rand(n, generator=generator) < 0.5).float() if geometry.flip else torch.ones(n)
    angle = angle + quarter * (math.pi / 2)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    reach = size * scale / 2
    place = torch.rand(2, n, generator=generator)
    cx, cy = _centre(width, reach, place[0]), _centre(height, reach, place[1])
    if geometry == PLAIN:  # whole pixels, so that nothing is interpolated
        cx, cy = (cx - size / 2).round() + size / 2, (cy - size / 2).round() + size / 2
    steps = torch.arange(size) + 0.5 - size / 2
    v, u = steps.view(1, -1, 1), steps.view(1, 1, -1) * mirror.view(-1, 1, 1)
    x = cos.view(-1, 1, 1) * u - sin.view(-1, 1, 1) * v + cx.view(-1, 1, 1) - 0.5
    y = sin.view(-1, 1, 1) * u + cos.view(-1, 1, 1) * v + cy.view(-1, 1, 1) - 0.5
    device = store.pixels.device
    return Crop(send(index, device), send(x, device), send(y, device))


def _centre(side: Tensor, reach: Tensor, place: Tensor) -> Tensor:
    room = (side - 2 * reach).clamp(min=0)
    return torch.where(room > 0, reach + place * room, side / 2)


def valid(store: Store, crop: Crop) -> Tensor:
    """(B,1,S,S) bool: the output pixel lies inside its image."""
    width, height = store.width[crop.index].view(-1, 1, 1), store.height[crop.index].view(-1, 1, 1)
    inside = (crop.x > -0.5) & (crop.x < width - 0.5) & (crop.y > -0.5) & (crop.y < height - 0.5)
    return inside.unsqueeze(1)


def take_pixels(store: Store, crop: Crop, units: Units) -> Tensor:
    """Bilinear image crops (B,C,S,S) in unit range; beyond the border the edge pixel is repeated."""
    width, height = store.width[crop.index].view(-1, 1, 1), store.height[crop.index].view(-1, 1, 1)
    offset = store.offset[crop.index].view(-1, 1, 1)
    c = store.channels
    x = torch.minimum(crop.x.clamp(min=0), (width - 1).float())
    y = torch.minimum(crop.y.clamp(min=0), (height - 1).float())
    x0, y0 = torch.minimum(x.long(), width - 2), torch.minimum(y.long(), height - 2)
    fx, fy = (x - x0).unsqueeze(-1), (y - y0).unsqueeze(-1)
    start = (offset + y0 * width + x0).flatten()
    # two neighbours lie behind each other in memory: one row of 2C numbers fetches both
    pairs = store.pixels.as_strided((len(store.pixels) - 1, 2 * c), (c, 1))
    shape = (*crop.x.shape, 2 * c)
    below = (width.expand_as(x0)).flatten()
    upper = as_float(pairs.index_select(0, start).view(shape), store.dtype)
    lower = as_float(pairs.index_select(0, start + below).view(shape), store.dtype)
    both = torch.lerp(upper, lower, fy)
    image = torch.lerp(both[..., :c], both[..., c:], fx).permute(0, 3, 1, 2).contiguous()
    return units.apply(image)


def take_labels(flat: Tensor, store: Store, crop: Crop) -> Tensor:
    """Nearest labels (B,L,S,S) uint8 from rows (P,L) that lie like the store's pixels; 255 beyond the border."""
    width, height = store.width[crop.index].view(-1, 1, 1), store.height[crop.index].view(-1, 1, 1)
    x = torch.minimum(crop.x.round().long().clamp(min=0), width - 1)
    y = torch.minimum(crop.y.round().long().clamp(min=0), height - 1)
    rows = (store.offset[crop.index].view(-1, 1, 1) + y * width + x).flatten()
    label = flat.index_select(0, rows).view(*crop.x.shape, -1).permute(0, 3, 1, 2)
    return label.masked_fill(~valid(store, crop), IGNORE)


def photometric(image: Tensor, policy: Photometry, generator: torch.Generator) -> Tensor:
    """A recoloured copy of (B,C,H,W) unit-range images; parameters differ per sample, channels may be any number."""
    b, c = image.shape[:2]

    def draw(spread: float, p: float, channels: int = 1) -> Tensor:
        value = uniform((b, channels, 1, 1), -spread, spread, generator)
        on = torch.rand(b, 1, 1, 1, generator=generator) < p
        return send(value * on, image.device)

    gain = (1 + draw(policy.contrast, policy.jitter)) * (1 + draw(policy.gain, policy.jitter, c))
    shift = draw(policy.brightness, policy.jitter)
    centre = image.mean((2, 3), keepdim=True)
    out = torch.addcmul(centre * (1 - gain) + shift, image, gain)
    if c > 1:
        colour = 1 + draw(policy.saturation, policy.jitter)
        colour = colour * send(torch.rand(b, 1, 1, 1, generator=generator) >= policy.gray, image.device)
        out = torch.lerp(out.mean(1, keepdim=True), out, colour)
    if policy.blur:
        out = _blur(out, policy.blur, generator)
    if policy.noise:
        level = uniform((b, 1, 1, 1), 0, policy.noise, generator)
        out = out + send(torch.randn(image.shape, generator=generator) * level, image.device)
    return out


def _blur(image: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Separable Gaussian of 9 taps on the samples that are drawn, sigma ~ U(.1, 2) px."""
    b, c = image.shape[:2]
    chosen = (torch.rand(b, generator=generator) < p).nonzero().flatten()
    sigma = uniform((len(chosen), 1), 0.1, 2.0, generator)
    if not len(chosen):
        return image
    taps = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma) ** 2)
    taps = send((taps / taps.sum(1, keepdim=True)).repeat_interleave(c, 0), image.device)
    rows = send(chosen, image.device)
    picked = image[rows].flatten(0, 1).unsqueeze(0)
    groups = picked.shape[1]
    padded = F.pad(picked, (4, 4, 4, 4), mode="replicate")
    across = F.conv2d(padded, taps.view(-1, 1, 1, 9), groups=groups)
    out = F.conv2d(across, taps.view(-1, 1, 9, 1), groups=groups)
    return image.index_copy(0, rows, out.view(len(chosen), c, *image.shape[2:]))
