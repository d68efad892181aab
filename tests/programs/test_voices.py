"""Folders of masks as members: what their values and label folders mean beside the classes of the others."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from semiseg.errors import Refusal
from semiseg.programs.given import open_all


def coded(folder, values, where=""):
    """Two masks of 8x8, the left half of one value and the right half of another."""
    for i in range(2):
        mask = np.repeat(np.array([values], np.uint8), 4, 1).repeat(8, 0)
        tiny.save(folder / where / f"{i:02d}.png", mask)
    return str(folder)


def test_masks_whose_foreground_would_be_no_opinion(prepared, tmp_path):
    """255 is ignored where nobody says otherwise; masks of 0 and 255 beside classes 0 and 1 mean the foreground by it."""
    binary, three = (replace(prepared(k).classes, values=v, ignore=(255,)) for k, v in (("binary", (0, 1)),
                                                                                 ("multiclass", (0, 1, 2))))  # fmt: skip
    mine, other = coded(tmp_path / "mine", (0, 1)), coded(tmp_path / "other", (0, 255))
    for paths in ([mine, other], [other, mine]):
        with pytest.raises(Refusal, match=r"holds the values 0, 255, .* Expected: 0, 1, and 255 = ignored") as error:
            open_all(paths, binary, tmp_path)
        assert error.value.exit == 3 and [p.where for p in error.value.problems] == [other]
        with pytest.raises(Refusal, match="Expected: 0, 1, 2, and 255 = ignored"):
            open_all(paths, three, tmp_path)
    assert "save its masks with 0, 1; or, in" in str(error.value)
    assert len(open_all([mine, coded(tmp_path / "holes", (1, 255))], binary, tmp_path)) == 2
    assert len(open_all([mine, coded(tmp_path / "rare", (1, 255))], three, tmp_path)) == 2  # a class that is rare
    assert len(open_all([mine, coded(tmp_path / "nothing", (0, 0))], binary, tmp_path)) == 2
    for place in (tmp_path / "other", tmp_path):
        (place / "classes.yaml").write_text("names: [cell]\nignore: 255\n")
        assert len(open_all([mine, other], binary, tmp_path)) == 2
        (place / "classes.yaml").unlink()


def test_label_folders_must_be_the_same(prepared, tmp_path):
    known = prepared("multilabel").classes
    folders = {"a": ("alive", "dead"), "b": ("alive",), "c": ("alive", "pos"), "d": ("",)}
    for name, labels in folders.items():
        for label in labels:
            coded(tmp_path / name, (0, 255), label)
    a, *others, e = (str(tmp_path / name) for name in "abcde")
    for other in others:
        for classes in (None, known):
            said = set()
            for pair in ((a, other), (other, a)):
                with pytest.raises(Refusal) as error:
                    open_all(pair, classes, tmp_path / "images")
                assert error.value.exit == 2 and {p.code for p in error.value.problems} == {"P03"}
                said.add(str(error.value))
            assert len(said) == 1 and "the label folders alive, dead" in str(error.value)
    shutil.copytree(a, e)
    assert open_all([a, e], None, tmp_path)[0].classes.names == ("alive", "dead")


def test_masks_in_the_subfolders_of_the_images_are_no_label_folders(tmp_path):
    for i in range(2):
        tiny.save(tmp_path / f"images/plate/{i:02d}.png", np.zeros((8, 8), np.uint8))
    one, two = (coded(tmp_path / n, v, "plate") for n, v in (("one", (0, 255)), ("two", (255, 0))))
    voices = open_all([one, two], None, tmp_path / "images")
    path = tmp_path / "images/plate/00.png"
    label = voices[0].label("plate/00", path, np.zeros((8, 8, 1), np.uint8))
    assert voices[0].classes.kind == "binary" and label.mean() == 0.5
    with pytest.raises(Refusal, match=r"holds no mask 00 for .*, but plate/00"):
        voices[0].label("00", path, np.zeros((8, 8, 1), np.uint8))


def asked(voice, name):
    """What keeps a member from labeling an 8x8 image, when it is asked and beforehand."""
    path, image = Path(f"new/{name}.png"), np.zeros((8, 8, 1), np.uint8)
    with pytest.raises(Refusal) as error:
        voice.label(name, path, image)
    assert voice.lacks({name: (path, (8, 8, 1, "uint8"))}) == error.value.problems and error.value.exit == 3
    return error.value


def test_two_masks_of_one_name_are_no_opinion(prepared, tmp_path):
    classes = replace(prepared("binary").classes, values=(0, 255))
    mine, other = coded(tmp_path / "mine", (0, 255)), coded(tmp_path / "other", (0, 255))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "other/01.tif")
    voice = open_all([mine, other], classes, tmp_path)[1]
    said = asked(voice, "01")
    assert [p.code for p in said.problems] == ["D15"] and "01.png" in str(said) and "01.tif" in str(said)
    assert [p.code for p in asked(voice, "unlabeled/01").problems] == ["D15"]
    assert voice.lacks({"00": (Path("00.png"), (8, 8, 1, "uint8"))}) == []  # which has one
    shutil.move(tmp_path / "other/01.tif", tmp_path / "other/02.tif")
    (tmp_path / "other/02.PNG").symlink_to("nowhere")
    assert [p.code for p in asked(open_all([mine, other], classes, tmp_path)[1], "02").problems] == ["D17"]


def test_a_label_folder_that_lacks_a_mask_is_what_is_said(prepared, tmp_path):
    known = prepared("multilabel").classes
    for name in ("a", "b"):
        for label in known.names:
            coded(tmp_path / name, (0, 255), label)
    (tmp_path / "b" / known.names[0] / "00.png").unlink()
    voice = open_all([str(tmp_path / n) for n in "ab"], known, tmp_path)[1]
    said = asked(voice, "00")
    assert [p.code for p in said.problems] == ["D36"] and f"no counterpart in {tmp_path}/b/{known.names[0]}/" in str(
        said
    )
    assert [p.code for p in asked(voice, "05").problems] == ["P04"]  # of which there is nothing at all
    assert voice.lacks({"01": (Path("01.png"), (8, 8, 1, "uint8"))}) == []


def test_masks_of_another_coding_are_told_the_coding_that_is_wanted(prepared, tmp_path):
    """A folder of masks cannot be checked by `semiseg check`, and 0/1 beside 0/255 is known before images are asked."""
    binary = replace(prepared("binary").classes, values=(0, 255))
    mine, ones = coded(tmp_path / "mine", (0, 255)), coded(tmp_path / "ones", (0, 1))
    coded(tmp_path / "ones", (0, 0), "empty")
    with pytest.raises(Refusal, match=r"D10: .*ones holds the values 0, 1, .*save its masks with 0, 255") as error:
        open_all([mine, ones], binary, tmp_path / "data")
    assert error.value.exit == 3 and f"the coding of {tmp_path}/data" in str(error.value)
    tiny.save(tmp_path / "mine/01.png", np.array(8 * [[0, 255, 7, 7, 7, 0, 0, 0]], np.uint8))
    said = str(asked(open_all([mine, coded(tmp_path / "good", (0, 255))], binary, tmp_path / "data")[0], "01"))
    assert "D08" in said and "7 (24 pixels)" in said and "semiseg check" not in said
    assert "save its masks with 0, 255" in said and f"the coding of {tmp_path}/data" in said


def test_probabilities_are_not_offered_as_254_classes(tmp_path):
    mine = coded(tmp_path / "a", (0, 255))
    for i in range(2):
        tiny.save(tmp_path / f"prob/{i:02d}.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    with pytest.raises(Refusal) as error:
        open_all([mine, str(tmp_path / "prob")], None, tmp_path / "images")
    text = str(error.value)
    assert f"D08: {tmp_path}/prob/00.png" in text and "probabilities" in text and "class 100" not in text
    assert "\n" not in text and f"{mine}/" not in text


def declared(folder, values, text):
    """Masks, and the class file that says what they mean, in masks/ as `semiseg predict` writes them."""
    coded(folder, values, "masks")
    (folder / "masks/classes.yaml").write_text(text)
    return str(folder)


def test_class_files_that_contradict_each_other(prepared, tmp_path):
    """Three classes swapped or named otherwise, a foreground that is a background: refused, with data and without."""
    three = replace(prepared("multiclass").classes, names=("background", "cell", "nuc"), values=(0, 1, 2))
    text = "values:\n  background: 0\n  {}: 1\n  {}: 2\n"
    one = declared(tmp_path / "one", (1, 2), text.format("cell", "nuc"))
    same = declared(tmp_path / "same", (2, 1), "names: [Background, cell, nuc]\n")
    nameless = declared(tmp_path / "nameless", (2, 1), "names: [background, class 1, class 2]\n")
    others = [
        declared(tmp_path / n, (1, 2), text.format(*w)) for n, w in (("x", ("nuc", "cell")), ("y", ("dog", "cat")))
    ]
    for known in (three, None):
        assert len(open_all([one, same, nameless], known, tmp_path / "images")) == 3
        for other in others:
            with pytest.raises(
                Refusal, match=r"P03: .*classes\.yaml says that 1 is \w+, and in .* it is cell"
            ) as error:
                open_all([one, other], known, tmp_path / "images")
            assert error.value.exit == 2 and {p.where for p in error.value.problems} == {f"{other}/masks/classes.yaml"}
    cell = declared(tmp_path / "cell", (0, 255), "values:\n  background: 0\n  cell: 255\n")
    gap = declared(tmp_path / "gap", (0, 255), "names: [gap, cell]\n")
    turned = declared(tmp_path / "turned", (0, 255), "values:\n  background: 255\n  cell: 0\n")
    assert len(open_all([cell, gap], None, tmp_path / "images")) == 2
    with pytest.raises(Refusal, match=r"says that 0 is cell, and in .* it is background"):
        open_all([cell, turned], None, tmp_path / "images")


def test_what_a_class_file_may_say_beside_others(prepared, tmp_path):
    """One value is the foreground's; a file of another tool's says nothing; a palette of a label's own means nothing."""
    lone = "task: multilabel\nvalues: {cell: 255}\n"
    assert len(open_all([declared(tmp_path / n, (0, 255), lone) for n in "ab"], None, tmp_path / "images")) == 2
    foreign = declared(tmp_path / "tool", (0, 255), "nc: 3\nnames: {0: cell}\n")
    binary = replace(prepared("binary").classes, names=("cell",), values=(0, 255))
    assert len(open_all([declared(tmp_path / "c", (0, 255), lone), foreign], binary, tmp_path / "images")) == 2
    known = replace(prepared("multilabel").classes, palette=((0, 0, 0), (255, 0, 0)), values=(0, 1))
    for name in ("one", "two"):
        for label, color in zip(known.names, ((255, 0, 0), (0, 255, 0)), strict=True):
            coded(tmp_path / name, (0, 1), label)
            for path in (tmp_path / name / label).glob("*.png"):
                image = Image.open(path).convert("L")
                image.putpalette([0, 0, 0, *color])
                image.save(path)
    assert len(open_all([str(tmp_path / n) for n in ("one", "two")], known, tmp_path / "images")) == 2


