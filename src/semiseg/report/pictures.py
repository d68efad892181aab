"""Pictures a person can judge: any image as RGB, labels as tint and contour over it, inconsistency as a glow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semiseg.report.colors import RGB, hexa, is_background, palette

__all__ = ["SIDE", "Sample", "heat", "overlay", "palette", "png_bytes", "render_image", "write_samples"]

SIDE = 320
"""Longer side of a picture in pixels."""
GLOW: RGB = (255, 45, 120)
IGNORED: RGB = (128, 128, 128)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sample:
    """One image of the report and what is known of it.

    image (H,W) or (H,W,C) any dtype; labels (H,W) ids (binary 0/1) or (L,H,W) 0/1, 255 = ignore;
    inconsistency (H,W) or (L,H,W), bool or float in [0,1]; share = inconsistent share of the image in [0,1] or None.
    """

    name: str
    split: str
    image: Array
    truth: Array | None
    baseline: Array | None
    model: Array
    inconsistency: Array | None
    share: float | None


def render_image(array: Array) -> Array:
    """Any image as uint8 RGB (H,W,3). C = 1 grey, C = 2 red and green, C >= 3 the first three channels.

    uint8 is shown as it is; every other dtype is stretched per channel between its 1st and 99th percentile, which
    is what makes a 16-bit microscope image visible at all. nan and inf become the lowest value shown.
    """
    image = array[..., None] if array.ndim == 2 else array
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"an image is (H,W) or (H,W,C), this is {array.shape}")
    image = image[..., :3]
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    elif image.dtype != np.uint8:
        image = np.stack([_stretch(image[..., c]) for c in range(image.shape[2])], axis=-1)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    elif image.shape[2] == 2:
        image = np.concatenate([image, np.zeros_like(image[..., :1])], axis=2)
    return np.ascontiguousarray(image)


def overlay(image: Array, label: Array, colors: Sequence[RGB | None], ignore: int = 255, width: int = 2) -> Array:
    """`label` over the RGB `image` (H,W,3): a light tint, and a contour of `width` pixels, so the image stays visible.

    label (H,W): ids into `colors` (one single colour: 0/1), or (L,H,W) 0/1 per colour. A colour of None is not drawn;
    `ignore` pixels come hatched grey. Returns uint8 (H,W,3).
    """
    planes: list[tuple[Array, RGB]] = []
    for index, color in enumerate(colors):
        if color is not None:
            plane = label[index] == 1 if label.ndim == 3 else label == (1 if len(colors) == 1 else index)
            if plane.any():
                planes.append((plane, color))
    out = image.astype(np.float32)
    for plane, color in planes:
        out[plane] = 0.72 * out[plane] + 0.28 * np.asarray(color, np.float32)
    unknown = (label == ignore).all(axis=0) if label.ndim == 3 else label == ignore
    rows, columns = np.indices(unknown.shape)
    out[unknown & ((rows + columns) % 8 < 3)] = IGNORED
    for plane, color in planes:
        out[plane & ~_inner(plane, width)] = color
    return out.round().clip(0, 255).astype(np.uint8)


def heat(image: Array, inconsistency: Array) -> Array:
    """Where the committee disagrees, glowing over the greyed RGB `image` (H,W,3); of several channels the worst counts.

    inconsistency (H,W) or (L,H,W), bool or float in [0,1]. Returns uint8 (H,W,3).
    """
    amount = np.nan_to_num(inconsistency.astype(np.float32)).clip(0, 1)
    if amount.ndim == 3:
        amount = amount.max(axis=0)
    grey = image.astype(np.float32).mean(axis=2, keepdims=True) * 0.75
    alpha = 0.9 * amount[..., None]
    return ((1 - alpha) * grey + alpha * np.asarray(GLOW, np.float32)).round().clip(0, 255).astype(np.uint8)


def png_bytes(image: Array) -> bytes:
    """A uint8 RGB (H,W,3) picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_samples(
    run: Path, samples: Sequence[Sample], names: Sequence[str], given: Sequence[Sequence[int]] | None = None
) -> None:
    """Write `run/samples/`: PNG files of at most SIDE pixels, samples.json and palette.json.

    names: the classes as in ClassMap.names (binary: the one foreground name); given: the user's colours, or None.
    Files are numbered, never named after the user's images. Raises Refusal or OSError as semiseg.storage does.
    """
    from semiseg.storage import write_bytes, write_json

    folder = run / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    colors = palette(names, given)
    drawn = [None if is_background(names, i) else color for i, color in enumerate(colors)]
    entries = []
    for number, sample in enumerate(samples):
        files: dict[str, str | None] = {}
        for part, picture in _pictures(sample, drawn).items():
            files[part] = None if picture is None else f"{number:02d}-{part}.png"
            if picture is not None:
                write_bytes(folder / f"{number:02d}-{part}.png", png_bytes(picture))
        said = {"name": _utf8(sample.name), "split": sample.split, "share": sample.share}
        entries.append({**said, **files, "classes": [_utf8(n) for n in _present(sample, names)]})
    write_json(
        folder / "palette.json", [{"name": _utf8(n), "color": hexa(c)} for n, c in zip(names, colors, strict=True)]
    )
    write_json(folder / "samples.json", entries)


