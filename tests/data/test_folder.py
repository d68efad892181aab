from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.classes import ClassMap
from semiseg.data.folder import find, read_label
from semiseg.data.index import Item
from semiseg.errors import Refusal


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(items):
    return [item.name for item in items]


def test_folders_layout(tmp_path):
    touch(tmp_path, "images/b.jpg", "images/a.png", "images/x/c.png", "masks/a.png", "masks/b.png", "masks/x/c.png")
    touch(tmp_path, "unlabeled/u.png", "unlabeled/day/u.TIF", "val/images/a.png", "val/masks/a.png")
    index = find(tmp_path)
    assert index.layout == "folders" and not index.problems and index.val_source == "given" and index.labels == ()
    assert names(index.labeled) == ["a", "b", "x/c"]
    assert names(index.unlabeled) == ["unlabeled/day/u", "unlabeled/u"]
    assert names(index.val) == ["val/a"] and index.val[0].masks == (tmp_path / "val/masks/a.png",)
    assert index.counts() == {"labeled": 3, "unlabeled": 2, "val": 1, "test": 0}
    assert index.labeled[2] == Item("x/c", tmp_path / "images/x/c.png", (tmp_path / "masks/x/c.png",))


def test_a_folder_per_label(tmp_path):
    touch(tmp_path, "images/a.png", "masks/wall/a.png", "masks/cell/a.png", "val/images/b.png", "val/masks/cell/b.png")
    index = find(tmp_path)
    assert index.labels == ("cell", "wall")
    assert [m.parent.name for m in index.labeled[0].masks] == ["cell", "wall"]
    assert [p.code for p in index.problems] == ["D36"] and "val/masks/wall/" in str(index.problems[0])
    turned = find(tmp_path, ("wall", "cell"))
    assert [m.parent.name for m in turned.labeled[0].masks] == ["wall", "cell"]


def test_an_empty_label_folder_is_said_once(tmp_path):
    """It is no label that somebody forgot in every image: it is to be removed, or filled."""
    touch(tmp_path, *(f"{d}/{n}.png" for d in ("images", "masks/cell", "masks/wall") for n in "abc"))
    (tmp_path / "masks/old").mkdir()
    index = find(tmp_path)
    (problem,) = index.problems
    assert (problem.code, problem.where) == ("D36", f"{tmp_path.as_posix()}/masks/old/") and "remove it" in problem.fix


def test_masks_in_a_folder_of_another_name_are_found(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "labels/a.tif", "labels/b.tif", "notes/x.png")
    (problem,) = [p for p in find(tmp_path).problems if p.code == "D03"]
    assert f"Are they in {tmp_path.as_posix()}/labels/" in problem.fix


def test_labeled_images_may_be_missing_where_another_split_is_wanted(tmp_path):
    touch(tmp_path, "test/images/a.png", "test/masks/cell/a.png", "test/masks/wall/a.png", "images/x/notes.txt")
    assert [p.code for p in find(tmp_path).problems] == ["D03"] and not find(tmp_path).test
    index = find(tmp_path, wanted="test")
    assert not index.problems and names(index.test) == ["test/a"] and index.labels == ("cell", "wall")
    turned = find(tmp_path, ("wall", "cell"), "test")
    assert [m.parent.name for m in turned.test[0].masks] == ["wall", "cell"]
    assert [p.code for p in find(tmp_path, wanted="val").problems] == ["D03"]
    touch(tmp_path, "masks/.keep")
    codes = {w: [p.code for p in find(tmp_path, wanted=w).problems if p.level == "error"] for w in ("labeled", "test")}
    assert codes == {"labeled": ["D04"], "test": []}
    touch(tmp_path, "images/b.png")  # what is there must be right
    assert [p.code for p in find(tmp_path, wanted="test").problems if p.level == "error"] == ["D01"]


