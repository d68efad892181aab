"""The only two decoders: one for images, one for masks. Whatever a file holds, the error names it.

Format is decided by content, never by suffix. Pillow reads PNG, JPEG, BMP, GIF, WebP and PNM (an allow-list: the other
plugins are attack surface), tifffile reads TIFF. Traps met in the wild: `convert("L")` on a palette mask turns the
ids 0,1,2,3 into grey 0,38,75,113; 16-bit `convert` clips; a five-page TIFF reads silently as its first page.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps

from semiseg.data import depth, tiff
from semiseg.errors import Problem, Refusal

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"})
"""Suffixes (lower case) that make a file an image or a mask candidate; everything else in a folder is left alone."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")
PIXEL_LIMIT = 50_000_000
"""Pixels (height x width) above which a file is refused by its header, before any decoding."""

_KNOWN = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP",
          ".tif": "TIFF", ".tiff": "TIFF", ".pgm": "PPM", ".ppm": "PPM", ".pnm": "PPM"}  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """A decoded image: `array` (H,W,C) uint8, uint16 or float32, and what was done to it on the way."""

    array: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mask:
    """A decoded mask, values untouched: `array` (H,W) integers, or (H,W,L) where `color` says whether L=3 are RGB."""

    array: np.ndarray
    palette: tuple[tuple[int, int, int], ...] | None = None
    color: bool = False
    notes: tuple[str, ...] = ()


def shown(path: Path | str) -> str:
    """The path as the user typed it, with unprintable characters escaped so that one problem stays one line."""
    text = path.as_posix() if isinstance(path, Path) else path
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def refusal(code: str, path: Path | str, found: str, fix: str) -> Refusal:
    """A Refusal (exit 3) about one file."""
    return Refusal(Problem(code, shown(path), found, fix))


def load(path: Path) -> bytes:
    """All bytes of a regular file. Raises Refusal D17 (unreadable, a loop of links, not a regular file)."""
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):  # opening a FIFO would wait forever
            raise refusal("D17", path, "is not a regular file", "remove it from the folder")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        try:
            info = os.lstat(path)
            reason += f" (mode {stat.filemode(info.st_mode)}, owner {info.st_uid})"
        except OSError:
            pass
        raise refusal("D17", path, f"cannot be read: {reason}", "make it readable, or remove it") from None


def read_image(path: Path, *, limit: int = PIXEL_LIMIT) -> np.ndarray:
    """The image at `path` as (H,W,C) uint8, uint16 or float32.

    Grey is C=1; palette and CMYK become RGB; alpha is dropped; EXIF orientation is applied; 16 bits are kept.
    Raises Refusal naming the path: D12 not decodable, D13 above `limit` pixels, D17 unreadable, D21 several pages.
    """
    return image_from_bytes(load(path), path, limit=limit).array


def read_mask(path: Path, *, limit: int = PIXEL_LIMIT, rgb: bool = False) -> np.ndarray:
    """The raw values of the mask at `path`: (H,W) integers, (H,W,3) colours or (H,W,L) channels.

    A palette mask gives its indices (its colours with `rgb`), a 1-bit mask 0 and 1. Raises Refusal as `read_image`, and
    D10 (values that are no labels) or D11 (JPEG and other lossy files).
    """
    mask = mask_from_bytes(load(path), path, limit=limit)
    return colors_of(mask) if rgb else mask.array


def says_nothing(palette: Sequence[tuple[int, int, int]]) -> bool:
    """Is it a ramp of grey values? Then indices are numbers and no colours."""
    return all(color == (k, k, k) for k, color in enumerate(palette))


def colors_of(mask: Mask) -> np.ndarray:
    """A palette mask's colours as (H,W,3) uint8; any other mask as it is."""
    if mask.palette is None:
        return mask.array
    table = np.zeros((256, 3), np.uint8)
    table[: len(mask.palette)] = mask.palette
    colors: np.ndarray = table[mask.array]
    return colors


def image_from_bytes(data: bytes, path: Path, *, limit: int = PIXEL_LIMIT) -> Picture:
    """`read_image` for bytes already read; `path` is for messages and the suffix only."""
    return _guard(lambda raw: _image(raw, path, limit), data, path)


def mask_from_bytes(data: bytes, path: Path, *, limit: int = PIXEL_LIMIT) -> Mask:
    """`read_mask` for bytes already read, with palette and notes."""
    return _guard(lambda raw: _mask(raw, path, limit), data, path)