def _utf8(text: str) -> str:
    """`text` without lone surrogates: a file name need not be valid UTF-8, JSON must be."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _pictures(sample: Sample, colors: Sequence[RGB | None]) -> dict[str, Array | None]:
    """The five pictures of a sample at display size; None for what is not known."""
    image = _display(sample.image)
    size = image.shape[:2]

    def tinted(label: Array | None) -> Array | None:
        return None if label is None else overlay(image, _nearest(label, size), colors)

    doubt = sample.inconsistency
    return {
        "image": image,
        "truth": tinted(sample.truth),
        "baseline": tinted(sample.baseline),
        "model": tinted(sample.model),
        "inconsistency": None if doubt is None else heat(image, _nearest(doubt, size)),
    }


def _display(array: Array) -> Array:
    """The image as RGB with a longer side of SIDE pixels; a small one is enlarged, so that contours stay thin."""
    height, width = array.shape[:2]
    step = max(1, max(height, width) // (4 * SIDE))  # a 50 MP image needs no float copy of all its pixels
    picture = Image.fromarray(render_image(array[::step, ::step]))
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC))


def _nearest(label: Array, size: tuple[int, int]) -> Array:
    """`label` (…,H,W) at `size` (height, width) without inventing values."""
    rows = (np.arange(size[0]) * label.shape[-2] // size[0]).astype(np.intp)
    columns = (np.arange(size[1]) * label.shape[-1] // size[1]).astype(np.intp)
    return label[..., rows[:, None], columns]


def _stretch(channel: Array) -> Array:
    values = channel.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros(channel.shape, np.uint8)
    low, high = np.percentile(finite, (1, 99))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    scaled = (np.nan_to_num(values, nan=low, posinf=low, neginf=low) - low) / ((high - low) or 1.0)
    return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


def _inner(plane: Array, width: int) -> Array:
    """`plane` without its outermost `width` pixels; the border of the picture is no contour."""
    inner = plane
    for _ in range(width):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _present(sample: Sample, names: Sequence[str]) -> list[str]:
    """The names drawn in any of the sample's pictures, in the order of the classes."""
    labels = [label for label in (sample.truth, sample.baseline, sample.model) if label is not None]
    if sample.model.ndim == 3:
        return [n for i, n in enumerate(names) if any((label[i] == 1).any() for label in labels)]
    ids = {int(i) for label in labels for i in np.unique(label)}
    if len(names) == 1:
        return list(names) if 1 in ids else []
    return [n for i, n in enumerate(names) if i in ids and not is_background(names, i)]
