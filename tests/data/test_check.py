import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image

from semiseg.data import decode
from semiseg.data.check import check, render
from semiseg.data.classes import ClassMap
from semiseg.data.folder import read_label
from semiseg.data.foreign import scorable
from semiseg.errors import Refusal

REAL = Path(__file__).parents[3] / "shared" / "data"


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def picture(seed, size=(16, 20)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def stripes(values, size=(16, 20)):
    return np.repeat(np.array(values, np.uint8), -(-size[0] // len(values)))[: size[0], None].repeat(size[1], 1)


def folder(root, mask, count=6):
    for k in range(count):
        save(root / f"images/{k}.png", picture(k))
        mask(root, k)
    save(root / "unlabeled/u.png", picture(99))
    return root


def grey(*values):
    return lambda root, k: save(root / f"masks/{k}.png", stripes(values))


def rgb(*colors):
    return lambda root, k: save(root / f"masks/{k}.png", np.array(colors, np.uint8)[stripes(range(len(colors)))])


def paletted(root, k):
    image = Image.fromarray(stripes([0, 1, 2, 255]), "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [224] * 759)
    (root / "masks").mkdir(exist_ok=True)
    image.save(root / f"masks/{k}.png")


def channels(root, k):
    array = np.stack([stripes([0, 255, 255]), stripes([255, 0, 255]), stripes([0, 0, 255])], -1)
    (root / "masks").mkdir(exist_ok=True)
    tifffile.imwrite(root / f"masks/{k}.tif", array, photometric="minisblack", planarconfig="contig")


def per_label(root, k):
    save(root / f"masks/wall/{k}.png", stripes([0, 1]))
    save(root / f"masks/cell/{k}.png", stripes([1, 0, 255]))


PROPOSED = {
    "0/1": (grey(0, 1), "binary", ("foreground",), (0, 1), "values"),
    "0/255": (grey(0, 255), "binary", ("foreground",), (0, 255), "values"),
    "0/1 with ignore": (grey(0, 1, 255), "binary", ("foreground",), (0, 1), "values"),
    "grey saved as RGB": (rgb((0, 0, 0), (255, 255, 255)), "binary", ("foreground",), (0, 255), "values"),
    "ids": (grey(0, 1, 2, 255), "multiclass", ("class 0", "class 1", "class 2"), (0, 1, 2), "values"),
    "palette": (paletted, "multiclass", ("class 0", "class 1", "class 2"), (0, 1, 2), "values"),
    "channels": (channels, "multilabel", ("label 0", "label 1", "label 2"), (0, 255), "channels"),
    "label folders": (per_label, "multilabel", ("cell", "wall"), (0, 1), "folders"),
}


@pytest.mark.parametrize("name", PROPOSED)
def test_class_map_is_proposed_from_the_masks(tmp_path, name):
    mask, *expected = PROPOSED[name]
    checked = check(folder(tmp_path, mask))
    assert checked.ok and not checked.warnings, render(checked.problems)
    classes = checked.classes
    assert [classes.kind, classes.names, classes.values, classes.coding] == expected
    assert classes.replicate == (name == "grey saved as RGB") and bool(classes.palette) == (name == "palette")
    label = read_label(checked.index.labeled[0], classes)
    counted = {v for v in np.unique(label).tolist() if v != 255}
    assert counted == set(range(3 if classes.kind == "multiclass" else 2))
    row = checked.pixels["labeled"]
    for k, key in enumerate(classes.names):
        plane = label[k] == 1 if classes.kind == "multilabel" else label == (k + (classes.kind == "binary"))
        assert row[key] == 5 * int(plane.sum())  # one of six is val
    assert row["ignore"] == 5 * int((label == 255).sum())


@pytest.mark.parametrize("name", PROPOSED)
def test_images_with_predictions_pass_as_a_labeled_set(tmp_path, name):
    first = check(folder(tmp_path / "one", PROPOSED[name][0]))
    for item in first.index.labeled:
        label = np.where((raw := read_label(item, first.classes)) == 255, 0, raw)
        save(tmp_path / f"two/images/{item.name}.png", picture(int(item.name)))
        for label_folder, encoded in first.classes.encode(label).items():
            path = tmp_path / "two/masks" / label_folder / (item.name + encoded.suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded.to_bytes())
    names = {item.name for item in first.index.labeled}
    scored = scorable(tmp_path / "two", first.classes, "labeled", {}, lambda *image: None)
    assert {item.name for item in scored} == names


def test_the_pasted_block_makes_the_folder_pass(tmp_path):
    root = folder(tmp_path, rgb((0, 0, 0), (250, 0, 0), (0, 9, 0)))
    fix = check(root).errors[0].fix
    first, block = fix.split("\n", 1)
    assert str(root / "classes.yaml") in first
    (root / "classes.yaml").write_text(block)
    checked = check(root)
    assert checked.ok and checked.classes.names == ("background", "class 1", "class 2")
    assert checked.classes.colors[0] == (0, 0, 0) and set(checked.classes.colors[1:]) == {(0, 9, 0), (250, 0, 0)}
    assert yaml.safe_load(block)["colors"]["background"] == [0, 0, 0]


def test_grey_block_and_binary_block_pass_too(tmp_path):
    for name, mask, kind in (("a", grey(0, 100, 200), "multiclass"), ("b", rgb((0, 0, 0), (9, 0, 0)), "binary")):
        root = folder(tmp_path / name, mask)
        (root / "classes.yaml").write_text(check(root).errors[0].fix.split("\n", 1)[1])
        assert check(root).ok and check(root).classes.kind == kind


@pytest.mark.parametrize(
    "text, mask, kind, names",
    [
        ("names: [lesion]", grey(0, 255), "binary", ("lesion",)),
        ("names: [skin, lesion]", grey(0, 1), "binary", ("lesion",)),
        ("names: [skin, lesion]\ntask: multiclass", grey(0, 255), "multiclass", ("skin", "lesion")),
        ("names: [a, b, c]", grey(0, 1, 2), "multiclass", ("a", "b", "c")),
        ("values: {a: 10, b: 200, c: 30}\nignore: 7", grey(10, 200, 30, 7), "multiclass", ("a", "b", "c")),
        ("names: [wall, cell]", per_label, "multilabel", ("wall", "cell")),
        ("names: [x, y, z]\ntask: multilabel", channels, "multilabel", ("x", "y", "z")),
        ("colors: {a: [0, 0, 0], b: [128, 0, 0], c: [0, 128, 0]}\nignore: [[224, 224, 224]]", paletted, "multiclass",
         ("a", "b", "c")),
        ("colors: {a: [0, 0, 0], b: [1, 2, 3]}\ntask: binary", rgb((0, 0, 0), (1, 2, 3)), "binary", ("b",)),
    ],
)  # fmt: skip
def test_class_files(tmp_path, text, mask, kind, names):
    root = folder(tmp_path, mask)
    (root / "classes.yaml").write_text(text)
    checked = check(root)
    assert checked.ok, render(checked.errors)
    assert (checked.classes.kind, checked.classes.names) == (kind, names)
    for item in checked.index.labeled:
        assert (read_label(item, checked.classes) == 1).any()
    if names == ("wall", "cell"):
        assert [m.parent.name for m in checked.index.labeled[0].masks] == ["wall", "cell"]


@pytest.mark.parametrize(
    "text",
    ["", "- a", "names: a", "names: [yes, no]", "names: [a, A]", "names: [a]\nnames: [b]",
     "names: &x [a, b]\nignore: *x",
     "values: {a: 1, b: 1}", "values: {a: 1.5, b: 2}", "colors: {a: [0, 0], b: [1, 1, 1]}", "colors: {a: [0, 0, 0]}",
     "names: [a, b, c]\ntask: binary", "task: pixelwise\nnames: [a, b]", "names: [a, b]\nvalues: {a: 0, c: 1}",
     "values: {a: 0, b: 1}\ncolors: {a: [0, 0, 0], b: [1, 1, 1]}", "names: [", "names: [a, b]\nignore: [x]",
     "names: [" + ", ".join(f"c{k}" for k in range(300)) + "]", "x" * 100_001, "\x00", "[" * 5000],
)  # fmt: skip
def test_mistakes_in_a_class_file(tmp_path, text):
    root = folder(tmp_path, grey(0, 1))
    (root / "classes.yaml").write_text(text)
    errors = check(root).errors
    assert [p.code for p in errors] == ["D20"] and errors[0].fix and errors[0].where.endswith("classes.yaml")


def test_every_file_is_read_and_decoded_once_and_unlabeled_masks_never(tmp_path, monkeypatch):
    root = folder(tmp_path, grey(0, 1))
    (root / "splits").mkdir()
    (root / "splits/labeled.txt").write_text("0\n1\n2")
    (root / "splits/unlabeled.txt").write_text("3\n4\n5")
    read, steps = [], []
    real = decode.load
    monkeypatch.setattr(decode, "load", lambda path: read.append(path.relative_to(root).as_posix()) or real(path))
    checked = check(root, labels=2, progress=lambda done, total: steps.append((done, total)))
    assert checked.ok and checked.index.counts()["unlabeled"] == 4
    listed = [f"masks/{k}.png" for k in range(3)]  # 2 is labeled, and settles the classes although it is not chosen
    assert sorted(read) == sorted([f"images/{k}.png" for k in range(6)] + listed)
    assert steps == [(k, 6) for k in range(1, 7)]
    assert all(item.masks for item in checked.index.unlabeled)


def test_labels_in_folders_and_impossible_labels(tmp_path):
    root = folder(tmp_path, grey(0, 1))
    checked = check(root, labels=3)
    assert checked.index.counts() == {"labeled": 3, "unlabeled": 4, "val": 0, "test": 0}
    (root / "images/0.png").rename(root / "images/zero.png")
    (root / "masks/0.png").rename(root / "masks/zero.png")
    renamed = {i.name.replace("zero", "0") for i in check(root, labels=3).index.labeled}
    assert renamed == {item.name for item in checked.index.labeled}
    with pytest.raises(Refusal, match="1 to 6"):
        check(root, labels=7)


def test_hash_changes_with_content_and_lists_only(tmp_path):
    root = folder(tmp_path, grey(0, 1))
    first = check(root)
    os.utime(root / "images/1.png", (0, 0))
    assert check(root).hash == first.hash
    save(root / "masks/1.png", stripes([1, 0]))
    assert check(root).hash != first.hash


def test_five_channels_and_sizes(tmp_path):
    for k in range(3):
        five = np.random.default_rng(k).integers(0, 60000, (10 + k, 12, 5)).astype(np.uint16)
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"images/{k}.tif", five, photometric="minisblack", planarconfig="contig")
        save(tmp_path / f"masks/{k}.png", stripes([0, 1], (10 + k, 12)))
    checked = check(tmp_path)
    assert checked.ok and (checked.channels, checked.dtype) == (5, "uint16")
    assert checked.sizes == ((10, 12), (11, 12), (12, 12)) and checked.images["1"] == (11, 12, 5, "uint16")


def test_json_is_complete_and_plain(tmp_path):
    root = folder(tmp_path, grey(0, 1))
    save(root / "unlabeled/odd.png", picture(1, (3, 3)))
    raw = json.loads(json.dumps(check(root).to_json()))
    assert raw["ok"] is False and raw["counts"]["labeled"] == 5 and raw["kind"] == "binary"
    assert ClassMap.from_json(raw["classes"]).names == ("foreground",)
    assert {"code", "where", "found", "fix", "expected", "level"} == set(raw["problems"][0])


def test_nothing_heavy_is_imported():
    code = (
        "import sys, semiseg.data.check; print([m for m in ('torch', 'torchvision', 'tifffile') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize("name, kind, count, size", [
    ("vnc_em", "multilabel", 3, 256), ("chase_db1", "binary", 1, 256), ("camvid", "multiclass", 11, 128),
])  # fmt: skip
def test_real_sets_pass(name, kind, count, size):
    checked = check(REAL / name, size=size)
    assert checked.ok and checked.classes.kind == kind and checked.classes.channels == count
    assert not checked.warnings
