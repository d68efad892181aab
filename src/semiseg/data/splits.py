"""Split lists (splits/labeled.txt ...), the subset of labels to use, and the val set carved from the labels.

Lists hold stems, or "image mask" pairs relative to the root as in UniMatch (one space; CPS: a tab; mask may be `None`),
or what U2PL and iMAS write: bare ids of Pascal, image paths of Cityscapes; the mask follows from the layout.
CRLF, blank lines and a missing newline at the end are fine. A choice by content hash never depends on file order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from semiseg.data.decode import shown
from semiseg.data.index import SPLITS, Index, Item, order
from semiseg.data.walk import Masks, Scan, nfc, scan, scan_masks
from semiseg.errors import Problem, nearest, usage

OUTLINES = (".json", ".geojson", ".roi", ".zip", ".xml")
"""What annotation programs save outlines in: LabelMe, COCO, QuPath, Fiji, CVAT."""
ELSEWHERE = "move them elsewhere"


def read_list(path: Path) -> tuple[list[str], list[Problem]]:
    """The entries of a split file without blank lines, and what is wrong with the file (D17, D19)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        return [], [Problem("D17", shown(path), f"cannot be read: {error.strerror}", "make it readable")]
    except UnicodeDecodeError:
        return [], [Problem("D19", shown(path), "is not UTF-8 text", "save it as plain text with one name per line")]
    lines = [line.strip("\r\n\t ") for line in text.split("\n")]
    entries = [nfc(line) for line in lines if line]
    problems = []
    for twice in sorted(entry for entry, count in Counter(entries).items() if count > 1):
        found = f"lists {twice!r} more than once; it is used once"
        problems.append(Problem("D19", shown(path), found, "remove the repetition", level="warning"))
    return list(dict.fromkeys(entries)), problems


def from_lists(root: Path, labels: tuple[str, ...] | None, wanted: str = "labeled") -> Index:
    """The index of a folder with splits/, arguments as `folder.find`. What is wrong is in `Index.problems`."""
    index = Index(root, layout="lists")
    folder = root / "splits"
    lone = wanted != "labeled" and (folder / f"{wanted}.txt").is_file()
    if not lone and not (folder / "labeled.txt").is_file():
        known = {f"{split}.txt" for split in SPLITS}
        have = sorted(p.name for p in folder.iterdir() if p.suffix == ".txt" and p.name not in known)
        fix = f"write one name per line into splits/labeled.txt. {nearest('labeled.txt', have)}"
        index.problems.append(Problem("D19", shown(folder), "has no labeled.txt", fix))
        return index
    images = scan(root / "images") if (root / "images").is_dir() else Scan()
    masks = scan_masks(root / "masks", images, labels) if (root / "masks").is_dir() else Masks(root / "masks")
    index.labels, partial = masks.labels, incomplete(masks)
    taken: dict[str, str] = {}
    for split in ("labeled", "val", "test", "unlabeled"):
        path = folder / f"{split}.txt"
        if not path.is_file():
            continue
        entries, problems = read_list(path)
        index.problems += problems
        for entry in entries:
            item = _item(root, entry, images, masks)
            problem = item if isinstance(item, Problem) else _wrong(item, split, taken, masks, partial)
            if problem is not None:
                index.problems.append(replace(problem, where=problem.where or shown(path)))
            if isinstance(item, Item) and (problem is None or problem.code in ("D01", "D36")):
                taken[item.name] = split
                if problem is None:
                    index.split(split).append(item)
        if split != "labeled":
            index.split(split).sort(key=lambda item: order(item.name))
    if not index.labeled and not lone and not any(p.level == "error" for p in index.problems):
        where = shown(folder / "labeled.txt")
        index.problems.append(Problem("D04", where, "lists no images", "list the labeled images, one a line"))
    if unlisted := [path for name, path in images.files.items() if name not in taken]:
        names = ", ".join(shown(p.relative_to(root)) for p in unlisted[:3]) + (", ..." if len(unlisted) > 3 else "")
        found = f"holds {len(unlisted)} image{'s' * (len(unlisted) > 1)} that no list names and nothing uses: {names}"
        fix = "name them in splits/unlabeled.txt to learn from them"
        index.problems.append(Problem("D31", shown(root), found, fix, level="warning"))
    index.problems += leftovers(root, [images, *masks.scans])
    return index


