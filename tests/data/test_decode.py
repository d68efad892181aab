import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.data.decode import image_from_bytes, load, mask_from_bytes, read_image, read_mask
from semiseg.errors import Refusal

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
RAMP = np.linspace(0, 65535, 12 * 17).astype(np.uint16).reshape(12, 17)
FIVE = np.random.default_rng(1).integers(0, 65536, (12, 17, 5)).astype(np.uint16)


def code(caught) -> str:
    return caught.value.problems[0].code


def palette(path):
    return mask_from_bytes(load(path), path).palette


@pytest.mark.parametrize("mode, channels", [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_pillow_modes_become_grey_or_rgb(tmp_path, mode, channels):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).convert(mode).save(path)
    array = read_image(path)
    assert array.shape == (12, 17, channels) and array.dtype == np.uint8
    if mode == "P":
        assert np.array_equal(array, np.asarray(Image.open(path).convert("RGB")))


def test_cmyk_becomes_rgb_and_says_so(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).convert("CMYK").save(path)
    assert read_image(path).shape == (12, 17, 3)
    assert image_from_bytes(load(path), path).notes == ("is CMYK and converted to RGB",)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_kept(tmp_path, name):
    Image.fromarray(RAMP).save(tmp_path / name)
    array = read_image(tmp_path / name)
    assert array.dtype == np.uint16 and np.array_equal(array[..., 0], RAMP)


def wide_png(array: np.ndarray, kind: int) -> bytes:
    """(H,W,C) uint16 as PNG; every other row is stored as the difference to the pixel on its left."""
    rows = array.astype(">u2").view(np.uint8).reshape(*array.shape[:2], -1)
    left = np.pad(rows, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    lines = [b"\1" + (r - s).tobytes() if k % 2 else b"\0" + r.tobytes()
             for k, (r, s) in enumerate(zip(rows, left, strict=True))]  # fmt: skip

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind, stored, kept", [(0, 1, 1), (2, 3, 3), (4, 2, 1), (6, 4, 3)])
def test_sixteen_bits_of_a_colour_png_are_kept(tmp_path, kind, stored, kept):
    path, array = tmp_path / "a.png", FIVE[..., :stored].copy()
    path.write_bytes(wide_png(array, kind))
    read = read_image(path)
    assert read.dtype == np.uint16 and np.array_equal(read, array[..., :kept])
    assert bool(image_from_bytes(load(path), path).notes) == (stored > kept)
    array[..., -1] = 65535
    path.write_bytes(wide_png(array, kind))
    assert not image_from_bytes(load(path), path).notes
    path.write_bytes(wide_png(array, kind)[:-60])
    with pytest.raises(Refusal) as caught:
        read_image(path)
    assert code(caught) == "D12"


TIFFS = {
    "interleaved": (FIVE, {"photometric": "minisblack", "planarconfig": "contig"}),
    "planar": (np.moveaxis(FIVE, -1, 0), {"photometric": "minisblack", "planarconfig": "separate"}),
    "bare, channels first": (np.moveaxis(FIVE, -1, 0), {}),
    "bare, channels last": (FIVE, {"photometric": "minisblack"}),
    "imagej": (np.moveaxis(FIVE, -1, 0), {"imagej": True, "metadata": {"axes": "CYX"}}),
    "ome": (np.moveaxis(FIVE, -1, 0), {"ome": True, "metadata": {"axes": "CYX"}}),
    "deflate, tiled": (
        FIVE,
        {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16), "compression": "zlib"},
    ),
}


@pytest.mark.parametrize("name", TIFFS)
def test_five_channels_of_sixteen_bits_stay_so(tmp_path, name):
    stored, options = TIFFS[name]
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    array = read_image(tmp_path / "a.tif")
    assert array.dtype == np.uint16 and np.array_equal(array, FIVE)


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_a_stack_is_refused(tmp_path, axes):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([RAMP] * 5), metadata={"axes": axes})
    with pytest.raises(Refusal) as caught:
        read_image(tmp_path / "a.tif")
    assert code(caught) == "D21" and "5" in str(caught.value)


