"""A data folder read with the classes of a run: the same values must mean the same, as far as the folder tells."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semiseg.data.classes import ClassMap
from semiseg.data.foreign import scorable
from semiseg.errors import Refusal

BINARY = ClassMap("multilabel", ("cell",), values=(0, 1), ignore=(255,))
FULL = ClassMap("multilabel", ("foreground",), values=(0, 255))
FOUR = ClassMap("multiclass", ("ground", "cat", "tree", "sky"), values=(0, 1, 2, 3), ignore=(255,))
GREYS = ClassMap("multiclass", ("ground", "cat", "tree"), values=(0, 128, 255))
LABELS = ClassMap("multilabel", ("b", "a"), "folders", (0, 255))


def folder(root: Path, *values: int, names: str = "", labels: tuple[str, ...] = ("",)) -> Path:
    for k in range(3):
        for part in ("", "test/"):
            image = np.random.default_rng([k, len(part)]).integers(0, 255, (16, 16, 3)).astype(np.uint8)
            mask = np.array(values, np.uint8).repeat(256 // len(values) + 1)[:256].reshape(16, 16)
            for label in labels:
                for place, array in ((f"images/i{k}.png", image), (f"masks/{label}/i{k}.png", mask)):
                    path = root / part / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(path)
    if names:
        (root / "classes.yaml").write_text(names)
    return root


def score(root: Path, classes: ClassMap, split: str = "test") -> list[str]:
    return [i.name for i in scorable(root, classes, split, {}, lambda channels, dtype, where: None)]


@pytest.mark.parametrize(
    ("classes", "values", "names"),
    [
        (BINARY, (0, 1), ""), (BINARY, (0, 1, 255), ""), (FULL, (0, 255), ""), (FOUR, (0, 1), ""), (FOUR, (0, 2, 255), ""),
        (FOUR, (0, 1, 2, 3), "names: [ground, cat, tree, sky]"), (FULL, (0, 255), "values: {nothing: 0, fur: 255}"),
        (GREYS, (0, 128, 255), ""), (BINARY, (0, 255), "values: {background: 0, cell: 1}\nignore: 255"),
    ],
)  # fmt: skip
def test_masks_that_mean_the_same(tmp_path: Path, classes: ClassMap, values: tuple[int, ...], names: str) -> None:
    assert score(folder(tmp_path / "data", *values, names=names), classes) == ["test/i0", "test/i1", "test/i2"]


@pytest.mark.parametrize(
    ("classes", "values", "names", "said"),
    [
        (BINARY, (0, 255), "", "255 is class 'foreground', but in the masks of the training it is ignored"),
        (FOUR, (0, 255), "", "255 is class 'foreground', but in the masks of the training it is ignored"),
        (FULL, (0, 1), "", "1 is class 'foreground', but in the masks of the training it is no value"),
        (BINARY, (0, 1, 2), "", "holds the value 2"),
        (FOUR, (0, 1, 2), "names: [ground, tree, cat]", "1 is class 'tree', but in the masks of the training"),
        (LABELS, (0, 255), "", "holds no folder per label"),
    ],
)  # fmt: skip
def test_masks_that_mean_something_else(
    tmp_path: Path, classes: ClassMap, values: tuple[int, ...], names: str, said: str
) -> None:
    with pytest.raises(Refusal, match=said) as found:
        score(folder(tmp_path / "data", *values, names=names), classes)
    assert found.value.exit == 3 and all(p.fix for p in found.value.problems)


def test_one_slip_does_not_hide_another_coding(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", 0, 255)
    mask = np.asarray(Image.open(root / "test/masks/i1.png")).copy()
    mask[0, 0] = 1
    Image.fromarray(mask).save(root / "test/masks/i1.png")
    with pytest.raises(Refusal):
        score(root, BINARY)


def test_what_the_folder_cannot_tell_is_refused_and_other_splits_do_not_matter(tmp_path: Path) -> None:
    """255 in one mask of 0/1 ones may be a class or ignored; a class that only the labeled masks hold is not scored."""
    root = folder(tmp_path / "mixed", 0, 1)
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) // 128 * 255).save(root / "test/masks/i1.png")
    with pytest.raises(Refusal, match="0/255"):
        score(root, BINARY)
    root = folder(tmp_path / "data", 0, 1)
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16) // 52).save(root / "masks/i1.png")
    assert len(score(root, FOUR)) == 3


def test_label_folders_are_taken_in_the_order_of_the_run(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", 0, 255, labels=("a", "b"))
    items = scorable(root, LABELS, "test", {}, lambda channels, dtype, where: None)
    assert [p.parent.name for p in items[0].masks] == ["b", "a"]
    with pytest.raises(Refusal, match="holds folders a, b"):
        score(root, FULL)


def test_what_the_training_settled(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", 0, 255)
    known = {"labeled": ["i0", "i2"], "val": ["i1"]}
    fit = lambda channels, dtype, where: None  # noqa: E731
    assert [i.name for i in scorable(root, FULL, "val", known, fit)] == ["i1"]
    assert [i.name for i in scorable(root, FULL, "labeled", known, fit)] == ["i0", "i2"]
    assert score(root, FULL, "labeled") == ["i0", "i1", "i2"]
    with pytest.raises(Refusal, match="has no val set"):
        score(root, FULL, "val")
    with pytest.raises(Refusal, match="has no unlabeled set with masks"):
        score(root, FULL, "unlabeled")


def test_a_mask_that_is_ignored_everywhere_is_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", 0, 1, 255)
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(root / "test/masks/i1.png")
    assert score(root, BINARY) == ["test/i0", "test/i2"]


def test_labeled_images_are_not_needed(tmp_path: Path) -> None:
    root = folder(tmp_path / "data", 0, 1)
    for name in ("images", "masks"):
        shutil.rmtree(root / name)
    assert score(root, BINARY) == ["test/i0", "test/i1", "test/i2"]
    with pytest.raises(Refusal, match="has no folder images/"):
        score(root, BINARY, "val")
    (root / "test/masks/i0.png").unlink()
    with pytest.raises(Refusal, match=r"test/images/i0.png has no mask"):
        score(root, BINARY)
    with pytest.raises(Refusal, match=r"test/masks holds no folder per label"):
        score(root, LABELS)
