"""One look at an item: its files are read and decoded once, and only facts are kept, no pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semiseg.data import decode
from semiseg.data.classes import pack
from semiseg.data.decode import shown
from semiseg.data.index import Item
from semiseg.errors import Problem, Refusal

MAX_KEPT = 4096
"""Different colours of one mask that are counted; a mask with more is no label image anyway."""
Progress = Callable[[int, int], None]
Known = dict[tuple[str, "Item", bool], "Seen"]
"""(split, item, rgb) -> what a look at it found."""


@dataclass
class MaskFacts:
    """What one mask file holds.

    values: per layer (one, or one per channel) {value: pixels}. colors: {0xRRGGBB: pixels} of a mask with RGB channels
    (`rgb`); `grey_rgb` when the three are equal everywhere. inner: values or colours of pixels whose four neighbours are
    equal, if there are more than two and one layer or RGB channels, else empty.
    """

    path: Path
    shape: tuple[int, ...]
    values: list[dict[int, int]] = field(default_factory=list)
    inner: dict[int, int] = field(default_factory=dict)
    colors: dict[int, int] | None = None
    rgb: bool = False
    grey_rgb: bool = False
    palette: tuple[tuple[int, int, int], ...] | None = None


@dataclass
class Seen:
    """What one item holds: content hash, (h, w, c, dtype) or None if the image is broken, masks, problems."""

    item: Item
    split: str
    digest: str = ""
    image: tuple[int, int, int, str] | None = None
    masks: list[MaskFacts] = field(default_factory=list)
    mask_digests: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """All masks of the item could be read."""
        return bool(self.masks) and len(self.masks) == len(self.item.masks)


def look_all(
    items: Sequence[tuple[str, Item]],
    workers: int,
    progress: Progress | None,
    rgb: bool = False,
    known: Known | None = None,
) -> list[Seen]:
    """`look` at every (split, item) with threads (decoding releases the lock); the order of `items` is kept.

    What is in `known` is not read again; what is read is put there.
    """
    known = {} if known is None else known
    new = list(dict.fromkeys((split, item, rgb) for split, item in items if (split, item, rgb) not in known))
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for number, (key, one) in enumerate(zip(new, pool.map(lambda key: look(*key), new), strict=True)):
            known[key] = one
            if progress is not None:
                progress(number + 1, len(new))
    return [known[split, item, rgb] for split, item in items]


def look(split: str, item: Item, rgb: bool = False) -> Seen:
    """Read the image and the masks that the item has. rgb: palette masks are wanted as their colours."""
    seen = Seen(item, split)
    try:
        data = decode.load(item.image)
        seen.digest = hashlib.sha256(data).hexdigest()
        picture = decode.image_from_bytes(data, item.image)
        seen.image = (*picture.array.shape[:3], str(picture.array.dtype))  # type: ignore[assignment]
        seen.problems += _image_problems(picture, item.image)
    except Refusal as refusal:
        seen.problems += refusal.problems
    for path in item.masks:
        try:
            data = decode.load(path)
            seen.mask_digests.append(hashlib.sha256(data).hexdigest())
            facts = mask_facts(decode.mask_from_bytes(data, path), path, rgb)
        except Refusal as refusal:
            seen.problems += refusal.problems
            continue
        seen.masks.append(facts)
        if seen.image is not None and facts.shape[:2] != seen.image[:2]:
            seen.problems.append(mismatch(path, facts.shape, item.image, seen.image[:2]))
    return seen


def mask_facts(mask: decode.Mask, path: Path, rgb: bool = False) -> MaskFacts:
    """Count the values (or colours) of a decoded mask."""
    array = decode.colors_of(mask) if rgb else mask.array
    facts = MaskFacts(path, array.shape, palette=None if rgb else mask.palette)
    facts.rgb = array.ndim == 3 and array.shape[2] == 3 and (mask.color or mask.palette is not None)
    facts.grey_rgb = facts.rgb and bool((array == array[..., :1]).all())
    if facts.rgb:
        packed = pack(array)
        facts.colors = _counted(packed)
        facts.inner = _counted(_interior(packed)) if 2 < len(facts.colors) < MAX_KEPT else {}
    layers = [array] if array.ndim == 2 else [array[..., k] for k in range(array.shape[2])]
    facts.values = [_histogram(layer) for layer in (layers[:1] if facts.grey_rgb else layers)]
    if len(facts.values) == 1 and len(facts.values[0]) > 2:
        facts.inner = _histogram(_interior(layers[0]))
    return facts


def _counted(packed: np.ndarray) -> dict[int, int]:
    keys, counts = np.unique(packed, return_counts=True)
    return dict(zip(keys[:MAX_KEPT].tolist(), counts[:MAX_KEPT].tolist(), strict=True))


def _histogram(array: np.ndarray) -> dict[int, int]:
    counts = np.bincount(array.ravel())
    return {int(v): int(counts[v]) for v in np.flatnonzero(counts)}


def _interior(array: np.ndarray) -> np.ndarray:
    """Values of the pixels whose four neighbours have the same value."""
    across, down = array[:, 1:] == array[:, :-1], array[1:] == array[:-1]
    same = across[1:-1, 1:] & across[1:-1, :-1] & down[1:, 1:-1] & down[:-1, 1:-1]
    inside: np.ndarray = array[1:-1, 1:-1][same]
    return inside


def _image_problems(picture: decode.Picture, path: Path) -> list[Problem]:
    array, where = picture.array, shown(path)
    meant = "nothing to do if that is meant"
    problems = [Problem("D34", where, note, meant, level="warning") for note in picture.notes]
    if array.dtype == np.float32 and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        fix = "replace those pixels, or remove the image"
        problems.append(Problem("D22", where, f"holds {count} pixels that are NaN or infinite", fix))
    elif array.min() == array.max():
        found = f"has the same value ({array.flat[0]}) in every pixel"
        problems.append(Problem("D28", where, found, "remove it if that is not meant", level="warning"))
    if min(array.shape[:2]) < 8:
        found = f"is {array.shape[1]}x{array.shape[0]}, and nothing below 8 pixels can be trained on"
        problems.append(Problem("D35", where, found, "remove it"))
    return problems


def mismatch(mask: Path, got: tuple[int, ...], image: Path, want: tuple[int, ...]) -> Problem:
    """D07 for a mask of `got` (height, width, ...) beside an image of `want`."""
    size = f"{want[1]}x{want[0]}"
    found = f"is {got[1]}x{got[0]} but {shown(image)} is {size}"
    fix = f"export the mask again at {size}, or remove the pair"
    if got[:2] == (want[1], want[0]):
        fix = "width and height are swapped: is the photo turned by its EXIF orientation? " + fix[0].upper() + fix[1:]
    return Problem("D07", shown(mask), found, fix)