def test_pages_of_pillow_are_refused(tmp_path):
    pages = [Image.fromarray(RGB)] * 5
    for name in ("a.tif", "a.gif", "a.webp"):
        different = [Image.fromarray(np.roll(RGB, k, 0)) for k in range(len(pages))]
        different[0].save(tmp_path / name, save_all=True, append_images=different[1:])
        with pytest.raises(Refusal) as caught:
            read_image(tmp_path / name)
        assert code(caught) == "D21"


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied_in_jpeg_and_tiff(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", RGB, extratags=[(274, 3, 1, turn, True)])
    upright = read_image(tmp_path / "a.png")
    assert upright.shape == ((17, 12, 3) if turn >= 5 else (12, 17, 3))
    assert np.array_equal(read_image(tmp_path / "a.tif"), upright)
    for packed in ("tiff_lzw", "tiff_deflate", "packbits", "zstd"):  # some of which Pillow undoes, and turns
        Image.fromarray(RGB).save(tmp_path / "b.tif", compression=packed, tiffinfo={274: turn})
        assert np.array_equal(read_image(tmp_path / "b.tif"), upright), packed
        Image.fromarray(RGB[..., 0]).save(tmp_path / "c.tif", compression=packed, tiffinfo={274: turn})
        assert np.array_equal(read_mask(tmp_path / "c.tif"), upright[..., 0]), packed


def test_cmyk_is_converted_in_tiff_as_elsewhere(tmp_path):
    picture = Image.fromarray(RGB).convert("CMYK")
    for packed in ("raw", "tiff_lzw"):
        picture.save(tmp_path / "a.tif", compression=packed)
        found = image_from_bytes((tmp_path / "a.tif").read_bytes(), tmp_path / "a.tif")
        assert np.array_equal(found.array, np.asarray(picture.convert("RGB")))
        assert found.notes == ("is CMYK and converted to RGB",)


def test_tiff_alpha_palette_lzw_and_white_is_zero(tmp_path):
    rgba = np.dstack([RGB, np.full((12, 17), 255, np.uint8)])
    tifffile.imwrite(tmp_path / "alpha.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_image(tmp_path / "alpha.tif"), RGB)
    Image.fromarray(RGB).convert("P").save(tmp_path / "p.tif")
    assert np.array_equal(read_image(tmp_path / "p.tif"), np.asarray(Image.fromarray(RGB).convert("P").convert("RGB")))
    Image.fromarray(RGB).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert np.array_equal(read_image(tmp_path / "lzw.tif"), RGB)
    tifffile.imwrite(tmp_path / "white.tif", RGB[..., 0], photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "white.tif")[..., 0], 255 - RGB[..., 0])


def test_floats_and_signed_integers_become_float32(tmp_path):
    hounsfield = RAMP.astype(np.int32).astype(np.int16) - 100
    tifffile.imwrite(tmp_path / "a.tif", hounsfield)
    array = read_image(tmp_path / "a.tif")
    assert array.dtype == np.float32 and np.array_equal(array[..., 0], hounsfield.astype(np.float32))


def test_wrong_suffix_is_read_by_content_with_a_note(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path, "JPEG")
    assert read_image(path).shape == (12, 17, 3)
    assert image_from_bytes(load(path), path).notes == ("is a JPEG file whatever its suffix says",)


def test_mask_values_are_never_converted(tmp_path):
    ids = np.arange(4, dtype=np.uint8).repeat(6).reshape(4, 6)
    image = Image.fromarray(ids, "P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "p.png")
    assert np.array_equal(read_mask(tmp_path / "p.png"), ids)
    assert palette(tmp_path / "p.png")[:4] == ((0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200))
    assert np.array_equal(read_mask(tmp_path / "p.png", rgb=True), np.asarray(image.convert("RGB")))
    image.save(tmp_path / "p.tif")
    assert np.array_equal(read_mask(tmp_path / "p.tif"), ids)
    Image.fromarray(ids > 1).save(tmp_path / "one.png")
    assert np.array_equal(read_mask(tmp_path / "one.png"), ids > 1) and read_mask(tmp_path / "one.png").max() == 1
    for white in ("miniswhite", "minisblack"):
        bits = ids > 1 if white == "minisblack" else ids <= 1
        tifffile.imwrite(tmp_path / "one.tif", bits, photometric=white, metadata=None)
        assert np.array_equal(read_mask(tmp_path / "one.tif"), ids > 1)
        assert np.array_equal(read_image(tmp_path / "one.tif")[..., 0], (ids > 1) * 255)
    tifffile.imwrite(tmp_path / "bare.tif", ids > 1)  # which is stored as "0 is white"
    assert np.array_equal(read_mask(tmp_path / "bare.tif"), ids > 1)
    Image.fromarray(ids).convert("RGBA").save(tmp_path / "rgba.png")
    assert np.array_equal(read_mask(tmp_path / "rgba.png"), np.stack([ids] * 3, -1))
    assert palette(tmp_path / "one.png") is None


@pytest.mark.parametrize(
    "error",
    [
        ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package"),
        ModuleNotFoundError("No module named 'compression'"),
    ],
)
def test_a_compression_that_needs_a_package_is_no_damage(tmp_path, monkeypatch, error):
    """32-bit LZW: Pillow has no such mode, and without imagecodecs nobody undoes it. The data are fine."""
    Image.fromarray(np.arange(12, dtype=np.int32).reshape(3, 4)).save(tmp_path / "a.tif", compression="tiff_lzw")

    def needs(*args, **options):
        raise error

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", needs)
    with pytest.raises(Refusal, match="is compressed by LZW, which needs the package imagecodecs") as caught:
        read_image(tmp_path / "a.tif")
    assert "damaged" not in str(caught.value) and "pip install imagecodecs, or save it uncompressed" in str(
        caught.value
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_wide_masks_shrink_when_their_values_fit(tmp_path, dtype):
    ids = np.arange(6).reshape(2, 3)
    tifffile.imwrite(tmp_path / "a.tif", ids.astype(dtype))
    array = read_mask(tmp_path / "a.tif")
    assert np.array_equal(array, ids) and array.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("values", [[[-1, 0]], [[70000, 0]]])
def test_masks_with_impossible_values_are_refused(tmp_path, values):
    tifffile.imwrite(tmp_path / "a.tif", np.array(values, np.int32))
    with pytest.raises(Refusal) as caught:
        read_mask(tmp_path / "a.tif")
    assert code(caught) == "D10"


def test_channels_of_a_tiff_mask_are_labels_not_colours(tmp_path):
    masks = (FIVE > 30000).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "a.tif", masks, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_mask(tmp_path / "a.tif"), masks)


def test_every_failure_names_the_file_and_its_code(tmp_path, monkeypatch):
    def fails(name: str, data: bytes, expected: str, read=read_image) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(Refusal) as caught:
            read(tmp_path / name)
        assert code(caught) == expected and caught.value.exit == 3
        assert caught.value.problems[0].where == (tmp_path / name).as_posix()

    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    fails("empty.png", b"", "D12")
    fails("text.png", b"hello", "D12")
    fails("cut.png", buffer.getvalue()[:200], "D12")
    fails("cut.tif", b"II*\0\x08\0\0\0", "D12")
    jpeg = io.BytesIO()
    Image.fromarray(RGB).save(jpeg, "JPEG")
    fails("mask.jpg", jpeg.getvalue(), "D11", read_mask)
    webp = io.BytesIO()
    Image.fromarray(RGB).save(webp, "WEBP")
    fails("mask.webp", webp.getvalue(), "D11", read_mask)
    with pytest.raises(Refusal) as caught:
        read_image(tmp_path / "none.png")
    assert code(caught) == "D17"
    (tmp_path / "ok.png").write_bytes(buffer.getvalue())
    with pytest.raises(Refusal) as caught:
        read_image(tmp_path / "ok.png", limit=100)
    assert code(caught) == "D13"
    (tmp_path / "ok.tif").write_bytes(b"")
    tifffile.imwrite(tmp_path / "ok.tif", RGB)
    with pytest.raises(Refusal) as caught:
        read_image(tmp_path / "ok.tif", limit=100)
    assert code(caught) == "D13"

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(Refusal) as caught:
        read_image(tmp_path / "ok.png")
    assert code(caught) == "D17" and "Permission denied (mode -rw" in str(caught.value)


def test_lossless_webp_is_a_mask(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_mask(tmp_path / "a.webp"), RGB)


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=80), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0+", b"GIF89a", b"BM", b"P5 "])
)
def test_bytes_of_any_kind_are_pixels_or_a_refusal(tail, head):
    try:
        array = image_from_bytes(head + tail, Path("x.png")).array
    except Refusal as refusal:
        assert refusal.problems[0].where == "x.png" and refusal.problems[0].fix
    else:
        assert array.ndim == 3
