"""Masks in the coding of a class map, whatever classes they show, are read again; what is no label image is found."""

import io

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.data.check import check, render
from semiseg.data.classes import ClassMap

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tifffile")
COLOURED = ((0, 0, 0), (9, 8, 7), *[(k, 0, 99) for k in range(2, 256)])
GAPS = tuple(f"class {v}" for v in (0, 8, 15))
PLAIN = {
    "0/1": ClassMap("multilabel", ("foreground",), values=(0, 1), ignore=(255,)),
    "0/255": ClassMap("multilabel", ("foreground",), values=(0, 255)),
    "0/255 as grey RGB": ClassMap("multilabel", ("foreground",), values=(0, 255), replicate=True),
    "ids": ClassMap("multiclass", ("a", "b", "c"), values=(0, 1, 2), ignore=(255,)),
    "ids with gaps": ClassMap("multiclass", GAPS, values=(0, 8, 15)),
    "palette": ClassMap("multiclass", ("a", "b", "c", "d"), values=(0, 1, 2, 3), palette=COLOURED),
    "palette with gaps": ClassMap("multiclass", ("a", "b", "c"), values=(0, 90, 200), palette=COLOURED),
    "folders": ClassMap("multilabel", ("cell", "wall"), "folders", values=(0, 255)),
    "channels": ClassMap("multilabel", ("a", "b", "c", "d"), "channels", values=(0, 255)),
}
TOLD = {
    "colours": ClassMap("multiclass", ("sky", "tree", "no"), "colors", colors=((40, 40, 40), (0, 9, 0), (0, 0, 200))),
    "two colours": ClassMap("multilabel", ("cell",), "colors", colors=((0, 0, 0), (9, 0, 0)), ignore=((1, 1, 1),)),
    "far values": ClassMap("multiclass", ("a", "b", "c"), values=(0, 90, 200), ignore=(7,)),
    "two of many": ClassMap("multiclass", ("ground", "leaf"), values=(0, 1)),
    "called background": ClassMap("multilabel", ("background",), values=(0, 255)),
    "1 is ignored": ClassMap("multilabel", ("cell",), values=(0, 255), ignore=(1,)),
    "two odd folders": ClassMap("multilabel", ("cell", "wall"), "folders", values=(3, 40)),
    "three channels": ClassMap("multilabel", ("x", "y", "z"), "channels", values=(0, 1), ignore=(255,)),
}


def write(root, classes, labels):
    """Images, and masks as `semiseg predict` writes them."""
    for k, label in enumerate(labels):
        files = {f"images/{k}.png": png(np.random.default_rng(k).integers(0, 256, label.shape[-2:], dtype=np.uint8))}
        for folder, encoded in classes.encode(label).items():
            files[f"masks/{folder}/{k}{encoded.suffix}"] = encoded.to_bytes()
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return root


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def shown_in(classes, some):
    """A label that shows the classes `some` (of a multiclass or a binary map, or the labels that are on)."""
    if classes.kind == "multilabel":
        label = np.zeros((classes.channels, 12, 16), np.uint8)
        for k in some:
            label[k % classes.channels, k:9, 3:11] = 1
        return label
    count = max(2, classes.channels)
    parts = [k % count for k in some]
    return np.repeat(np.array(parts, np.uint8), 12 // len(parts) + 1)[:12, None].repeat(16, 1)


SHOWN = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=2, max_size=6)


def holds(classes, labels):
    """Is there a pixel that is not the foreground in 0/255? Masks of 255 alone say nothing."""
    return 255 not in classes.values or any((label == 0).any() for label in labels)


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=30, deadline=None)
@given(shown=SHOWN)
def test_predictions_pass_without_a_class_file(tmp_path_factory, name, shown):
    classes = PLAIN[name]
    labels = [shown_in(classes, some) for some in shown]
    if not holds(classes, labels):
        labels[0] = np.zeros_like(labels[0])
    checked = check(write(tmp_path_factory.mktemp("set"), classes, labels))
    assert checked.ok, render(checked.errors)
    if name in ("0/255", "folders", "channels") and any(label.any() for label in labels):
        assert checked.classes.values == (0, 255)


