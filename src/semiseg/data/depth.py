"""Files whose samples have other than 8 bits, of which Pillow makes 8: all 16 bits of a PNG, and grey that was stretched."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from PIL import Image, ImageOps

PNG = b"\x89PNG\r\n\x1a\n"
_PGM = re.compile(rb"P[25](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d+)")


def wide(data: bytes) -> tuple[str, ...]:
    """How to read the bytes of a 16-bit PNG in colour or with alpha; empty for anything else.

    Pillow makes 8 bits of them: "RGB;16B" is the first byte of each sample, "RGB;16L" the second. Grey and alpha have four
    bytes together, as RGBA has.
    """
    if data[:8] != PNG or data[24] != 16:
        return ()
    return {2: ("RGB;16B", "RGB;16L"), 4: ("RGBA",), 6: ("RGBA;16B", "RGBA;16L")}.get(data[25], ())


def sixteen(data: bytes, opened: Callable[[], AbstractContextManager[Image.Image]]) -> np.ndarray:
    """(H,W,2|3|4) uint16 of a PNG that `wide` knows: grey and alpha, RGB, or RGB and alpha."""
    parts = []
    for raw in wide(data):
        with opened() as image:
            lazy: Any = image
            lazy.tile = [tile._replace(args=raw) for tile in lazy.tile]
            parts.append(np.array(ImageOps.exif_transpose(lazy)))
    high, low = parts if len(parts) == 2 else (parts[0][..., ::2], parts[0][..., 1::2])
    return high.astype(np.uint16) << 8 | low


def narrowed(array: np.ndarray) -> np.ndarray:
    """16-bit colours as the 8-bit ones that they were made of (each byte twice), or as they are where they are no such."""
    return (array >> 8).astype(np.uint8) if (array >> 8 == array & 255).all() else array


def stretched(data: bytes) -> str:
    """What makes the grey values of a file other numbers than it holds (2 or 4 bits, a largest value); "" if nothing."""
    if data[:8] == PNG and data[25] == 0 and data[24] in (2, 4):
        return f"has {data[24]} bits a pixel"
    found = _PGM.match(data)
    return f"has {int(found[1])} as its largest value" if found and int(found[1]) not in (255, 65535) else ""
