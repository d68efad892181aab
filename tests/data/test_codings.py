"""Codings that are easily mistaken for one another: a guess is right, or the check stops and what it says works."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from semiseg.data.check import check, render
from semiseg.data.folder import read_label

Masks = dict[str, np.ndarray]


def disc(k: int, high: int = 255, low: int = 0, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    mask = np.full(size, low, np.uint8)
    mask[3 + k % 5 : 15, 4:20] = high
    return mask


def write(root: Path, masks: Masks) -> Path:
    """`masks`: path below masks/ -> array; an image for each name, whatever the label folder."""
    for k, (name, mask) in enumerate(masks.items()):
        image = root / "images" / f"{Path(name).stem}.png"
        for path in (image, root / "masks" / name):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, mask.shape[:2], dtype=np.uint8)).save(image)
        if name.endswith(".tif"):
            tifffile.imwrite(root / "masks" / name, mask, photometric="rgb")
        else:
            Image.fromarray(mask).save(root / "masks" / name)
    return root


def stray(masks: Masks, *dots: tuple[str, int]) -> Masks:
    for name, value in dots:
        masks[name][0, 0] = value
    return masks


def many(count: int = 20, **options: int) -> Masks:
    return {f"im{k:02}.png": disc(k, **options) for k in range(count)}


def two_labels() -> Masks:
    return {f"{label}/im{k:02}.png": disc(k) for label in ("alive", "dead cells") for k in range(6)}


STRAYS: dict[str, tuple[Masks, list[tuple[str, int]]]] = {
    "a 1": (many(), [("im04.png", 1)]),
    "a 1 where nothing else is": ({**many(), "im04.png": disc(0, 0)}, [("im04.png", 1)]),
    "a 1 in many": (many(), [(f"im{k:02}.png", 1) for k in range(0, 20, 2)]),
    "a 1 and a 2": (many(), [("im04.png", 1), ("im07.png", 2)]),
    "a 2 in many": (many(), [(f"im{k:02}.png", 2) for k in range(0, 20, 2)]),
    "a 1 in a label folder": (two_labels(), [("alive/im00.png", 1)]),
    "a 2": (many(), [("im04.png", 2)]),
    "a 128": (many(), [("im04.png", 128)]),
    "a 254": (many(), [("im04.png", 254)]),
}


@pytest.mark.parametrize("name", STRAYS)
def test_stray_pixels_in_0_and_255_are_named_and_the_rest_keeps_its_meaning(tmp_path: Path, name: str) -> None:
    masks, dots = STRAYS[name]
    checked = check(write(tmp_path, stray({n: m.copy() for n, m in masks.items()}, *dots)))
    assert checked.classes is not None and checked.classes.values == (0, 255)
    assert {p.where.partition("masks/")[2]: p.code for p in checked.errors} == {n: "D08" for n, _ in dots}
    assert all(f"{value} (1 pixel)" in str(p) for p, (_, value) in zip(checked.errors, dots, strict=True))
    assert not [p for p in checked.warnings if p.code == "D27"]


def test_a_mask_in_0_and_255_among_others_in_0_and_1_is_found_even_with_a_stray_1(tmp_path: Path) -> None:
    masks = {**many(8, high=1), "odd.png": disc(0)}
    for dots in ([], [("odd.png", 1)]):
        root = write(tmp_path / str(len(dots)), stray(masks, *dots))
        [problem] = check(root).errors
        assert problem.code == "D10" and "0/255" in problem.found
        said = problem.fix.partition("write ")[2].partition(" into")[0].split(" and ")
        (root / "classes.yaml").write_text("\n".join(line.strip() for line in said))
        checked = check(root)
        assert checked.ok and checked.classes and (checked.classes.values, checked.classes.ignore) == ((0, 1), (255,))


IGNORING: dict[str, Masks] = {
    "a ring that is ignored": {n: np.pad(m, 4, constant_values=255) for n, m in many(high=1).items()},
    "an object of few pixels": {
        f"im{k}.png": np.where(np.arange(24)[:, None] > 20, 255, np.eye(24, 32)).astype(np.uint8) for k in range(6)
    },
}


@pytest.mark.parametrize("name", IGNORING)
def test_255_beside_0_and_1_is_ignored(tmp_path: Path, name: str) -> None:
    checked = check(write(tmp_path, IGNORING[name]))
    assert checked.ok and checked.classes, render(checked.problems)
    assert (checked.classes.values, checked.classes.ignore) == ((0, 1), (255,))


def test_points_of_several_classes_in_ignored_masks_are_classes(tmp_path: Path) -> None:
    masks = {f"im{k}.png": np.full((40, 40), 255, np.uint8) for k in range(6)}
    for mask in masks.values():
        mask[3, 3], mask[9, 9], mask[20, 20] = 0, 1, 2
    checked = check(write(tmp_path, masks))
    assert checked.ok and checked.classes and checked.classes.kind == "multiclass" and len(checked.classes.names) == 3


def test_specks_of_1_become_the_foreground_once_255_is_said_to_be_ignored(tmp_path: Path) -> None:
    for name, masks in (("one", many(6)), ("folders", two_labels())):
        root = write(tmp_path / name, {n: stray({n: m}, (n, 1))[n] for n, m in masks.items()})
        fix = check(root).errors[0].fix
        said = fix.partition("write ")[2].partition(" into")[0].split(" and ")
        (root / "classes.yaml").write_text("\n".join(line.strip() for line in said))
        checked = check(root)
        assert checked.ok and checked.classes, render(checked.problems)
        assert (checked.classes.values, checked.classes.ignore) == ((0, 1), (255,))


@pytest.mark.parametrize(
    "text, masks",
    [
        ("values: {bg: 0, fg: 1}\nignore: 1", many(6, high=1)),
        ("names: [a, b, c]\nignore: [2]", many(6, high=2)),
        ("names: [fg]\nignore: 0", many(6, high=1)),
        ("colors: {a: [0, 0, 0], b: [9, 0, 0]}\nignore: [[9, 0, 0]]", many(6, high=1)),
    ],
)
def test_a_class_cannot_be_ignored(tmp_path: Path, text: str, masks: Masks) -> None:
    (write(tmp_path, masks) / "classes.yaml").write_text(text)
    [problem] = [p for p in check(tmp_path).errors if p.code == "D20"]
    assert problem.where.endswith("classes.yaml") and "ignore" in problem.found


def test_what_the_user_says_of_255_and_1_holds(tmp_path: Path) -> None:
    """`ignore` decides between the two ways to read 0, 1 and 255."""
    for said, values in ((255, (0, 1)), (1, (0, 255))):
        masks = {n: np.pad(m, 2, constant_values=1) for n, m in many(6).items()}
        root = write(tmp_path / str(said), masks)
        (root / "classes.yaml").write_text(f"names: [cell]\nignore: {said}")
        checked = check(root)
        assert checked.ok and checked.classes, render(checked.problems)
        assert (checked.classes.values, checked.classes.ignore) == (values, (said,))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("high", [1, 255])
def test_three_channels_may_be_labels_and_the_fix_says_how(tmp_path: Path, suffix: str, high: int) -> None:
    layers = [disc(0, high), np.roll(disc(0, high), 8, 1), disc(3, high)[::-1]]
    root = write(tmp_path, {f"im{k}{suffix}": np.stack(layers, -1) for k in range(6)})
    [problem] = check(root).errors
    assert problem.code == "D05"
    block = str(problem).split("Fix: ")[1].split("\n", 1)[1]
    table, _, labels = block.partition("# ")
    (root / "classes.yaml").write_text(block)
    assert check(root).classes.kind == "multiclass"  # type: ignore[union-attr]
    (root / "classes.yaml").write_text("".join(line.removeprefix("# ") + "\n" for line in labels.split("\n")[1:]))
    checked = check(root)
    assert checked.ok and checked.classes and checked.classes.kind == "multilabel" and table
    label = read_label(checked.index.labeled[0], checked.classes)
    assert np.array_equal(label, np.stack(layers) > 0) and (label.sum(0) > 1).any()


@pytest.mark.parametrize("colors", [[(0, 0, 0), (255, 0, 0)], [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]])
def test_colours_that_are_no_channels_get_a_table_only(tmp_path: Path, colors: list[tuple[int, int, int]]) -> None:
    picture = np.array(colors, np.uint8)[np.arange(24 * 32).reshape(24, 32) % len(colors)]
    [problem] = check(write(tmp_path, {f"im{k}.png": picture for k in range(6)})).errors
    assert problem.code == "D05" and "multilabel" not in problem.fix


def test_black_may_be_what_nobody_labeled_and_the_fix_says_how(tmp_path: Path) -> None:
    colors = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]
    which = np.arange(24 * 32).reshape(24, 32) % len(colors)
    root = write(tmp_path, {f"im{k}.png": np.array(colors, np.uint8)[which] for k in range(6)})
    [problem] = check(root).errors
    block = str(problem).split("Fix: ")[1].split("\n", 1)[1]
    (root / "classes.yaml").write_text(block)
    as_class = check(root).classes
    assert as_class and as_class.names[0] == "background" and len(as_class.names) == 4
    kept = [line for line in block.split("\n") if "background: " not in line and not line.startswith("# or")]
    (root / "classes.yaml").write_text("\n".join(line.removeprefix("# ") for line in kept))
    checked = check(root)
    assert checked.ok and checked.classes and len(checked.classes.names) == 3, render(checked.problems)
    label = read_label(checked.index.labeled[0], checked.classes)
    assert np.array_equal(label == 255, which == 0)


def test_a_smoothed_mask_is_still_told_from_a_stray_pixel(tmp_path: Path) -> None:
    masks = many(6)
    small = Image.fromarray(masks["im02.png"]).resize((11, 9), Image.Resampling.BILINEAR)
    masks["im02.png"] = np.asarray(small.resize((32, 24), Image.Resampling.BILINEAR))
    [problem] = check(write(tmp_path, masks)).errors
    assert problem.code == "D09" and problem.where.endswith("im02.png")


def test_masks_that_cannot_be_read_do_not_make_a_class_absent(tmp_path: Path) -> None:
    """Label more, it would say, where all is labeled."""
    write(tmp_path, many(6))
    for path in (tmp_path / "masks").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    (tmp_path / "test/images").mkdir(parents=True)
    (tmp_path / "test/masks").mkdir()
    Image.fromarray(disc(3)).save(tmp_path / "test/images/t.png")
    Image.fromarray(disc(3)).save(tmp_path / "test/masks/t.png")
    checked = check(tmp_path)
    assert {p.code for p in checked.errors} == {"D11"} and not [p for p in checked.warnings if p.code == "D27"]