@pytest.mark.parametrize("name", [*PLAIN, *TOLD])
@settings(max_examples=20, deadline=None)
@given(shown=SHOWN)
def test_the_written_class_file_says_what_the_masks_mean(tmp_path_factory, name, shown):
    classes = {**PLAIN, **TOLD}[name]
    root = write(tmp_path_factory.mktemp("set"), classes, [shown_in(classes, some) for some in shown])
    (root / "classes.yaml").write_text(classes.to_yaml(), encoding="utf-8")
    checked = check(root)
    assert checked.ok, render(checked.errors)
    kept = ("kind", "names", "coding", "values", "colors", "ignore")
    assert [getattr(checked.classes, k) for k in kept] == [getattr(classes, k) for k in kept]


def test_names_of_any_script_and_yaml_words_survive(tmp_path):
    names = ("no", "12", "a: b", "é 細胞", "#x", "\udcff")
    classes = ClassMap("multiclass", names, values=tuple(range(6)))
    root = write(tmp_path, classes, [shown_in(classes, (0, 1, 2))] * 2)
    (root / "classes.yaml").write_bytes(classes.to_yaml().encode())
    assert check(root).classes.names == names


@pytest.mark.parametrize("name", ["0/255", "folders", "channels"])
def test_255_alone_is_refused_and_the_class_file_makes_it_the_foreground(tmp_path, name):
    classes = PLAIN[name]
    full = np.ones((12, 16) if classes.kind == "binary" else (classes.channels, 12, 16), np.uint8)
    root = write(tmp_path, classes, [full] * 5)
    [problem] = check(root).errors
    assert problem.code == "D26" and "foreground" in problem.fix and "classes.yaml" in problem.fix
    said = problem.fix.partition("write  ")[2].partition("  into")[0].split("  and  ")
    for text in ("\n".join(said), classes.to_yaml()):
        (root / "classes.yaml").write_text(text)
        assert check(root).ok and check(root).classes.values == (0, 255)


def test_masks_all_0_or_all_255_are_background_and_foreground(tmp_path):
    masks = [np.full((12, 16), k % 2, np.uint8) for k in range(6)]
    checked = check(write(tmp_path, PLAIN["0/255"], masks))
    assert checked.ok and checked.classes.values == (0, 255)
    assert not [p for p in checked.problems if p.code == "D26"]


@pytest.mark.parametrize("name", ["colours", "two colours", "far values"])
def test_where_nothing_can_be_proposed_the_file_to_copy_is_named(tmp_path, name):
    classes = TOLD[name]
    labels = [shown_in(classes, (1, 2))] * 4 + [shown_in(classes, (0,))] * 5
    [problem] = check(write(tmp_path, classes, labels)).errors
    assert problem.code == ("D08" if name == "far values" else "D05")
    assert "`semiseg predict`" in problem.fix.split("\n")[0] and "classes.yaml" in problem.fix.split("\n")[0]
    (tmp_path / "classes.yaml").write_text(problem.fix.split("\n", 1)[1])
    assert check(tmp_path).ok, render(check(tmp_path).errors)


@pytest.mark.parametrize("rare, codes", [(3, []), (6, []), (7, ["D08"])])
def test_a_rare_class_near_the_others_is_a_class_and_a_far_value_is_named(tmp_path, rare, codes):
    classes = ClassMap("multiclass", tuple("abcdefgh"), values=tuple(range(8)))
    root = write(tmp_path, classes, [shown_in(classes, (0, 1))] * 5 + [shown_in(classes, (0, 1, rare))])
    assert [p.code for p in check(root).errors] == codes
    (root / "classes.yaml").write_text(classes.to_yaml())
    assert check(root).ok


