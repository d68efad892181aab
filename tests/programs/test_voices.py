"""Folders of masks as members: what their values and label folders mean beside the classes of the others."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

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
