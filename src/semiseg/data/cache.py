"""Decode once: the pixels of one split, as they are (8 bits, 16 bits or float), in one flat memory-mapped file.

A store never holds more in memory than the pages that were touched, so memory does not grow with the data set.
Pixels of all images lie behind each other, rows of (P, C); labels likewise (P, L), L = 1 for classes. That makes a
random crop of many images of many sizes one gather.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semiseg import storage
from semiseg.batch import send
from semiseg.data.classes import ClassMap
from semiseg.data.decode import read_image
from semiseg.data.folder import read_label
from semiseg.data.index import Item
from semiseg.data.look import mismatch
from semiseg.data.setwide import working
from semiseg.errors import Problem, Refusal

SAMPLED_PIXELS = 1_000_000
Progress = Callable[[int, int], None]
T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Store:
    """One split. pixels (P,C) uint8 | int16 holding uint16 | float32; labels (P,L) uint8 or None."""

    names: list[str]
    height: Tensor
    width: Tensor
    offset: Tensor
    pixels: Tensor
    labels: Tensor | None
    dtype: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def channels(self) -> int:
        """Image channels C."""
        return self.pixels.shape[1]

    def to(self, device: torch.device | str) -> Store:
        """The same split with its pixels on a device."""
        if torch.device(device).type == "cpu":
            return self
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    @cached_property
    def sides(self) -> tuple[Tensor, Tensor]:
        """Heights and widths in the host's memory: every step asks for them, and must not wait for the device."""
        return self.height.cpu(), self.width.cpu()

    def take(self, rows: Sequence[int]) -> Store:
        """Some of the images, in this order and as often as they are named; the pixels are shared."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.height.device)
        chosen = {k: getattr(self, k)[index] for k in ("height", "width", "offset")}
        return replace(self, names=[self.names[i] for i in rows], **chosen)

    def image(self, i: int) -> Tensor:
        """Image i whole, (C,h,w) float32 in its own units."""
        return as_float(self._rows(self.pixels, i), self.dtype).permute(2, 0, 1)

    def label(self, i: int) -> Tensor | None:
        """Mask i whole: (h,w) or (L,h,w) uint8; None where there are no masks."""
        if self.labels is None:
            return None
        rows = self._rows(self.labels, i).permute(2, 0, 1)
        return rows if rows.shape[0] > 1 or self.stacked else rows[0]

    stacked: bool = False  # labels may overlap: keep the label axis even when it has length 1

    def _rows(self, flat: Tensor, i: int) -> Tensor:
        h, w, start = int(self.height[i]), int(self.width[i]), int(self.offset[i])
        return flat[start : start + h * w].view(h, w, -1)


def as_float(x: Tensor, dtype: str) -> Tensor:
    """Stored numbers to float32: uint16 is kept as int16 bit patterns because torch cannot gather uint16."""
    return (x.to(torch.int32) & 0xFFFF).float() if dtype == "uint16" else x.float()


def build(
    folder: Path,
    items: Sequence[Item],
    classes: ClassMap | None,
    *,
    resize: int = 0,
    workers: int = 2,
    progress: Progress | None = None,
) -> Store:
    """Decode `items` into `folder` unless it is already there and whole. classes None = without masks.

    resize: the shorter side of larger images becomes this many pixels (area-averaged; masks nearest); 0 = as they are.
    """
    if not storage.is_sealed(folder):
        _write(folder, items, classes, resize, workers, progress)
    return load(folder)


def _write(
    folder: Path, items: Sequence[Item], classes: ClassMap | None, resize: int, workers: int, progress: Progress | None
) -> None:
    storage.remove(folder)  # what a killed or damaged one left
    storage.make_folder(folder)
    table: dict[str, Any] = {"names": [], "height": [], "width": [], "offset": [], "dtype": "uint8", "channels": 1}
    table["stacked"] = bool(classes and classes.task == "multilabel")
    position = 0
    with storage.growing(folder / "pixels.bin") as pixels, storage.growing(folder / "labels.bin") as labels:
        decoded = _ordered(lambda item: _decode(item, classes, resize), items, workers)
        for done, (item, (image, label)) in enumerate(zip(items, decoded, strict=True), 1):
            h, w, c = image.shape
            if position and (str(image.dtype), c) != (table["dtype"], table["channels"]):
                found = f"has {c} channels of {image.dtype}, those before it {table['channels']} of {table['dtype']}"
                raise Refusal(Problem("D14", str(item.image), found, "convert it as the others are"))
            table["names"].append(item.name)
            table["height"].append(h)
            table["width"].append(w)
            table["offset"].append(position)
            table["dtype"], table["channels"] = str(image.dtype), c
            position += h * w
            pixels(np.ascontiguousarray(image).data)
            if label is not None:
                table["labels"] = label.shape[2]
                labels(np.ascontiguousarray(label).data)
            if progress:
                progress(done, len(items))
    storage.write_json(folder / "table.json", table)
    storage.seal(folder, {"images": len(items)})


def _decode(item: Item, classes: ClassMap | None, resize: int) -> tuple[np.ndarray, np.ndarray | None]:
    image = read_image(item.image)
    label = None
    if classes is not None:
        label = read_label(item, classes)
        label = label[..., None] if label.ndim == 2 else np.moveaxis(label, 0, -1)
        if label.shape[:2] != image.shape[:2]:  # all masks behind it would lie beside their pixels
            raise Refusal(mismatch(item.masks[0], label.shape, item.image, image.shape))
    height, width = image.shape[:2]
    size = working(height, width, resize)
    if size != (height, width):
        image = _resized(image, size, "bilinear")
        label = None if label is None else _resized(label, size, "nearest-exact")
    pad = [(0, max(0, 2 - s)) for s in size]  # a bilinear tap needs two pixels in each direction
    if any(p != (0, 0) for p in pad):
        image = np.pad(image, [*pad, (0, 0)], mode="edge")
        label = None if label is None else np.pad(label, [*pad, (0, 0)], constant_values=255)
    return image, label


def _resized(array: np.ndarray, size: Sequence[int], mode: str) -> np.ndarray:
    x = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1).unsqueeze(0)
    y: np.ndarray = F.interpolate(x, tuple(size), mode=mode, antialias=mode == "bilinear")[0].permute(1, 2, 0).numpy()
    return y if array.dtype == np.float32 else np.rint(y).astype(array.dtype)


def _ordered(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Map with threads, in order, holding at most 4 results per worker."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 4 * max(1, workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def load(folder: Path) -> Store:
    """Open a finished store; damaged sizes are refused, contents are memory-mapped."""
    storage.verify(folder, deep=False)
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    kind = {"uint16": np.int16}.get(table["dtype"], table["dtype"])
    pixels = _map(folder / "pixels.bin", kind, table["channels"])
    labels = _map(folder / "labels.bin", np.uint8, table["labels"]) if table.get("labels") else None
    ints = {k: torch.tensor(table[k], dtype=torch.int64) for k in ("height", "width", "offset")}
    return Store(table["names"], **ints, pixels=pixels, labels=labels, dtype=table["dtype"], stacked=table["stacked"])


def _map(path: Path, dtype: Any, columns: int) -> Tensor:
    if path.stat().st_size == 0:
        return torch.from_numpy(np.zeros((0, columns), dtype))
    flat = np.memmap(path, dtype, mode="c")  # copy-on-write: torch wants writable memory, the file stays as it is
    return torch.from_numpy(flat.reshape(-1, columns))


@dataclass(frozen=True)
class Units:
    """How stored numbers become unit range, per channel: (x - low) / (high - low). Fixed at training, kept by the model.

    device: where images are wanted, wherever the store lies; "" = there.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]  # of the labeled images, in unit range
    std: tuple[float, ...]
    device: str = ""

    @classmethod
    def from_json(cls, raw: Mapping[str, Iterable[float]]) -> Units:
        """Of four lists of numbers by their names."""
        low, high, mean, std = (tuple(float(v) for v in raw[k]) for k in ("low", "high", "mean", "std"))
        return cls(low, high, mean, std)

    def apply(self, x: Tensor) -> Tensor:
        """(…,C,H,W) float to unit range, on the device."""
        x = send(x, self.device) if self.device else x
        low, span = _bounds(self.low, self.high, x.device)
        return (x - low) / span