def test_one_palette_for_all(prepared, tmp_path):
    """Indices painted otherwise than in the data mean something else; a grey ramp and an unused index say nothing."""
    palette = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    classes = replace(prepared("multiclass").classes, values=(0, 1, 2), palette=palette)

    def painted(name, colors):
        coded(tmp_path / name, (1, 2))
        for path in (tmp_path / name).glob("*.png"):
            image = Image.open(path).convert("L")
            image.putpalette([c for color in colors for c in color])
            image.save(path)
        return str(tmp_path / name)

    one = painted("one", palette)
    fine = [painted("unused", ((9, 9, 9), *palette[1:])), painted("grey", [(k, k, k) for k in range(256)])]
    assert len(open_all([one, *fine, coded(tmp_path / "plain", (1, 2))], classes, tmp_path)) == 4
    swapped = painted("swapped", (palette[0], palette[2], palette[1]))
    with pytest.raises(
        Refusal, match=r"D10: .*swapped/0\d\.png paints index 1 as \(0, 255, 0\), and in .* \(255, 0, 0\)"
    ):
        open_all([one, swapped], classes, tmp_path)


def test_one_mask_is_not_that_of_two_images(prepared, tmp_path):
    """images/00 and unlabeled/00 are two images of a run with fewer labels, and a folder has one mask of that name."""
    classes = replace(prepared("binary").classes, values=(0, 255))
    voice = open_all([coded(tmp_path / n, (0, 255)) for n in "ab"], classes, tmp_path)[0]
    seen = (8, 8, 1, "uint8")
    images = {"00": (Path("images/00.png"), seen), "unlabeled/00": (Path("unlabeled/00.png"), seen),
              "unlabeled/01": (Path("unlabeled/01.png"), seen)}  # fmt: skip
    (problem,) = voice.lacks(images)
    assert problem.code == "P04" and "two images, images/00.png and unlabeled/00.png" in problem.found
    del images["00"]
    assert voice.lacks(images) == []


