"""Pictures: every image becomes visible RGB, labels never hide it, and the files are what samples.json says."""

import io
import json

import numpy as np
import pytest
from fake_run import Fake, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.report.pictures import SIDE, Sample, heat, overlay, palette, png_bytes, render_image, write_samples

GREY = np.full((40, 40, 3), 100, np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16", "bool"])
def test_render_any_dtype_and_channels(channels, dtype):
    array = (np.random.default_rng(0).random((9, 13, channels)) * 200).astype(dtype)
    out = render_image(array)
    assert out.shape == (9, 13, 3) and out.dtype == np.uint8
    if channels == 1:
        assert (out[..., 0] == out[..., 2]).all()
    if channels == 2:
        assert (out[..., 2] == 0).all()


def test_uint8_is_shown_as_it_is():
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (render_image(array) == array).all()


def test_dim_16_bit_is_stretched_and_one_hot_pixel_does_not_darken_it():
    array = np.linspace(300, 420, 10_000).reshape(100, 100).astype(np.uint16)
    array[0, 0] = 65535
    out = render_image(array)
    assert out.min() == 0 and out.max() == 255 and 100 < out.mean() < 155


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -3.5])
def test_flat_and_not_finite_images_have_no_warning(value):
    assert render_image(np.full((4, 4, 1), value, np.float32)).max() == 0


@pytest.mark.parametrize("shape", [(3,), (0, 4, 1), (2, 2, 2, 2)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="an image is"):
        render_image(np.zeros(shape))


def test_overlay_of_ids_tints_inside_and_draws_the_contour():
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 2
    out = overlay(GREY, label, [None, (1, 2, 3), (255, 0, 0)])
    assert (out[:10] == GREY[:10]).all()
    assert tuple(out[10, 15]) == (255, 0, 0) and tuple(out[11, 15]) == (255, 0, 0)
    assert 100 < out[20, 20, 0] < 200 and out[20, 20, 1] > 50  # tinted, the image still there


def test_overlay_of_one_class_and_of_label_planes():
    plane = np.zeros((40, 40), np.uint8)
    plane[5:20, 5:20] = 1
    one = overlay(GREY, plane, [(0, 255, 0)])
    assert tuple(one[5, 5]) == (0, 255, 0) and tuple(one[30, 30]) == (100, 100, 100)
    both = overlay(GREY, np.stack([plane, np.roll(plane, 8, 0)]), [(0, 255, 0), (0, 0, 255)])
    assert tuple(both[5, 10]) == (0, 255, 0) and tuple(both[13, 10]) == (0, 0, 255)


def test_ignore_is_hatched_and_never_a_class():
    out = overlay(GREY, np.full((40, 40), 255, np.uint8), [(255, 0, 0)])
    assert set(np.unique(out)) == {100, 128}


def test_heat_marks_exactly_the_inconsistent_pixels():
    doubt = np.zeros((2, 40, 40), bool)
    doubt[1, 3, 4] = True
    out = heat(GREY, doubt)
    marked = out[..., 0] > out[..., 1]
    assert marked.sum() == 1 and marked[3, 4]
    half = heat(GREY, np.full((40, 40), 0.5, np.float32))
    assert out[0, 0, 0] < half[0, 0, 0] < out[3, 4, 0]


@given(st.lists(st.text(), max_size=60, unique=True))
@settings(max_examples=25, deadline=None)
def test_palette_gives_every_name_its_own_color(names):
    colors = palette(names)
    assert len(colors) == len(names) == len(set(colors))
    assert all(0 <= part <= 255 for color in colors for part in color)


def test_palette_of_many_and_of_the_user():
    assert len(set(palette([str(i) for i in range(254)]))) == 254
    assert palette(["a", "b"], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]) == [(1, 2, 3), (4, 5, 6)]
    assert palette(["cell"], [[0, 0, 0], [4, 5, 6]]) == [(4, 5, 6)]  # binary: background, foreground
    assert palette(["a", "b"], [[1, 2, 3]]) == palette(["a", "b"])
    assert palette(["Background", "a"])[1] == palette(["a"])[0]


def test_png_bytes_are_the_pixels():
    picture = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png_bytes(picture)))) == picture).all()


@pytest.mark.parametrize("shape", [(700, 500), (31, 17), (1, 1), (3000, 40)])
def test_samples_have_the_display_size(tmp_path, shape):
    label = np.zeros(shape, np.uint8)
    write_samples(tmp_path, [Sample("x", "val", np.zeros(shape), label, None, label, label > 0, 0.0)], ["cell"])
    size = Image.open(tmp_path / "samples" / "00-model.png").size
    assert max(size) == SIDE and min(size) >= 1
    assert size[0] == max(1, round(SIDE * shape[1] / max(shape)))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_samples_json_follows_the_schema(tmp_path, kind):
    fake, rng = Fake(kind=kind, side=48), np.random.default_rng(0)
    write_samples(tmp_path, [sample(fake, i, f"ä/ö {i}", rng) for i in range(2)], fake.classes)
    entries = json.loads((tmp_path / "samples" / "samples.json").read_text(encoding="utf-8"))
    assert [e["name"] for e in entries] == ["ä/ö 0", "ä/ö 1"]
    for entry in entries:
        assert {"name", "split", "image", "truth", "baseline", "model", "inconsistency", "share"} <= set(entry)
        for part in ("image", "baseline", "model", "inconsistency"):
            assert (tmp_path / "samples" / entry[part]).is_file()
        assert set(entry["classes"]) <= set(fake.classes) - {"background"}
    assert entries[0]["truth"] == "00-truth.png" and entries[1]["truth"] is None
    assert [c["name"] for c in json.loads((tmp_path / "samples" / "palette.json").read_text())] == fake.classes
