"""Masks that not every run uses: of labels that were not chosen, and of unlabeled images, by `oracle` and `diagnose`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from semiseg.data import decode
from semiseg.data.check import Checked, check


def mask(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8), 24 // len(values))[:, None].repeat(20, 1)


def make(root: Path, unlabeled: tuple[int, ...] = (0, 1), lists: bool = True) -> Path:
    """Six labeled images, of which only the last shows class 2, and three unlabeled ones that have masks."""
    for k in range(9):
        tiny.save(root / f"images/{k}.png", np.random.default_rng(k).integers(0, 256, (24, 20)).astype(np.uint8))
        tiny.save(root / f"masks/{k}.png", mask(*((0, 1, 2) if k == 5 else (0, 1) if k < 5 else unlabeled)))
    if lists:
        (root / "splits").mkdir()
        (root / "splits/labeled.txt").write_text("\n".join("012345"))
        (root / "splits/unlabeled.txt").write_text("\n".join("678"))
    return root


def found(checked: Checked, code: str) -> list[str]:
    return [str(p) for p in checked.problems if p.code == code]


@pytest.mark.parametrize("labels", [1, 2, 5, 0.5, "all", None])
def test_the_task_does_not_depend_on_the_number_of_labels(tmp_path: Path, labels: Any) -> None:
    checked = check(make(tmp_path), labels=labels)
    assert checked.ok and checked.classes == check(tmp_path).classes and checked.classes.kind == "multiclass"
    last = labels in ("all", None)
    assert bool(found(checked, "D27")) != last  # which of the classes the chosen labels lack is still said
    assert (checked.pixels["labeled"]["class 2"] + checked.pixels["val"]["class 2"] > 0) == last


def test_in_folders_too_and_labels_that_are_not_chosen_are_judged(tmp_path: Path) -> None:
    make(tmp_path, lists=False)
    kinds = {check(tmp_path, labels=n).classes.names for n in (1, 3, 8, "all")}
    assert kinds == {("class 0", "class 1", "class 2")}
    (tmp_path / "classes.yaml").write_text("names: [ground, cell]")
    for n in (1, 3, "all"):
        checked = check(tmp_path, labels=n)
        assert checked.classes.kind == "binary" and ["5.png" in text for text in found(checked, "D08")] == [True]


def test_a_label_that_is_not_chosen_and_ignored_everywhere_settles_nothing(tmp_path: Path) -> None:
    make(tmp_path)
    tiny.save(tmp_path / "masks/4.png", mask(255))
    checked = check(tmp_path, labels=2)
    assert checked.ok and len(found(checked, "D26")) == 1
    assert [i.name for i in checked.index.unlabeled if not i.masks] == ["4"]
    assert checked.hash == check(tmp_path, labels=2).hash
    changed = mask(0, 1)
    changed[0, 0] = 1
    tiny.save(tmp_path / "masks/3.png", changed)
    assert check(tmp_path, labels=2).hash == checked.hash, "a mask that neither trains nor scores"
    tiny.save(tmp_path / "masks/1.png", changed)
    assert check(tmp_path, labels=2).hash != checked.hash


@pytest.mark.parametrize("asked", [{}, {"oracle": True}, {"diagnose": True}], ids=lambda a: next(iter(a), "neither"))
def test_masks_of_unlabeled_images_are_opened_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, bool]
) -> None:
    make(tmp_path)
    tiny.save(tmp_path / "masks/6.png", mask(0, 9))
    tiny.save(tmp_path / "masks/7.png", mask(0, 1)[:-2])
    (tmp_path / "masks/8.png").write_bytes(b"")
    read, real = list[str](), decode.load
    monkeypatch.setattr(decode, "load", lambda path: read.append(path.name + path.parent.name) or real(path))
    checked = check(tmp_path, **asked)
    opened = [name for name in ("6.pngmasks", "7.pngmasks", "8.pngmasks") if name in read]
    assert len(read) == len(set(read)) and len(opened) == (3 if asked else 0)
    said = {p.code: p.where.rpartition("/")[2] for p in checked.errors}
    assert said == ({"D08": "6.png", "D07": "7.png", "D12": "8.png"} if asked else {})


def test_oracle_makes_labels_of_them_and_diagnose_changes_nothing(tmp_path: Path) -> None:
    make(tmp_path, unlabeled=(0, 2))
    tiny.save(tmp_path / "masks/8.png", mask(255))
    plain, oracle = check(tmp_path, labels=5), check(tmp_path, labels=5, oracle=True)
    compared = check(tmp_path, labels=5, diagnose=True)
    assert compared.ok and (compared.hash, compared.classes, compared.pixels) == (
        plain.hash, plain.classes, plain.pixels)  # fmt: skip
    assert [i.name for i in compared.index.unlabeled if i.masks] == ["5", "6", "7"]  # 8 says nothing
    assert oracle.opened == 3 and not plain.opened and not compared.opened
    assert [i.name for i in oracle.index.val] == [i.name for i in plain.index.val]
    assert [i.name for i in oracle.index.labeled] == [i.name for i in plain.index.labeled] + ["5", "6", "7"]
    assert [(i.name, i.masks) for i in oracle.index.unlabeled] == [("8", ())]
    assert found(plain, "D27") and not found(oracle, "D27")
    assert "class 2" in oracle.pixels["labeled"] and found(oracle, "D30") == found(plain, "D30")
    changed = mask(0, 2)
    changed[0, 0] = 2
    tiny.save(tmp_path / "masks/7.png", changed)
    assert check(tmp_path, labels=5).hash == plain.hash == check(tmp_path, labels=5, diagnose=True).hash
    assert check(tmp_path, labels=5, oracle=True).hash != oracle.hash


@pytest.mark.parametrize("asked", [{"oracle": True}, {"diagnose": True}], ids=["oracle", "diagnose"])
def test_the_task_is_that_of_the_labels_whoever_else_has_masks(tmp_path: Path, asked: dict[str, bool]) -> None:
    make(tmp_path, unlabeled=(0, 3))
    plain, opened = check(tmp_path), check(tmp_path, **asked)
    assert plain.ok and plain.classes == opened.classes and len(plain.classes.names) == 3
    assert ["classes.yaml" in text for text in found(opened, "D08")] == [True, True, True]
    (tmp_path / "classes.yaml").write_text("names: [a, b, c, d]")
    assert check(tmp_path, **asked).ok and check(tmp_path).classes == check(tmp_path, **asked).classes


def test_an_image_that_oracle_labels_and_that_is_in_test_is_a_leak(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "splits/test.txt").write_text("t")
    (tmp_path / "images/t.png").write_bytes((tmp_path / "images/6.png").read_bytes())
    tiny.save(tmp_path / "masks/t.png", mask(0, 1))
    assert found(check(tmp_path), "D24") and check(tmp_path).ok
    assert found(check(tmp_path, oracle=True), "D23")
