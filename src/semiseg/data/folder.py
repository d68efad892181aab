"""From a data folder to an index: images/ + masks/ + unlabeled/ (+ val/, test/), or images/ + masks/ + splits/*.txt.

Nothing is decoded here. Problems are collected, never raised, so that `check` can report all of them at once.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from semiseg.data import decode, splits
from semiseg.data.classes import ClassMap, UnknownValues
from semiseg.data.decode import shown
from semiseg.data.index import SPLITS, Index, Item
from semiseg.data.walk import Masks, Scan, scan, scan_masks
from semiseg.errors import DATA, Problem, Refusal, nearest

__all__ = ["SPLITS", "Index", "Item", "find", "holds_images", "images_of", "is_data", "read_label"]

_EXPECTED = ("images", "masks", "unlabeled", "val", "test", "splits")
_MASKS = ("mask", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "ground_truth", "segmentation",
          "segmentations", "targets")  # fmt: skip
"""What others call their folder of masks."""


def find(data: Path | str, labels: tuple[str, ...] | None = None, wanted: str = "labeled") -> Index:
    """The index of a data folder. Raises nothing: what is wrong is in `Index.problems`.

    labels: the order of label folders under masks/ that a class file gives; None takes them in byte order.
    wanted: the split that must be there; where it is one of the others and is there, labeled images may be missing.
    """
    root = Path(data)
    if not root.is_dir():
        return Index(root, problems=[_no_folder(root)])
    if (root / "splits").is_dir():
        index = splits.from_lists(root, labels, wanted)
    else:
        index = _from_folders(root, labels, wanted)
    index.problems += _misspelt(root, index)
    index.problems = list(dict.fromkeys(index.problems))
    index.val_source = "given" if index.val else "none"
    return index


def is_data(root: Path) -> bool:
    """Does it hold what makes a data folder: splits/, or images/ with masks/?"""
    return (root / "splits").is_dir() or ((root / "images").is_dir() and (root / "masks").is_dir())


def images_of(root: Path) -> Path:
    """Where the images of what was given lie: below its images/ if it has one, else below the folder itself.

    Beside loose images, where neither masks/ nor a split says that it is a data folder, images/ is a folder like others.
    """
    inner = root / "images"
    if not inner.is_dir():
        return root
    data = any((root / name).is_dir() for name in ("masks", "splits", *SPLITS))
    return root if not data and holds_images(root) else inner


def holds_images(folder: Path) -> bool:
    """Do image files lie in the folder itself?"""
    return any(p.suffix.lower() in decode.SUFFIXES and p.name[:1] != "." and p.is_file() for p in folder.iterdir())


def read_label(item: Item, classes: ClassMap, fix: str = "run: semiseg check") -> np.ndarray:
    """The uint8 labels of an item's mask file(s), shapes as `ClassMap.decode`.

    Raises Refusal naming the file; fix: what to do where it holds what is no class.
    """
    if not item.masks:
        raise Refusal(Problem("D01", shown(item.image), "has no mask", "add the mask, or move it to unlabeled/"), DATA)
    arrays = [decode.read_mask(path, rgb=classes.coding == "colors") for path in item.masks]
    where = shown(item.masks[0])
    for path, array in zip(item.masks, arrays, strict=True):
        if array.shape[:2] != arrays[0].shape[:2]:
            (h, w), (y, x) = array.shape[:2], arrays[0].shape[:2]
            found = f"is {w}x{h}, and {where} of the same image is {x}x{y}"
            raise Refusal(Problem("D07", shown(path), found, "export both again at the size of the image"), DATA)
    try:
        return classes.decode(arrays if classes.coding == "folders" else arrays[0])
    except UnknownValues as error:
        problem = Problem("D08", where, f"holds values outside the classes: {error}", fix)
    except ValueError as error:
        problem = Problem("D10", where, f"does not fit the classes: {error}", fix)
    raise Refusal(problem, DATA)


def _no_folder(root: Path) -> Problem:
    if root.exists():
        return Problem("D03", shown(root), "is a file, not a folder", "give the folder that holds images/ and masks/")
    try:
        close = get_close_matches(root.name, [p.name for p in root.parent.iterdir() if p.is_dir()], n=1, cutoff=0.75)
    except OSError:
        close = []
    hint = f" (did you mean {shown(root.with_name(close[0]))}?)" if close else ""
    return Problem("D03", shown(root), "does not exist", f"give the folder that holds images/ and masks/{hint}")


def _misspelt(root: Path, index: Index) -> list[Problem]:
    """A folder `unlabelled/` would be passed over in silence otherwise; one that lists lead into is not."""
    problems = []
    used = {path.relative_to(root).parts[0] for _, item in index.items() for path in (item.image, *item.masks)}
    try:
        have = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:  # reported where the folder is scanned
        return []
    absent = [n for n in _EXPECTED[2:] if n not in have]
    for name in have:
        if name in _EXPECTED or name in used or name.lower() in _MASKS:
            continue
        if hint := nearest(name.lower(), absent):
            problems.append(Problem("D31", shown(root / name), "is not read", f"{hint} Rename it", level="warning"))
    return problems


def _from_folders(root: Path, labels: tuple[str, ...] | None, wanted: str) -> Index:
    index, scans = Index(root), list[Scan]()
    places = {split: root / split for split in ("val", "test") if (root / split).is_dir()}
    lone, absent = wanted != "labeled" and (root / wanted).is_dir(), _missing(root)
    if absent and not lone:
        index.problems += absent
        return index
    for split, folder in (places if absent else {"labeled": root, **places}).items():
        if problems := _missing(folder):
            index.problems += problems
            continue
        images = scan(folder / "images")
        masks = scan_masks(folder / "masks", images, labels)
        if masks.labels or masks.files:  # the first that there are decide for all
            labels = index.labels = masks.labels
        prefix = "" if split == "labeled" else f"{split}/"
        index.split(split).extend(_pair(folder / "images", prefix, images, masks, index.problems))
        scans += [images, *masks.scans]
        if split == "labeled" and not images.files and not lone:
            fix = "put the images that have masks there"
            index.problems.append(Problem("D04", shown(folder / "images"), "holds no images", fix))
    if (root / "unlabeled").is_dir():
        free = scan(root / "unlabeled")
        scans.append(free)
        index.unlabeled = [Item(f"unlabeled/{name}", path) for name, path in free.files.items()]
    index.problems += splits.leftovers(root, scans)
    return index


def _missing(root: Path) -> list[Problem]:
    """images/ or masks/ or both are not there: say what is there instead."""
    try:
        have = sorted(p.name for p in root.iterdir() if p.is_dir())
        loose = sum(p.suffix.lower() in decode.SUFFIXES for p in root.iterdir())
    except OSError as error:
        return [Problem("D17", shown(root), f"cannot be read: {error.strerror}", "make it readable")]
    problems = []
    for name in ("images", "masks"):
        if name in have:
            continue
        found = f"has no folder {name}/" + (f", but {loose} images of its own" if loose and name == "images" else "")
        hint = nearest(name, others := [h for h in have if h not in _EXPECTED])
        if name == "masks" and (alike := _alike(root, others)):
            hint = f"Are they in {shown(root / alike)}/, which holds files of the images' names?"
        fix = f"put {'the labeled images' if name == 'images' else 'one mask per image'} into {shown(root / name)}/"
        fix = f"{hint} Rename it to {name}, or {fix}" if hint else fix
        problems.append(Problem("D03", shown(root), found, fix))
    return problems


def _alike(root: Path, folders: list[str]) -> str:
    """The first of some folders that holds, at its top, files of the images' names, or of these and an ending; or ""."""

    def names(folder: str) -> set[str]:
        with suppress(OSError):
            return {p.stem for p in (root / folder).iterdir() if p.suffix.lower() in decode.SUFFIXES}
        return set()

    images = names("images")
    own = ((f, names(f)) for f in folders if not f.startswith("."))
    return next((f for f, found in own if images & found or _affix(list(images), list(found))), "")


