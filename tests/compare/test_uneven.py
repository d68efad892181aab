"""Where rows of a plan are not on equal terms: how many models, which labels, masks of val."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tiny
from semiseg.compare import compare
from semiseg.compare.grid import plan
from semiseg.errors import Refusal


def test_without_baselines_labels_only_are_as_many_as_the_largest_generation_0(ask):
    """Nobody takes over more of them; snapshots and averages are of one training."""
    for arm, first in (("im@members=2@members_by=seed", 2), ("im@members_by=folds@generations=1", 3), ("im", 1),
                       ("evalnet@members=4", 4), ("self_training", 1), ("fixmatch+im_moving", 1)):  # fmt: skip
        grid = plan(ask("fixmatch", arm, baselines="none", labels=["4"]))
        assert grid.models == first and f"committee.members={first}" in grid.cells[0].sets, arm
        said = [n for n in grid.notes if f"labels only train {first} model{'s' * (first > 1)}," in n]
        assert bool(said) == (arm != "fixmatch+im_moving")
    assert not any("as many as" in n for n in plan(ask("im")).notes)


def test_an_arm_that_learns_from_val_is_noted(ask):
    said = [n.partition(":")[0] for n in plan(ask("evalnet", "im", "im_plusplus@members=3")).notes if "EvalNet" in n]
    assert said == ["evalnet", "im_plusplus, members=3"]


def test_a_committee_of_labels_only_that_is_another_one_is_a_row(ask):
    grid = plan(ask("committee@members_by=bootstrap", "supervised+committee@members=5", baselines="none"))
    first, *others = grid.cells
    assert [c.arm for c in others] == ["committee, members_by=bootstrap", "supervised+committee, members=5"]
    assert first.name.endswith("committee-5") and all(c.needs == (first.name,) for c in others)
    assert grid.notes == []


def test_folds_where_val_is_carved_from_the_labels(ask, tmp_path, tested):
    """An arm in folds learns from what is val for the others: noted; and has no val to be read on: refused."""
    data = tiny.write_folder(tmp_path / "few", "binary", labeled=10, val=0)
    with pytest.raises(Refusal, match="no val set for im, members_by=folds: val is carved") as caught:
        plan(replace(ask("im", "im@members_by=folds"), data=[data]))
    assert caught.value.exit == 3
    assert plan(replace(ask("im"), data=[data])).cells
    shutil.copytree(tested["binary"] / "test", data / "test")
    said = plan(replace(ask("im", "im@members_by=folds"), data=[data])).notes
    assert any(n.startswith("few: im, members_by=folds with more labels than the other rows") for n in said)
    assert not any("more labels" in n for n in plan(ask("im@members_by=folds")).notes)  # val is given


def test_full_labels_that_are_not(ask, tested, tmp_path):
    """Masks of some unlabeled images: the row says of how many. A mask that is ignored everywhere is no label more."""
    some, empty = tmp_path / "some", tmp_path / "empty"
    for path in (some, empty):
        shutil.copytree(tested["binary"], path)
    (some / "splits").mkdir()
    for split, those in (("labeled", range(3)), ("unlabeled", range(3, 6)), ("test", range(1))):
        names = [f"t{i}" if split == "test" else f"{i:02d}" for i in those]
        (some / f"splits/{split}.txt").write_text("\n".join(names))
    shutil.copy(some / "test/images/00.png", some / "images/t0.png")
    shutil.copy(some / "test/masks/00.png", some / "masks/t0.png")
    (some / "masks/05.png").unlink()
    grid = plan(replace(ask("fixmatch"), data=[some]))
    assert grid.cells[-1].arm == "full labels, 2 of 3 masks" and grid.cells[-1].name.endswith("full-labels")
    assert "some: only 2 of 3 unlabeled images have masks, so there is no 'full labels'" in grid.notes
    tiny.save(empty / "masks/00.png", np.full((24, 24), 255, np.uint8))
    for mask in empty.rglob("masks/*.png"):  # 0 and 1, so that 255 means ignored
        if mask != empty / "masks/00.png":
            tiny.save(mask, np.asarray(Image.open(mask)) // 255)
    grid = plan(replace(ask("fixmatch"), data=[empty]))
    assert not [c for c in grid.cells if c.arm.startswith("full")] and "no masks of unlabeled" in grid.notes[0]
    assert plan(replace(ask("fixmatch", labels=["3"]), data=[empty])).cells[-1].arm == "full labels"


def test_any_number_of_labels_is_cut_into_crops_of_one_size(ask, tmp_path):
    """By all labeled images, not by those that a row has; and as it was when the comparison began."""
    root = tiny.write_folder(tmp_path / "sizes", "binary", labeled=4, val=20, size=40)
    big = tiny.write_folder(tmp_path / "big", "binary", labeled=9, size=96)
    for part in ("images", "masks"):
        for path in (big / part).iterdir():
            shutil.copy(path, root / part / f"z{path.name}")
    request = replace(ask("im", labels=["3", "all"]), data=[root], options={"batch": 2})
    grid = plan(request)
    assert {c.labels for c in grid.cells} == {"3", "all", "full"} and grid.sizes == {"sizes": 96}
    assert {c.options["size"] for c in grid.cells} == {96}
    assert {c.options["size"] for c in plan(request, sizes={"sizes": 64}).cells} == {64}
    assert {c.options["size"] for c in plan(replace(request, options={"size": 32})).cells} == {32}
    assert plan(replace(request, options={"resize": 70})).sizes == {"sizes": 64}


def test_an_image_that_is_ignored_everywhere_is_not_among_those_of_test(ask, tested, tmp_path, here):
    """With it there would be enough images for an interval, and there are not."""
    root = shutil.copytree(tested["binary"], tmp_path / "some")
    for i in (1, 4):
        Image.fromarray(np.full((24, 24), 255, np.uint8)).save(root / f"test/masks/{i:02d}.png")
    (root / "classes.yaml").write_text("names: [background, thing]\nvalues: {background: 0, thing: 1}\nignore: 255\n")
    for path in [p for part in ("masks", "val/masks", "test/masks") for p in (root / part).rglob("*.png")]:
        array = np.asarray(Image.open(path))
        if (array != 255).any():
            Image.fromarray((array > 0).astype(np.uint8)).save(path)
    rows = compare(replace(ask("fixmatch", baselines="none"), data=[root]), begin=here, quiet=True)["table"]
    assert {row["n_images"] for row in rows} == {4} and all(row["low"] is None for row in rows)