def test_one_fix_when_all_masks_carry_the_same_ending(tmp_path):
    touch(tmp_path, *(f"images/{n}.jpg" for n in "abc"), *(f"masks/{n}_mask.png" for n in "abc"))
    problems = find(tmp_path).problems
    assert [p.code for p in problems] == ["D01"] * 3 + ["D02"] * 3
    assert all("'_mask'" in p.fix for p in problems)


def test_an_ending_is_found_although_one_image_has_no_mask(tmp_path):
    touch(tmp_path, *(f"images/{n}.jpg" for n in ("a", "b", "c", "lone")), *(f"masks/{n}_mask.png" for n in "abc"))
    touch(tmp_path, "masks/stray.png")
    fixes = {Path(p.where).name: p.fix for p in find(tmp_path).problems}
    assert [name for name, fix in fixes.items() if "take '_mask' out" in fix] == [
        f"{n}{end}" for end in (".jpg", "_mask.png") for n in "abc"
    ]
    assert "add the mask" in fixes["lone.jpg"] and "Did you mean" not in fixes["lone.jpg"]
    assert "add the image" in fixes["stray.png"]


@pytest.mark.parametrize("end", ["", "_L"])
def test_masks_under_a_name_of_others_are_never_taken_for_unlabeled_images(tmp_path, end):
    touch(tmp_path, *(f"images/{n}.png" for n in "abc"), *(f"labels/{n}{end}.png" for n in "abc"), "unlabelled/d.png")
    said = {p.where.removeprefix(str(tmp_path)): p for p in find(tmp_path).problems}
    assert "/labels" not in said and not any("unlabeled" in p.fix for w, p in said.items() if w != "/unlabelled")
    masks = next(p for p in said.values() if "no folder masks/" in p.found)
    assert "Are they in" in masks.fix and "/labels/" in masks.fix


def test_paths_stay_as_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "my_data/images/a.png", "my_data/masks/b.png")
    for typed in ("my_data", "./my_data/"):
        codes = {p.code: p.where for p in find(typed).problems}
        assert codes == {"D01": "my_data/images/a.png", "D02": "my_data/masks/b.png"}


def test_junk_and_hidden_files_are_left_alone(tmp_path):
    touch(tmp_path, "images/a.png", "masks/a.png", "images/.DS_Store", "images/._a.png", "images/Thumbs.db")
    touch(tmp_path, "masks/__MACOSX/a.png")
    index = find(tmp_path)
    assert names(index.labeled) == ["a"] and not index.problems


def test_loose_images_are_named_in_the_message(tmp_path):
    touch(tmp_path, "a.png", "b.png", "masks/a.png")
    problem = find(tmp_path).problems[0]
    assert problem.code == "D03" and "2 images of its own" in problem.found


def test_an_unreadable_folder_is_a_problem_not_a_crash(tmp_path, monkeypatch):
    touch(tmp_path, "images/a.png", "masks/a.png", "images/sub/b.png")
    import os

    listdir = os.listdir

    def denied(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", denied)
    problem = next(p for p in find(tmp_path).problems if p.code == "D17")
    assert problem.where.endswith("images/sub") and "Permission denied" in problem.found


def test_read_label_names_the_file(tmp_path):
    (tmp_path / "m.png").write_bytes(b"")
    Image.fromarray(np.array([[0, 1], [9, 255]], np.uint8)).save(tmp_path / "m.png")
    item = Item("m", tmp_path / "i.png", (tmp_path / "m.png",))
    known = ClassMap("multiclass", ("a", "b", "c"), values=(0, 1, 9), ignore=(255,))
    assert read_label(item, known).tolist() == [[0, 1], [2, 255]]
    for classes, code in (
        (ClassMap("multiclass", ("a", "b"), values=(0, 1)), "D08"),
        (ClassMap("multilabel", ("a", "b"), "folders", values=(0, 1)), "D10"),
    ):
        with pytest.raises(Refusal) as caught:
            read_label(item, classes)
        assert caught.value.problems[0].code == code and "m.png" in str(caught.value)
    with pytest.raises(Refusal):
        read_label(Item("n", tmp_path / "n.png"), known)
