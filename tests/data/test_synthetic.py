"""The synthetic cells: the same whatever was asked before, three overlapping labels, hard in the ways they promise."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semiseg.data.microscope import Blob
from semiseg.data.synthetic import LABELS, _discs, cells, write_cells
from semiseg.errors import BUSY, USAGE, Refusal

SMALL = {"labeled": 2, "unlabeled": 3, "val": 1, "test": 2, "size": 48}


@pytest.fixture(scope="module")
def images():
    drawn = [cells(0, i, 96) for i in range(60)]
    return np.stack([i[..., 0] for i, _ in drawn]), np.stack([m for _, m in drawn]).astype(bool)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """The 4-connected regions, each as a mask."""
    left, found = mask.copy(), []
    while left.any():
        region = np.zeros_like(mask)
        stack = [tuple(np.argwhere(left)[0])]
        while stack:
            y, x = stack.pop()
            if 0 <= y < left.shape[0] and 0 <= x < left.shape[1] and left[y, x]:
                left[y, x], region[y, x] = False, True
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        found.append(region)
    return found


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**40), index=st.integers(0, 2**40), size=st.integers(32, 80))
def test_shapes_types_and_values_hold_for_any_arguments(seed, index, size):
    image, masks = cells(seed, index, size)
    assert image.shape == (size, size, 1) and masks.shape == (3, size, size)
    assert image.dtype == masks.dtype == np.uint8
    assert masks.max() <= 1 and image.std() > 1


def test_an_image_does_not_depend_on_what_was_drawn_before():
    ahead = [cells(3, i, 48) for i in range(3)]
    np.random.seed(1)  # the global generator plays no part
    back = [cells(3, i, 48) for i in (2, 1, 0)][::-1]
    for (a, m), (b, n) in zip(ahead, back, strict=True):
        assert np.array_equal(a, b) and np.array_equal(m, n)


def test_another_seed_or_index_is_another_image():
    first = cells(0, 0, 48)[0]
    assert not np.array_equal(first, cells(0, 1, 48)[0])
    assert not np.array_equal(first, cells(1, 0, 48)[0])
    assert not np.array_equal(cells(1, 0, 48)[0], cells(0, 1, 48)[0])


@pytest.mark.parametrize("wrong", [{"size": 31}, {"seed": -1}, {"index": -1}])
def test_numbers_that_make_no_sense_are_refused_by_name(wrong):
    with pytest.raises(Refusal, match=next(iter(wrong))) as caught:
        cells(**{"seed": 0, "index": 0, "size": 32, **wrong})
    assert caught.value.exit == USAGE


def test_labels_overlap_as_in_the_paper(images):
    alive, dead, position = images[1].transpose(1, 0, 2, 3)
    cell = alive | dead
    assert (position & cell).sum() > 0.9 * position.sum()  # a disc lies on its cell
    assert (position & alive).any() and (position & dead).any()
    assert 0 < (alive & dead).sum() < 0.2 * dead.sum()  # some of the dead lie over the living
    assert (cell & ~position).any()


def test_every_label_is_there_and_none_fills_the_image(images):
    for label, share in zip(LABELS, images[1].mean((0, 2, 3)), strict=True):
        assert 0.02 < share < 0.45, label


def test_cells_touch_in_most_images(images):
    masks = images[1][:20]
    # Cells that touch are one region of alive, with several positions in it.
    clumps = [max(len(regions(m[2] & r)) for r in [m[0] & False, *regions(m[0])]) for m in masks]
    assert sum(n >= 2 for n in clumps) >= 10 and max(clumps) >= 4


def test_the_dead_resemble_debris_and_not_only_the_background(images):
    grey, masks = images
    contrast, truth = [], []
    for image, mask in zip(grey.astype(float), masks, strict=True):
        ground = ~(mask[0] | mask[1])
        contrast.append((image - np.median(image[ground])) / np.median(image[ground]))
        truth.append(np.where(mask[1], 2, np.where(ground, 0, 1)))
    value, kind = np.stack(contrast), np.stack(truth)
    dead, ground = value[kind == 2], value[kind == 0]
    assert np.median(np.abs(dead)) > 2 * np.median(np.abs(ground))  # visible,
    dark = np.quantile(dead, 0.4)
    assert (ground < dark).sum() > 0.03 * (dead < dark).sum()  # yet dirt is as dark as they are
    assert (dead > 0.05).mean() > 0.1 and (dead < -0.05).mean() > 0.1  # no threshold finds them


def test_light_varies_between_and_within_images(images):
    grey, masks = images
    ground = [image[~(m[0] | m[1])] for image, m in zip(grey, masks, strict=True)]
    levels = [np.median(g) for g in ground]
    assert max(levels) > 1.7 * min(levels)
    ratios = []
    for image, mask in zip(grey, masks, strict=True):
        empty = np.where(mask[0] | mask[1], np.nan, image)
        quarters = [
            np.nanmedian(q) for half in np.split(empty, 2) for q in np.split(half, 2, 1) if (~np.isnan(q)).any()
        ]
        ratios.append(max(quarters) / min(quarters))
    assert np.median(ratios) > 1.08


def test_discs_have_a_quarter_of_the_nearest_distance_from_3_to_8():
    def at(x):
        return Blob(64 + 24, x + 24, 10, 1, 0, [])  # 24 pixels of margin that are cut away

    def width(*xs):
        return _discs([at(x) for x in xs], 128)[64].nonzero()[0]

    assert width(50).tolist() == list(range(42, 59))  # alone: 8
    assert width(30, 55)[:13].tolist() == list(range(24, 37))  # 25 apart: 6
    assert width(30, 38).tolist() == [*range(27, 34), *range(35, 42)]  # 8 apart: 3, not 2
    assert not _discs([at(-10)], 128).any()  # a centre out of view has none
    assert not _discs([], 128).any()


def test_write_cells_makes_a_folder_with_lists_and_all_masks(tmp_path):
    folder = write_cells(tmp_path / "new" / "cells", **SMALL)
    splits = {p.stem: p.read_text().split() for p in (folder / "splits").iterdir()}
    assert {name: len(stems) for name, stems in splits.items()} == {"labeled": 2, "unlabeled": 3, "val": 1, "test": 2}
    stems = sorted(s for names in splits.values() for s in names)
    assert len(set(stems)) == 8
    for part in ("images", *(f"masks/{label}" for label in LABELS)):
        assert sorted(p.name for p in (folder / part).iterdir()) == [f"{s}.png" for s in stems]
    image, masks = cells(0, 1, 48)
    assert np.array_equal(np.asarray(Image.open(folder / "images/train-0001.png")), image[..., 0])
    for label, mask in zip(LABELS, masks, strict=True):
        assert np.array_equal(np.asarray(Image.open(folder / f"masks/{label}/train-0001.png")), mask * 255)
    assert [p.name for p in folder.parent.iterdir()] == ["cells"]


def test_the_same_numbers_reuse_the_folder_and_others_are_refused(tmp_path):
    folder = write_cells(tmp_path / "cells", **SMALL)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    write_cells(tmp_path / "cells", **SMALL)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(Refusal, match="complete") as caught:
        write_cells(folder, **{**SMALL, "seed": 1})
    assert caught.value.exit == BUSY
    (folder / "masks/dead/train-0000.png").unlink()
    with pytest.raises(Refusal):  # half a data set is not taken for a whole one
        write_cells(folder, **SMALL)


def test_two_folders_of_the_same_numbers_are_identical(tmp_path):
    a, b = (write_cells(tmp_path / name, **SMALL) for name in "ab")
    assert files(a) == files(b)
    assert json.loads((a / "cells.json").read_text())["seed"] == 0


def test_more_labels_leave_val_test_and_earlier_images_as_they_are(tmp_path):
    few = files(write_cells(tmp_path / "few", **SMALL))
    many = files(write_cells(tmp_path / "many", **{**SMALL, "labeled": 4, "unlabeled": 5}))
    assert all(many[name] == data for name, data in few.items() if name.endswith(".png"))
    assert many["splits/val.txt"] == few["splits/val.txt"]


def test_a_foreign_folder_is_not_touched_and_a_crash_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(Refusal):
        write_cells(tmp_path / "mine", **SMALL)
    assert files(tmp_path / "mine") == {"notes.txt": b"keep"}
    monkeypatch.setattr("semiseg.data.synthetic._draw", lambda folder, *_: folder.mkdir() or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_cells(tmp_path / "cells", **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_negative_counts_are_refused(tmp_path):
    with pytest.raises(Refusal, match="val"):
        write_cells(tmp_path / "cells", **{**SMALL, "val": -1})
    assert not list(tmp_path.iterdir())


def test_the_module_needs_no_torch():
    code = "import sys, semiseg.data.synthetic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