def test_a_palette_of_greys_is_no_palette(tmp_path):
    ramp = tuple((k, k, k) for k in range(256))
    for palette, codes in ((COLOURED, []), (ramp, ["D08"])):
        classes = ClassMap("multiclass", ("a", "b", "c"), values=(0, 90, 200), palette=palette)
        root = write(tmp_path / str(len(codes)), classes, [shown_in(classes, (0, 1, 2))] * 5)
        assert [p.code for p in check(root).errors] == codes


def disc(k, low, high, size=48):
    y, x = np.mgrid[:size, :size]
    return np.where((y - 20 - k) ** 2 + (x - 24) ** 2 < 150, high, low).astype(np.uint8)


def lossy(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=80)
    return np.array(Image.open(buffer))


def smooth(mask):
    return np.array(Image.fromarray(mask).resize((31, 31), Image.Resampling.BILINEAR).resize(mask.shape[::-1]))


@pytest.mark.parametrize("spoil", [lossy, smooth])
@pytest.mark.parametrize("values", [(0, 255), (0, 170), (10, 90)])
def test_greys_that_compression_and_smoothing_invent_are_found(tmp_path, spoil, values):
    write(tmp_path, PLAIN["0/255"], [disc(k, 0, 1) for k in range(6)])
    for k in range(6):
        (tmp_path / f"masks/{k}.png").write_bytes(png(spoil(disc(k, *values))))
    assert {p.code for p in check(tmp_path).errors} & {"D08", "D09"}


def stack(k, high=255):
    planes = np.stack([np.roll(disc(k, 0, high), 7 * c, 1) for c in range(3)])
    return planes, np.ascontiguousarray(planes.transpose(1, 2, 0))


@pytest.mark.parametrize("high", [1, 255])
def test_three_planes_of_a_bare_array_are_labels_and_three_samples_a_pixel_are_colours(tmp_path, high):
    for which, expected in enumerate(("multilabel", "D05")):
        root = write(tmp_path / expected, PLAIN["0/255"], [disc(k, 0, 1) for k in range(4)])
        for k in range(4):
            (root / f"masks/{k}.png").unlink()
            tifffile.imwrite(root / f"masks/{k}.tif", stack(k, high)[which])
        checked = check(root)
        if expected == "D05":
            assert [p.code for p in checked.errors] == ["D05"]
            continue
        assert checked.ok and checked.classes.kind == "multilabel" and checked.classes.channels == 3
        assert any("a channel per label" in p.found for p in checked.problems if p.code == "D37")


