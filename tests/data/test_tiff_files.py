"""A fourth channel is data unless the file says with certainty that it is alpha."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from semiseg.data.check import check, render
from semiseg.data.decode import image_from_bytes, load, read_image, read_mask
from semiseg.data.folder import read_label

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tifffile")
FOUR = np.random.default_rng(3).integers(0, 250, (12, 17, 4)).astype(np.uint8)


def noted(path):
    return image_from_bytes(load(path), path).notes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int16])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_a_bare_array_keeps_its_channels(tmp_path, dtype, first, channels):
    array = (np.random.default_rng(channels).random((12, 17, channels)) * 200).astype(dtype)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.moveaxis(array, -1, 0).copy() if first else array)
    read = read_image(path)
    assert read.shape == array.shape and np.array_equal(read, array) and noted(path) == ()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_constant_fourth_channel_that_may_be_infrared_stays(tmp_path, dtype):
    array = FOUR.astype(dtype)
    array[..., 3] = 0
    for bare in ({}, {"metadata": None}):  # with and without a word on the array
        tifffile.imwrite(tmp_path / "a.tif", array, **bare)
        assert read_image(tmp_path / "a.tif").shape == (12, 17, 4)
    tifffile.imwrite(tmp_path / "b.tif", array.astype(np.uint8))
    assert read_image(tmp_path / "b.tif").shape == (12, 17, 4)


def test_alpha_is_dropped_and_said(tmp_path):
    path = tmp_path / "a.tif"
    for saved in (FOUR, np.dstack([FOUR[..., :3], np.full((12, 17), 255, np.uint8)])):
        Image.fromarray(saved, "RGBA").save(path)  # not a bare array: the writer means alpha
        assert np.array_equal(read_image(path), FOUR[..., :3])
        assert noted(path) == (("has a varying alpha channel, which is dropped",) if saved is FOUR else ())
    Image.fromarray(FOUR, "RGBA").convert("LA").save(path)
    assert read_image(path).shape == (12, 17, 1)
    for dtype in (np.uint8, np.uint16):
        tifffile.imwrite(path, FOUR.astype(dtype), photometric="rgb", extrasamples=["assocalpha"])
        assert np.array_equal(read_image(path), FOUR[..., :3]) and noted(path)
    tifffile.imwrite(path, np.dstack([FOUR[..., :3], np.full((12, 17), 255, np.uint8)]))  # opaque everywhere
    assert np.array_equal(read_image(path), FOUR[..., :3])


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("constant", [None, 0, 1])
def test_a_mask_keeps_its_fourth_label(tmp_path, high, first, constant):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    labels = []
    for k in range(5):
        label = (np.random.default_rng(k).random((12, 17, 4)) > 0.5).astype(np.uint8)
        if constant is not None and k < 3:
            label[..., 3] = constant
        Image.fromarray(FOUR[..., k % 4] + k).save(tmp_path / f"images/{k}.png")
        stored = label * np.uint8(high)
        tifffile.imwrite(tmp_path / f"masks/{k}.tif", np.moveaxis(stored, -1, 0).copy() if first else stored)
        assert read_mask(tmp_path / f"masks/{k}.tif").shape == (12, 17, 4)
        labels.append(label)
    (tmp_path / "classes.yaml").write_text("task: multilabel\nnames: [a, b, c, d]\nignore: []")
    checked = check(tmp_path)
    assert checked.ok and checked.classes.channels == 4, render(checked.errors)
    for item in checked.index.labeled:
        assert np.array_equal(read_label(item, checked.classes), labels[int(item.name)].transpose(2, 0, 1))


def test_colour_masks_lose_an_opaque_alpha(tmp_path):
    opaque = np.dstack([FOUR[..., :3], np.full((12, 17), 255, np.uint8)])
    buffer = io.BytesIO()
    Image.fromarray(opaque, "RGBA").save(buffer, "TIFF")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    assert np.array_equal(read_mask(tmp_path / "a.tif"), FOUR[..., :3])
    opaque[..., 3] = 0  # a label that is nowhere
    Image.fromarray(opaque, "RGBA").save(tmp_path / "a.tif")
    assert np.array_equal(read_mask(tmp_path / "a.tif"), opaque)