def incomplete(masks: Masks) -> dict[str, Problem]:
    """D36 by the name of each image that some label folders have a mask for, and others not."""
    names = {name for s in masks.scans for name in s.files} - set(masks.files)
    return dict(zip(sorted(names, key=order), masks.problems, strict=True))  # the order in which they were found


def _wrong(
    item: Item, split: str, taken: Mapping[str, str], masks: Masks, partial: Mapping[str, Problem]
) -> Problem | None:
    """An item listed in a second split, or without the mask that its split wants."""
    if (other := taken.get(item.name)) is not None:
        found = f"lists {item.name!r}, which is also in splits/{other}.txt"
        if split == "unlabeled" and other == "labeled":
            return Problem("D19", "", found + "; it stays labeled", "remove it from one of the two", level="warning")
        return Problem("D19", "", found, "keep it in one of the two")
    if split != "unlabeled" and not item.masks:
        if item.name in partial:
            return partial[item.name]
        wanted = f"{masks.root.as_posix()}/{'LABEL/' if masks.labels else ''}{item.name}.png"
        move = "to splits/unlabeled.txt" if split == "labeled" else f"out of splits/{split}.txt"
        fix = f"add the mask {shown(wanted)}, or move its line {move}"
        return Problem("D01", shown(item.image), "has no mask", fix)
    return None


def _item(root: Path, entry: str, images: Scan, masks: Masks) -> Item | Problem:
    """One line as an item: a stem, an image path, or an "image mask" pair."""
    if entry in images.files:
        return Item(entry, images.files[entry], masks.files.get(entry, ()))
    parted = [(entry[:i], entry[i + 1 :]) for i, c in enumerate(entry) if c in " \t"]
    for left, right in [(entry, ""), *reversed(parted), (f"JPEGImages/{entry}.jpg", "")]:
        path = _inside(root, left, images)
        if path is None:
            continue
        name = nfc(PurePosixPath(left.strip("/ ")).with_suffix("").as_posix()).removeprefix("images/")
        right = right.strip("/ \t")
        if right in ("", "None"):
            return Item(name, path, masks.files.get(name) or (() if right else _by_layout(root, left.strip("/ "))))
        mask = _inside(root, right, Scan())
        return Item(name, path, (mask,)) if mask is not None else Item(name, path)
    if ".." in PurePosixPath(entry.split()[0]).parts:
        return Problem("D19", "", f"lists {entry!r}, which leads out of the folder", "give names below the folder")
    hint = near(entry, images.files)
    fix = f"{hint} Add the file, or remove the line" if hint else "add the file, or remove the line"
    return Problem("D18", "", f"lists {entry!r}, but there is no such image", fix)


def _by_layout(root: Path, image: str) -> tuple[Path, ...]:
    """The mask of an image in the folders of Pascal (SBD's or VOC's own masks) or Cityscapes, or nothing."""
    folder, _, name = image.partition("/")
    if folder == "JPEGImages":
        stem = PurePosixPath(name).with_suffix(".png")
        options = [f"SegmentationClassAug/{stem}", f"SegmentationClass/{stem}"]
    elif folder == "leftImg8bit":
        options = [f"gtFine/{name.removesuffix('_leftImg8bit.png')}_gtFine_labelTrainIds.png"]
    else:
        return ()
    return tuple(path for option in options if os.path.isfile(path := root / option))[:1]


def near(name: str, options: Collection[str]) -> str:
    """`Did you mean ...?` among names; the comparison is too slow for thousands of them."""
    return nearest(name, options) if len(options) <= 500 else ""


def _inside(root: Path, relative: str, images: Scan) -> Path | None:
    """The file that a path in a list names, below the root or below images/; None when there is none."""
    parts = PurePosixPath(relative.strip("/ "))
    if not parts.name or ".." in parts.parts:
        return None
    for base in (root, root / "images"):
        path = base.joinpath(*parts.parts)
        if os.path.isfile(path):
            return path
    return images.files.get(nfc(parts.as_posix()))