def test_planes_of_colours_are_colours(tmp_path):
    root = write(tmp_path, PLAIN["0/255"], [disc(k, 0, 1) for k in range(4)])
    for k in range(4):
        (root / f"masks/{k}.png").unlink()
        tifffile.imwrite(root / f"masks/{k}.tif", stack(k)[0] // 255 * np.array([200, 90, 9], np.uint8)[:, None, None])
    assert [p.code for p in check(root).errors] == ["D05"]
    (root / "classes.yaml").write_text(check(root).errors[0].fix.split("\n", 1)[1])
    assert check(root).ok and check(root).classes.coding == "colors"


def test_white_is_the_foreground_whatever_its_index(tmp_path):
    """Quantising a black and white picture may give a palette that begins with white."""
    for name, palette in (("turned", ((255, 255, 255), (0, 0, 0))), ("usual", ((0, 0, 0), (255, 255, 255)))):
        root = write(tmp_path / name, PLAIN["0/1"], [disc(k, 0, 1) for k in range(6)])
        for k in range(6):
            white = disc(k, 0, 1) if name == "usual" else 1 - disc(k, 0, 1)
            image = Image.fromarray(white.astype(np.uint8), "P")
            image.putpalette([c for colour in palette for c in colour])
            image.save(root / f"masks/{k}.png")
        checked = check(root)
        assert checked.ok and checked.classes.values == ((1, 0) if name == "turned" else (0, 1))
        assert checked.pixels["labeled"]["foreground"] < checked.pixels["labeled"]["background"]
    (tmp_path / "turned/classes.yaml").write_text("values: {lesion: 0, skin: 1}")
    assert check(tmp_path / "turned").classes.values == (0, 1), "who says what they mean is believed"


def test_ignored_pixels_are_said(tmp_path):
    root = write(tmp_path, PLAIN["0/1"], [disc(k, 0, 1) for k in range(6)])
    for k in range(6):
        mask = disc(k, 0, 1).astype(np.uint8)
        mask[:4] = 255
        (root / f"masks/{k}.png").write_bytes(png(mask))
    share = 4 / mask.shape[0]
    (text,) = (p.found for p in check(root).problems if p.code == "D37")
    assert text.endswith(f"; {share:.1%} of the labeled pixels are ignored")


def test_smoothed_colours_are_no_classes(tmp_path):
    """Shades that lie on borders only are not offered for pasting; a colour for each object is called so."""
    side = np.mgrid[:96, :96]
    for name in ("smooth", "sharp", "objects"):
        root = write(tmp_path / name, PLAIN["0/1"], [np.zeros((96, 96), np.uint8)] * 6)
        for k in range(6):
            far = ((side - np.array([40 + 3 * k, 48]).reshape(2, 1, 1)) ** 2).sum(0) ** 0.5
            red = np.clip(255 * (24 - far) / 6, 0, 255) if name == "smooth" else 255 * (far < 24)
            mask = np.stack([red, 0 * red, 0 * red], -1).astype(np.uint8)
            for n in range(8) if name == "objects" else ():
                mask[4 + 11 * n : 12 + 11 * n, 80:90] = 10 * n + 3, 9 * k + 40, 7
            (root / f"masks/{k}.png").write_bytes(png(mask))
        (problem,) = check(root).errors
        assert problem.code == ("D09" if name == "smooth" else "D05")
        assert ("borders only" in problem.found) == (name == "smooth")
        assert ("each object has a colour of its own" in problem.fix) == (name == "objects")


def test_numbered_objects_of_which_some_are_missing(tmp_path):
    """Curated or cropped instance masks have gaps; classes are as far up in most images."""
    random = np.random.default_rng(0)
    for name, most, said in (
        ("objects", [6, 9, 14, 20, 12, 8, 17, 10], True),
        ("classes", [10, 11, 11, 9, 11, 10, 11, 11], False),
        ("streets", [10, 10, 9, 10, 8, 9, 10, 4], False),
    ):
        masks = []
        for n in most:
            ids = np.setdiff1d(np.arange(n + 1), random.choice(np.arange(1, n), n // 5, replace=False))
            masks.append(np.repeat(np.resize(ids, 32)[:, None], 32, 1).repeat(2, 0).repeat(2, 1).astype(np.uint8))
        root = write(
            tmp_path / name, ClassMap("multiclass", tuple(f"c{v}" for v in range(21)), values=tuple(range(21))), masks
        )
        found = [p for p in check(root).problems if p.code == "D38"]
        assert bool(found) == said
        assert not said or "1 to 6 up to 1 to 20 with few gaps" in found[0].found


def test_photographs_are_no_masks(tmp_path):
    """The few values that smooth areas leave over are not offered as classes."""
    root = write(tmp_path, PLAIN["0/1"], [disc(k, 0, 1) for k in range(6)])
    side = np.mgrid[:48, :48]
    for k in range(6):
        light = 140 + 60 * np.sin(side[0] / (9 + k)) * np.cos(side[1] / 7)
        (root / f"images/{k}.png").write_bytes(png(light.astype(np.uint8)))
        (root / f"masks/{k}.png").write_bytes(png(np.where(light > 190, 251, light).astype(np.uint8)))
    (problem,) = check(root).errors
    assert problem.code == "D08" and "as photographs" in problem.found and "values:\n" not in problem.fix