def _guard(decode: Callable[[bytes], T], data: bytes, path: Path) -> T:
    """Run a decoder; every error a library can raise becomes a Refusal with the path."""
    if not data:
        raise refusal("D12", path, "is an empty file (0 bytes)", "copy it again from its source, or remove it")
    try:
        return decode(data)
    except Refusal:
        raise
    except tiff.TooLarge as error:
        raise _too_large(path, str(error)) from None
    except tiff.Codec as error:
        found = f"is compressed by {error}, which needs the package imagecodecs"
        raise refusal("D12", path, found, "pip install imagecodecs, or save it uncompressed") from None
    except tiff.Pages as error:
        raise _pages(path, str(error)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(path, "more than 80 million pixels") from None
    except Image.UnidentifiedImageError:
        found = "is not an image that semiseg reads (PNG, JPEG, TIFF, BMP, GIF, WebP, PNM)"
        raise refusal("D12", path, found, "export it as PNG or TIFF, or remove it") from None
    except Exception as error:  # Pillow and tifffile raise ValueError, SyntaxError, struct.error, zlib.error, ...
        reason = " ".join(f"{error}".split())[:80] or type(error).__name__
        found = f"cannot be decoded ({reason}): damaged or truncated"
        raise refusal("D12", path, found, "copy it again from its source, or remove it") from None


def _too_large(path: Path, size: str) -> Refusal:
    return refusal("D13", path, f"has {size}, more than the limit of {PIXEL_LIMIT // 10**6} million",
                   "cut it into tiles, or remove it")  # fmt: skip


def _pages(path: Path, found: str) -> Refusal:
    return refusal("D21", path, found, "save one file per page, or one file with the pages as channels (axes YXC)")


def _open(data: bytes, path: Path, limit: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > limit:
        raise refusal("D13", path, f"has {image.width}x{image.height} pixels, more than the limit of {limit:,}",
                      "cut it into tiles, or remove it")  # fmt: skip
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones write JPEG with a second picture: the first one is the photo
        raise _pages(path, f"holds {frames} pages or frames")
    return image


def _suffix_note(path: Path, kind: str) -> tuple[str, ...]:
    kind = "JPEG" if kind == "MPO" else kind
    return () if _KNOWN.get(path.suffix.lower(), kind) == kind else (f"is a {kind} file whatever its suffix says",)


def _image(data: bytes, path: Path, limit: int) -> Picture:
    if tiff.is_tiff(data):
        array, notes = tiff.image(data, limit)
        return Picture(array, notes + _suffix_note(path, "TIFF"))
    with _open(data, path, limit) as image:
        image.load()
        notes = _suffix_note(path, str(image.format))
        straight = ImageOps.exif_transpose(image)
    array, more = _sixteen(data, path, limit) if depth.wide(data) else _pixels(straight)
    return Picture(array, notes + more)


def _sixteen(data: bytes, path: Path, limit: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(H,W,1|3) uint16 without alpha, and notes."""
    array = depth.sixteen(data, lambda: _open(data, path, limit))
    return (array, ()) if array.shape[2] == 3 else (np.ascontiguousarray(array[..., :-1]), tiff.dropped(array[..., -1]))


def _pixels(image: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    """(H,W,C) of a Pillow image, and notes on conversions that lose something."""
    mode, notes = image.mode, ()  # type: tuple[str, tuple[str, ...]]
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and "transparency" in image.info):
        notes = tiff.dropped(np.asarray(image.convert("RGBA"))[..., 3])
    if mode in ("1", "LA", "La"):
        image = image.convert("L")
    elif mode.startswith("I"):
        return np.asarray(image)[..., None].astype(np.uint16), notes
    elif mode == "F":
        return np.asarray(image, np.float32)[..., None], notes
    elif mode not in ("L", "RGB"):
        if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            notes = (f"is {mode} and converted to RGB",)
        image = image.convert("RGB")
    array = np.array(image)
    return (array[..., None] if array.ndim == 2 else array), notes


def _mask(data: bytes, path: Path, limit: int) -> Mask:
    if tiff.is_tiff(data):
        if tiff.lossy(data):
            raise _lossy(path, "a JPEG-compressed TIFF")
        array, palette, color = tiff.mask(data, limit)
        return _labels(array, palette, color, path)
    with _open(data, path, limit) as image:
        if image.format in ("JPEG", "MPO"):
            raise _lossy(path, "a JPEG")
        if image.format == "WEBP" and b"VP8L" not in data[:65536]:
            raise _lossy(path, "a lossy WebP")
        image.load()
        straight: Any = ImageOps.exif_transpose(image)
        palette = _palette(straight) if straight.mode in ("P", "PA") else None
        if straight.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            straight = straight.convert("RGB")
        array = np.array(straight)
        if (how := depth.stretched(data)) and not set(np.unique(array)) <= {0, 255, 65535}:
            found = f"{how}, so its values may be ids or levels of grey"
            raise refusal("D10", path, found, "save class ids as 8-bit PNG")
        if depth.wide(data):
            array = depth.narrowed(depth.sixteen(data, lambda: _open(data, path, limit)))
        if straight.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
            alpha = array[..., -1]
            if alpha.min() != alpha.max():
                raise refusal("D10", path, "has a varying alpha channel, so its labels are unclear",
                              "export the mask without transparency")  # fmt: skip
            array = array[..., 0] if array.shape[2] == 2 else array[..., :3]
        return _labels(array, palette, array.ndim == 3, path)


def _lossy(path: Path, kind: str) -> Refusal:
    fix = "export the masks as PNG from the labelling program (converting this file does not bring the labels back)"
    return refusal("D11", path, f"is {kind}: lossy compression invents label values", fix)


def _palette(image: Image.Image) -> tuple[tuple[int, int, int], ...]:
    flat = image.getpalette("RGB") or []
    return tuple((flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3))


def _labels(array: np.ndarray, palette: tuple[tuple[int, int, int], ...] | None, color: bool, path: Path) -> Mask:
    """Only whole, non-negative numbers are labels; wider types shrink to uint8 or uint16 when their values fit."""
    if array.dtype == bool:  # Pillow hands out 1-bit pixels as bytes of 255 that call themselves bool
        array = (array.view(np.uint8) != 0).astype(np.uint8)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise refusal("D10", path, "holds fractions, which are no class ids", "save whole numbers as 8-bit PNG")
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise refusal("D10", path, f"has the type {array.dtype}", "save whole numbers as 8-bit PNG")
    if array.dtype not in (np.uint8, np.uint16):
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        if low < 0 or high > 65535:
            raise refusal("D10", path, f"holds values from {low} to {high}", "save class ids 0 to 254 as 8-bit PNG")
        array = array.astype(np.uint8 if high < 256 else np.uint16)
    return Mask(np.ascontiguousarray(array), palette, color)