@lru_cache(maxsize=16)
def _bounds(low: tuple[float, ...], high: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """`low` and `high - low` beside the images, sent there once."""
    one, other = (torch.tensor(v).view(-1, 1, 1) for v in (low, high))
    return one.to(device), (other - one).to(device)


def measure(store: Store) -> Units:
    """8-bit images use 0..255; others the 0.1 and 99.9 percentile of each channel over the images."""
    step = max(1, len(store.pixels) // SAMPLED_PIXELS)
    sample = as_float(store.pixels[::step], store.dtype).numpy().astype(np.float64)
    if store.dtype == "uint8":
        low, high = np.zeros(sample.shape[1]), np.full(sample.shape[1], 255.0)
    else:
        low, high = np.percentile(sample, [0.1, 99.9], axis=0)
        high = np.where(high > low, high, low + 1)
    unit = (sample - low) / (high - low)
    std = np.maximum(unit.std(0), 1e-3)  # a constant channel must not divide by zero
    return Units.from_json({"low": low, "high": high, "mean": unit.mean(0), "std": std})


def has_an_up(store: Store, limit: float = 0.15, sure: float = 4.0) -> bool:
    """Do the masks tell up from down (streets do, cells do not)?

    Decides whether images may be flipped vertically and turned by right angles. Per image and class, the share of the
    upper half minus that of the lower half. True when the mean over images is large (total variation above `limit` of
    what is there) and, for some class, `sure` standard errors from 0; with fewer than 5 masks it cannot be told.
    """
    rows = [
        _upper_minus_lower(label, store.stacked) for i in range(len(store)) if (label := store.label(i)) is not None
    ]
    if len(rows) < 5:
        return False
    difference, mass = (torch.stack(x) for x in zip(*rows, strict=True))
    mean, error = difference.mean(0), difference.std(0) / len(rows) ** 0.5
    large = float(mean.abs().sum() / mass.mean(0).sum().clamp(min=1e-9)) > limit
    return large and bool((mean.abs() > sure * error.clamp(min=1e-9)).any())


def _upper_minus_lower(label: Tensor, stacked: bool) -> tuple[Tensor, Tensor]:
    """Difference and sum of the two halves' shares per class (256) or per label (L); ignored pixels count as a class."""
    middle = label.shape[-2] // 2
    halves = []
    for part in (label[..., :middle, :], label[..., middle:, :]):
        if stacked:
            halves.append((part == 1).flatten(1).float().mean(1))
        else:
            halves.append(torch.bincount(part.flatten().long(), minlength=256) / max(part.numel(), 1))
    return halves[0] - halves[1], halves[0] + halves[1]