def leftovers(root: Path, scans: Sequence[Scan]) -> list[Problem]:
    """Problems of the walks, and one warning each for files that are no images and for special files."""
    problems = [problem for s in scans for problem in s.problems]
    for paths, what in ((([p for s in scans for p in s.other]), "are no images"),
                        (([p for s in scans for p in s.special]), "are pipes, sockets or devices")):  # fmt: skip
        if paths:
            names = ", ".join(shown(p.relative_to(root)) for p in paths[:3]) + (", ..." if len(paths) > 3 else "")
            found = f"holds files that {what} and are skipped ({len(paths)}): {names}"
            outlines = any(p.suffix.lower() in OUTLINES for p in paths)
            fix = "draw outlines as masks, see docs/how-to/data.md; move the files elsewhere" if outlines else ELSEWHERE
            problems.append(Problem("D31", shown(root), found, fix, level="warning"))
    return problems


def choose_labels(index: Index, labels: int | float | str | None, digest: Callable[[Item], str]) -> Index:
    """Keep N labeled items (an int), a share of them (0 < F < 1) or "all"; the rest joins the unlabeled ones.

    With lists the first N lines are kept (nested subsets); in folders the N smallest content hashes, `digest(item)`.
    Raises Refusal (exit 2) naming the largest legal number.
    """
    total = len(index.labeled)
    if labels is None or labels == "all" or labels == total or not total:  # without labels the check says more
        return index
    legal = f"a number from 1 to {total}, a share between 0 and 1, or 'all'"
    if isinstance(labels, bool | str) or labels <= 0 or (isinstance(labels, float) and labels >= 1):
        raise usage("--labels", f"is {labels!r}", f"use {legal}")
    keep = labels if isinstance(labels, int) else max(1, round(labels * total))
    if keep > total:
        raise usage("--labels", f"asks for {keep} labels, but {total} images are labeled", f"use {legal}")
    ranked = index.labeled
    if index.layout == "folders":
        ranked = sorted(ranked, key=lambda item: (digest(item), order(item.name)))
    chosen = {item.name for item in ranked[:keep]}
    rest = [item for item in index.labeled if item.name not in chosen]
    kept = [item for item in index.labeled if item.name in chosen]
    return replace(index, labeled=kept, unlabeled=sorted(index.unlabeled + rest, key=lambda item: order(item.name)))


def carve_val(
    index: Index,
    digests: Mapping[str, str],
    share: float = 0.2,
    minimum: int = 5,
    classes: Mapping[str, frozenset[int]] | None = None,
) -> Index:
    """Move `share` of the labeled items to val, by content hash; nothing below `minimum` labels or with a val set.

    digests: item name -> content hash (other items never move the choice; equal images stay on one side).
    classes: item name -> class ids in its mask; the last labeled image of a class is passed over where possible.
    """
    if index.val or len(index.labeled) < minimum:
        return index
    wanted = max(1, round(share * len(index.labeled)))
    groups: dict[str, list[Item]] = {}
    for item in sorted(index.labeled, key=lambda i: (digests[i.name], order(i.name))):
        groups.setdefault(digests[item.name], []).append(item)
    left = {item.name for item in index.labeled}
    val: list[Item] = []
    for group in groups.values():
        names = {item.name for item in group}
        if len(val) >= wanted or names == left:
            break
        if classes is None or _covered(names, left - names, classes):
            val += group
            left -= names
    if not val and len(groups) > 1:  # every image holds a class of its own
        val = next(iter(groups.values()))
        left -= {item.name for item in val}
    kept = [item for item in index.labeled if item.name in left]
    carved = sorted(val, key=lambda item: order(item.name))
    return replace(index, labeled=kept, val=carved, val_source="carved" if carved else "none")


def _covered(names: set[str], rest: set[str], classes: Mapping[str, frozenset[int]]) -> bool:
    """Every class of `names` is in the masks of `rest` too."""
    needed = frozenset().union(*(classes.get(n, frozenset()) for n in names))
    return needed <= frozenset().union(*(classes.get(n, frozenset()) for n in rest))


__all__ = ["SPLITS", "carve_val", "choose_labels", "from_lists", "incomplete", "leftovers", "near", "read_list"]
