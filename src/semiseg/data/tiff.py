"""TIFF with its axes put right: n channels, 16 bits, planar or interleaved; a stack of pages is refused.

Sources: TIFF 6.0 tags; axes and series as tifffile reports them ("YXS", "SYX", "CYX"; "QYX" = a bare numpy array).
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from PIL import Image

CHANNELS_LIMIT = 16
"""A bare (n,H,W) array counts as channels first when n is at most this; otherwise it is a stack."""
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damaged files are reported by us, with their path


class TooLarge(Exception):
    """The header announces more pixels than the limit."""


class Codec(Exception):
    """Compressed in a way, which it names, that only imagecodecs undoes."""


class Pages(Exception):
    """Several pages that are not the channels of one image."""


def is_tiff(data: bytes) -> bool:
    """True for classic and BigTIFF, both byte orders."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def lossy(data: bytes) -> bool:
    """True when the first page is JPEG- or WebP-compressed."""
    with _file(data) as file:
        return int(file.pages[0].compression) in (6, 7, 34892, 50001, 33007)


def image(data: bytes, limit: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """(array (H,W,C) uint8 | uint16 | float32, notes). Raises TooLarge, Pages, or whatever tifffile raises."""
    with _file(data) as file:
        page = file.pages[0]
        array = _array(file, data, limit)
        if page.photometric == 3 and array.shape[2] == 1:
            table = (np.asarray(page.colormap) >> 8).astype(np.uint8)
            array = np.ascontiguousarray(table[:, array[..., 0]].transpose(1, 2, 0))
        elif page.photometric == 0 and page.bitspersample > 1 and array.dtype.kind == "u":  # 0 is white
            array = (2**page.bitspersample - 1 - array).astype(array.dtype)
        notes: tuple[str, ...] = ()
        if _alpha(file, array) or (_extra(page) and array.dtype == np.uint8 and array[..., -1].min() == 255):
            array, notes = array[..., :-1], dropped(array[..., -1])
        if page.bitspersample == 1:
            array = _bits(array, page) * np.uint8(255)
        elif page.photometric == 5 and array.shape[2] == 4 and array.dtype == np.uint8:
            array, notes = np.array(Image.fromarray(array, "CMYK").convert("RGB")), ("is CMYK and converted to RGB",)
        array = _orient(array, _turn(page))
    return np.ascontiguousarray(array.astype(_kind(array.dtype), copy=False)), notes


def mask(data: bytes, limit: int) -> tuple[np.ndarray, tuple[tuple[int, int, int], ...] | None, bool]:
    """(raw values (H,W) or (H,W,L), palette or None, whether three channels are RGB colours)."""
    with _file(data) as file:
        page = file.pages[0]
        array = _orient(_array(file, data, limit), _turn(page))
        if page.bitspersample == 1 and page.photometric in (0, 1):
            array = _bits(array, page)
        palette = None
        if page.photometric == 3 and page.colormap is not None:
            palette = tuple((int(r) >> 8, int(g) >> 8, int(b) >> 8) for r, g, b in np.asarray(page.colormap).T)
        if _alpha(file, array) and array[..., -1].min() == array[..., -1].max() != 0:
            array = array[..., :-1]
        color = int(page.photometric) in (2, 6) and array.shape[2] == 3 and not _stacked(file, array)
    return (array[..., 0] if array.shape[2] == 1 else array), palette, color


def write_channels(array: np.ndarray) -> bytes:
    """A (H,W,L) mask as a TIFF whose channels are labels, not colours."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig="contig", metadata={"axes": "YXS"})
    return buffer.getvalue()


def dropped(alpha: np.ndarray) -> tuple[str, ...]:
    """What to say of alpha that is left out: nothing when it is the same everywhere."""
    return ("has a varying alpha channel, which is dropped",) if alpha.min() != alpha.max() else ()


def _file(data: bytes) -> Any:
    import tifffile  # 0.1 s: only when there is a TIFF

    return tifffile.TiffFile(io.BytesIO(data))


def _bits(array: np.ndarray, page: Any) -> np.ndarray:
    """1-bit pixels as 0 and 1 with white = 1, whichever way round they are stored.

    A bare array of bools is as it was: tifffile writes those as "0 is white", and nobody meant that.
    """
    bits = (array.view(np.uint8) != 0).astype(np.uint8)
    return np.asarray(1 - bits if page.photometric == 0 and not page.is_shaped else bits)


def _kind(dtype: np.dtype) -> str:
    """uint8 and uint16 stay; signed, wider and floating types become float32."""
    if dtype.kind == "b" or dtype == np.uint8:
        return "uint8"
    if dtype.kind == "c":
        raise ValueError("complex numbers")
    return "uint16" if dtype == np.uint16 else "float32"


def _extra(page: Any) -> int:
    """What the last sample is declared to be: 1 associated alpha, 2 unassociated alpha, 0 anything else."""
    extra = tuple(int(e) for e in (page.extrasamples or ()))
    return extra[-1] if extra and extra[-1] in (1, 2) else 0


def _alpha(file: Any, array: np.ndarray) -> bool:
    """Is the last sample of (H,W,C) alpha? tifffile declares any fourth channel of a bare array as unassociated alpha.

    Near infrared beside red, green and blue, and the fourth label of a mask, look like that; nobody writes alpha in other
    than 8 bits without associating it.
    """
    extra = _extra(file.pages[0])
    return array.shape[2] > 1 and (extra == 1 or (extra == 2 and array.dtype == np.uint8 and not file.is_shaped))


def _stacked(file: Any, array: np.ndarray) -> bool:
    """Is it a bare (3,H,W) array of zeros and ones (or 255)? Labels are stacked like that, colours are (H,W,3)."""
    first = file.is_shaped and int(file.pages[0].planarconfig) == 2
    return first and any(bool(np.isin(array, two).all()) for two in ((0, 1), (0, 255)))


def _layout(file: Any, limit: int) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """((H,W,C), order): how to transpose the squeezed series into (H,W,C). Raises Pages or TooLarge."""
    if len(file.series) != 1:
        raise Pages(f"holds {len(file.series)} different images" if file.series else "holds no image")
    series = file.series[0]
    pairs = [(a, n) for a, n in zip(series.axes, series.shape, strict=True) if n != 1 or a in "YX"]
    axes, shape = "".join(a for a, _ in pairs), [n for _, n in pairs]
    result: tuple[int, int, int]
    order: tuple[int, ...]
    if axes == "YX":
        result, order = (shape[0], shape[1], 1), (0, 1)
    elif axes == "YXS" or axes == "YXC":
        result, order = (shape[0], shape[1], shape[2]), (0, 1, 2)
    elif axes in ("SYX", "CYX"):
        result, order = (shape[1], shape[2], shape[0]), (1, 2, 0)
    elif axes == "QYX" and shape[0] <= CHANNELS_LIMIT and shape[0] < min(shape[1:]):
        result, order = (shape[1], shape[2], shape[0]), (1, 2, 0)
    elif axes == "QYX" and shape[2] <= CHANNELS_LIMIT:  # a bare (H,W,C) array written without photometric
        result, order = (shape[0], shape[1], shape[2]), (0, 1, 2)
    else:
        raise Pages(f"holds {len(file.pages)} pages (axes {series.axes}, shape {'x'.join(map(str, series.shape))})")
    pixels = result[0] * result[1]
    if pixels > limit or pixels * result[2] > 16 * limit:
        raise TooLarge(f"{result[1]}x{result[0]} pixels in {result[2]} channels")
    return result, order


def _array(file: Any, data: bytes, limit: int) -> np.ndarray:
    """(H,W,C) of the only series, unscaled."""
    shape, order = _layout(file, limit)
    series = file.series[0]
    try:
        raw = np.asarray(series.asarray())
    except (ValueError, ImportError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        return _pillow(data, file.pages[0]).reshape(shape)
    squeezed = raw.reshape([n for a, n in zip(series.axes, series.shape, strict=True) if n != 1 or a in "YX"])
    return squeezed.transpose(order).reshape(shape)


def _pillow(data: bytes, page: Any) -> np.ndarray:
    """LZW and the like without imagecodecs: Pillow reads the plain modes as (H,W[,C]) without conversion, here as stored."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
        plain = picture.mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F") and page.photometric != 0
        if not plain or getattr(picture, "n_frames", 1) > 1:
            raise Codec(getattr(page.compression, "name", "a method of its own"))
        turn = _turn(page)
        return _orient(np.array(picture), {6: 8, 8: 6}.get(turn, turn))  # which Pillow turns as it loads: back again


def _turn(page: Any) -> int:
    """Tag 274: how what is stored is meant (TIFF 6.0, page 36); 1 is upright."""
    tag = page.tags.get(274)
    return int(tag.value) if tag is not None else 1


def _orient(array: np.ndarray, turn: int) -> np.ndarray:
    """Rows and columns as stored -> as meant; from 5 on they are swapped. 6 and 8 undo each other, every other itself."""
    if turn >= 5:
        array = array.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    return array
