"""Masks whose files have other than 8 bits, palettes that are too short, and values that need more than a byte."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.classes import ClassMap, Encoded
from semiseg.data.decode import mask_from_bytes
from semiseg.errors import Refusal

IDS = np.array([[0, 1, 2], [255, 1, 0]])
M = Path("m.png")


def png(array, depth, kind):
    """The bytes of a PNG, written by hand: grey of 2 to 16 bits, or 16-bit colours."""
    rows = b""
    for row in array:
        if depth == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(v), f"0{depth}b") for v in row)
            bits += "0" * (-len(bits) % 8)
            rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def full(array):
    return np.full_like(array, 65535)


@pytest.mark.parametrize(
    ("planes", "kind"), [((IDS, IDS, IDS), 2), ((IDS, full(IDS)), 4), ((IDS, IDS, IDS, full(IDS)), 6)]
)
def test_ids_of_sixteen_bits_are_not_halved(planes, kind):
    """Read as 8 bits all of them would be 0."""
    mask = mask_from_bytes(png(np.stack(planes, -1), 16, kind), M)
    assert (mask.array == (IDS if kind == 4 else np.stack([IDS] * 3, -1))).all() and mask.color == (kind != 4)


def test_eight_bits_that_were_stretched_to_sixteen_are_eight_again():
    colors = np.random.default_rng(0).integers(0, 256, (4, 5, 3))
    mask = mask_from_bytes(png(colors * 257, 16, 2), M)
    assert mask.array.dtype == np.uint8 and (mask.array == colors).all()


def test_varying_alpha_of_sixteen_bits_is_refused_too():
    with pytest.raises(Refusal, match=r"D10: m\.png has a varying alpha"):
        mask_from_bytes(png(np.stack([IDS, IDS], -1), 16, 4), M)


@pytest.mark.parametrize(("values", "bits"), [([[0, 1, 2]], 2), ([[0, 1]], 2), ([[0, 1, 7]], 4), ([[0, 1]], 4)])
def test_grey_of_few_bits_may_be_ids_or_levels(values, bits):
    with pytest.raises(Refusal, match=rf"D10: m.png has {bits} bits a pixel, .*Fix: save class ids as 8-bit PNG"):
        mask_from_bytes(png(np.array(values), bits, 0), M)


def test_two_values_of_few_bits_are_a_binary_mask():
    assert np.unique(mask_from_bytes(png(np.array([[0, 15], [15, 0]]), 4, 0), M).array).tolist() == [0, 255]


@pytest.mark.parametrize("most", [2, 3, 254])
def test_a_portable_map_with_another_largest_value(most):
    text = b"P5 # ids\n3 1\n%d\n\x00\x01\x02"
    with pytest.raises(Refusal, match=f"D10: m.pgm has {most} as its largest value"):
        mask_from_bytes(text % most, Path("m.pgm"))
    assert mask_from_bytes(text % 255, Path("m.pgm")).array.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("colors", [1, 2, 4, 200])
def test_a_short_palette_cuts_no_ids(colors):
    """Pillow writes as few bits as a palette has colours, and drops what is above."""
    ids = np.array([[0, 1, 2, 250]], np.uint8)
    data = Encoded(ids, tuple((k, 9, 9) for k in range(colors))).to_bytes()
    back = Image.open(io.BytesIO(data))
    assert np.asarray(back).tolist() == ids.tolist() and back.getpalette()[: 3 * colors] == [
        v for k in range(colors) for v in (k, 9, 9)
    ]


def test_values_above_a_byte_have_room():
    """An ignore value that a consensus will put in, and grey masks with large ids that were saved as RGB."""
    label = np.array([[[0, 1, 0]]], np.uint8)
    (made,) = ClassMap("multilabel", ("cell",), "values", (0, 1), (), (65535,)).encode(label[0]).values()
    made.array[0, 0] = 65535
    (grey,) = ClassMap("multiclass", ("a", "b"), "values", (0, 300), replicate=True).encode(label[0]).values()
    assert np.asarray(Image.open(io.BytesIO(grey.to_bytes()))).tolist() == [[0, 300, 0]]