def test_colours_beside_ids_are_said_to_be_colours(prepared, tmp_path):
    """Not that their values are strange: what would make those right would not make these."""
    classes = replace(prepared("multiclass").classes, values=(0, 1, 2), ignore=(255,))
    for i in range(2):
        tiny.save(tmp_path / f"rgb/{i:02d}.png", np.tile(np.array([255, 0, 0], np.uint8), (8, 8, 1)))
    voices = open_all([coded(tmp_path / "ids", (1, 2)), str(tmp_path / "rgb")], classes, tmp_path)
    assert "3 channels where one value per pixel is expected" in str(asked(voices[1], "00"))


def test_a_label_of_another_size_is_named(prepared, tmp_path):
    known = prepared("multilabel").classes
    for name in ("a", "b"):
        for label in known.names:
            coded(tmp_path / name, (0, 255), label)
    tiny.save(tmp_path / "b" / known.names[1] / "00.png", np.zeros((8, 5), np.uint8))
    said = asked(open_all([str(tmp_path / n) for n in "ab"], known, tmp_path)[1], "00")
    assert [p.code for p in said.problems] == ["D07"]
    assert said.problems[0].where.endswith(f"b/{known.names[1]}/00.png") and "is 5x8, and" in str(said)


def test_subfolders_of_a_data_folder_are_no_labels(tmp_path):
    for i in range(2):
        tiny.save(tmp_path / f"data/images/plate/{i:02d}.png", np.zeros((8, 8), np.uint8))
    one, two = (coded(tmp_path / n, v, "plate") for n, v in (("one", (0, 255)), ("two", (255, 0))))
    voices = open_all([one, two], None, tmp_path / "data")
    assert voices[0].lacks({"plate/00": (Path("plate/00.png"), (8, 8, 1, "uint8"))}) == []


def test_class_files_of_more_classes_than_others(tmp_path):
    """Each is right about its own masks: nobody is told to save class 2 as another one."""
    few = declared(tmp_path / "a", (0, 1), "values: {background: 0, cell: 1, class 2: 2}\n")
    more = declared(tmp_path / "b", (1, 3), "values: {background: 0, cell: 1, class 2: 2, class 3: 3}\n")
    for order in ([few, more], [more, few]):
        with pytest.raises(Refusal, match=r"P03: .*b/masks/classes.yaml speaks of .*class 3, and .* of .*class 2") as e:
            open_all(order, None, tmp_path / "images")
        assert e.value.exit == 2 and len(e.value.problems) == 1