def _pair(folder: Path, prefix: str, images: Scan, masks: Masks, problems: list[Problem]) -> list[Item]:
    """Items of one images/ + masks/ pair; every image wants a mask and every mask an image."""
    items, partial = [], splits.incomplete(masks)
    problems += partial.values()
    orphans = [name for name in masks.files if name not in images.files]
    free = [name for name in images.files if name not in masks.files and name not in partial]
    end = _affix(free, orphans)
    rename = f"take {end!r} out of the names of the masks: a mask has the name of its image" if end else ""
    for name, path in images.files.items():
        if name in masks.files:
            items.append(Item(prefix + name, path, masks.files[name]))
        elif name not in partial:
            move = " or move the image to unlabeled/" if not prefix else " or remove the image"
            wanted = f"{masks.root.as_posix()}/{'LABEL/' if masks.labels else ''}{name}.png"
            near = "" if end else splits.near(name, orphans)  # of a lone image it would be another one's mask
            fix = rename if end and name + end in orphans else f"add the mask {shown(wanted)},{move}. {near}".strip()
            problems.append(Problem("D01", shown(path), "has no mask", fix))
    for name in orphans:
        hint = rename if end and name.endswith(end) and name.removesuffix(end) in free else ""
        fix = hint or f"add the image with the same name, or remove the mask. {splits.near(name, free)}"
        problems.append(Problem("D02", shown(masks.files[name][0]), f"has no image in {shown(folder)}/", fix))
    return items


def _affix(images: list[str], masks: list[str]) -> str:
    """a.jpg and a_mask.png, b.jpg and b_mask.png, …, nearly all of the masks: what is too much in their names, or ""."""
    known = set(images)
    ends = Counter(m[i:] for m in masks for i in range(1, len(m)) if m[:i] in known)
    end, times = ends.most_common(1)[0] if ends else ("", 0)
    return end if times > len(masks) / 2 else ""
